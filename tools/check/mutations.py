"""Generates single-line mutations of Python code that tests should catch."""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass

_COMPARED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
_COMPUTED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult,
}  # fmt: skip
_CALLED = {"min": "max", "max": "min", "any": "all", "all": "any"}
_SWAPPED = {**_CALLED, "minimum": "maximum", "maximum": "minimum", "floor": "ceil", "ceil": "floor"}


@dataclass(frozen=True, slots=True)
class Mutation:
    """A replacement of the text between two offsets."""

    line: int
    start: int
    end: int
    text: str

    def applied(self, source: bytes) -> bytes:
        return source[: self.start] + self.text.encode() + source[self.end :]


def mutations(source: bytes) -> list[Mutation]:
    """All mutations of a module, in source order."""
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    found = []
    for node in _living(ast.parse(source)):
        for place, changed in _changes(node):
            start = starts[place.lineno - 1] + place.col_offset
            end = starts[(place.end_lineno or 0) - 1] + (place.end_col_offset or 0)
            form = "({})" if isinstance(changed, ast.expr) else "{}"
            found.append(Mutation(place.lineno, start, end, form.format(ast.unparse(changed))))
    return sorted(found, key=lambda each: (each.start, each.end, each.text))


def differs(source: bytes, changed: bytes) -> bool:
    """Whether the mutated source is valid and differs from the original."""
    try:
        return ast.dump(ast.parse(changed)) != ast.dump(ast.parse(source))
    except SyntaxError:
        return False


def _living(node: ast.AST) -> Iterator[ast.expr | ast.stmt]:
    """Nodes to mutate: no annotations, decorators, error messages, f-strings, typing imports, assertions,
    `strict` of zip, which asserts what the code guarantees, or -1 in reshape, where NumPy takes any negative
    length for it."""
    for name, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            text = isinstance(child, ast.JoinedStr) or (isinstance(node, ast.Raise) and name == "exc")
            strict = isinstance(node, ast.keyword) and node.arg == "strict"
            asserted = strict or isinstance(node, ast.Assert) or (_reshapes(node) and _is_negative(child))
            typing = name in ("annotation", "returns", "decorator_list") or (
                isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
            )
            if isinstance(child, ast.AST) and not (text or typing or asserted):
                if isinstance(child, (ast.expr, ast.stmt)):
                    yield child
                yield from _living(child)


def _reshapes(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "reshape"


def _is_negative(node: object) -> bool:
    return isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub)


def _changes(node: ast.expr | ast.stmt) -> Iterator[tuple[ast.expr | ast.stmt, ast.AST]]:
    """(node, replacement) pairs."""
    if isinstance(node, (ast.If, ast.While, ast.IfExp)):
        yield node.test, ast.UnaryOp(ast.Not(), node.test)
    else:
        yield from ((node, changed) for changed in (*_rewritten(node), *_removed(node)))


def _rewritten(node: ast.expr | ast.stmt) -> Iterator[ast.AST]:
    if isinstance(node, ast.Compare):
        yield _with(node, ops=[_COMPARED[type(node.ops[0])](), *node.ops[1:]])
    elif isinstance(node, ast.BinOp) and isinstance(node.op, (ast.BitAnd, ast.BitOr)):
        yield from (node.left, node.right)
    elif isinstance(node, ast.BinOp) and type(node.op) in _COMPUTED:
        yield _with(node, op=_COMPUTED[type(node.op)]())
    elif isinstance(node, ast.BoolOp):
        yield _with(node, op=ast.Or() if isinstance(node.op, ast.And) else ast.And())
        for term in node.values:
            yield _with(node, values=[each for each in node.values if each is not term])
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.Invert, ast.USub)):
        yield node.operand
    elif isinstance(node, ast.Constant):
        yield from (ast.Constant(value) for value in _other_values(node.value))
    elif isinstance(node, ast.Attribute) and node.attr in _SWAPPED:
        yield _with(node, attr=_SWAPPED[node.attr])
    elif isinstance(node, ast.Name) and node.id in _CALLED:
        yield _with(node, id=_CALLED[node.id])


def _other_values(value: object) -> Iterator[bool | int | float]:
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int) and value < 1000:
        yield from (value + 1, value - 1) if value else (1,)  # the last of one is the first
    elif isinstance(value, int):  # a size or a time, of which one more is nothing
        yield from (value * 10, value // 10)
    elif isinstance(value, float):
        yield from (value * 10, value / 10) if value else (1.0,)


def _removed(node: ast.expr | ast.stmt) -> Iterator[ast.AST]:
    """Replacements that remove a statement, unless a name or a result would then be missing."""
    told = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    in_place = isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Subscript)
    if (isinstance(node, (ast.Expr, ast.Raise, ast.AugAssign, ast.Break)) and not told) or in_place:
        yield ast.Pass()
    elif isinstance(node, ast.Continue):
        yield ast.Break()


def _with(node: ast.AST, **fields: object) -> ast.AST:
    other = copy.copy(node)
    for name, value in fields.items():
        setattr(other, name, value)
    return other
