"""The sections of a report, from verified records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from cnnx.agreement import validation_from_dict
from cnnx.pipeline.report.charts import (
    damage_chart,
    gate_chart,
    latency_charts,
    layer_chart,
    memory_chart,
    power_chart,
    short_names,
    tensor_chart,
)
from cnnx.pipeline.report.load_charts import soak_charts, streams_charts
from cnnx.pipeline.report.roofline import explanation_charts
from cnnx.pipeline.report.tune_charts import front_chart
from cnnx.record import Record, RecordKind, Unverified
from cnnx.report.document import Chart, Section
from cnnx.report.table import Remark, Table
from cnnx.report.tables.bundle import unverified_table
from cnnx.report.tables.costs import memory_table
from cnnx.report.tables.damage import damage_blocks
from cnnx.report.tables.energy import energy_table
from cnnx.report.tables.latency import latency_table
from cnnx.report.tables.layers import layer_table
from cnnx.report.tables.soak import soak_table
from cnnx.report.tables.streams import each_stream_table, streams_table
from cnnx.report.tables.tensors import tensor_blocks
from cnnx.report.tables.tune import tuning_blocks
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
        _tensors(_of(records, "tensors")),
        _tuning(_of(records, "tuning")),
        *_costs(_of(records, "benchmark")),
        _streams(_of(records, "streams")),
        _energy(_of(records, "energy")),
        _soaks(_of(records, "soak")),
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


class _BlocksOf(Protocol):
    """What a command prints of a record's result."""

    def __call__(self, result: Mapping[str, Any], /, *, whole: bool) -> Iterator[Table | Remark]:
        """With `whole`, of all rows."""


def _printed(
    title: str, records: Sequence[Record], done: str, blocks_of: _BlocksOf, charts: tuple[Chart, ...]
) -> Section | None:
    """A section of what a command prints for each record; `done` says what was done to its subject."""
    remarks: list[Remark] = []
    tables: list[Table] = []
    for record in records:
        remarks.append(Remark(f"{record.subject}, {record.date[:19]}", done))
        for block in blocks_of(record.result, whole=True):
            if isinstance(block, Table):
                tables.append(block)
            else:
                remarks.append(block)
    return Section(title, tuple(remarks), charts, tuple(tables)) if records else None


def _damage(records: Sequence[Record]) -> Section | None:
    charts = tuple(damage_chart(each.result, str(each.subject)) for each in records if each.result["layers"])
    return _printed("Damage by layer", records, "diagnosed", damage_blocks, charts)


def _tensors(records: Sequence[Record]) -> Section | None:
    charts = tuple(tensor_chart(each.result, str(each.subject)) for each in records if each.result["rows"])
    return _printed("Tensors along the network", records, "compared", tensor_blocks, charts)


def _tuning(records: Sequence[Record]) -> Section | None:
    charts = tuple(front_chart(each.result, str(each.subject)) for each in records)
    return _printed("Placement of Q/DQ", records, "tuned", tuning_blocks, charts)


def _costs(records: Sequence[Record]) -> Iterator[Section]:
    if not records:
        return
    runs = [run_of(record) for record in records]
    yield Section("Latency", charts=tuple(latency_charts(runs)), tables=(latency_table(runs),))
    timed = [run for run in runs if run.result.get("layers")]
    if timed:
        tables = tuple(layer_table(run, whole=True) for run in timed)
        named = list(zip(short_names(timed), timed, strict=True))
        charts = (*explanation_charts(named), *map(layer_chart, timed))
        yield Section("Time by layer", charts=charts, tables=tables)
    yield Section("Memory", charts=tuple(memory_chart(runs)), tables=(memory_table(runs),))


def _streams(records: Sequence[Record]) -> Section | None:
    if not records:
        return None
    runs = [run_of(record) for record in records]
    charts = tuple(chart for run in runs for chart in streams_charts(run))
    return Section("Streams", charts=charts, tables=(streams_table(runs), each_stream_table(runs)))


def _soaks(records: Sequence[Record]) -> Section | None:
    if not records:
        return None
    runs = [run_of(record) for record in records]
    charts = tuple(chart for run in runs for chart in soak_charts(run))
    return Section("Soak", charts=charts, tables=(soak_table(runs),))


def _energy(records: Sequence[Record]) -> Section | None:
    if not records:
        return None
    runs = [run_of(record) for record in records]
    charts = tuple(chart for record in records for chart in power_chart(record))
    return Section("Energy", charts=charts, tables=(energy_table(runs, rails=True),))
