"""Writes tables and remarks as Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from cnnx.report.table import Said, Table
from cnnx.report.words import visible


def markdown(blocks: Iterable[Said], *, title: str = "# {}") -> str:
    """A Markdown document; `title` is the format of a table's title."""
    return "\n\n".join(text for block in blocks for text in _parts(block, title)) + "\n"


def _parts(block: Said, title: str) -> Iterator[str]:
    """The paragraphs of a block."""
    if isinstance(block, Table):
        yield title.format(_text(block.title))
        sides = "|".join("---:" if column.right else "---" for column in block.columns)
        rows = [_line(cell.text for cell in row) for row in block.rows]
        yield "\n".join([_line(column.heading for column in block.columns), f"|{sides}|", *rows])
        for remark in block.remarks:
            yield from _parts(remark, title)
    else:
        yield _text(f"{block} Hint: {block.hint}." if block.hint else str(block))


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(_text(cell).replace("|", "\\|").replace("\n", "<br>") for cell in cells) + " |"


def _text(text: str) -> str:
    """Text in which names are neither HTML nor links, and control characters can be seen."""
    if re.search(r"<[a-zA-Z/!?]", text):
        text = text.replace("&", "&amp;").replace("<", "&lt;")
    return visible(text).replace("](", "]\\(")
