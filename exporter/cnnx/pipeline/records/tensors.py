"""The types that the result of a record of tensors is checked against when it is read."""

from __future__ import annotations

from dataclasses import dataclass

from cnnx.pipeline.diagnose.tensor_findings import FirstFall, TensorNoise
from cnnx.pipeline.diagnose.watching import How
from cnnx.schema import Count


@dataclass(frozen=True, slots=True)
class Tensors:
    """The result of a comparison, as `cnnx.pipeline.diagnose.tensor_findings.TensorFindings` describes it."""

    images: Count
    image_set: str
    how: How
    rows: tuple[TensorNoise, ...]
    first: FirstFall | None
    unknown: Count
    reading: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
