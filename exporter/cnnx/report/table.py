"""What is told, before it looks like anything: tables, facts and remarks. Renderers draw them.

A column is its heading and what it says of a row, in one place: every renderer shows what stands here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from typing import Any, ClassVar, Generic, Literal, TypeAlias, TypeVar

Tone = Literal["good", "bad", "open"]
"""Renderers have a color for each, JUnit an outcome."""

UNKNOWN = "not known"
_SAYS_NOTHING = ("", "-", UNKNOWN)
_TONES: dict[str, Tone] = {"passed": "good", "failed": "bad", "inconclusive": "open", "not judged": "open"}

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell that has a tone."""

    text: str
    tone: Tone | None = None


Row: TypeAlias = tuple[Cell, ...]


def judged(verdict: str, note: str = "") -> Cell:
    """A verdict, as `Verdict` names it, with what is to be read with it; another word has no tone."""
    return Cell(f"{verdict}{note}", _TONES.get(verdict))


@dataclass(frozen=True, slots=True)
class Column(Generic[T]):
    """A heading, and what it says of a row.

    Attributes:
        cell: what stands there, given the row.
        fixed: not broken: names and words that are short, and figures.
        once: only in the first row of a group.
        known: left out where it says nothing of any row.
        drop: on a terminal that is too narrow, columns go by this number, 1 first; 0: it never goes.
    """

    right: ClassVar[bool] = False
    heading: str
    cell: Callable[[T], str | Cell]
    fixed: bool = False
    once: bool = False
    known: bool = False
    drop: int = 0


@dataclass(frozen=True, slots=True)
class Figures(Column[T]):
    """A column of figures, which stand to the right."""

    right: ClassVar[bool] = True
    fixed: bool = True


@dataclass(frozen=True, slots=True)
class Remark:
    """A sentence.

    Attributes:
        label: what kind it is, such as "note".
        tone: of the label, or of the sentence where it has none.
        hint: what helps.
    """

    text: str
    label: str = ""
    tone: Tone | None = None
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.label}: {self.text}" if self.label else self.text


@dataclass(frozen=True, slots=True)
class Suite:
    """What a continuous integration calls a table whose rows are passed or failed: by its first column."""

    name: str
    classname: str
    date: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A title, columns, rows, and what is to be read with them.

    Attributes:
        groups: of rows, each with a cell a column.
        lined: a line parts the groups.
        remarks: below.
        suite: None: nothing was judged.
    """

    title: str
    columns: tuple[Column[Any], ...]
    groups: tuple[tuple[Row, ...], ...]
    lined: bool = False
    remarks: tuple[Remark, ...] = ()
    suite: Suite | None = None

    @property
    def rows(self) -> tuple[Row, ...]:
        """Of all groups."""
        return tuple(row for group in self.groups for row in group)

    def without(self, left_out: Callable[[Column[Any]], bool]) -> Table:
        """The table without some columns."""
        kept = [not left_out(column) for column in self.columns]
        groups = tuple(tuple(tuple(compress(row, kept)) for row in group) for group in self.groups)
        return replace(self, columns=tuple(compress(self.columns, kept)), groups=groups)


@dataclass(frozen=True, slots=True)
class Facts:
    """Names and what is known of each."""

    rows: tuple[tuple[str, str], ...]


Said: TypeAlias = Table | Remark
Block: TypeAlias = Said | Facts


def table_of(
    title: str,
    columns: Iterable[Column[T]],
    groups: Iterable[Sequence[T]],
    *,
    lined: bool = False,
    remarks: Iterable[Remark] = (),
    suite: Suite | None = None,
) -> Table:
    """The table that columns make of groups of what they tell of; equal remarks are said once."""
    columns = tuple(columns)

    def cell(column: Column[T], item: T, place: int) -> Cell:
        found = "" if column.once and place else column.cell(item)
        return found if isinstance(found, Cell) else Cell(found)

    cells = tuple(
        tuple(tuple(cell(column, item, place) for column in columns) for place, item in enumerate(group))
        for group in groups
    )
    table = Table(title, columns, cells, lined, tuple(dict.fromkeys(remarks)), suite)
    told = {
        column
        for row in table.rows
        for column, cell in zip(columns, row, strict=True)
        if cell.text not in _SAYS_NOTHING
    }
    return table.without(lambda column: column.known and column not in told)
