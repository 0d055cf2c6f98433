"""A bundle's records, each checked and held to what is in the bundle now.

A record is a note, not a proof: anyone who can write into runs/ can write any record, with the right digests
too. The checks guard against accidents: a damaged file, a record of an earlier export, of an engine that was
rebuilt since, of another bundle. A forger would only be stopped by a signature.
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

_HINT = "nothing else depends on it: delete it, or copy it again from where it was made"
# Clocks of two machines differ; a Jetson without a battery starts in the past.
_CLOCKS_DIFFER = datetime.timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Records:
    """What runs/ holds, oldest first.

    Attributes:
        verified: records whose digests are those of this graph, and of an engine or weights of this bundle.
        unverified: all others, damaged ones among them.
    """

    verified: tuple[Record, ...]
    unverified: tuple[Unverified, ...]


def records_of(bundle: Bundle, *, now: datetime.datetime | None = None) -> Records:
    """Read every record of a bundle. A damaged one hides no other.

    Args:
        bundle: opened.
        now: what counts as the present; None: the clock's.

    Raises:
        BundleError: the description of an engine is damaged.
    """
    now = now or datetime.datetime.now(datetime.timezone.utc)
    engines = _intact(bundle)
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
    # By what they say, not by what their files are called.
    return Records(tuple(sorted(verified, key=lambda record: record.date)), tuple(unverified))


def checked(record: Record, *, where: Path) -> Record:
    """A record whose environment and result have been checked; keys it lacks have their defaults.

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
            what = f"result.subject.{f.name} is {there!r}, subject.{f.name} {here!r}"
            raise BundleError(what, where=where, hint=_HINT)
    return dataclasses.replace(record, result=plain_of(result))


def doubt_of(record: Record, bundle: Bundle, *, engines: Mapping[str, Engine], now: datetime.datetime) -> str:
    """Why a record says nothing about what is in a bundle; empty: it does.

    Args:
        record: checked.
        bundle: opened.
        engines: digest -> engine, of the bundle's engines whose files are intact.
        now: the present.
    """
    subject, graph = record.subject, bundle.manifest.files[MODEL]
    if datetime.datetime.fromisoformat(record.date) > now + _CLOCKS_DIFFER:
        return f"its date lies in the future: {record.date}"
    network = bundle.manifest.recipe["name"]
    if subject.network != network:
        return f"it is of the network {subject.network}, this bundle of {network}"
    # A benchmark may stand beside the original, which is in FP32.
    if subject.artefact != "original" and subject.precision != bundle.manifest.precision:
        return f"it is in {subject.precision}, this bundle in {bundle.manifest.precision}"
    if subject.artefact == "graph":
        ran, found = subject.digest == graph, subject.digest
    elif subject.artefact == "engine":
        engine = engines.get(subject.digest)
        if engine is None:
            return f"no intact engine in this bundle has the SHA-256 {subject.digest[:12]}"
        if subject.engine not in ("", engine.identity):
            return f"it is of the engine {subject.engine}, its SHA-256 is that of {engine.identity}"
        ran, found = engine.graph_digest == graph, engine.graph_digest
    else:
        ran, found = subject.digest == bundle.manifest.weights["digest"], subject.digest
    if ran and subject.graph_digest not in ("", graph):
        ran, found = False, subject.graph_digest
    if ran:
        return ""
    what = "weights" if subject.artefact == "original" and found == subject.digest else "graph"
    return f"it is of another {what}, with the SHA-256 {found[:12]}"


def _intact(bundle: Bundle) -> dict[str, Engine]:
    found = {}
    for engine in bundle.engines():
        try:
            bundle.engine_file(engine)
        except BundleError:
            continue
        found[engine.digest] = engine
    return found


def latest_validation(records: Sequence[Record]) -> tuple[Record, Validation] | None:
    """Export's newest verdict among verified records (`records_of`); None where there is none."""
    for record in reversed(records):
        if record.kind == "validation":
            return record, validation_from_dict(record.result)
    return None
