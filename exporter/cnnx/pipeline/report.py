"""`report`: writes a report of the records of bundles."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from cnnx.bundle import Bundle
from cnnx.pipeline.records.verified import records_of
from cnnx.record import Record, Unverified
from cnnx.report.files import document_of_records, write_document


def write_report(bundle: str | Path | Sequence[str | Path], path: str | Path) -> None:
    """Write a report of verdicts, measurements and diagnoses in the format of the path's suffix.

    Only the newest verdict and diagnosis of each subject are reported, and the newest measurement for each
    batch, with and without a CUDA graph. The same holds for energy, also for each rate and sensor. Records
    that are damaged or not about the bundle's current contents are listed without figures.

    Args:
        bundle: a bundle's folder, or several.
        path: file of the report; its suffix chooses the format.

    Raises:
        UsageError: the suffix is not one of the formats.
        BundleError: a bundle is damaged.
        MissingExtra: HTML is requested, and the packages that draw it are not installed.

    Examples:
        >>> cnnx.write_report("lenet5-int8", "report.html")
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
    write_document(document_of_records(records, unverified), Path(path))


def _newest(records: Iterable[Record]) -> Iterable[Record]:
    return {(record.kind, record.subject, *_conditions(record)): record for record in records}.values()


def _conditions(record: Record) -> tuple[Any, ...]:
    """The conditions that distinguish measurements or validations of one subject."""
    result = record.result
    if record.kind == "judgement":
        return result["image_set"], result["images"]
    if record.kind == "benchmark":
        return result["latency"]["batch"], result.get("conditions", {}).get("cuda_graph")
    if record.kind == "energy":
        return result["batch"], result.get("cuda_graph"), result["rate"], result["sensor"]
    return ()
