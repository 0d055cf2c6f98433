"""A bundle's records as a report."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from cnnx.bundle import Bundle
from cnnx.pipeline.records.verified import records_of
from cnnx.record import Record, Unverified
from cnnx.report.files import write_records


def write_report(bundle: str | Path | Sequence[str | Path], path: str | Path) -> None:
    """Write what was judged, measured and diagnosed of bundles: .html, .md, .xml (JUnit), .json or .csv.

    The newest verdict, measurement (of each batch, with and without a CUDA graph), energy (likewise, of each
    rate and sensor) and diagnosis of each subject count: what was judged again is not reported twice, and
    records that are damaged or say nothing about what is in the bundle are listed without their figures.

    Args:
        bundle: a bundle's folder, or several.
        path: of the report.

    Raises:
        UsageError: a suffix that means no format.
        BundleError: a bundle is not whole, or a byte was changed.
        MissingExtra: HTML is asked for and what draws it is absent.
    """
    paths = [bundle] if isinstance(bundle, (str, Path)) else bundle
    found = [records_of(Bundle.open(Path(each))) for each in paths]
    records = [record for each in found for record in _newest(each.verified)]
    records.sort(key=lambda record: record.date)
    unverified = [
        Unverified(str(Path(bundle) / one.file), one.reason, one.record)
        for bundle, each in zip(paths, found, strict=True)
        for one in each.unverified
    ]
    write_records(records, Path(path), unverified=unverified)


def _newest(records: Iterable[Record]) -> Iterable[Record]:
    return {(record.kind, record.subject, *_conditions(record)): record for record in records}.values()


def _conditions(record: Record) -> tuple[Any, ...]:
    """What tells measurements and judgements of one subject apart."""
    result = record.result
    if record.kind == "judgement":
        return result["image_set"], result["images"]
    if record.kind == "benchmark":
        return result["latency"]["batch"], result.get("conditions", {}).get("cuda_graph")
    if record.kind == "energy":
        return result["batch"], result.get("cuda_graph"), result["rate"], result["sensor"]
    return ()
