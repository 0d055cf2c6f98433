"""Chooses the range of each tensor from the statistics of the calibration images."""

from __future__ import annotations

from collections.abc import Mapping

from cnnx.quant.calibration import Calibration, TensorRange
from cnnx.quant.histogram import TensorStatistics
from cnnx.quant.methods import FILE, LEVELS, METHODS, ONE_SIDED_LEVELS, check_method
from cnnx.quant.observation import Observation


def calibration_of(
    observation: Observation, *, method: str, images_digest: str, of_file: Mapping[str, float] | None = None
) -> Calibration:
    """Choose a range for each sampled tensor.

    Args:
        observation: statistics of the calibration images.
        method: name in `METHODS`, or `FILE`.
        images_digest: hash of the list of images, to be stored.
        of_file: for `FILE`, the file's range of each tensor that it gives a scale.

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
            name: _range(
                observation.statistics(name),
                method,
                usable=name not in nonfinite,
                one_sided=name in observation.one_sided and method != FILE,
                given=None if method != FILE else (of_file or {}).get(name, 0.0),
            )
            for name in observation.sampled
        },
        maxima=observation.maxima(),
        means={
            name: tuple(map(_short, found.tolist()))
            for name in (observation.sampled if method != FILE else ())
            if (found := observation.means(name)) is not None
        },
        nonfinite=nonfinite,
    )


def _short(value: float) -> float:
    """Round to six digits, which exceeds the accuracy of a mean over images."""
    return float(f"{value:.6g}")


def _range(
    statistics: TensorStatistics, method: str, *, usable: bool, one_sided: bool, given: float | None
) -> TensorRange:
    amax = given if given is not None else METHODS[method](statistics, LEVELS) if usable else 0.0
    return TensorRange(
        amax=amax,
        maximum=statistics.maximum,
        method=method,
        saturated_share=statistics.share_above(amax) if usable and amax else 0.0,
        zeros_share=statistics.zeros_share,
        one_sided=METHODS[method](statistics, ONE_SIDED_LEVELS) if one_sided and amax else None,
    )
