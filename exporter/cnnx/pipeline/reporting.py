"""A bundle's records as a report."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from cnnx.bundle import Bundle
from cnnx.record import Record
from cnnx.report.files import write_records


def write_report(bundle: str | Path | Sequence[str | Path], path: str | Path) -> None:
    """Write what was judged, measured and diagnosed of bundles: .html, .md, .xml (JUnit), .json or .csv.

    The newest verdict, measurement (of each batch, with and without a CUDA graph), energy (likewise, of each
    rate and sensor) and diagnosis of each subject count: what was judged again is not reported twice, and
    records of earlier contents of the bundle are left out.

    Args:
        bundle: a bundle's folder, or several.
        path: of the report.

    Raises:
        UsageError: a suffix that means no format.
        BundleError: a bundle is not whole.
        MissingExtra: HTML is asked for and what draws it is absent.
    """
    paths = [bundle] if isinstance(bundle, (str, Path)) else bundle
    records = [record for each in paths for record in _newest(Bundle.open(Path(each), verify=False))]
    write_records(sorted(records, key=lambda record: record.date), Path(path))


def _newest(bundle: Bundle) -> Iterable[Record]:
    present = {
        bundle.manifest.files["model.onnx"],
        bundle.manifest.weights["digest"],
        *(engine.digest for engine in bundle.engines()),
    }
    records = [record for record in bundle.records() if record.subject.digest in present]
    return {(record.kind, record.subject, *_conditions(record)): record for record in records}.values()


def _conditions(record: Record) -> tuple[Any, ...]:
    """What tells measurements of one subject apart."""
    result = record.result
    if record.kind == "benchmark":
        return result["latency"]["batch"], result.get("conditions", {}).get("cuda_graph")
    if record.kind == "energy":
        return result["batch"], result.get("cuda_graph"), result["rate"], result["sensor"]
    return ()
