"""Formats Markdown pages and tables."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

_WIDTH = 100
_ITEM = re.compile(r"(?:[-*]|\d+\.) ")
_WORD = re.compile(r"(?:`[^`]*`|\S)+")  # code stays on one line
# A fence, a table, a heading, HTML, an image, a quotation, or what is indented.
_AS_IT_IS = re.compile(r"```|[|#<!>]|\s")


def table(columns: Iterable[str], rows: Iterable[Iterable[str]], *, left: Iterable[int] = (0,)) -> str:
    """A Markdown table; columns whose index is in `left` are left-aligned, others right-aligned."""
    columns, left = list(columns), set(left)
    rule = "".join("---|" if index in left else "---:|" for index in range(len(columns)))
    return "\n".join([f"| {' | '.join(columns)} |", f"|{rule}", *(f"| {' | '.join(row)} |" for row in rows)])


def wrapped(text: str) -> str:
    """A page with its paragraphs and list items wrapped at 100 columns."""
    return "\n".join(_lines(text)).rstrip("\n") + "\n"


def write_page(path: Path, text: str) -> None:
    """Write a page, wrapped."""
    path.write_text(wrapped(text), encoding="utf-8")


def _lines(text: str) -> Iterator[str]:
    paragraph: list[str] = []
    fenced = False
    for line in itertools.chain(text.splitlines(), [""]):
        fence = line.startswith("```")
        continues = paragraph and re.match(r" {2,}[^ |]", line) and _ITEM.match(paragraph[0])
        prose = not fenced and line and (continues or not _AS_IT_IS.match(line))
        if paragraph and (not prose or _ITEM.match(line)):
            yield _filled(paragraph)
            paragraph = []
        if prose:
            paragraph.append(line.strip())
        else:
            yield line
        fenced ^= fence


def _filled(paragraph: list[str]) -> str:
    item = _ITEM.match(paragraph[0])
    indent = " " * len(item[0]) if item else ""
    lines = [""]
    for word in _WORD.findall(" ".join(paragraph)):
        longer = f"{lines[-1]} {word}" if lines[-1].strip() else f"{lines[-1]}{word}"
        if len(longer) > _WIDTH and lines[-1].strip():
            lines.append(f"{indent}{word}")
        else:
            lines[-1] = longer
    return "\n".join(lines)
