"""Agreement of an engine with its original model, and the gates that decide the verdict.

Ties among logits go to the lower class index. An image for which the engine returns a non-finite logit
counts as disagreement in every rate.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnnx.errors import BundleError
from cnnx.gates import KINDS, RATES, Estimate, Gate, Limits, gates_of
from cnnx.record import Subject
from cnnx.schema import Count, Quantity, Rate, from_plain
from cnnx.stats import Interval, Paired, Verdict, wilson, worst

Logits = NDArray[np.float32]
_RESAMPLES = 1000
# Values drawn at a time, which limits memory to about 16 MiB.
_AT_ONCE = 1 << 20


@dataclass(frozen=True, slots=True)
class Flip:
    """An image whose top-1 class changed, with both top-5 lists (class indices, best first)."""

    image: str
    original: tuple[Count, ...]
    engine: tuple[Count, ...]
    label: Count | None


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Top-1 accuracy on labelled images, with McNemar's p-value for equal error rates."""

    original: Rate
    engine: Rate
    mcnemar: Rate


@dataclass(frozen=True, slots=True)
class Divergence:
    """Mean Kullback-Leibler divergence from the original's class probabilities, in nats per image."""

    mean: Quantity
    interval: Interval


@dataclass(frozen=True, slots=True)
class Validation:
    """Result of one validation.

    Attributes:
        subject: engine or graph that was validated.
        images: number of validation images.
        image_set: source of the images.
        verdict: overall verdict of the gates, or "not judged".
        reasons: why no verdict was given; empty otherwise.
        gates: one per rate.
        accuracy: None without labels.
        flips: every image whose top-1 class changed.
        logit_sqnr_db: 10 log10 of the original's mean squared logit over the mean squared difference.
        nonfinite: number of images with a non-finite logit.
        assumed_preprocessing: nobody has stated the preprocessing, so the images may be prepared wrongly.
        divergence: None if a logit is not finite, and in records of cnnx before 0.2.
        right: labelled images by which of the two was right; None without labels, and in older records.
    """

    subject: Subject
    images: Count
    image_set: str
    verdict: Verdict
    reasons: tuple[str, ...]
    gates: tuple[Gate, ...]
    accuracy: Accuracy | None
    flips: tuple[Flip, ...]
    logit_sqnr_db: float | None
    nonfinite: Count
    assumed_preprocessing: bool = False
    divergence: Divergence | None = None
    right: Paired | None = None

    def __post_init__(self) -> None:
        """Check that the verdict follows from the gates; in an edited record it may not.

        Raises:
            ValueError: the verdict does not follow from the gates.
        """
        follows = worst(gate.verdict for gate in self.gates)
        if self.verdict is not follows and not (self.verdict is Verdict.NOT_JUDGED and self.reasons):
            raise ValueError(f"the verdict is {self.verdict.value!r}, but the gates give {follows.value!r}")

    def as_dict(self) -> dict[str, Any]:
        """The validation as plain data for JSON."""
        data = dataclasses.asdict(self)
        data["verdict"] = self.verdict.value
        for gate in data["gates"]:
            gate["verdict"] = gate["verdict"].value
        return data


def validation_from_dict(data: object, *, where: object = "the validation") -> Validation:
    """Create a validation from the output of `Validation.as_dict`.

    Raises:
        BundleError: a key is unknown or missing, or a value has another type or range.
    """
    return from_plain(Validation, data, where=where, error=BundleError, at="result")


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
    same_first, first_in_five, shared = _agreements(original, other)
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


def _log_softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result


