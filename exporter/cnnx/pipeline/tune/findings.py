"""What a search found, as its record keeps it and reports show it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cnnx.agreement import Likeness
from cnnx.pipeline.plain import plain
from cnnx.stats import Interval


@dataclass(frozen=True, slots=True)
class TunedPlacement:
    """A placement that was built.

    Attributes:
        number: in the order of building; 0 has no Q/DQ.
        roles: "fp16" (no Q/DQ), "given" (that of the bundle), "chosen"; may be empty.
        layers: number of layers with Q/DQ.
        shortcuts: number of shortcuts with Q/DQ.
        share: share of the MACs in INT8.
        ratio: its time over that of FP16, from alternating turns; None if it was refused.
        interval: 95 % interval of the ratio.
        likeness: how closely its graph matches the FP32 graph on the selection images.
        passes: whether it passes the gates on these images.
        raced: whether it took part in the final race, and so was measured more closely.
        front: whether no other placement is both as fast and as close to the original.
        refused: why the builder refused it; empty if it did not.
    """

    number: int
    roles: tuple[str, ...]
    layers: int
    shortcuts: int
    share: float
    ratio: float | None
    interval: Interval | None
    likeness: Likeness
    passes: bool
    raced: bool
    front: bool
    refused: str = ""


@dataclass(frozen=True, slots=True)
class TunedSite:
    """A layer or a shortcut that might carry Q/DQ.

    Attributes:
        name: name of the node.
        shortcut: whether it is the shortcut of a sum.
        kind: sites with one number are the same layer in repeated blocks.
        given: whether it had Q/DQ in the bundle.
        chosen: whether it has Q/DQ now.
    """

    name: str
    shortcut: bool
    kind: int
    given: bool
    chosen: bool


@dataclass(frozen=True, slots=True)
class Tuning:
    """The result of a search.

    Attributes:
        batch: batch size that was measured.
        base: precision of what has no Q/DQ: "fp16", or "fp32" with FP32 scales.
        images: number of selection images.
        image_set: their source.
        placements: placements that were built, in that order.
        sites: all sites.
        kinds: number of kinds of sites.
        judged: number of placements that were judged for accuracy.
        against_given: time of the chosen placement over that of the bundle's; None if they are the same, or
            one of them was refused.
        engine: likeness of the chosen engine's own outputs to the FP32 graph; None if nothing was chosen.
        expected_regret: what the model expects to be lost to the best placement, as a share of FP16's time.
        ended: why the search ended.
        seconds: time that it took, with that of runs that were stopped.
        budget_seconds: time that it was given.
        notes: notes for the user.
    """

    batch: int
    base: str
    images: int
    image_set: str
    placements: tuple[TunedPlacement, ...]
    sites: tuple[TunedSite, ...]
    kinds: int
    judged: int
    against_given: Interval | None
    engine: Likeness | None
    expected_regret: float | None
    ended: str
    seconds: float
    budget_seconds: float
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The result as plain data; numbers that are not finite become null."""
        found: dict[str, Any] = plain(dataclasses.asdict(self))
        return found

    def in_role(self, role: str) -> TunedPlacement | None:
        """The placement with this role."""
        return next((each for each in self.placements if role in each.roles), None)


def chosen_of(tuning: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The chosen placement of a record's result."""
    return next((each for each in tuning["placements"] if "chosen" in each["roles"]), None)
