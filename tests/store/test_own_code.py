import pytest

from cnnx.store import own_code

FILES = {
    "__init__.py": "from cnnx.aside import everything",
    "a/__init__.py": "",
    "a/top.py": "def f():\n    from cnnx.b import low",
    "a/plugin.py": "import cnnx.c.deep, os",
    "aside.py": "",
    "b/__init__.py": "from cnnx.b_needs import x",
    "b/low.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import cnnx.aside",
    "b/unread.py": "",
    "b_needs.py": "",
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
    assert found >= {"cnnx.a", "cnnx.a.top", "cnnx.a.plugin", "cnnx.c.deep"} and "cnnx.b.unread" not in found


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
