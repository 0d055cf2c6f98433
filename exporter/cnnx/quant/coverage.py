"""Measures how well an INT8 range covers the values of a tensor: saturation, underflow, dead channels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cnnx.quant.observation import Observation

STEPS = 127
"""INT8 steps from zero to the end of a range."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """Coverage of one tensor by its range. Shares refer to the values sampled from the calibration images.

    Attributes:
        tensor: name of the tensor.
        read_by: nodes that read the tensor in INT8.
        amax: largest |x| that is not clipped.
        maximum: exact largest finite |x|.
        saturated: share of the non-zero values beyond `amax`.
        underflow: share of the non-zero values that round to zero.
        body: 99.9th percentile of |x|, divided by `amax`; small if few values determine the range.
        channels: number of channels with any non-zero value.
        dead_channels: number of those that never reach half a step, so that all their values become zero.
        middle_steps: largest value of the median channel, in steps, of 127.
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
        """Share of the channels that become all zero under the range."""
        return self.dead_channels / self.channels if self.channels else 0.0


def coverage(
    seen: Observation, tensor: str, *, step: float, amax: float, read_by: tuple[str, ...]
) -> Coverage:
    """Return the coverage of a sampled tensor for a given step size.

    Args:
        seen: statistics of the calibration images.
        tensor: one of `seen.sampled`.
        step: |x| of one step.
        amax: largest |x| that is not clipped.
        read_by: nodes that read the tensor in INT8.
    """
    statistics = seen.statistics(tensor)
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
        middle_steps=min(amax, float(np.median(alive))) / step if len(alive) else 0.0,
    )
