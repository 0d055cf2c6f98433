"""What a diagnosis finds."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from cnnx.agreement import Likeness
from cnnx.bundle import Bundle
from cnnx.pipeline.plain import plain
from cnnx.pipeline.progress import StepTime
from cnnx.quant.coverage import Coverage
from cnnx.record import Record


@dataclass(frozen=True, slots=True)
class LayerDamage:
    """One INT8 layer, and what it does alone.

    Attributes:
        layer: its name.
        op: its operator.
        place: among the layers that multiply, in graph order.
        multiply_adds: for one image.
        tensor: what it reads in INT8.
        likeness: to the FP32 graph, of the network with this layer alone in INT8.
        flips: pictures whose first class that changed.
        share: of the sum of what all layers do alone.
        weights_lost: share of its weights other than zero that round to zero.
    """

    layer: str
    op: str
    place: int
    multiply_adds: int
    tensor: str
    likeness: Likeness
    flips: int
    share: float
    weights_lost: float


@dataclass(frozen=True, slots=True)
class OtherLayer:
    """A layer that multiplies and is not in INT8, with the reason."""

    layer: str
    op: str
    place: int
    data_type: str
    reason: str


@dataclass(frozen=True, slots=True)
class Guess:
    """A class, its name (empty where there are none) and its probability."""

    index: int
    name: str
    probability: float


@dataclass(frozen=True, slots=True)
class FlippedImage:
    """An image whose first class changed, with both lists of five, best first."""

    image: str
    label: int | None
    original: tuple[Guess, ...]
    int8: tuple[Guess, ...]


@dataclass(frozen=True, slots=True)
class Findings:
    """What a diagnosis found.

    Attributes:
        images: pictures that layers were tried on.
        image_set: where they came from.
        floor: no layer in INT8: what FP16 alone makes.
        whole: the bundle's graph.
        layers: in INT8, the most damaging first.
        others: layers that multiply and are not in INT8, in graph order.
        tensors: those quantized, in the order they are first read.
        flips: every picture whose first class changed, those first of which the original was surest.
        reading: what it comes to, in plain words.
        notes: what the user should know of how it was found.
    """

    images: int
    image_set: str
    floor: Likeness
    whole: Likeness
    layers: tuple[LayerDamage, ...]
    others: tuple[OtherLayer, ...]
    tensors: tuple[Coverage, ...]
    flips: tuple[FlippedImage, ...]
    reading: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return {f.name: plain(getattr(self, f.name)) for f in dataclasses.fields(self)}


@dataclass(frozen=True, slots=True)
class DiagnoseResult:
    """Findings, and the record that keeps them."""

    bundle: Bundle
    findings: Findings
    record: Record
    steps: tuple[StepTime, ...]
