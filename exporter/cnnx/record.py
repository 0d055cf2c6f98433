"""The schema of a run record: what was validated or measured, where, when, and the result.

Records are plain data and never change once written. Statistics are derived from the raw samples they keep.
`SCHEMA` is incremented when a field changes its meaning:

    1  first version. Since cnnx 0.2 a subject also has the digest of its graph (empty in older records) and
       the kind of its device (read off the device's name in older records).
    2  a validation has the top-1 class of every image, its divergence and its accuracy in counts; a benchmark
       says which measurements took turns. Records of schema 1 are read, without these.
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
from cnnx.limits import JSON_BYTES
from cnnx.schema import Date, Digest, DigestOrEmpty, FileNameOrEmpty, from_plain, read_json, with_hints
from cnnx.store.reading import read_bytes

SCHEMA: Literal[2] = 2
READABLE = (1, 2)
_HINT = "delete the record, or copy it again from the machine that wrote it; no other file depends on it"

Runtime = Annotated[
    str,
    Meta(
        pattern=r"^[^\s/\\\x00]+( [^\x00\n]*)?(?![\s\S])",
        description="runtime name and version, such as 'ort 1.31.1'",
    ),
]


@dataclass(frozen=True, slots=True)
class LayerRow:
    """One layer of a network, as printed by `cnnx show`.

    Attributes:
        name: layer name in the model or graph.
        op: operator or module type.
        output_shape: output shape without the batch dimension.
        parameters: number of trainable values, including biases.
        multiply_adds: MACs per image, excluding biases.
        activation_bytes: bytes written per image; 0 for views of the input and in-place layers.
    """

    name: str
    op: str
    output_shape: tuple[int, ...]
    parameters: int
    multiply_adds: int
    activation_bytes: int


@dataclass(frozen=True, slots=True)
class Subject:
    """What was validated or measured.

    Attributes:
        network: name of the recipe.
        artefact: "graph" (the bundle's ONNX), "engine" (a vendor's file) or "original".
        digest: SHA-256 of that file; for the original, of the weights.
        precision: fp32, fp16 or int8.
        runtime: runtime name and version, such as "ort 1.31.1".
        device: what ran it: a GPU's name, or "CPU: " and the CPU's name.
        engine: identity of an engine; empty in older records.
        graph_digest: SHA-256 of the bundle's graph: the graph that ran, the source of the engine, or the
            export of the original. Empty in older records.
        device_kind: "cpu" or "gpu"; absent in older records, where the device's name shows it.
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
        """Read the kind of a device off its name, if an older record does not state it."""
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


RecordKind: TypeAlias = Literal[
    "validation",
    "judgement",
    "selftest",
    "benchmark",
    "diagnosis",
    "tensors",
    "energy",
    "streams",
    "soak",
    "tuning",
]
"""Export writes a validation; later validations, on images the user chooses, are judgements."""


@dataclass(frozen=True, slots=True)
class Record:
    """One validation, measurement or diagnosis; `result` is its result as plain data."""

    kind: RecordKind
    subject: Subject
    environment: Mapping[str, Any]
    result: Mapping[str, Any]
    date: Date = field(default_factory=lambda: _now())
    schema: Literal[1, 2] = SCHEMA

    def as_dict(self) -> dict[str, Any]:
        """The record as plain data for JSON."""
        return dataclasses.asdict(self)

    @property
    def file_name(self) -> str:
        """File name under runs/; names sort by date."""
        stamp = self.date.replace(":", "").replace("-", "").replace("+0000", "Z")
        return f"{stamp}-{self.kind}-{self.subject.runtime.split()[0]}.json"


@dataclass(frozen=True, slots=True)
class Unverified:
    """A record that does not apply to the contents of a bundle.

    Attributes:
        file: path of the record.
        reason: why the record is not used.
        record: the record itself; None if it is damaged.
    """

    file: str
    reason: str
    record: Record | None = None


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="microseconds")


def read_record(path: Path) -> Record:
    """Read a record from a file. Its result is not checked; see `cnnx.pipeline.records.verified`.

    Raises:
        BundleError: the record is damaged, or has a schema that this cnnx does not know.
    """
    try:
        text = read_bytes(path, most=JSON_BYTES)
    except OSError as error:
        raise BundleError(f"the record cannot be read: {error.strerror}", where=path, hint=_HINT) from None
    data = read_json(text, where=path, error=BundleError, hint=_HINT)
    if isinstance(data, dict) and data.get("schema", SCHEMA) not in READABLE:
        raise BundleError(
            f"the record has schema {data['schema']}, but this cnnx reads {' and '.join(map(str, READABLE))}",
            where=path,
            hint="read it with the cnnx version that wrote it, or run the command again",
        )
    if isinstance(data, dict) and "result" in data:
        data["result"] = with_hints(data["result"])
    record = from_plain(Record, data, where=path, error=BundleError, hint=_HINT)
    for key in ("date", "schema"):
        if key not in data:
            raise BundleError(f"the key {key!r} is missing", where=path, hint=_HINT)
    try:
        datetime.datetime.fromisoformat(record.date)
    except ValueError as error:
        raise BundleError(f"invalid date {record.date!r}: {error}", where=path, hint=_HINT) from None
    return record
