"""The schema of a run: what was judged or measured, where, when, and what came out.

Records are plain data and never change once written; statistics are derived from the raw samples they
keep. `SCHEMA` counts up when a field changes its meaning:

    1  first. Since version 0.2 a subject has the digest of its graph, too; it is empty in older records. Then
       came the kind of its device, which is read off the device's name in older records.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from msgspec import Meta

from cnnx.device import Device
from cnnx.errors import BundleError
from cnnx.schema import Date, Digest, DigestOrEmpty, FileNameOrEmpty, from_plain, read_json

SCHEMA: Literal[1] = 1
_MEND = "nothing else depends on it: delete it, or copy it again from where it was made"

Runtime = Annotated[
    str,
    Meta(
        pattern=r"^[^\s/\\\x00]+( [^\x00\n]*)?(?![\s\S])",
        description="a runtime's name and version, such as 'ort 1.31.1'",
    ),
]


@dataclass(frozen=True, slots=True)
class LayerRow:
    """One layer of a network as `cnnx show` prints it.

    Attributes:
        name: its name in the model or graph.
        op: operator or module type.
        output_shape: without the batch dimension.
        parameters: trainable values, biases included.
        multiply_adds: for one picture, biases excluded.
        activation_bytes: what it newly writes for one picture; 0 for a view of its input, or in place.
    """

    name: str
    op: str
    output_shape: tuple[int, ...]
    parameters: int
    multiply_adds: int
    activation_bytes: int


@dataclass(frozen=True, slots=True)
class Subject:
    """What exactly was judged or measured.

    Attributes:
        network: name of the recipe.
        artefact: "graph" (the bundle's ONNX), "engine" (a vendor's file) or "original".
        digest: SHA-256 of that file, of the weights for the original.
        precision: fp32, fp16 or int8.
        runtime: name and version of what ran it, such as "ort 1.31.1".
        device: what it ran on: a GPU's name, or "CPU: " and the CPU's.
        engine: identity, of an engine; empty in records of before.
        graph_digest: SHA-256 of the bundle's graph: the one that ran, that an engine was built from, or that
            was made from the original. Empty in records of before.
        device_kind: "cpu" or "gpu"; absent in records of before, where the name of the device tells it.
    """

    network: str
    artefact: Literal["graph", "engine", "original"]
    digest: Digest
    precision: Literal["fp32", "fp16", "int8"]
    runtime: Runtime
    device: str
    engine: FileNameOrEmpty = ""
    graph_digest: DigestOrEmpty = ""
    device_kind: Literal["cpu", "gpu", ""] = ""

    def __post_init__(self) -> None:
        """Read the kind of a device off its name, where a record of before does not state it."""
        object.__setattr__(self, "device_kind", self.on.kind)

    @property
    def on(self) -> Device:
        """What it ran on."""
        return Device.of(self.device, self.device_kind)

    def __str__(self) -> str:
        artefact = f"{self.artefact} {self.engine}" if self.engine else self.artefact
        return (
            f"{self.network} {self.precision} {artefact} {self.digest[:12]} on {self.runtime}, {self.device}"
        )


RecordKind: TypeAlias = Literal["validation", "judgement", "selftest", "benchmark", "diagnosis", "energy"]
"""A validation is export's; a judgement is a later one, on images of the user's choice."""


@dataclass(frozen=True, slots=True)
class Record:
    """One run: judged, measured or diagnosed. `result` is the plain form of what came out."""

    kind: RecordKind
    subject: Subject
    environment: Mapping[str, Any]
    result: Mapping[str, Any]
    date: Date = field(default_factory=lambda: _now())
    schema: Literal[1] = SCHEMA

    def as_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return dataclasses.asdict(self)

    @property
    def file_name(self) -> str:
        """Where it goes under runs/: sorts by date."""
        stamp = self.date.replace(":", "").replace("-", "").replace("+0000", "Z")
        return f"{stamp}-{self.kind}-{self.subject.runtime.split()[0]}.json"


@dataclass(frozen=True, slots=True)
class Unverified:
    """A record that says nothing about what is in a bundle.

    Attributes:
        file: its path.
        reason: why it is not believed.
        record: what it says; None where it is damaged.
    """

    file: str
    reason: str
    record: Record | None = None


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="microseconds")


def read_record(path: Path) -> Record:
    """The record in a file. Its result may have any content: see `cnnx.pipeline.records.verified`.

    Raises:
        BundleError: it is damaged, or of a schema this cnnx does not know.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise BundleError(f"the record cannot be read: {error.strerror}", where=path, mend=_MEND) from None
    data = read_json(text, where=path, error=BundleError, mend=_MEND)
    if isinstance(data, dict) and data.get("schema", SCHEMA) != SCHEMA:
        raise BundleError(
            f"the record has schema {data['schema']}, this cnnx reads {SCHEMA}",
            where=path,
            mend="read it with the cnnx that wrote it, or run again",
        )
    record = from_plain(Record, data, where=path, error=BundleError, mend=_MEND)
    for key in ("date", "schema"):
        if key not in data:
            raise BundleError(f"the key {key!r} is missing", where=path, mend=_MEND)
    try:
        datetime.datetime.fromisoformat(record.date)
    except ValueError as error:
        raise BundleError(f"date is {record.date!r}: {error}", where=path, mend=_MEND) from None
    return record
