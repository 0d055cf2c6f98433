"""The types that the result of a diagnosis record is checked against when it is read.

Fields with a default were added after version 0.1, or are absent if not measured. Floats that may be null are
null if they were not finite, which JSON cannot represent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from cnnx.pipeline.diagnose.findings import OtherLayer
from cnnx.quant.remedies import Kind
from cnnx.schema import Count, Quantity, Rate


@dataclass(frozen=True, slots=True)
class PlainLikeness:
    """How closely two sets of logits match, as `cnnx.agreement.Likeness` describes it."""

    divergence: float | None
    top1_agreement: Rate
    top1_in_top5: Rate
    top5_agreement: Rate
    logit_sqnr_db: float | None


@dataclass(frozen=True, slots=True)
class PlainLayerDamage:
    """The damage of one INT8 layer, as `cnnx.pipeline.diagnose.findings.LayerDamage` describes it."""

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
    """How well a tensor's range fits, as `cnnx.quant.coverage.Coverage` describes it."""

    tensor: str
    read_by: tuple[str, ...]
    amax: Annotated[float, Meta(gt=0, description="a number above 0")]
    maximum: Quantity
    saturated: Rate | None
    underflow: Rate | None
    body: Quantity | None
    channels: Count
    dead_channels: Count
    middle_steps: Quantity | None


@dataclass(frozen=True, slots=True)
class PlainGuess:
    """A class, its name (empty if unknown) and its probability."""

    index: Count
    name: str
    probability: Rate | None


@dataclass(frozen=True, slots=True)
class PlainFlippedImage:
    """An image whose top class changed, with both lists of five classes."""

    image: str
    label: Count | None
    original: tuple[PlainGuess, ...]
    int8: tuple[PlainGuess, ...]


@dataclass(frozen=True, slots=True)
class PlainRemedy:
    """One change, as `cnnx.quant.remedies.Remedy` describes it."""

    kind: Kind
    layers: tuple[str, ...]
    method: str
    on: bool
    images: Count
    cost: Count


@dataclass(frozen=True, slots=True)
class PlainRemedyTrial:
    """The network with changes, as `cnnx.pipeline.diagnose.findings.RemedyTrial` describes it."""

    what: str
    remedies: tuple[PlainRemedy, ...]
    cost: Count
    likeness: PlainLikeness
    passes: bool
    better: bool


@dataclass(frozen=True, slots=True)
class PlainAdvice:
    """What is advised, as `cnnx.pipeline.diagnose.findings.Advised` describes it."""

    what: str
    place: Count
    reaches: bool
    command: str
    recipe: tuple[str, ...]


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
    multiply_adds: Count = 0
    remedies: tuple[PlainRemedyTrial, ...] = ()
    advice: PlainAdvice | None = None
    reading: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
