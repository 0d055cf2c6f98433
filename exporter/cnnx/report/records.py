"""Groups records into the sections of a report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cnnx.agreement import validation_from_dict
from cnnx.record import Record, RecordKind, Unverified
from cnnx.report.table import Remark, Said
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
    """Blocks that belong together, and the records behind their plots."""

    blocks: tuple[Said, ...]
    records: tuple[Record, ...] = ()


def sections_of(records: Sequence[Record], unverified: Sequence[Unverified] = ()) -> Iterator[Section]:
    """Sections in order: verdicts, later validations, self-tests, diagnoses, latency with memory and layers,
    energy, unverified records. Sections without records are left out.
    """
    for record in _of(records, "validation", "judgement"):
        validation, later = validation_from_dict(record.result), record.kind == "judgement"
        yield Section((verdict_table(validation, date=record.date[:19], later=later),), (record,))
    for record in _of(records, "selftest"):
        yield Section((self_test_table(self_test_from_dict(record.result), date=record.date[:19]),))
    for record in _of(records, "diagnosis"):
        named = Remark(f"{record.subject}, {record.date[:19]}", "diagnosed")
        yield Section((named, *damage_blocks(record.result, whole=True)), (record,))
    if measured := _of(records, "benchmark"):
        runs = [run_of(record) for record in measured]
        layers = (layer_table(run) for run in runs if run.result.get("layers"))
        yield Section((latency_table(runs), memory_table(runs), *layers), measured)
    if used := _of(records, "energy"):
        yield Section((energy_table([run_of(record) for record in used], rails=True),), used)
    if unverified:
        yield Section((unverified_table(unverified),))


def _of(records: Sequence[Record], *kinds: RecordKind) -> tuple[Record, ...]:
    return tuple(record for kind in kinds for record in records if record.kind == kind)
