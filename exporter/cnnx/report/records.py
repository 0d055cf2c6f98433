"""What records tell, section by section."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cnnx.agreement import validation_from_dict
from cnnx.record import Record, RecordKind, Unverified
from cnnx.report.table import Block, Remark
from cnnx.report.tables.bundle import unverified_table
from cnnx.report.tables.costs import layer_table, memory_table
from cnnx.report.tables.damage import damage_blocks
from cnnx.report.tables.energy import energy_table
from cnnx.report.tables.latency import latency_table
from cnnx.report.tables.verdicts import self_test_table, verdict_table
from cnnx.report.words import run_of
from cnnx.selftest import self_test_from_dict


@dataclass(frozen=True, slots=True)
class Section:
    """What belongs together.

    Attributes:
        blocks: what is told.
        title: a heading; empty: the tables have theirs.
        kind: of the records that it can be drawn from; None: there is nothing to draw.
        records: these.
    """

    blocks: tuple[Block, ...]
    title: str = ""
    kind: RecordKind | None = None
    records: tuple[Record, ...] = ()


def sections_of(records: Sequence[Record], unverified: Sequence[Unverified] = ()) -> Iterator[Section]:
    """Verdicts, later judgements, self-tests, diagnoses, latency with memory and layers, energy; then records
    whose figures are not shown. None without a record.
    """
    yield from map(_verdict, _of(records, "validation", "judgement"))
    yield from map(_self_test, _of(records, "selftest"))
    yield from map(_damage, _of(records, "diagnosis"))
    if measured := _of(records, "benchmark"):
        yield _measured(measured)
    if used := _of(records, "energy"):
        yield _used(used)
    if unverified:
        yield Section((unverified_table(unverified),))


def _of(records: Sequence[Record], *kinds: RecordKind) -> list[Record]:
    return [record for kind in kinds for record in records if record.kind == kind]


def _verdict(record: Record) -> Section:
    validation, anew = validation_from_dict(record.result), record.kind == "judgement"
    table = verdict_table(validation, date=record.date[:19], anew=anew)
    return Section((table,), kind="validation", records=(record,))


def _self_test(record: Record) -> Section:
    return Section((self_test_table(self_test_from_dict(record.result), date=record.date[:19]),))


def _damage(record: Record) -> Section:
    title = f"Damage along the network: {record.subject}"
    when = Remark(record.date[:19], "diagnosed")
    blocks = (when, *damage_blocks(record.result, whole=True))
    return Section(blocks, title, "diagnosis", (record,))


def _measured(records: Sequence[Record]) -> Section:
    runs = [run_of(record) for record in records]
    layers = [layer_table(run) for run in runs if run.result.get("layers")]
    return Section((latency_table(runs), memory_table(runs), *layers), "", "benchmark", tuple(records))


def _used(records: Sequence[Record]) -> Section:
    table = energy_table([run_of(record) for record in records], rails=True)
    return Section((table,), kind="energy", records=tuple(records))
