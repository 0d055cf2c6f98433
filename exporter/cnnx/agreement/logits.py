"""Similarity of logits of shape (N, classes), row by row: agreement, divergence and signal-to-noise ratio.

Ties among logits go to the lower class index. A row with a non-finite logit agrees in nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnnx.stats import Interval

Logits = NDArray[np.float32]
_RESAMPLES = 1000
# Values drawn at a time, which limits memory to about 16 MiB.
_AT_ONCE = 1 << 20


@dataclass(frozen=True, slots=True)
class Likeness:
    """Similarity of two sets of logits, without a verdict.

    Attributes:
        divergence: mean Kullback-Leibler divergence of the class probabilities from the original's, in
            nats; infinite if any logit is not finite.
        top1_agreement: share of images with the same top-1 class.
        top1_in_top5: share of images whose original top-1 class is in the other top-5.
        top5_agreement: mean share of the original top-5 classes found in the other top-5.
        logit_sqnr_db: signal-to-noise ratio of the logits; None for identical logits.
    """

    divergence: float
    top1_agreement: float
    top1_in_top5: float
    top5_agreement: float
    logit_sqnr_db: float | None


def compare(original: Logits, other: Logits) -> Likeness:
    """Compare two sets of logits of shape (N, classes) row by row."""
    same_first, first_in_five, shared = agreements(original, other)
    finite = np.asarray(np.isfinite(other).all(axis=1))
    divergence = float(np.mean(divergences(*(np.where(finite[:, None], x, 0) for x in (original, other)))))
    return Likeness(
        divergence=divergence if finite.all() else float("inf"),
        top1_agreement=float(np.mean(same_first)),
        top1_in_top5=float(np.mean(first_in_five)),
        top5_agreement=float(np.mean(shared)),
        logit_sqnr_db=sqnr_db(original[finite], other[finite]),
    )


def divergences(original: NDArray[Any], other: NDArray[Any]) -> NDArray[np.float64]:
    """Kullback-Leibler divergence of the class probabilities from the original's, in nats per image."""
    ours, theirs = _log_softmax(original), _log_softmax(other)
    result: NDArray[np.float64] = (np.exp(ours) * (ours - theirs)).sum(axis=1)
    return result


def probabilities(logits: Logits) -> NDArray[np.float64]:
    """Class probabilities of each row; NaN in rows with a non-finite logit."""
    with np.errstate(invalid="ignore"):
        result: NDArray[np.float64] = np.exp(_log_softmax(logits))
    return result


def margins(logits: Logits) -> NDArray[np.float64]:
    """Probability of the top class minus that of the second, in 0..1 per row; 0 is a tie."""
    ordered = np.partition(probabilities(logits), -2, axis=1)
    result: NDArray[np.float64] = np.clip(ordered[:, -1] - ordered[:, -2], 0, 1)
    return result


def _log_softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result


def agreements(
    original: Logits, other: Logits
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.float64]]:
    """Per image: same top-1; original top-1 in the other top-5; share of the top-5 in common."""
    finite = np.isfinite(other).all(axis=1)
    ours, theirs = top_k(original), top_k(np.where(np.isfinite(other), other, -np.inf))
    same_first: NDArray[np.bool_] = (ours[:, 0] == theirs[:, 0]) & finite
    first_in_five: NDArray[np.bool_] = (theirs == ours[:, :1]).any(axis=1) & finite
    shared: NDArray[np.float64] = (ours[:, :, None] == theirs[:, None, :]).any(axis=2).mean(axis=1) * finite
    return same_first, first_in_five, shared


def top_k(logits: Logits, k: int = 5) -> NDArray[np.intp]:
    """Indices of the k largest logits per row, best first, ties to the lower index: (N, min(k, C))."""
    return np.argsort(-logits, axis=1, kind="stable")[:, :k]


def first_classes(logits: Logits) -> NDArray[np.intp]:
    """Top-1 class of each row, ties to the lower index; -1 for a row with a non-finite logit."""
    return np.where(np.isfinite(logits).all(axis=1), logits.argmax(axis=1), -1)


def mean_interval(values: NDArray[np.float64], *, seed: int = 0) -> Interval:
    """95 % interval of the mean of independent values of 0 or more, by the studentized bootstrap.

    Divergences are skewed: few images carry most of the mean. An interval that is symmetric about the mean
    would miss a large true mean too often. Each of 1,000 resamples gives its distance from the mean in its
    own standard errors (B. Efron and R. J. Tibshirani, An Introduction to the Bootstrap, 1993, section 12.5).

    Args:
        values: (N,) values.
        seed: random seed; the same values give the same interval.

    Returns:
        0 to the largest value if there are fewer than ten values; the value itself if all are equal.
    """
    n, mean, error = len(values), float(values.mean()), float(values.std()) / len(values) ** 0.5
    if n < 10:
        return Interval(0.0, float(values.max()))
    if error == 0:
        return Interval(mean, mean)
    generator = np.random.default_rng(seed)
    drawn = []
    at_once = max(1, _AT_ONCE // n)
    for first in range(0, _RESAMPLES, at_once):
        series = values[generator.integers(0, n, (min(at_once, _RESAMPLES - first), n))]
        errors = series.std(axis=1) / n**0.5
        # Of equal values, the standard deviation is 0 but for rounding, by which nothing may be divided.
        drawn.append((series.mean(axis=1) - mean) / np.where(errors > 1e-9 * error, errors, error))
    low, high = np.quantile(np.concatenate(drawn), [0.025, 0.975])
    return Interval(max(0.0, mean - float(high) * error), mean - float(low) * error)


def sqnr_db(original: Logits, engine: Logits) -> float | None:
    """Signal-to-quantization-noise ratio of the logits in decibels; None for identical logits."""
    noise = float(np.mean((original.astype(np.float64) - engine) ** 2)) if original.size else 0.0
    if noise == 0:
        return None
    return float(10 * np.log10(np.mean(original.astype(np.float64) ** 2) / noise))
