"""The result of a comparison of tensors along a network."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from cnnx.bundle import Bundle
from cnnx.pipeline.diagnose.watching import How
from cnnx.pipeline.plain import plain
from cnnx.pipeline.progress import StepTime
from cnnx.record import Record
from cnnx.report.result import Result
from cnnx.report.table import Block


@dataclass(frozen=True, slots=True)
class TensorNoise:
    """Signal-to-noise ratio of one tensor, compared with the FP32 graph's.

    Attributes:
        tensor: name in the FP32 graph.
        nodes: nodes that compute it from the tensors compared before it.
        quantized: tensors that these nodes read in INT8.
        scale_of: the quantized tensor whose scale it is stored with; empty if it is stored as floats.
        db: signal-to-noise ratio; None if it is exact, or not finite.
        expected_db: what the graph gives in ONNX Runtime; None if it is exact.
        own_db: the signal compared with the noise that the graph adds here; None if it adds none.
        finite: whether all values are finite.
        gain: factor by which the values are too large, if that is most of the noise.
        falls: whether it has clearly more noise than the graph gives it, and so have tensors after it.
    """

    tensor: str
    nodes: tuple[str, ...]
    quantized: tuple[str, ...]
    scale_of: str
    db: float | None
    expected_db: float | None
    own_db: float | None
    finite: bool
    gain: float | None
    falls: bool


@dataclass(frozen=True, slots=True)
class FirstFall:
    """The first tensor that falls.

    Attributes:
        tensor: name in the FP32 graph.
        nodes: nodes that compute it from the tensors before it, which do not fall.
        suspects: quantized tensors whose scale can be wrong, the likeliest first; empty if none is read.
    """

    tensor: str
    nodes: tuple[str, ...]
    suspects: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TensorFindings:
    """The findings of a comparison of tensors.

    Attributes:
        images: number of images that were run.
        image_set: name of their image set.
        how: how tensors were seen: "unfused" (emitted by an engine that fuses as ever), "outputs" (extra
            outputs of an engine, which change fusion) or "graph" (the graph in ONNX Runtime).
        rows: tensors in graph order.
        first: the first that falls; None if none does.
        unknown: number of tensors that the engine emitted and that are none of the graph's.
        reading: the explanation, in sentences.
        notes: notes for the user.
    """

    images: int
    image_set: str
    how: How
    rows: tuple[TensorNoise, ...]
    first: FirstFall | None
    unknown: int
    reading: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return {f.name: plain(getattr(self, f.name)) for f in dataclasses.fields(self)}


@dataclass(frozen=True, slots=True, repr=False)
class TensorsResult(Result):
    """The findings, and their record."""

    bundle: Bundle
    findings: TensorFindings
    record: Record
    steps: tuple[StepTime, ...]

    def blocks(self, *, verbose: bool = False) -> Iterable[Block]:
        """What the command prints."""
        from cnnx.report.tables.tensors import tensor_blocks

        return tensor_blocks(self.findings.as_dict(), whole=verbose)
