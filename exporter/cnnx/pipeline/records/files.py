"""Reads one file that a command was given: a record, or a report in JSON."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnnx.bundle import Bundle, is_bundle
from cnnx.errors import BundleError, RecordError
from cnnx.limits import JSON_BYTES
from cnnx.pipeline.records.verified import checked, records_of
from cnnx.record import Record, read_record
from cnnx.schema import read_json
from cnnx.store.reading import read_bytes

KINDS = "a bundle, a record in a bundle's runs/, a survey's folder, or a report that --report wrote as .json"
"""What commands that read records take."""


@dataclass(frozen=True, slots=True)
class FoundRecord:
    """A record in a file.

    Attributes:
        bundle: the bundle in whose runs/ it lies; None if it lies elsewhere.
        doubt: why it is not about that bundle's current contents; empty if it is, or lies elsewhere.
    """

    record: Record
    bundle: Bundle | None = None
    doubt: str = ""


def plain_in(path: Path) -> Any:
    """The plain data of a JSON file.

    Raises:
        RecordError: it cannot be read, or is not JSON.
    """
    try:
        text = read_bytes(path, most=JSON_BYTES)
    except OSError as error:
        what = f"the file cannot be read: {error.strerror}"
        raise RecordError(what, where=path, hint="check the path and its permissions") from None
    return read_json(text, where=path, error=RecordError, hint=f"give {KINDS}")


def is_report(data: Any) -> bool:
    """Whether plain data are those of a report; until cnnx 0.1 it was a list of rows."""
    return isinstance(data, list) or (isinstance(data, dict) and data.get("kind") == "report")


def record_in(path: Path, data: Any) -> FoundRecord:
    """The record in a file, whose plain data are at hand.

    Raises:
        RecordError: it is no record, or damaged.
        BundleError: the bundle in whose runs/ it lies is damaged.
    """
    if not isinstance(data, dict) or "kind" not in data:
        raise RecordError("the file is neither a record nor a report", where=path, hint=f"give {KINDS}")
    try:
        record = checked(read_record(path), where=path)
    except BundleError as error:
        raise RecordError(error.what, where=error.where, hint=error.hint) from None
    home = path.resolve().parent.parent
    if path.resolve().parent.name != "runs" or not is_bundle(home):
        return FoundRecord(record)
    bundle = Bundle.open(home)
    found = records_of(bundle)
    if any(one.date == record.date for one in found.verified):
        return FoundRecord(record, bundle)
    reasons = [one.reason for one in found.unverified if Path(one.file).name == path.name]
    return FoundRecord(record, bundle, next(iter(reasons), "it is not about the bundle's current contents"))
