import ast

import pytest

from cnnx.store import own_code

FILES = {
    "__init__.py": "from cnnx.aside import everything",
    "a/__init__.py": "",
    "a/top.py": "def f():\n    if f:\n        from cnnx.b import low",
    "a/plugin.py": "import os, cnnx.c.deep\nfrom cnnx.many import (\n  one,  # a (b)\n  two as other,\n)\n",
    "aside.py": "",
    "b/__init__.py": "from cnnx.b_needs import x",
    "b/low.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import cnnx.aside",
    "b/unread.py": "",
    "b_needs.py": "",
    "many/__init__.py": "",
    "many/one.py": '"""An example: from cnnx.b import unread"""\n',
    "many/two.py": "",
    "c/__init__.py": "",
    "c/deep.py": "",
}


@pytest.fixture
def package(tmp_path, monkeypatch):
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(own_code, "_PACKAGE", tmp_path)
    for cached in (own_code._digest, own_code._imports):
        cached.cache_clear()
    yield tmp_path
    own_code._digest.cache_clear()


def test_a_closure_follows_imports_at_any_depth_through_packages_but_not_for_type_checkers(package):
    assert own_code.closure("cnnx.a.top") == {"cnnx.a.top", "cnnx.a", "cnnx.b.low", "cnnx.b", "cnnx.b_needs"}


def test_a_package_that_is_named_stands_for_all_its_modules(package):
    found = own_code.closure("cnnx.a")
    assert found >= {"cnnx.a", "cnnx.a.top", "cnnx.a.plugin", "cnnx.c.deep", "cnnx.many.one", "cnnx.many.two"}
    assert "cnnx.b.unread" not in found


def test_statements_found_by_their_lines_are_all_that_python_finds():
    """In every module of cnnx."""
    package = own_code._PACKAGE
    for file in package.rglob("*.py"):
        tree = ast.parse(file.read_bytes())
        types_only = [
            node
            for node in ast.walk(tree)
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        ]
        skipped = {id(each) for node in types_only for each in ast.walk(node)}
        wanted = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and id(node) not in skipped:
                wanted |= {node.module, *(f"{node.module}.{each.name}" for each in node.names)}
            elif isinstance(node, ast.Import) and id(node) not in skipped:
                wanted |= {each.name for each in node.names}
        wanted = {name for name in wanted if own_code._is_module(name)}
        name = ".".join(("cnnx", *file.relative_to(package).with_suffix("").parts)).removesuffix(".__init__")
        found = set(own_code._imports(file, name))
        assert wanted <= found, file
        parents = {each.rpartition(".")[0] for each in found}
        assert found - wanted - parents <= {name}, file


@pytest.mark.parametrize("text", ["from . import low", "from .low import x"])
def test_a_relative_import_is_an_error(package, text):
    (package / "a" / "top.py").write_text(text)
    with pytest.raises(ValueError, match="relative"):
        own_code.own_code("cnnx.a.top")


@pytest.mark.parametrize("slip", ["cnnx.a.topp", "cnnx", "numpy", "other.b.low", "cnnx.b.low.x"])
def test_a_module_that_does_not_exist_is_an_error(package, slip):
    with pytest.raises(ValueError, match=slip):
        own_code.own_code("cnnx.a.top", slip)


@pytest.mark.parametrize(
    ("edited", "changes"),
    [
        ("a/top.py", True),
        ("b/low.py", True),
        ("b_needs.py", True),
        ("aside.py", False),
        ("a/plugin.py", False),
    ],
)
def test_an_edit_changes_the_digest_of_what_imports_it_and_of_nothing_else(package, edited, changes):
    before = own_code.own_code("cnnx.a.top")
    with (package / edited).open("a") as file:
        file.write("\n# edited\n")
    own_code._digest.cache_clear()
    assert (own_code.own_code("cnnx.a.top") != before) == changes
