"""Fingerprints of cnnx's own code, on which cached results depend besides their inputs."""

from __future__ import annotations

import functools
import hashlib
import re
from pathlib import Path
from typing import Any

_PACKAGE = Path(__file__).resolve().parent.parent
_IMPORT = re.compile(
    r"^[ \t]*(?:from[ \t]+(cnnx\b[\w.]*|\.[\w.]*)[ \t]+import[ \t]+(?:\(([^)]*)\)|([^(\n]*))"
    r"|import[ \t]+(.*\bcnnx\b.*))",
    re.MULTILINE,
)
"""An import statement: package and names in parentheses or on its line, or the names of `import`."""
_COMMENT = re.compile("#.*")
_FOR_TYPE_CHECKERS = re.compile(
    r"^([ \t]*)if TYPE_CHECKING:[ \t]*\n(?:\1[ \t]+.*(?:\n|\Z)|[ \t]*\n)*", re.MULTILINE
)


def own_code(*modules: str) -> dict[str, Any]:
    """Code part of a step's cache key: its modules, and a digest of them and all their imports.

    Args:
        modules: dotted names such as "cnnx.graph.passes.qdq". A package includes all its modules; use it if
            modules are loaded by name without an import statement.

    Raises:
        ValueError: a module does not exist.
    """
    return {"modules": list(modules), "digest": _digest(modules)}


def closure(*modules: str) -> frozenset[str]:
    """The named modules and all cnnx modules that they import, directly or indirectly.

    Parent packages are included, as an import runs their `__init__`. `cnnx` itself is not, as it only loads
    names on first use.

    Raises:
        ValueError: a module does not exist.
    """
    pending = [found for name in modules for found in _declared(name)]
    seen: set[str] = set()
    while pending:
        name = pending.pop()
        if name not in seen:
            seen.add(name)
            pending += _imports(_source(name), name)
    return frozenset(seen)


@functools.cache
def _digest(modules: tuple[str, ...]) -> str:
    total = hashlib.sha256()
    for name in sorted(closure(*modules)):
        content = hashlib.sha256(_source(name).read_bytes()).hexdigest()
        total.update(f"{content}  {name}\n".encode())
    return total.hexdigest()


def _declared(name: str) -> list[str]:
    """The names of a module, or of a package and all its modules."""
    source = _source(name)
    if source.name != "__init__.py":
        return [name]
    below = (file.relative_to(_PACKAGE).with_suffix("") for file in source.parent.rglob("*.py"))
    return [".".join(("cnnx", *file.parts)).removesuffix(".__init__") for file in below]


def _source(name: str) -> Path:
    """Source file of a module, or the `__init__` of a package.

    Raises:
        ValueError: the module does not exist; a typo must not give a digest of nothing.
    """
    first, *rest = name.split(".")
    base = _PACKAGE.joinpath(*rest)
    for file in (base.with_suffix(".py"), base / "__init__.py"):
        if first == "cnnx" and rest and file.is_file():
            return file
    raise ValueError(f"cnnx has no module {name!r}")


def _is_module(name: str) -> bool:
    try:
        _source(name)
    except ValueError:
        return False
    return True


@functools.cache
def _imports(file: Path, inside: str) -> tuple[str, ...]:
    """cnnx modules that a source file imports, with their parent packages.

    The statements are found by their lines: parsing what an export runs takes a third of a second.
    """
    names = {inside}
    text = _FOR_TYPE_CHECKERS.sub("", _COMMENT.sub("", file.read_text(encoding="utf-8")))
    for match in _IMPORT.finditer(text):
        package, *lists = match.groups(default="")
        imported = [each.split()[0] for each in "".join(lists).split(",") if each.strip()]
        if package.startswith("."):
            raise ValueError(f"{inside} has a relative import, which is not supported")
        found = [package, *(f"{package}.{name}" for name in imported)] if package else imported
        names.update(filter(_is_module, found))  # also from examples in docstrings, which does no harm
    parts = [name.split(".") for name in names]
    parents = {".".join(each[:n]) for each in parts for n in range(2, len(each))}
    return tuple(sorted((names | parents) - {"cnnx"}))
