"""Draws tables, facts and remarks as HTML for a notebook, which brings its own style."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape

from cnnx.report.table import Block, Cell, Facts, Remark, Table, Tone

# Readable on a light and on a dark background.
_COLORS: dict[Tone, str] = {"good": "#00966e", "bad": "#d55e00", "open": "#b07800"}


def as_html(blocks: Iterable[Block]) -> str:
    """Blocks below each other, as a fragment of HTML."""
    return "\n".join(part for block in blocks for part in _parts(block))


def _parts(block: Block) -> Iterator[str]:
    if isinstance(block, Table):
        heads = "".join(f"<th{_side(column.right)}>{escape(column.heading)}</th>" for column in block.columns)
        lines = (
            "".join(_cell(cell, right=column.right) for column, cell in zip(block.columns, row, strict=True))
            for row in block.rows
        )
        body = "".join(f"<tr>{line}</tr>" for line in lines)
        yield f"<table><caption>{escape(block.title)}</caption><thead><tr>{heads}</tr></thead>"
        yield f"<tbody>{body}</tbody></table>"
        for remark in block.remarks:
            yield _remark(remark)
    elif isinstance(block, Facts):
        lines = (f"<th{_side(False)}>{escape(name)}</th>{_cell(Cell(value))}" for name, value in block.rows)
        yield f"<table><tbody>{''.join(f'<tr>{line}</tr>' for line in lines)}</tbody></table>"
    else:
        yield _remark(block)


def _remark(remark: Remark) -> str:
    hint = f" Hint: {escape(remark.hint)}." if remark.hint else ""
    return f"<p{_color(remark.tone)}>{escape(str(remark))}{hint}</p>"


def _cell(cell: Cell, *, right: bool = False) -> str:
    return f"<td{_side(right, cell.tone)}>{escape(cell.text)}</td>"


def _side(right: bool, tone: Tone | None = None) -> str:
    color = f"; color: {_COLORS[tone]}" if tone else ""
    return f' style="text-align: {"right" if right else "left"}; white-space: pre-line{color}"'


def _color(tone: Tone | None) -> str:
    return f' style="color: {_COLORS[tone]}"' if tone else ""
