"""Reads what a report is about: bundles, single records, folders of surveys, and reports in JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cnnx.bundle import Bundle, is_bundle
from cnnx.data.images import printable
from cnnx.errors import BundleError, RecordError
from cnnx.pipeline.records.verified import checked, records_of
from cnnx.record import Record, Unverified, read_record
from cnnx.report.document import Report, report_from_plain
from cnnx.schema import read_json

_KINDS = "a bundle, a record in a bundle's runs/, a survey's folder, or a report in JSON"


@dataclass(frozen=True, slots=True)
class Source:
    """Records of one bundle, or one record without its bundle.

    Attributes:
        bundle: the bundle; None if it is not at hand.
        records: verified records, oldest first.
        unverified: records whose figures are left out.
    """

    bundle: Bundle | None
    records: tuple[Record, ...]
    unverified: tuple[Unverified, ...] = ()


def read_sources(path: Path) -> Iterator[Source | Report]:
    """Read one argument: a survey's folder has a source for each of its bundles.

    Raises:
        RecordError: the path does not exist, is none of the four, or is damaged.
        BundleError: a bundle is damaged.
    """
    if is_bundle(path):
        yield _of_bundle(path)
    elif (path / "rows").is_dir():
        bundles = sorted(folder for folder in (path / "bundles").glob("*") if is_bundle(folder))
        if not bundles:
            hint = f"its bundles lie elsewhere; for its charts: cnnx report --survey {path}"
            raise RecordError("the survey holds no bundle", where=path, hint=hint)
        yield from (_of_bundle(folder) for folder in bundles)
    elif path.exists() and not path.is_dir():
        yield _of_file(path)
    else:
        what = "the folder is neither a bundle nor a survey" if path.is_dir() else "the path does not exist"
        raise RecordError(what, where=path, hint=f"give {_KINDS}")


def _of_bundle(path: Path) -> Source:
    bundle = Bundle.open(path)
    found = records_of(bundle)
    unverified = tuple(
        Unverified(printable(str(path / one.file)), one.reason, one.record) for one in found.unverified
    )
    return Source(bundle, found.verified, unverified)


def _of_file(path: Path) -> Source | Report:
    try:
        data = read_json(path.read_bytes(), where=path, error=RecordError, hint=f"give {_KINDS}")
    except OSError as error:
        what = f"the file cannot be read: {error.strerror}"
        raise RecordError(what, where=path, hint="check the path and its permissions") from None
    if isinstance(data, list) or (isinstance(data, dict) and data.get("kind") == "report"):
        return report_from_plain(data, where=path)
    if not isinstance(data, dict) or "kind" not in data:
        raise RecordError("the file is neither a record nor a report", where=path, hint=f"give {_KINDS}")
    try:
        record = checked(read_record(path), where=path)
    except BundleError as error:
        raise RecordError(error.what, where=error.where, hint=error.hint) from None
    home = path.resolve().parent.parent
    if path.resolve().parent.name != "runs" or not is_bundle(home):
        return Source(None, (record,))
    bundle = Bundle.open(home)
    found = records_of(bundle)
    if any(one.date == record.date for one in found.verified):
        return Source(bundle, (record,))
    reasons = [one.reason for one in found.unverified if Path(one.file).name == path.name]
    reason = next(iter(reasons), "it is not about the bundle")
    return Source(None, (), (Unverified(printable(str(path)), reason, record),))


def records_in(sources: Sequence[Source]) -> list[Record]:
    """The records of all sources, oldest first."""
    return sorted((record for source in sources for record in source.records), key=lambda record: record.date)
