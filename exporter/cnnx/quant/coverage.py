"""How the values of a tensor fall on the steps of its INT8 range: what is cut off, what is rounded away."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cnnx.quant.observation import Observation

STEPS = 127
"""From zero to the end of a range."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """One tensor under its range. Shares are of the values sampled from the calibration pictures.

    Attributes:
        tensor: its name.
        read_by: nodes that read it in INT8.
        amax: |x| that becomes 127.
        maximum: largest finite |x| seen, exactly.
        saturated: share of the values other than zero that lie beyond `amax`.
        underflow: share of the values other than zero that round to zero.
        body: |x| below which 99.9 % of all values lie, over `amax`: small where few values set the range.
        channels: those that are ever other than zero.
        dead_channels: of these, how many never reach half a step: nothing of them is left.
        middle_steps: steps that the middle channel's largest value takes, of 127.
    """

    tensor: str
    read_by: tuple[str, ...]
    amax: float
    maximum: float
    saturated: float
    underflow: float
    body: float
    channels: int
    dead_channels: int
    middle_steps: float

    @property
    def dead_share(self) -> float:
        """Share of the channels that the range leaves nothing of."""
        return self.dead_channels / self.channels if self.channels else 0.0


def coverage(seen: Observation, tensor: str, *, step: float, read_by: tuple[str, ...]) -> Coverage:
    """What a step's size means for a sampled tensor.

    Args:
        seen: what the calibration pictures showed.
        tensor: one of `seen.sampled`.
        step: |x| of one step.
        read_by: nodes that read it in INT8.
    """
    statistics, amax = seen.statistics(tensor), step * STEPS
    channels = seen.channel_maxima(tensor)
    alive = channels[channels > 0]
    return Coverage(
        tensor=tensor,
        read_by=read_by,
        amax=amax,
        maximum=statistics.maximum,
        saturated=statistics.share_above(amax),
        underflow=1 - statistics.share_above(step / 2) if statistics.count > statistics.zeros else 0.0,
        body=min(1.0, statistics.quantile(0.999) / amax),
        channels=len(alive),
        dead_channels=int((alive <= step / 2).sum()),
        middle_steps=min(float(STEPS), float(np.median(alive)) / step) if len(alive) else 0.0,
    )
