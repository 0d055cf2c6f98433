"""Self-test: checks that an engine computes the same as the graph that export validated.

The self-test does not measure accuracy; export compared that with the original. For each self-test image the
bundle stores the logits of the graph, g, and of the original, o. An engine returns e.

The error e - g of a sound engine is the difference between two runtimes. In FP32 and FP16 it is far below
any fault. In INT8 it is not: a difference in the last bit moves values across quantization steps, layer
after layer, until the error is as large as the quantization error g - o. Two properties still reveal a fault:

- A sound engine rounds differently but just as well, so it is as far from the original as the graph is. A
  fault adds to that distance; an engine of higher precision reduces it.
- Rounding errors average out over images. The errors of a damaged weight do not.

Limits are relative to g - o. Their factors were set with planted faults and with sound engines plus noise
(docs/selftest.md).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cnnx.agreement import Logits, divergences
from cnnx.errors import BundleError
from cnnx.options import Precision
from cnnx.record import Subject
from cnnx.schema import Count, from_plain
from cnnx.stats import Verdict, worst

_WORST_SHARE = 0.02
"""Share of images that the per-image limits ignore; a fault that affects more is detected."""
_MIN_IMAGES = 8
"""Minimum number of images for a pass; fewer would too often miss a fault in every other image."""
_MIN_IMAGES_ACROSS = 100
"""Minimum number of images for the two checks that average over images to fail an engine."""
_SMALLEST_DB = -200.0
_LARGEST_DB = 200.0


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits for engines of one precision.

    Attributes:
        slack_db: allowed distance of the engine's median signal-to-noise ratio below the graph's own.
        ceiling_db: upper bound of the resulting limit on the median.
        divergence: divergence in nats that a single image may always have.
    """

    slack_db: float
    ceiling_db: float
    divergence: float


LIMITS: Mapping[Precision, Limits] = {
    # Export requires the FP32 graph to match the original within 1e-4 of the largest logit: 80 dB.
    "fp32": Limits(slack_db=20.0, ceiling_db=80.0, divergence=1e-5),
    "fp16": Limits(slack_db=20.0, ceiling_db=42.0, divergence=1e-2),
    # Two independent roundings differ by 3 dB more than one rounding differs from none.
    "int8": Limits(slack_db=4.0, ceiling_db=42.0, divergence=1e-2),
}
_SINGLE_SLACK_DB = 6.0
"""Extra slack for single images, which scatter more than the median; added to the graph's own spread."""
_SINGLE_CEILING_DB = 10.0
_DIVERGENCE_FACTOR = 4.0
_SYSTEMATIC = 8.0
"""Allowed squared mean error over images, relative to that of independent errors of the same size."""
_SYSTEMATIC_CEILING_DB = 50.0
_NEARER_DB, _FURTHER_DB = -3.0, 2.0
"""Allowed range of the engine's distance from the original, relative to the graph's, median image."""


@dataclass(frozen=True, slots=True)
class Check:
    """One quantity with its limit and verdict.

    Attributes:
        name: measured quantity.
        unit: "dB" or "nats".
        value: measured value.
        limit: limit of the value.
        at_least: whether the limit is a lower bound.
        verdict: passed, failed, or inconclusive with too few images.
    """

    name: str
    unit: Literal["dB", "nats"]
    value: float
    limit: float
    at_least: bool
    verdict: Verdict

    @property
    def margin(self) -> float:
        """Distance from the limit in decibels; positive if the check passes."""
        if self.unit == "nats":
            return 10 * math.log10(self.limit / max(self.value, 1e-20))
        return self.value - self.limit if self.at_least else self.limit - self.value


@dataclass(frozen=True, slots=True)
class SelfTest:
    """Result of one self-test.

    Attributes:
        subject: engine or graph that was tested.
        images: number of images.
        image_set: source of the images.
        verdict: overall verdict.
        checks: one per quantity.
        worst_images: names and signal-to-noise ratios (dB) of the images with the lowest ratio, worst first.
        nonfinite: number of images with a non-finite logit; a single one fails the self-test.
    """

    subject: Subject
    images: Count
    image_set: str
    verdict: Verdict
    checks: tuple[Check, ...]
    worst_images: tuple[tuple[str, float], ...]
    nonfinite: Count

    def __post_init__(self) -> None:
        """Check that the verdict follows from the checks; in an edited record it may not.

        Raises:
            ValueError: the verdict does not follow from the checks.
        """
        follows = Verdict.FAILED if self.nonfinite else worst(check.verdict for check in self.checks)
        if self.verdict is not follows:
            raise ValueError(
                f"the verdict is {self.verdict.value!r}, but checks and nonfinite give {follows.value!r}"
            )

    def as_dict(self) -> dict[str, Any]:
        """The self-test as plain data for JSON."""
        data = dataclasses.asdict(self)
        data["verdict"] = self.verdict.value
        for check in data["checks"]:
            check["verdict"] = check["verdict"].value
        return data


def self_test_from_dict(data: object, *, where: object = "the self-test") -> SelfTest:
    """Create a self-test from the output of `SelfTest.as_dict`.

    Raises:
        BundleError: a key is unknown or missing, or a value has another type or range.
    """
    return from_plain(SelfTest, data, where=where, error=BundleError, at="result")


