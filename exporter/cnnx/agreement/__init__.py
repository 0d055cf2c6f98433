"""Agreement of an engine with its original model, and the gates that decide the verdict.

Ties among logits go to the lower class index. An image for which the engine returns a non-finite logit
counts as disagreement in every rate.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from cnnx.agreement.logits import Likeness as Likeness
from cnnx.agreement.logits import Logits as Logits
from cnnx.agreement.logits import agreements, margins, mean_interval
from cnnx.agreement.logits import compare as compare
from cnnx.agreement.logits import divergences as divergences
from cnnx.agreement.logits import first_classes as first_classes
from cnnx.agreement.logits import probabilities as probabilities
from cnnx.agreement.logits import sqnr_db as sqnr_db
from cnnx.agreement.logits import top_k as top_k
from cnnx.agreement.sharding import Sharding
from cnnx.errors import BundleError
from cnnx.gates import BINARY, CLEAR_MARGIN, KINDS, RATES, SIMILARITY, Estimate, Gate, Limits, gates_of
from cnnx.record import Subject
from cnnx.schema import Count, Digest, Quantity, Rate, from_plain
from cnnx.stats import Interval, Paired, Verdict, wilson, worst


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


Class = Annotated[int, Meta(ge=-1, description="a class index, or -1 for logits that are not finite")]


@dataclass(frozen=True, slots=True)
class Outcomes:
    """The top-1 class of every image, in order, so that two validations of the same images can be paired.

    Attributes:
        images: SHA-256 of the list of images, with their labels.
        original: (N,) classes of the original.
        engine: (N,) classes of the engine.
        labels: (N,) true classes; None without labels.
        margins: (N,) the original's probability of its top class minus that of the second.
    """

    images: Digest
    original: tuple[Class, ...]
    engine: tuple[Class, ...]
    labels: tuple[Count, ...] | None = None
    margins: tuple[Rate, ...] | None = None

    def __post_init__(self) -> None:
        """Check that the lists have one length.

        Raises:
            ValueError: they do not.
        """
        for name in ("engine", "labels", "margins"):
            found = getattr(self, name)
            if found is not None and len(found) != len(self.original):
                raise ValueError(f"{name} has {len(found)} values, but original has {len(self.original)}")


@dataclass(frozen=True, slots=True)
class NoiseFloor:
    """How far the original's FP32 graph, on the runtime of the engine's graph, is from the original.

    Attributes:
        runtime: runtime of both graphs.
        flips: number of images whose top-1 class changed.
        divergence_nats: mean divergence, in nats per image.
    """

    runtime: str
    flips: Count
    divergence_nats: Quantity


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
        outcomes: top-1 class of every image; None in older records.
        floor: None if the original was not run on the runtime of the engine's graph.
        sharding: how the images were spread over the nodes of a fleet; None on one machine.
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
    outcomes: Outcomes | None = None
    floor: NoiseFloor | None = None
    sharding: Sharding | None = None

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
        if self.sharding is None:
            del data["sharding"]
        return data


def validation_from_dict(data: object, *, where: object = "the validation") -> Validation:
    """Create a validation from the output of `Validation.as_dict`.

    Raises:
        BundleError: a key is unknown or missing, or a value has another type or range.
    """
    return from_plain(Validation, data, where=where, error=BundleError, at="result")


def judge(
    original: Logits,
    engine: Logits,
    *,
    subject: Subject,
    limits: Limits,
    labels: NDArray[np.int64] | None,
    ids: Sequence[str],
    image_set: str,
    images: str = "",
    floor: NoiseFloor | None = None,
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
        images: SHA-256 of the list of images; without it no outcomes are kept.
        floor: noise floor, to be kept and shown.
        stated: keys of gates that the user asked for: without labels, those of accuracy are reported as not
            judged, and the others are left out.
        cannot_judge: reasons why no verdict is possible, such as stand-in weights. The rates are still
            computed, but no gate passes.
        assumed_preprocessing: whether nobody has stated the preprocessing.
    """
    finite = np.isfinite(engine).all(axis=1)
    right = None if labels is None else _right(original, engine, labels)
    found = estimates(original, engine, right, margin=limits.margin)
    gates = agreement_gates(limits, found, stated)
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
        outcomes=_outcomes(images, original, engine, labels) if images else None,
        floor=floor,
    )


def noise_floor(original: Logits, graph: Logits, *, runtime: str) -> NoiseFloor | None:
    """The noise floor, by logits (N, classes) of the original and of its FP32 graph on another runtime.

    None if a logit is not finite, as the graph is then no measure of anything.
    """
    if not np.isfinite(graph).all():
        return None
    flips = int((first_classes(original) != first_classes(graph)).sum())
    return NoiseFloor(runtime, flips, mean_divergence(original, graph).mean)


