"""The result of a diagnosis."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from cnnx.agreement import Likeness
from cnnx.pipeline.plain import plain
from cnnx.quant.coverage import Coverage
from cnnx.quant.remedies import Remedies


@dataclass(frozen=True, slots=True)
class LayerDamage:
    """The damage of one INT8 layer alone.

    Attributes:
        layer: name of the layer.
        op: operator of the layer.
        place: index among the layers with MACs, in graph order.
        multiply_adds: MACs for one image.
        tensor: its INT8 input.
        likeness: how closely the network with only this layer in INT8 matches the FP32 graph.
        flips: number of images whose top class changes.
        share: share of the sum of all layers' damages.
        weights_lost: share of its non-zero weights that round to zero.
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
    """A layer with MACs that is not in INT8, and the reason."""

    layer: str
    op: str
    place: int
    data_type: str
    reason: str


@dataclass(frozen=True, slots=True)
class Guess:
    """A class, its name (empty if unknown) and its probability."""

    index: int
    name: str
    probability: float


@dataclass(frozen=True, slots=True)
class FlippedImage:
    """An image whose top class changed, with both lists of five classes, best first."""

    image: str
    label: int | None
    original: tuple[Guess, ...]
    int8: tuple[Guess, ...]


@dataclass(frozen=True, slots=True)
class RemedyTrial:
    """The network with changes, tried on the same images.

    Attributes:
        what: the changes in words.
        remedies: the changes; empty for the bundle as it is.
        cost: MACs for one image that leave INT8.
        likeness: how closely it matches the FP32 graph.
        passes: whether its agreement rates would pass the gates.
        better: whether it is closer to the FP32 graph than the bundle, beyond chance.
    """

    what: str
    remedies: Remedies
    cost: int
    likeness: Likeness
    passes: bool
    better: bool


@dataclass(frozen=True, slots=True)
class Advised:
    """A remedy that was tried and is advised.

    Attributes:
        what: the changes in words.
        place: its index among the trials.
        reaches: whether the network then passes, or, if it passes as it is, comes closer by a quarter.
        command: the export that makes the changes.
        recipe: lines to add to the network's recipe first; empty if the command is enough.
    """

    what: str
    place: int
    reaches: bool
    command: str
    recipe: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Findings:
    """The findings of a diagnosis.

    Attributes:
        images: number of images that layers were tried on.
        image_set: name of their image set.
        floor: network with no layer in INT8, so the damage of FP16 alone.
        whole: the bundle's graph.
        multiply_adds: MACs of the network for one image.
        layers: INT8 layers, the most damaging first.
        others: layers with MACs that are not in INT8, in graph order.
        tensors: quantized tensors, in the order in which they are first read.
        flips: images whose top class changed, sorted by the original's confidence, highest first.
        remedies: changes that were tried, the bundle as it is first.
        advice: the cheapest of them that helps; None if none does.
        reading: the explanation, in sentences.
        notes: notes for the user.
    """

    images: int
    image_set: str
    floor: Likeness
    whole: Likeness
    multiply_adds: int
    layers: tuple[LayerDamage, ...]
    others: tuple[OtherLayer, ...]
    tensors: tuple[Coverage, ...]
    flips: tuple[FlippedImage, ...]
    remedies: tuple[RemedyTrial, ...] = ()
    advice: Advised | None = None
    reading: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return {f.name: plain(getattr(self, f.name)) for f in dataclasses.fields(self)}
