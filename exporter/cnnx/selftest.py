"""The self-test: whether an engine computes what the bundle's graph computed when it was judged at export.

It says nothing of accuracy, which export judged against the original. Each image of the self-test has the
logits of the graph, g, and of the original, o; an engine gives e. The error e - g of a sound engine is what
two runtimes differ by. In FP32 and FP16 that is far below any fault. In INT8 it is not: a difference in the
last bit moves values across quantization steps, layer after layer, until the error is as large as the
quantization error g - o itself. Two things tell a fault then. A sound engine rounds otherwise and as well:
its distance from the original is the graph's; a fault adds to it, and an engine of a higher precision has
lost it. And rounding errors average out over images, where a damaged weight's do not. Limits are relative
to g - o; the factors were set on planted faults and on sound engines with noise (docs/selftest.md).
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
"""Share of the images that a limit on single images leaves out: a fault that hits more is found."""
_LEAST = 8
"""Images from which a self-test can pass: fewer would miss a fault that hits every other image too often."""
_ENOUGH = 100
"""Images from which the two checks that average over images can fail an engine."""
_SMALLEST_DB = -200.0
_LARGEST_DB = 200.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What an engine of one precision is held to.

    Attributes:
        slack_db: how far below the graph's own signal-to-noise ratio the engine's median may lie.
        ceiling_db: what the limit on that median never exceeds.
        divergence: nats that a single image may always have.
    """

    slack_db: float
    ceiling_db: float
    divergence: float


LIMITS: Mapping[Precision, Limits] = {
    # Export holds the FP32 graph to the original by 1e-4 of the largest logit: 80 dB.
    "fp32": Limits(slack_db=20.0, ceiling_db=80.0, divergence=1e-5),
    "fp16": Limits(slack_db=20.0, ceiling_db=42.0, divergence=1e-2),
    # Two independent roundings differ by 3 dB more than one does from none.
    "int8": Limits(slack_db=4.0, ceiling_db=42.0, divergence=1e-2),
}
_SINGLE_SLACK_DB = 6.0
"""Single images scatter: what their limit lies below the median's, beyond the spread of the graph's own."""
_SINGLE_CEILING_DB = 10.0
_DIVERGENCE_FACTOR = 4.0
_SYSTEMATIC = 8.0
"""Mean error over images, squared, in units of what independent errors of the same size would leave."""
_SYSTEMATIC_CEILING_DB = 50.0
_NEARER_DB, _FURTHER_DB = -3.0, 2.0
"""How much nearer to the original than the graph, or further from it, an engine's median image may be."""


@dataclass(frozen=True, slots=True)
class Check:
    """One quantity, its limit, and what follows.

    Attributes:
        name: what was measured.
        unit: "dB" or "nats".
        value: what was found.
        limit: what it is held to.
        at_least: whether the limit is a lower one.
        verdict: passed, failed, or inconclusive where too few images could tell.
    """

    name: str
    unit: Literal["dB", "nats"]
    value: float
    limit: float
    at_least: bool
    verdict: Verdict

    @property
    def margin(self) -> float:
        """Distance from the limit in decibels, positive where it is kept."""
        if self.unit == "nats":
            return 10 * math.log10(self.limit / max(self.value, 1e-20))
        return self.value - self.limit if self.at_least else self.limit - self.value


@dataclass(frozen=True, slots=True)
class SelfTest:
    """The outcome of one self-test.

    Attributes:
        subject: what was tested.
        images: how many images tested it.
        image_set: where they came from.
        verdict: of all checks together.
        checks: each quantity.
        worst_images: names of the images with the lowest signal-to-noise ratio, the lowest first, and that
            ratio in dB.
        nonfinite: images with a logit that is not finite; one fails the whole.
    """

    subject: Subject
    images: Count
    image_set: str
    verdict: Verdict
    checks: tuple[Check, ...]
    worst_images: tuple[tuple[str, float], ...]
    nonfinite: Count

    def __post_init__(self) -> None:
        """Refuse a verdict that does not follow from the checks, as of a record that was edited.

        Raises:
            ValueError: it does not.
        """
        follows = Verdict.FAILED if self.nonfinite else worst(check.verdict for check in self.checks)
        if self.verdict is not follows:
            raise ValueError(
                f"verdict is {self.verdict.value!r}, its checks and nonfinite say {follows.value!r}"
            )

    def as_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        data = dataclasses.asdict(self)
        data["verdict"] = self.verdict.value
        for check in data["checks"]:
            check["verdict"] = check["verdict"].value
        data["worst_images"] = [list(each) for each in self.worst_images]
        return data


def self_test_from_dict(data: object, *, where: object = "the self-test") -> SelfTest:
    """The self-test that `SelfTest.as_dict` describes.

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
    """Hold an engine's logits, (N, classes), to those of the bundle's graph for the same images.

    Args:
        graph: of the graph, as it ran at export; finite.
        engine: of what is tested.
        original: of the original; finite.
        precision: the bundle's.
        subject: what gave `engine`.
        ids: N names of the images.
        image_set: where they came from, in words.
    """
    finite: NDArray[np.bool_] = np.asarray(np.isfinite(engine).all(axis=1))
    g, o = graph.astype(np.float64), original.astype(np.float64)
    e = np.where(finite[:, None], engine, 0.0).astype(np.float64)
    ratios = np.where(finite, _ratios_db(g, e), _SMALLEST_DB)
    checks = _single_images(g, o, e, ratios, LIMITS[precision])
    if precision != "fp32":
        checks += _across_images(g, o, e, int8=precision == "int8")
    if len(graph) < _LEAST:
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
    """The check where too few images could pass it; one that failed stays failed."""
    undecided = check.verdict is Verdict.PASSED
    return dataclasses.replace(check, verdict=Verdict.INCONCLUSIVE) if undecided else check


def _single_images(
    g: NDArray[np.float64],
    o: NDArray[np.float64],
    e: NDArray[np.float64],
    ratios: NDArray[np.float64],
    limits: Limits,
) -> tuple[Check, ...]:
    """What is found image by image: their median, and the worst but a few."""
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
    """What shows only when images are taken together."""
    n, few = len(g), len(g) < _ENOUGH
    own = np.square(g - o).sum(axis=1)
    grown = [_db(theirs, ours) for theirs, ours in zip(np.square(e - o).sum(axis=1), own, strict=True)]
    distance, name = float(np.median(grown)), "distance from the original, over the graph's"
    nearer = _check(f"{name}, at least", "dB", distance, _NEARER_DB, few=few)
    if not int8:  # there, two runtimes differ by more than the graph and the original do
        return (nearer,)
    signal, errors = np.square(g).sum(axis=1).mean(), np.square(e - g).sum(axis=1)
    # Where the errors are larger than the graph's own, as those of a few odd images, their size counts.
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
    """Signal-to-noise ratio of each image, within +-200 dB."""
    powers = np.square(signal).sum(axis=1), np.square(other - signal).sum(axis=1)
    return np.array([_db(power, noise) for power, noise in zip(*powers, strict=True)])


def _db(power: Any, noise: Any) -> float:
    if noise == 0:
        return _LARGEST_DB
    ratio = float(power) / float(noise)
    return min(max(10 * math.log10(ratio), _SMALLEST_DB), _LARGEST_DB) if ratio > 0 else _SMALLEST_DB


def _low(values: NDArray[np.float64]) -> float:
    """The lowest value once 2 % of them, rounded down, are left out."""
    return float(np.sort(values)[int(_WORST_SHARE * len(values))])
