"""What the record of a diagnosis holds: the types that it is checked by when it is read.

Fields with a default came after version 0.1 or are absent where nothing was measured. Floats that may be null
were not finite: JSON has no word for it.
"""

from __future__ import annotations

from dataclasses import dataclass

from cnnx.pipeline.diagnose.findings import OtherLayer
from cnnx.schema import Count, Quantity, Rate


@dataclass(frozen=True, slots=True)
class PlainLikeness:
    """How like two sets of logits are, as `cnnx.agreement.Likeness` describes it."""

    divergence: float | None
    top1_agreement: Rate
    top1_in_top5: Rate
    top5_agreement: Rate
    logit_sqnr_db: float | None


@dataclass(frozen=True, slots=True)
class PlainLayerDamage:
    """What a layer does alone in INT8, as `cnnx.pipeline.diagnose.findings.LayerDamage` describes it."""

    layer: str
    op: str
    place: Count
    multiply_adds: Count
    tensor: str
    likeness: PlainLikeness
    flips: Count
    share: Rate
    weights_lost: Rate


@dataclass(frozen=True, slots=True)
class PlainCoverage:
    """A tensor under its range, as `cnnx.quant.coverage.Coverage` describes it."""

    tensor: str
    read_by: tuple[str, ...]
    amax: Quantity
    maximum: Quantity
    saturated: Rate | None
    underflow: Rate | None
    body: Quantity | None
    channels: Count
    dead_channels: Count
    middle_steps: Quantity | None


@dataclass(frozen=True, slots=True)
class PlainGuess:
    """A class, its name (empty where there are none) and its probability."""

    index: Count
    name: str
    probability: Rate | None


@dataclass(frozen=True, slots=True)
class PlainFlippedImage:
    """An image whose first class changed, with both lists of five."""

    image: str
    label: Count | None
    original: tuple[PlainGuess, ...]
    int8: tuple[PlainGuess, ...]


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The result of a diagnosis, as `cnnx.pipeline.diagnose.findings.Findings` describes it."""

    images: Count
    image_set: str
    floor: PlainLikeness
    whole: PlainLikeness
    layers: tuple[PlainLayerDamage, ...]
    others: tuple[OtherLayer, ...]
    tensors: tuple[PlainCoverage, ...]
    flips: tuple[PlainFlippedImage, ...]
    reading: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