def _outcomes(images: str, original: Logits, engine: Logits, labels: NDArray[np.int64] | None) -> Outcomes:
    return Outcomes(
        images,
        tuple(first_classes(original).tolist()),
        tuple(first_classes(engine).tolist()),
        None if labels is None else tuple(labels.tolist()),
        # Rounded down, so that an image below a stated margin stays below it when it is judged again.
        tuple((np.floor(margins(original) * 10_000) / 10_000).tolist()),
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
_OF_AGREEMENT = (*SIMILARITY, *_OF_ACCURACY)


def agreement_gates(
    limits: Limits, found: dict[str, Estimate | str], stated: Collection[str] = ()
) -> tuple[Gate, ...]:
    """The gates on agreement and accuracy; without labels, those of accuracy only if they are `stated`."""
    keys = [key for key in _OF_AGREEMENT if found.get(key) != _NO_LABELS or key in stated]
    return gates_of(limits, found, keys)


def estimates(
    original: Logits, engine: Logits, right: Paired | None, *, margin: float = CLEAR_MARGIN
) -> dict[str, Estimate | str]:
    """Key of each gate on agreement or accuracy -> its estimate, or why there is none.

    Args:
        original: (N, classes) logits of the original.
        engine: (N, classes) logits for the same images.
        right: labelled images by which of the two was right; None without labels.
        margin: least margin of a clear image.
    """
    same_first, first_in_five, shared = agreements(original, engine)
    rates: tuple[NDArray[Any], ...] = (same_first, first_in_five, shared)
    found: dict[str, Estimate | str] = {
        key: rate_estimate(float(np.mean(values)), len(values))
        for key, values in zip(RATES, rates, strict=True)
    }
    found["clear_agreement"] = _clear(same_first, margins(original), margin)
    if np.isfinite(engine).all():
        divergence = mean_divergence(original, engine)
        found["divergence_nats"] = Estimate(divergence.mean, divergence.interval, len(original))
    else:
        found["divergence_nats"] = Estimate(float("inf"))
    return {**found, **accuracy_estimates(right)}


def recorded_estimates(validation: Validation, *, margin: float = CLEAR_MARGIN) -> dict[str, Estimate | str]:
    """Estimates of a validation that was recorded, as `estimates` gave them when it was made."""
    keys = {KINDS[key].name: key for key in _OF_AGREEMENT}
    found: dict[str, Estimate | str] = dict.fromkeys(_OF_AGREEMENT, "the record does not have it")
    for gate in validation.gates:
        if (key := keys.get(gate.name)) and gate.value is not None:
            found[key] = Estimate(gate.value, gate.interval, validation.images, wilson=key in BINARY)
    outcomes = validation.outcomes
    if outcomes and outcomes.margins:
        same = np.equal(outcomes.original, outcomes.engine)
        found["clear_agreement"] = _clear(same, np.asarray(outcomes.margins), margin)
    if validation.divergence:
        each = validation.divergence
        found["divergence_nats"] = Estimate(each.mean, each.interval, validation.images)
    elif validation.nonfinite:
        found["divergence_nats"] = Estimate(float("inf"))
    if validation.right:
        found |= accuracy_estimates(validation.right)
    elif validation.accuracy:
        found["accuracy"] = rate_estimate(validation.accuracy.engine, validation.images)
    else:
        found |= {key: _NO_LABELS for key in _OF_ACCURACY if found[key] == "the record does not have it"}
    return found


def _clear(same: NDArray[np.bool_], margin: NDArray[np.float64], least: float) -> Estimate | str:
    """Top-1 agreement on clear images: those where the original's margin is at least `least`."""
    clear = margin >= least
    if not clear.any():
        return f"the original is not clear about any image: its margin is below {least:g} on all"
    return rate_estimate(float(same[clear].mean()), int(clear.sum()))


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


def flips_of(
    original: Logits, engine: Logits, *, labels: NDArray[np.int64] | None, ids: Sequence[str]
) -> tuple[Flip, ...]:
    """Every image whose top-1 class changed, in image order."""
    theirs = np.where(np.isfinite(engine), engine, -np.inf)
    flipped = np.flatnonzero(first_classes(original) != first_classes(engine))
    return tuple(
        Flip(ids[i], tuple(ours), tuple(now), None if labels is None else int(labels[i]))
        for i, ours, now in zip(
            flipped.tolist(), top_k(original[flipped]).tolist(), top_k(theirs[flipped]).tolist(), strict=True
        )
    )


def _right(original: Logits, engine: Logits, labels: NDArray[np.int64]) -> Paired:
    """Labelled images by which of the two was right."""
    ours, theirs = first_classes(original) == labels, first_classes(engine) == labels
    cells = ((ours, theirs), (ours, ~theirs), (~ours, theirs), (~ours, ~theirs))
    return Paired(*(int((a & b).sum()) for a, b in cells))
