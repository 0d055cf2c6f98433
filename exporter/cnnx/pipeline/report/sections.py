"""The sections of a report, from verified records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cnnx.agreement import validation_from_dict
from cnnx.pipeline.report.charts import (
    damage_chart,
    gate_chart,
    latency_charts,
    layer_chart,
    memory_chart,
    power_chart,
)
from cnnx.record import Record, RecordKind, Unverified
from cnnx.report.document import Section
from cnnx.report.table import Remark, Table
from cnnx.report.tables.bundle import unverified_table
from cnnx.report.tables.costs import layer_table, memory_table
from cnnx.report.tables.damage import damage_blocks
from cnnx.report.tables.energy import energy_table
from cnnx.report.tables.latency import latency_table
from cnnx.report.tables.verdicts import self_test_table, verdict_table
from cnnx.report.words import run_of
from cnnx.selftest import self_test_from_dict


def sections_of(
    records: Sequence[Record],
    unverified: Sequence[Unverified] = (),
    *,
    flips: Section | None = None,
    about: Sequence[Section] = (),
) -> Iterator[Section]:
    """Sections in order; those without records are left out.

    Args:
        records: verified records, oldest first.
        unverified: records that are listed with the reason, without figures.
        flips: the section on flipped images.
        about: sections on the bundles themselves, before the unverified records.
    """
    found = (
        _agreement(_of(records, "validation", "judgement")),
        flips,
        _self_tests(_of(records, "selftest")),
        _damage(_of(records, "diagnosis")),
        *_costs(_of(records, "benchmark")),
        _energy(_of(records, "energy")),
        *about,
        Section("Unverified records", tables=(unverified_table(unverified),)) if unverified else None,
    )
    yield from (section for section in found if section)


def _of(records: Sequence[Record], *kinds: RecordKind) -> tuple[Record, ...]:
    return tuple(record for kind in kinds for record in records if record.kind == kind)


def _agreement(records: Sequence[Record]) -> Section | None:
    if not records:
        return None
    tables = tuple(
        verdict_table(
            validation_from_dict(record.result), date=record.date[:19], later=record.kind == "judgement"
        )
        for record in records
    )
    charts = tuple(
        chart for record in records for chart in gate_chart(_short(record), record.result["gates"])
    )
    return Section("Agreement", charts=charts, tables=tables)


def _short(record: Record) -> str:
    """What was validated, without digest and device."""
    subject = record.subject
    images = f"{record.result['images']} images of {record.result['image_set']}"
    return f"{subject.network} {subject.precision}, {subject.artefact} on {subject.runtime}, {images}"


def _self_tests(records: Sequence[Record]) -> Section | None:
    tables = tuple(self_test_table(self_test_from_dict(each.result), date=each.date[:19]) for each in records)
    return Section("Self-tests", tables=tables) if tables else None


def _damage(records: Sequence[Record]) -> Section | None:
    remarks: list[Remark] = []
    tables: list[Table] = []
    for record in records:
        remarks.append(Remark(f"{record.subject}, {record.date[:19]}", "diagnosed"))
        blocks = [*damage_blocks(record.result, whole=True)]
        tables += (block for block in blocks if isinstance(block, Table))
        remarks += (block for block in blocks if isinstance(block, Remark))
    charts = tuple(damage_chart(each.result, str(each.subject)) for each in records if each.result["layers"])
    return Section("Damage by layer", tuple(remarks), charts, tuple(tables)) if records else None


def _costs(records: Sequence[Record]) -> Iterator[Section]:
    if not records:
        return
    runs = [run_of(record) for record in records]
    yield Section("Latency", charts=tuple(latency_charts(runs)), tables=(latency_table(runs),))
    timed = [run for run in runs if run.result.get("layers")]
    if timed:
        tables = tuple(layer_table(run, whole=True) for run in timed)
        charts = tuple(map(layer_chart, timed))
        yield Section("Time by layer", charts=charts, tables=tables)
    yield Section("Memory", charts=tuple(memory_chart(runs)), tables=(memory_table(runs),))


def _energy(records: Sequence[Record]) -> Section | None:
    if not records:
        return None
    runs = [run_of(record) for record in records]
    charts = tuple(chart for record in records for chart in power_chart(record))
    return Section("Energy", charts=charts, tables=(energy_table(runs, rails=True),))