def _agreements(
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


def judge(
    original: Logits,
    engine: Logits,
    *,
    subject: Subject,
    limits: Limits,
    labels: NDArray[np.int64] | None,
    ids: Sequence[str],
    image_set: str,
    stated: Collection[str] = (),
    cannot_judge: tuple[str, ...] = (),
    assumed_preprocessing: bool = False,
) -> Validation:
    """Compare logits of shape (N, classes) row by row and decide the verdict.

    Args:
        original: logits of the PyTorch model.
        engine: logits of the subject for the same images.
        subject: what produced `engine`.
        limits: gates; those that are not about agreement or accuracy are left to the caller.
        labels: (N,) true classes, or None.
        ids: N image names.
        image_set: description of the image source.
        stated: keys of gates that the user asked for: without labels, those of accuracy are reported as not
            judged, and the others are left out.
        cannot_judge: reasons why no verdict is possible, such as stand-in weights. The rates are still
            computed, but no gate passes.
        assumed_preprocessing: whether nobody has stated the preprocessing.
    """
    finite = np.isfinite(engine).all(axis=1)
    right = None if labels is None else _right(original, engine, labels)
    gates = agreement_gates(limits, estimates(original, engine, right), stated)
    if cannot_judge:
        gates = tuple(dataclasses.replace(g, verdict=Verdict.NOT_JUDGED, decides_at=None) for g in gates)
    return Validation(
        subject=subject,
        images=len(original),
        image_set=image_set,
        verdict=worst(gate.verdict for gate in gates),
        reasons=cannot_judge,
        gates=gates,
        accuracy=Accuracy(right.original_accuracy, right.engine_accuracy, right.mcnemar()) if right else None,
        flips=flips_of(original, engine, labels=labels, ids=ids),
        logit_sqnr_db=sqnr_db(original[finite], engine[finite]),
        nonfinite=int((~finite).sum()),
        assumed_preprocessing=assumed_preprocessing,
        divergence=mean_divergence(original, engine) if finite.all() else None,
        right=right,
    )


def with_gates(
    validation: Validation, gates: Sequence[Gate], *, instead_of: Collection[str] = ()
) -> Validation:
    """The validation with further gates, such as those on costs, and the verdict of all of them.

    Args:
        validation: a validation.
        gates: gates to add.
        instead_of: keys of gates that are dropped.
    """
    dropped = {KINDS[key].name for key in instead_of}
    every = (*(gate for gate in validation.gates if gate.name not in dropped), *gates)
    verdict = worst(gate.verdict for gate in every)
    if validation.reasons and verdict is not Verdict.FAILED:
        verdict = Verdict.NOT_JUDGED
    return dataclasses.replace(validation, gates=every, verdict=verdict)


_NO_LABELS = "the images have no labels"
_OF_ACCURACY = ("accuracy", "accuracy_ratio")
_OF_AGREEMENT = (*RATES, "divergence_nats", *_OF_ACCURACY)


def agreement_gates(
    limits: Limits, found: dict[str, Estimate | str], stated: Collection[str] = ()
) -> tuple[Gate, ...]:
    """The gates on agreement and accuracy; without labels, those of accuracy only if they are `stated`."""
    keys = [key for key in _OF_AGREEMENT if found.get(key) != _NO_LABELS or key in stated]
    return gates_of(limits, found, keys)


def estimates(original: Logits, engine: Logits, right: Paired | None) -> dict[str, Estimate | str]:
    """Key of each gate on agreement or accuracy -> its estimate, or why there is none.

    Args:
        original: (N, classes) logits of the original.
        engine: (N, classes) logits for the same images.
        right: labelled images by which of the two was right; None without labels.
    """
    same_first, first_in_five, shared = _agreements(original, engine)
    rates: tuple[NDArray[Any], ...] = (same_first, first_in_five, shared)
    found: dict[str, Estimate | str] = {
        key: rate_estimate(float(np.mean(values)), len(values))
        for key, values in zip(RATES, rates, strict=True)
    }
    if np.isfinite(engine).all():
        divergence = mean_divergence(original, engine)
        found["divergence_nats"] = Estimate(divergence.mean, divergence.interval, len(original))
    else:
        found["divergence_nats"] = Estimate(float("inf"))
    return {**found, **accuracy_estimates(right)}


def rate_estimate(rate: float, n: int) -> Estimate:
    """A rate over n images, with Wilson's interval."""
    return Estimate(rate, wilson(rate, n), n, wilson=True)


def accuracy_estimates(right: Paired | None) -> dict[str, Estimate | str]:
    """Accuracy, and accuracy over the original's (MLPerf's rule); without labels, the reason."""
    if right is None or right.n == 0:
        return dict.fromkeys(_OF_ACCURACY, _NO_LABELS)
    return {
        "accuracy": rate_estimate(right.engine_accuracy, right.n),
        "accuracy_ratio": _ratio(right),
    }


def _ratio(right: Paired) -> Estimate:
    """Accuracy over the original's; an original that is never right leaves it undecided."""
    original = right.original_accuracy
    if original == 0:
        return Estimate(0.0, Interval(0.0, 1.0))
    value = right.engine_accuracy / original
    margin = right.margin(value)
    return Estimate(value, Interval(value + margin.low / original, value + margin.high / original), right.n)


def mean_divergence(original: Logits, engine: Logits) -> Divergence:
    """Mean divergence over images of (N, classes) finite logits, with its interval (`mean_interval`)."""
    values = np.maximum(divergences(original, engine), 0)  # rounding can leave -1e-17
    return Divergence(float(values.mean()), mean_interval(values))


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
    n, mean, error = len(values), float(values.mean()), float(values.std()) / max(1, len(values)) ** 0.5
    if error == 0 and n >= 10:
        return Interval(mean, mean)
    if n < 10:
        return Interval(0.0, float(values.max()))
    generator = np.random.default_rng(seed)
    drawn = []
    at_once = max(1, _AT_ONCE // n)
    for first in range(0, _RESAMPLES, at_once):
        series = values[generator.integers(0, n, (min(at_once, _RESAMPLES - first), n))]
        errors = series.std(axis=1) / n**0.5
        drawn.append((series.mean(axis=1) - mean) / np.where(errors > 0, errors, error))
    low, high = np.quantile(np.concatenate(drawn), [0.025, 0.975])
    return Interval(max(0.0, mean - float(high) * error), mean - float(low) * error)


def flips_of(
    original: Logits, engine: Logits, *, labels: NDArray[np.int64] | None, ids: Sequence[str]
) -> tuple[Flip, ...]:
    """Every image whose top-1 class changed, in image order."""
    same_first, _, _ = _agreements(original, engine)
    ours, theirs = top_k(original), top_k(np.where(np.isfinite(engine), engine, -np.inf))
    return tuple(
        Flip(
            ids[i],
            tuple(map(int, ours[i])),
            tuple(map(int, theirs[i])),
            None if labels is None else int(labels[i]),
        )
        for i in map(int, np.flatnonzero(~same_first))
    )


def _right(original: Logits, engine: Logits, labels: NDArray[np.int64]) -> Paired:
    """Labelled images by which of the two was right."""
    ours = top_k(original, 1)[:, 0] == labels
    theirs = top_k(np.where(np.isfinite(engine), engine, -np.inf), 1)[:, 0] == labels
    theirs &= np.isfinite(engine).all(axis=1)
    cells = ((ours, theirs), (ours, ~theirs), (~ours, theirs), (~ours, ~theirs))
    return Paired(*(int((a & b).sum()) for a, b in cells))


def sqnr_db(original: Logits, engine: Logits) -> float | None:
    """Signal-to-quantization-noise ratio of the logits in decibels; None for identical logits."""
    noise = float(np.mean((original.astype(np.float64) - engine) ** 2)) if original.size else 0.0
    if noise == 0:
        return None
    return float(10 * np.log10(np.mean(original.astype(np.float64) ** 2) / noise))
