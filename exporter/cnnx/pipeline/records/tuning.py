"""The types that the result of a record of tuning is checked against when it is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta

from cnnx.pipeline.records.diagnosis import PlainLikeness
from cnnx.pipeline.tune.findings import TunedSite
from cnnx.schema import Count, Positive, Quantity, Rate
from cnnx.stats import Interval


@dataclass(frozen=True, slots=True)
class PlainTunedPlacement:
    """A placement that was built, as `cnnx.pipeline.tune.findings.TunedPlacement` describes it."""

    number: Count
    roles: tuple[Literal["fp16", "given", "chosen"], ...]
    layers: Count
    shortcuts: Count
    share: Rate
    ratio: Quantity | None
    interval: Interval | None
    likeness: PlainLikeness
    passes: bool
    raced: bool
    front: bool
    refused: str = ""


@dataclass(frozen=True, slots=True)
class PlainTuning:
    """The result of a search, as `cnnx.pipeline.tune.findings.Tuning` describes it."""

    batch: Positive
    base: Literal["fp16", "fp32"]
    images: Count
    image_set: str
    placements: Annotated[
        tuple[PlainTunedPlacement, ...], Meta(min_length=1, description="a list of at least one placement")
    ]
    sites: tuple[TunedSite, ...]
    kinds: Count
    judged: Count
    against_given: Interval | None
    engine: PlainLikeness | None
    expected_regret: float | None
    ended: str
    seconds: Quantity
    budget_seconds: Quantity
    notes: tuple[str, ...] = ()
