"""Reads the records of a bundle, and checks that each is about the bundle's current contents.

A record is a note, not a proof: anyone who can write to runs/ can write any record, with the right digests.
The checks catch accidents: a damaged file, or a record of an earlier export, of an engine that was rebuilt
since, or of a different bundle. Only a signature would stop a forger.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cnnx.agreement import Validation, validation_from_dict
from cnnx.bundle import MODEL, Bundle
from cnnx.bundle.engine import Engine
from cnnx.errors import BundleError
from cnnx.machine.environment import Environment
from cnnx.pipeline.records.kinds import result_type
from cnnx.record import Record, Subject, Unverified
from cnnx.schema import from_plain, plain_of

_HINT = "delete this file, as nothing else depends on it; or copy it again from where it was made"
# Clocks of two machines differ; a Jetson without a battery starts in the past.
_CLOCKS_DIFFER = datetime.timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Records:
    """The records in runs/, oldest first.

    Attributes:
        verified: records whose digests match the bundle's graph, and its engine or weights.
        unverified: all other records, including damaged ones.
    """

    verified: tuple[Record, ...]
    unverified: tuple[Unverified, ...]


def records_of(bundle: Bundle, *, now: datetime.datetime | None = None) -> Records:
    """Read all records of a bundle. A damaged record does not raise.

    Args:
        bundle: the opened bundle.
        now: current time; None: from the clock.

    Raises:
        BundleError: the description of an engine is damaged.
    """
    now = now or datetime.datetime.now(datetime.timezone.utc)
    engines = intact_engines(bundle)
    verified, unverified = [], []
    for file in bundle.record_files():
        name = str(file.relative_to(bundle.path))
        try:
            record = checked(bundle.record(file), where=file)
        except BundleError as error:
            unverified.append(Unverified(name, error.what))
            continue
        if reason := doubt_of(record, bundle, engines=engines, now=now):
            unverified.append(Unverified(name, reason, record))
        else:
            verified.append(record)
    # By the date in the record, not by file name.
    return Records(tuple(sorted(verified, key=lambda record: record.date)), tuple(unverified))


def checked(record: Record, *, where: Path) -> Record:
    """Check a record's environment and result; missing keys get their defaults.

    Raises:
        BundleError: a key is unknown or missing, or a value has another type or range.
    """

    def read(kind: type, data: object, at: str) -> object:
        return from_plain(kind, data, where=where, error=BundleError, at=at, hint=_HINT)

    read(Environment, record.environment, "environment")
    result = read(result_type(record.kind), record.result, "result")
    subject = getattr(result, "subject", record.subject)
    for f in dataclasses.fields(Subject):
        there, here = getattr(subject, f.name), getattr(record.subject, f.name)
        if there != here:
            what = f"result.subject.{f.name} is {there!r}, but subject.{f.name} is {here!r}"
            raise BundleError(what, where=where, hint=_HINT)
    return dataclasses.replace(record, result=plain_of(result))


def doubt_of(record: Record, bundle: Bundle, *, engines: Mapping[str, Engine], now: datetime.datetime) -> str:
    """Why a record is not about a bundle's current contents; empty if it is.

    Args:
        record: a checked record.
        bundle: the opened bundle.
        engines: digest -> engine, for the bundle's engines with intact files.
        now: current time.
    """
    subject, graph = record.subject, bundle.manifest.files[MODEL]
    if datetime.datetime.fromisoformat(record.date) > now + _CLOCKS_DIFFER:
        return f"its date is in the future: {record.date}"
    network = bundle.manifest.recipe["name"]
    if subject.network != network:
        return f"it is for the network {subject.network}, this bundle for {network}"
    # Benchmarks may include the original, which is in FP32.
    if subject.artefact != "original" and subject.precision != bundle.manifest.precision:
        return f"it is for {subject.precision}, this bundle is in {bundle.manifest.precision}"
    if subject.artefact == "graph":
        ran, found = subject.digest == graph, subject.digest
    elif subject.artefact == "engine":
        engine = engines.get(subject.digest)
        if engine is None:
            return f"no intact engine in this bundle has the SHA-256 {subject.digest[:12]}"
        if subject.engine not in ("", engine.identity):
            return f"it is for the engine {subject.engine}, but its SHA-256 is that of {engine.identity}"
        ran, found = engine.graph_digest == graph, engine.graph_digest
    else:
        ran, found = subject.digest == bundle.manifest.weights["digest"], subject.digest
    if ran and subject.graph_digest not in ("", graph):
        ran, found = False, subject.graph_digest
    if ran:
        return ""
    weights = subject.artefact == "original" and found == subject.digest
    what = "different weights" if weights else "a different graph"
    return f"it is for {what}, with the SHA-256 {found[:12]}"


def intact_engines(bundle: Bundle) -> dict[str, Engine]:
    """Digest -> engine, for the engines of a bundle whose files are intact."""
    found = {}
    for engine in bundle.engines():
        try:
            bundle.engine_file(engine)
        except BundleError:
            continue
        found[engine.digest] = engine
    return found


def latest_validation(records: Sequence[Record]) -> tuple[Record, Validation] | None:
    """Export's newest verdict among verified records (`records_of`); None if there is none."""
    for record in reversed(records):
        if record.kind == "validation":
            return record, validation_from_dict(record.result)
    return None
