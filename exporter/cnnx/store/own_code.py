"""Fingerprints of cnnx's own code, on which cached results depend besides their inputs."""

from __future__ import annotations

import ast
import functools
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_PACKAGE = Path(__file__).resolve().parent.parent


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
    """cnnx modules that a source file imports, with their parent packages."""
    names = {inside}
    for node in _executed(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names if alias.name.startswith("cnnx."))
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise ValueError(f"{inside} has a relative import, which is not supported")
            package = node.module or ""
            if package == "cnnx" or package.startswith("cnnx."):
                inner = (f"{package}.{alias.name}" for alias in node.names)
                names.update(filter(_is_module, inner))
                names.add(package)
    parts = [name.split(".") for name in names]
    parents = {".".join(each[:n]) for each in parts for n in range(2, len(each))}
    return tuple(sorted((names | parents) - {"cnnx"}))


def _executed(node: ast.AST) -> Iterator[ast.AST]:
    """All descendants of a node, except imports for type checkers only."""
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"):
            yield child
            yield from _executed(child)
