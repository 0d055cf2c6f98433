"""A report as data: what was found, independent of how it is drawn.

Every format is written from a `Report` alone. As JSON it is the file that `--report FILE.json` writes, from
which `cnnx report` writes any other format. `SCHEMA` is incremented when a field changes its meaning:

    1  a list of rows, as cnnx 0.1 wrote it; only `cnnx compare` reads it.
    2  cards, sections with tables, charts and flips, and the rows.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import msgspec

from cnnx.errors import RecordError
from cnnx.machine.environment import installed_version
from cnnx.report.table import Remark, Said, Table, Tone
from cnnx.schema import Date, from_plain

SCHEMA: Literal[2] = 2
_BRIEF_ROWS = 20
_HINT = "write the report again from the bundles: cnnx report BUNDLE --out FILE.json"

Scalar: TypeAlias = str | int | float | bool | None
"""A value of a chart or a row; null if it is unknown or not finite."""

About = Literal["records", "comparison", "gates", "survey"]
"""What a report is about: records of bundles, two sides of a comparison, gates judged again, or a survey."""


@dataclass(frozen=True, slots=True)
class CardFigure:
    """A figure of a card.

    Attributes:
        label: what it is, such as "latency p50".
        value: the figure with its unit.
        detail: interval, threshold or condition; may be empty.
        tone: whether it passed.
    """

    label: str
    value: str
    detail: str = ""
    tone: Tone | None = None


@dataclass(frozen=True, slots=True)
class Card:
    """The answer for one subject, at the top of a page.

    Attributes:
        title: network and precision.
        subject: what ran where.
        verdict: a verdict, or "not validated".
        tone: tone of the verdict; None for the original, which is not judged.
    """

    title: str
    subject: str
    verdict: str
    tone: Tone | None
    figures: tuple[CardFigure, ...] = ()


@dataclass(frozen=True, slots=True)
class Chart:
    """Rows of a chart, one a mark.

    Attributes:
        kind: which chart of `cnnx.report.page.charts` draws it.
        title: its title.
        text: what it shows, in a sentence, for those who do not see it.
        rows: one mapping a mark.
    """

    kind: str
    title: str
    text: str
    rows: tuple[Mapping[str, Scalar], ...]


@dataclass(frozen=True, slots=True)
class FlippedImage:
    """An image whose top-1 class changed.

    Attributes:
        image: name in its set.
        label: its true class; empty if unknown.
        original: the original's five classes, best first.
        now: the engine's.
        margin: the original's probability of its first class minus that of its second; None if unknown.
        thumbnail: a data URL; empty if left out or not found.
    """

    image: str
    label: str
    original: tuple[str, ...]
    now: tuple[str, ...]
    margin: float | None = None
    thumbnail: str = ""


@dataclass(frozen=True, slots=True)
class Flips:
    """The flipped images of one validation, the clearest originals first.

    Attributes:
        subject: what was validated.
        total: number of flips; `images` may hold fewer.
    """

    subject: str
    total: int
    images: tuple[FlippedImage, ...]


@dataclass(frozen=True, slots=True)
class Section:
    """What belongs together: remarks, charts, tables and flips, shown in this order.

    Attributes:
        background: it explains the figures and judges nothing: a Markdown file leaves it out.
    """

    title: str
    remarks: tuple[Remark, ...] = ()
    charts: tuple[Chart, ...] = ()
    tables: tuple[Table, ...] = ()
    flips: tuple[Flips, ...] = ()
    background: bool = False

    @property
    def blocks(self) -> tuple[Said, ...]:
        """The remarks, then the tables."""
        return (*self.remarks, *self.tables)


@dataclass(frozen=True, slots=True)
class Report:
    """A report.

    Attributes:
        about: what it is about.
        title: its title.
        date: when it was made.
        cnnx: version that made it.
        cards: the answer for each subject.
        sections: everything else.
        rows: one mapping a verdict, measurement or change, all with the same keys; the table of the CSV file.
    """

    about: About
    title: str
    date: Date
    cnnx: str
    cards: tuple[Card, ...]
    sections: tuple[Section, ...]
    rows: tuple[Mapping[str, Scalar], ...]
    kind: Literal["report"] = "report"
    schema: Literal[2] = SCHEMA

    @property
    def blocks(self) -> list[Said]:
        """The remarks and tables of all sections, in order."""
        return [block for section in self.sections for block in section.blocks]

    @property
    def brief(self) -> list[Said]:
        """The remarks and tables without background, long tables cut."""
        shown = (block for section in self.sections if not section.background for block in section.blocks)
        return [block.first(_BRIEF_ROWS) if isinstance(block, Table) else block for block in shown]

    def as_json(self) -> str:
        """The text of the JSON file. Numbers that are not finite become null."""
        return msgspec.json.format(msgspec.json.encode(self), indent=1).decode() + "\n"


def made_report(
    about: About,
    title: str,
    *,
    cards: Iterable[Card] = (),
    sections: Iterable[Section],
    rows: Iterable[Mapping[str, Any]],
) -> Report:
    """A report made now, by this version."""
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="microseconds")
    return Report(
        about, title, now, installed_version("cnnx") or "", tuple(cards), tuple(sections), tuple(rows)
    )


def report_from_plain(data: Any, *, where: Path) -> Report:
    """Read a report from the plain data of its JSON file.

    Raises:
        RecordError: a key is unknown or missing, a value has another type, or it has a schema that this cnnx
            does not read.
    """
    schema = 1 if isinstance(data, list) else data.get("schema") if isinstance(data, dict) else None
    if isinstance(data, list) or (isinstance(data, dict) and schema != SCHEMA):
        what = f"the report has schema {schema!r}, but this cnnx reads {SCHEMA}"
        raise RecordError(what, where=where, hint=_HINT)
    report = from_plain(Report, data, where=where, error=RecordError, hint=_HINT)
    for section in report.sections:
        for table in section.tables:
            if any(len(row) != len(table.columns) for row in table.rows):
                what = f"a row of the table {table.title!r} does not have {len(table.columns)} cells"
                raise RecordError(what, where=where, hint=_HINT)
    return report
