"""A bundle's records as a report."""

from __future__ import annotations

from pathlib import Path

from cnnx.bundle import Bundle
from cnnx.report.files import write_records


def write_report(bundle: str | Path, path: str | Path) -> None:
    """Write what was judged, measured and diagnosed of a bundle: .html, .md, .xml (JUnit), .json or .csv.

    The newest verdict, measurement and diagnosis of each subject count: what was judged again is not
    reported twice, and records of earlier contents of the bundle are left out.

    Raises:
        UsageError: a suffix that means no format.
        BundleError: the bundle is not whole.
        MissingExtra: HTML is asked for and what draws it is absent.
    """
    opened = Bundle.open(Path(bundle), verify=False)
    present = {
        opened.manifest.files["model.onnx"],
        opened.manifest.weights["digest"],
        *(engine.digest for engine in opened.engines()),
    }
    records = [record for record in opened.records() if record.subject.digest in present]
    newest = {(record.kind, record.subject): record for record in records}
    write_records(sorted(newest.values(), key=lambda record: record.date), Path(path))
