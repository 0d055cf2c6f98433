"""Chooses the range of each tensor from the statistics of the calibration images."""

from __future__ import annotations

from cnnx.quant.calibration import Calibration, TensorRange
from cnnx.quant.histogram import TensorStatistics
from cnnx.quant.methods import METHODS, check_method
from cnnx.quant.observation import Observation


def calibration_of(observation: Observation, *, method: str, images_digest: str) -> Calibration:
    """Choose a range for each sampled tensor.

    Args:
        observation: statistics of the calibration images.
        method: name in `METHODS`.
        images_digest: hash of the list of images, to be stored.

    Raises:
        UsageError: the method is unknown.
    """
    check_method(method)
    nonfinite = observation.nonfinite()
    return Calibration(
        method,
        observation.images,
        images_digest,
        ranges={
            name: _range(observation.statistics(name), method, usable=name not in nonfinite)
            for name in observation.sampled
        },
        maxima=observation.maxima(),
        means={
            name: tuple(map(_short, found.tolist()))
            for name in observation.sampled
            if (found := observation.means(name)) is not None
        },
        nonfinite=nonfinite,
    )


def _short(value: float) -> float:
    """Round to six digits, which exceeds the accuracy of a mean over images."""
    return float(f"{value:.6g}")


def _range(statistics: TensorStatistics, method: str, *, usable: bool) -> TensorRange:
    amax = METHODS[method](statistics) if usable else 0.0
    return TensorRange(
        amax=amax,
        maximum=statistics.maximum,
        method=method,
        saturated_share=statistics.share_above(amax) if usable else 0.0,
        zeros_share=statistics.zeros_share,
    )
