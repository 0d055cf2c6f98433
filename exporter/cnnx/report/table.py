"""Tables, facts and remarks, independent of their rendering.

`table_of` applies columns, each a heading with the function that computes its cells, to items. The `Table` it
builds is plain data, which every renderer reads and which a report keeps as JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import compress
from typing import ClassVar, Generic, Literal, TypeAlias, TypeVar

Tone = Literal["good", "bad", "open"]
"""Rendered as a color, or as an outcome in JUnit."""

UNKNOWN = "unknown"
_SAYS_NOTHING = ("", "-", UNKNOWN)
TONES: dict[str, Tone] = {"passed": "good", "failed": "bad", "inconclusive": "open", "not judged": "open"}

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell with an optional tone."""

    text: str
    tone: Tone | None = None


Row: TypeAlias = tuple[Cell, ...]


def judged(verdict: str, note: str = "") -> Cell:
    """A cell for the value of a `Verdict`, with a note; other words get no tone."""
    return Cell(f"{verdict}{note}", TONES.get(verdict))


@dataclass(frozen=True, slots=True)
class Head:
    """The heading of a column, and how its cells are set; see `Column`."""

    heading: str
    right: bool = False
    fixed: bool = False
    drop: int = 0
    once: bool = False


@dataclass(frozen=True, slots=True)
class Column(Generic[T]):
    """A heading, and the function that computes a cell from a row.

    Attributes:
        cell: text of the cell, given the row.
        fixed: never wrapped; for figures and short names.
        once: filled only in the first row of a group.
        known: left out if empty or unknown in every row.
        drop: order in which columns are hidden on a narrow terminal, 1 first; 0: never.
    """

    right: ClassVar[bool] = False
    heading: str
    cell: Callable[[T], str | Cell]
    fixed: bool = False
    once: bool = False
    known: bool = False
    drop: int = 0

    @property
    def head(self) -> Head:
        """What a table keeps of the column."""
        return Head(self.heading, self.right, self.fixed, self.drop, self.once)


@dataclass(frozen=True, slots=True)
class Figures(Column[T]):
    """A right-aligned column of figures."""

    right: ClassVar[bool] = True
    fixed: bool = True


@dataclass(frozen=True, slots=True)
class Remark:
    """A sentence.

    Attributes:
        label: kind of remark, such as "note".
        tone: tone of the label, or of the text without a label.
        hint: what to do about it.
    """

    text: str
    label: str = ""
    tone: Tone | None = None
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.label}: {self.text}" if self.label else self.text


@dataclass(frozen=True, slots=True)
class Case:
    """What CI counts as one test.

    Attributes:
        tone: "good": passed, "bad": failed, "open": skipped.
        message: verdict and figures in one line.
        reasons: further lines, such as why it was not judged.
        seconds: a latency; 0 for what takes no time.
        figures: name -> finite number, such as value, low, high and threshold, in `unit`.
        unit: unit of the figures; empty for rates and ratios.
    """

    name: str
    classname: str
    tone: Tone
    message: str
    reasons: tuple[str, ...] = ()
    seconds: float = 0.0
    figures: Mapping[str, float] = field(default_factory=dict)
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Suite:
    """The suite of a table whose rows pass or fail.

    Attributes:
        cases: its cases; empty: one for each row with a tone, named by the first column.
    """

    name: str
    classname: str
    date: str = ""
    cases: tuple[Case, ...] = ()


@dataclass(frozen=True, slots=True)
class Table:
    """A title, columns, rows and remarks.

    Attributes:
        groups: groups of rows, with one cell per column.
        lined: draw a line between groups.
        remarks: remarks below the table.
        suite: JUnit suite; None if the table has no verdicts.
    """

    title: str
    columns: tuple[Head, ...]
    groups: tuple[tuple[Row, ...], ...]
    lined: bool = False
    remarks: tuple[Remark, ...] = ()
    suite: Suite | None = None

    @property
    def rows(self) -> tuple[Row, ...]:
        """The rows of all groups."""
        return tuple(row for group in self.groups for row in group)

    def first(self, most: int) -> Table:
        """The table with its first rows, and a remark about the rest."""
        if len(self.rows) <= most:
            return self
        more = Remark(f"and {len(self.rows) - most} more")
        return replace(self, groups=(self.rows[:most],), remarks=(more, *self.remarks))

    def without(self, left_out: Callable[[Head], bool]) -> Table:
        """The table without some columns."""
        return self.shown_in([not left_out(column) for column in self.columns])

    def shown_in(self, kept: Sequence[bool]) -> Table:
        """The table with only the columns that are `kept`."""
        groups = tuple(tuple(tuple(compress(row, kept)) for row in group) for group in self.groups)
        return replace(self, columns=tuple(compress(self.columns, kept)), groups=groups)


@dataclass(frozen=True, slots=True)
class Facts:
    """Names with their values."""

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
    """Build a table by applying columns to groups of items. Duplicate remarks are removed."""
    columns = tuple(columns)

    def cell(column: Column[T], item: T, index: int) -> Cell:
        found = "" if column.once and index else column.cell(item)
        return found if isinstance(found, Cell) else Cell(found)

    rows = tuple(
        tuple(tuple(cell(column, item, index) for column in columns) for index, item in enumerate(group))
        for group in groups
    )
    heads = tuple(column.head for column in columns)
    table = Table(title, heads, rows, lined, tuple(dict.fromkeys(remarks)), suite)
    says_something = [
        any(row[place].text not in _SAYS_NOTHING for row in table.rows) for place in range(len(heads))
    ]
    return table.shown_in(
        [said or not column.known for said, column in zip(says_something, columns, strict=True)]
    )
