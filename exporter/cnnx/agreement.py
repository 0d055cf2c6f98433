"""Agreement of an engine with its original model, and the gates that decide the verdict.

Ties among logits go to the lower class index. An image for which the engine returns a non-finite logit
counts as disagreement in every rate.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnnx.errors import BundleError
from cnnx.recipe import Thresholds
from cnnx.record import Subject
from cnnx.schema import Count, Rate, from_plain
from cnnx.stats import Interval, Paired, Verdict, images_to_decide, wilson, worst

Logits = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Gate:
    """One rate with its interval, threshold and verdict.

    Attributes:
        decides_at: number of images that would decide an undecided gate, if the rate stays the same.
    """

    name: str
    value: float
    interval: Interval
    threshold: Rate
    verdict: Verdict
    decides_at: Count | None = None


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

    def __post_init__(self) -> None:
        """Check that the verdict follows from the gates; in an edited record it may not.

        Raises:
            ValueError: the verdict does not follow from the gates.
        """
        for gate in self.gates:
            decided = gate.interval.against(gate.threshold)
            if gate.verdict not in (decided, Verdict.NOT_JUDGED):
                raise ValueError(
                    f"the verdict of the gate {gate.name!r} is {gate.verdict.value!r}, but its interval "
                    f"(low {gate.interval.low:g}, high {gate.interval.high:g}) and its threshold "
                    f"{gate.threshold:g} give {decided.value!r}"
                )
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
    thresholds: Thresholds,
    labels: NDArray[np.int64] | None,
    ids: Sequence[str],
    image_set: str,
    cannot_judge: tuple[str, ...] = (),
    assumed_preprocessing: bool = False,
) -> Validation:
    """Compare logits of shape (N, classes) row by row and decide the verdict.

    Args:
        original: logits of the PyTorch model.
        engine: logits of the subject for the same images.
        subject: what produced `engine`.
        thresholds: minimum rates.
        labels: (N,) true classes, or None.
        ids: N image names.
        image_set: description of the image source.
        cannot_judge: reasons why no verdict is possible, such as stand-in weights. The rates are still
            computed, but no gate passes.
        assumed_preprocessing: whether nobody has stated the preprocessing.
    """
    finite = np.isfinite(engine).all(axis=1)
    ours, theirs = top_k(original), top_k(np.where(np.isfinite(engine), engine, -np.inf))
    same_first, first_in_five, shared = _agreements(original, engine)
    rates: dict[str, tuple[NDArray[Any], float]] = {
        "top-1 agreement": (same_first, thresholds.top1_agreement),
        "top-1 in top-5": (first_in_five, thresholds.top1_in_top5),
        "top-5 agreement": (shared, thresholds.top5_agreement),
    }
    gates = [_rate_gate(name, float(np.mean(v)), len(v), threshold) for name, (v, threshold) in rates.items()]
    accuracy = None
    if labels is not None:
        accuracy, gate = _accuracy(ours[:, 0] == labels, (theirs[:, 0] == labels) & finite, thresholds)
        gates.append(gate)
    if cannot_judge:
        gates = [dataclasses.replace(g, verdict=Verdict.NOT_JUDGED, decides_at=None) for g in gates]
    return Validation(
        subject=subject,
        images=len(original),
        image_set=image_set,
        verdict=worst(gate.verdict for gate in gates),
        reasons=cannot_judge,
        gates=tuple(gates),
        accuracy=accuracy,
        flips=flips_of(original, engine, labels=labels, ids=ids),
        logit_sqnr_db=sqnr_db(original[finite], engine[finite]),
        nonfinite=int((~finite).sum()),
        assumed_preprocessing=assumed_preprocessing,
    )


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


def _rate_gate(name: str, rate: float, n: int, threshold: float) -> Gate:
    interval = wilson(rate, n)
    verdict = interval.against(threshold)
    open_gate = verdict is Verdict.INCONCLUSIVE
    return Gate(
        name, rate, interval, threshold, verdict, images_to_decide(rate, threshold) if open_gate else None
    )


def _accuracy(
    original_right: NDArray[np.bool_], engine_right: NDArray[np.bool_], thresholds: Thresholds
) -> tuple[Accuracy, Gate]:
    """Accuracy, and the gate on engine accuracy over original accuracy (MLPerf's rule)."""
    paired = Paired(
        both=int((original_right & engine_right).sum()),
        only_original=int((original_right & ~engine_right).sum()),
        only_engine=int((~original_right & engine_right).sum()),
        neither=int((~original_right & ~engine_right).sum()),
    )
    ratio, original = thresholds.accuracy_ratio, paired.original_accuracy
    accuracy = Accuracy(original, paired.engine_accuracy, paired.mcnemar())
    if original == 0:
        return accuracy, Gate("accuracy / original's", 0.0, Interval(0.0, 1.0), ratio, Verdict.INCONCLUSIVE)
    margin = paired.margin(ratio)
    interval = Interval(ratio + margin.low / original, ratio + margin.high / original)
    value = paired.engine_accuracy / original
    return accuracy, Gate("accuracy / original's", value, interval, ratio, interval.against(ratio))


def sqnr_db(original: Logits, engine: Logits) -> float | None:
    """Signal-to-quantization-noise ratio of the logits in decibels; None for identical logits."""
    noise = float(np.mean((original.astype(np.float64) - engine) ** 2)) if original.size else 0.0
    if noise == 0:
        return None
    return float(10 * np.log10(np.mean(original.astype(np.float64) ** 2) / noise))
