"""The schema of a run: what was judged or measured, where, when, and what came out.

Records are plain data and never change once written; statistics are derived from the raw samples they
keep. `SCHEMA` counts up when a field changes its meaning:

    1  first.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cnnx.errors import BundleError

SCHEMA = 1


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
        device: what it ran on.
        engine: identity, of an engine; empty in records of before.
    """

    network: str
    artefact: Literal["graph", "engine", "original"]
    digest: str
    precision: str
    runtime: str
    device: str
    engine: str = ""

    def __str__(self) -> str:
        artefact = f"{self.artefact} {self.engine}" if self.engine else self.artefact
        return (
            f"{self.network} {self.precision} {artefact} {self.digest[:12]} on {self.runtime}, {self.device}"
        )


RecordKind = Literal["validation", "benchmark", "diagnosis", "energy"]


@dataclass(frozen=True, slots=True)
class Record:
    """One run: judged, measured or diagnosed. `result` is the plain form of what came out."""

    kind: RecordKind
    subject: Subject
    environment: Mapping[str, Any]
    result: Mapping[str, Any]
    date: str = field(default_factory=lambda: _now())
    schema: int = SCHEMA

    def as_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return dataclasses.asdict(self)

    @property
    def file_name(self) -> str:
        """Where it goes under runs/: sorts by date."""
        stamp = self.date.replace(":", "").replace("-", "").replace("+0000", "Z")
        return f"{stamp}-{self.kind}-{self.subject.runtime.split()[0]}.json"


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="microseconds")


def read_record(path: Path) -> Record:
    """The record in a file.

    Raises:
        BundleError: it is damaged, or of a schema this cnnx does not know.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["schema"] != SCHEMA:
            raise BundleError(
                f"the record has schema {data['schema']}, this cnnx reads {SCHEMA}",
                where=path,
                mend="read it with the cnnx that wrote it, or run again",
            )
        data["subject"] = Subject(**data["subject"])
        return Record(**data)
    except (ValueError, KeyError, TypeError) as error:
        raise BundleError(f"the record is damaged: {error}", where=path, mend="delete it") from None