def self_test(
    graph: Logits,
    engine: Logits,
    *,
    original: Logits,
    precision: Precision,
    subject: Subject,
    ids: Sequence[str],
    image_set: str,
) -> SelfTest:
    """Compare an engine's logits, (N, classes), with those of the bundle's graph for the same images.

    Args:
        graph: logits of the graph as recorded at export; finite.
        engine: logits of the engine under test.
        original: logits of the original; finite.
        precision: precision of the bundle.
        subject: what produced `engine`.
        ids: N image names.
        image_set: description of the image source.
    """
    finite: NDArray[np.bool_] = np.asarray(np.isfinite(engine).all(axis=1))
    g, o = graph.astype(np.float64), original.astype(np.float64)
    e = np.where(finite[:, None], engine, 0.0).astype(np.float64)
    ratios = np.where(finite, _ratios_db(g, e), _SMALLEST_DB)
    checks = _single_images(g, o, e, ratios, LIMITS[precision])
    if precision != "fp32":
        checks += _across_images(g, o, e, int8=precision == "int8")
    if len(graph) < _MIN_IMAGES:
        checks = tuple(map(_open, checks))
    verdict = worst(check.verdict for check in checks)
    order = np.argsort(ratios, kind="stable")[:5]
    return SelfTest(
        subject=subject,
        images=len(graph),
        image_set=image_set,
        verdict=verdict if finite.all() else Verdict.FAILED,
        checks=checks,
        worst_images=tuple((ids[i], float(ratios[i])) for i in map(int, order)),
        nonfinite=int((~finite).sum()),
    )


def _open(check: Check) -> Check:
    """The check for too few images: a pass becomes inconclusive, a failure stays."""
    undecided = check.verdict is Verdict.PASSED
    return dataclasses.replace(check, verdict=Verdict.INCONCLUSIVE) if undecided else check


def _single_images(
    g: NDArray[np.float64],
    o: NDArray[np.float64],
    e: NDArray[np.float64],
    ratios: NDArray[np.float64],
    limits: Limits,
) -> tuple[Check, ...]:
    """Checks on single images: the median, and the worst after ignoring a few."""
    own = _ratios_db(g, o)
    single = limits.slack_db + _SINGLE_SLACK_DB
    median_limit = min(float(np.median(own)) - limits.slack_db, limits.ceiling_db)
    single_limit = min(_low(own) - single, limits.ceiling_db - _SINGLE_CEILING_DB)
    divergence_limit = max(_DIVERGENCE_FACTOR * -_low(-divergences(o, g)), limits.divergence)
    return (
        _check("median signal-to-noise ratio", "dB", float(np.median(ratios)), median_limit),
        _check("signal-to-noise ratio of 98 % of the images", "dB", _low(ratios), single_limit),
        _check(
            "divergence of 98 % of the images",
            "nats",
            -_low(-divergences(g, e)),
            divergence_limit,
            at_least=False,
        ),
    )


def _across_images(
    g: NDArray[np.float64], o: NDArray[np.float64], e: NDArray[np.float64], *, int8: bool
) -> tuple[Check, ...]:
    """Checks that need all images together."""
    n, few = len(g), len(g) < _MIN_IMAGES_ACROSS
    own = np.square(g - o).sum(axis=1)
    grown = [_db(theirs, ours) for theirs, ours in zip(np.square(e - o).sum(axis=1), own, strict=True)]
    distance, name = float(np.median(grown)), "distance from the original, over the graph's"
    nearer = _check(f"{name}, at least", "dB", distance, _NEARER_DB, few=few)
    if not int8:  # in FP16, two runtimes differ by more than the graph and the original do
        return (nearer,)
    signal, errors = np.square(g).sum(axis=1).mean(), np.square(e - g).sum(axis=1)
    # If the errors exceed the graph's own, as with a few outlier images, their size counts.
    independent = max(own.mean(), errors.mean()) * _SYSTEMATIC / n
    limit = min(_db(signal, independent), _SYSTEMATIC_CEILING_DB)
    systematic = _db(signal, np.square((e - g).mean(axis=0)).sum())
    return (
        nearer,
        _check(f"{name}, at most", "dB", distance, _FURTHER_DB, at_least=False, few=few),
        _check("signal over systematic error", "dB", systematic, limit, few=few),
    )


def _check(
    name: str,
    unit: Literal["dB", "nats"],
    value: float,
    limit: float,
    *,
    at_least: bool = True,
    few: bool = False,
) -> Check:
    kept = value >= limit if at_least else value <= limit
    missed = Verdict.INCONCLUSIVE if few else Verdict.FAILED
    return Check(name, unit, value, limit, at_least, Verdict.PASSED if kept else missed)


def _ratios_db(signal: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """Signal-to-noise ratio of each image, clamped to +-200 dB."""
    powers = np.square(signal).sum(axis=1), np.square(other - signal).sum(axis=1)
    return np.array([_db(power, noise) for power, noise in zip(*powers, strict=True)])


def _db(power: Any, noise: Any) -> float:
    if noise == 0:
        return _LARGEST_DB
    ratio = float(power) / float(noise)
    return min(max(10 * math.log10(ratio), _SMALLEST_DB), _LARGEST_DB) if ratio > 0 else _SMALLEST_DB


def _low(values: NDArray[np.float64]) -> float:
    """The lowest value after dropping the lowest 2 %, rounded down."""
    return float(np.sort(values)[int(_WORST_SHARE * len(values))])
