"""Reads what a report is about: bundles, single records, folders of surveys, and reports in JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cnnx.bundle import Bundle, is_bundle
from cnnx.data.images import printable
from cnnx.errors import RecordError
from cnnx.pipeline.records.files import KINDS, is_report, plain_in, record_in
from cnnx.pipeline.records.verified import records_of
from cnnx.pipeline.survey.journal import is_survey
from cnnx.record import Record, Unverified
from cnnx.report.document import Report, report_from_plain


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
    elif is_survey(path):
        bundles = sorted(folder for folder in (path / "bundles").glob("*") if is_bundle(folder))
        if not bundles:
            hint = f"its bundles lie elsewhere; for its charts: cnnx report --survey {path}"
            raise RecordError("the survey holds no bundle", where=path, hint=hint)
        yield from (_of_bundle(folder) for folder in bundles)
    elif path.exists() and not path.is_dir():
        yield _of_file(path)
    else:
        what = "the folder is neither a bundle nor a survey" if path.is_dir() else "the path does not exist"
        raise RecordError(what, where=path, hint=f"give {KINDS}")


def _of_bundle(path: Path) -> Source:
    bundle = Bundle.open(path)
    found = records_of(bundle)
    unverified = tuple(
        Unverified(printable(str(path / one.file)), one.reason, one.record) for one in found.unverified
    )
    return Source(bundle, found.verified, unverified)


def _of_file(path: Path) -> Source | Report:
    data = plain_in(path)
    if is_report(data):
        return report_from_plain(data, where=path)
    found = record_in(path, data)
    if found.doubt:
        return Source(None, (), (Unverified(printable(str(path)), found.doubt, found.record),))
    return Source(found.bundle, (found.record,))


def records_in(sources: Sequence[Source]) -> list[Record]:
    """The records of all sources, oldest first."""
    return sorted((record for source in sources for record in source.records), key=lambda record: record.date)
