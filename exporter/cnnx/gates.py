"""Gates: the limits that a recipe or a file sets, and what a measured value makes of each.

A gate has a minimum or a maximum. The 95 % interval of the value decides it, not the value: passed if the
whole interval keeps the limit, failed if the whole interval misses it, else inconclusive.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from cnnx.errors import GateError, RecipeError
from cnnx.limits import TEXT_BYTES
from cnnx.options import Precision
from cnnx.schema import Count, Percent, Positive, Quantity, Rate, from_plain
from cnnx.stats import Interval, Verdict, images_to_decide
from cnnx.store.reading import read_text
from cnnx.store.toml import parse_toml

Counted = Literal["images", "samples", "rounds", "seconds"]
"""What the number that would decide a gate counts."""

_MOST = 10_000_000
CLEAR_MARGIN = 0.1
"""Margin of a clear image, unless gates state another one."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one bundle. A key that is absent sets no gate; a minimum of 0 cannot fail.

    Attributes:
        top1_agreement: at least this share of images with the same top-1 class as the original.
        top1_in_top5: at least this share of images whose original top-1 class is in the engine's top-5.
        top5_agreement: at least this mean share of the original top-5 classes found in the engine's top-5.
        clear_agreement: at least this top-1 agreement on clear images: those where the original's probability
            of its top class exceeds that of the second by `clear_margin`.
        divergence_nats: at most this mean Kullback-Leibler divergence from the original, in nats.
        accuracy: at least this top-1 accuracy, in 0..1, on labelled images.
        accuracy_ratio: at least this top-1 accuracy over the original's, on labelled images (MLPerf: 0.99).
        accuracy_loss_points: at most this loss of top-1 accuracy against the base of a comparison, in
            percentage points.
        latency_p50_ms: at most this median latency of a batch, in milliseconds.
        latency_p99_ms: at most this 99th percentile of the latency of a batch, in milliseconds.
        latency_ratio: at most this median latency over that of the base of a comparison.
        memory_mib: at most this much memory that the network adds, in MiB.
        memory_ratio: at most this memory over that of the base of a comparison.
        energy_mj: at most this gross energy per image, in millijoules.
        energy_ratio: at most this gross energy per image over that of the base of a comparison.
        graph_mib: at most this size of model.onnx, in MiB.
        engine_mib: at most this size of each engine's file, in MiB.
        clear_margin: margin of a clear image; 0.1 if absent.
        batch: batch size of the measurements that gates on latency, memory and energy are about; 1 if absent.
        reason: why agreement and accuracy_ratio differ from the defaults; a recipe must state it.
    """

    top1_agreement: Rate | None = None
    top1_in_top5: Rate | None = None
    top5_agreement: Rate | None = None
    clear_agreement: Rate | None = None
    divergence_nats: Quantity | None = None
    accuracy: Rate | None = None
    accuracy_ratio: Rate | None = None
    accuracy_loss_points: Percent | None = None
    latency_p50_ms: Quantity | None = None
    latency_p99_ms: Quantity | None = None
    latency_ratio: Quantity | None = None
    memory_mib: Quantity | None = None
    memory_ratio: Quantity | None = None
    energy_mj: Quantity | None = None
    energy_ratio: Quantity | None = None
    graph_mib: Quantity | None = None
    engine_mib: Quantity | None = None
    clear_margin: Rate | None = None
    batch: Positive | None = None
    reason: str = ""

    @property
    def margin(self) -> float:
        """Margin of a clear image."""
        return CLEAR_MARGIN if self.clear_margin is None else self.clear_margin

    def set(self) -> dict[str, float]:
        """The gates that are set: key -> limit, in the order of the keys."""
        found = {key: getattr(self, key) for key in KINDS}
        return {key: limit for key, limit in found.items() if limit is not None}

    def over(self, other: Limits) -> Limits:
        """These limits, and for keys that are absent those of `other`."""
        return Limits(**{key: _first(getattr(self, key), getattr(other, key)) for key in _KEYS})


@dataclass(frozen=True, slots=True)
class GateTable(Limits):
    """The table `[gates]` of a recipe, or a file of gates: for both precisions, and for each.

    Attributes:
        fp16: limits of FP16 and FP32 bundles; they take precedence over those for both.
        int8: limits of INT8 bundles; they take precedence over those for both.
    """

    fp16: Limits = Limits()
    int8: Limits = Limits()

    def of(self, precision: Precision) -> Limits:
        """Limits of a bundle of this precision, with the defaults of agreement."""
        return self.stated(precision).over(DEFAULTS["int8" if precision == "int8" else "fp16"])

    def stated(self, precision: Precision) -> Limits:
        """Limits of a bundle of this precision that the table states, without defaults."""
        own = self.int8 if precision == "int8" else self.fp16
        return own.over(self)

    def as_dict(self) -> dict[str, Any]:
        """The table as plain data, without absent keys."""
        data = dataclasses.asdict(self)
        tables = {key: {k: v for k, v in data.pop(key).items() if v not in (None, "")} for key in DEFAULTS}
        return {k: v for k, v in {**data, **tables}.items() if v not in (None, "", {})}


@dataclass(frozen=True, slots=True)
class _Kind:
    """How a gate is shown, and which side of its limit is good."""

    name: str
    at_most: bool = False
    unit: str = ""


KINDS: Mapping[str, _Kind] = {
    "top1_agreement": _Kind("top-1 agreement"),
    "top1_in_top5": _Kind("top-1 in top-5"),
    "top5_agreement": _Kind("top-5 agreement"),
    "clear_agreement": _Kind("clear agreement"),
    "divergence_nats": _Kind("divergence", True, "nats"),
    "accuracy": _Kind("accuracy"),
    "accuracy_ratio": _Kind("accuracy / original's"),
    "accuracy_loss_points": _Kind("accuracy lost to base", True, "points"),
    "latency_p50_ms": _Kind("latency p50", True, "ms"),
    "latency_p99_ms": _Kind("latency p99", True, "ms"),
    "latency_ratio": _Kind("latency / base's", True),
    "memory_mib": _Kind("memory", True, "MiB"),
    "memory_ratio": _Kind("memory / base's", True),
    "energy_mj": _Kind("energy per image", True, "mJ"),
    "energy_ratio": _Kind("energy / base's", True),
    "graph_mib": _Kind("graph size", True, "MiB"),
    "engine_mib": _Kind("engine size", True, "MiB"),
}
"""Key of a gate -> how it is shown."""

RATES = ("top1_agreement", "top1_in_top5", "top5_agreement")
"""Gates on agreement that are rates over all images."""
BINARY = (*RATES, "clear_agreement")
"""Gates on agreement that have Wilson's interval."""
SIMILARITY = (*BINARY, "divergence_nats")
"""Gates on agreement that need no labels."""
AGREEMENT = (*SIMILARITY, "accuracy_ratio")
"""Gates on agreement with the original; in a recipe, values that differ from the defaults need a reason."""
SIZES = ("graph_mib", "engine_mib")
"""Gates on the sizes of files."""
COSTS = ("latency_p50_ms", "latency_p99_ms", "memory_mib", "energy_mj", *SIZES)
"""Gates on what a bundle costs, without a base."""
RELATIVE = frozenset({"accuracy_loss_points", "latency_ratio", "memory_ratio", "energy_ratio"})
"""Gates that need the base of a comparison."""
_KEYS = (*KINDS, "clear_margin", "batch", "reason")

# FP16 should be indistinguishable from the original. INT8 may differ slightly in the lower ranks. Top-1
# agreement on all images is shown and cannot fail: near ties flip between two sound runtimes
# (docs/near-ties.md).
DEFAULTS: Mapping[str, Limits] = {
    "fp16": Limits(
        top1_agreement=0.0,
        top1_in_top5=0.995,
        top5_agreement=0.98,
        clear_agreement=0.99,
        divergence_nats=0.0005,
        accuracy_ratio=0.99,
    ),
    "int8": Limits(
        top1_agreement=0.0,
        top1_in_top5=0.99,
        top5_agreement=0.90,
        clear_agreement=0.95,
        divergence_nats=0.02,
        accuracy_ratio=0.99,
    ),
}
"""Limits of agreement by precision. FP32 has those of FP16."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A measured value.

    Attributes:
        value: the value, in the unit of its gate.
        interval: 95 % interval; None for an exact value, such as a file's size.
        count: number of images, samples, rounds or seconds behind the interval; 0 if that is unknown.
        counted: what `count` counts.
        wilson: the interval is Wilson's, of a rate.
    """

    value: float
    interval: Interval | None = None
    count: int = 0
    counted: Counted = "images"
    wilson: bool = False


@dataclass(frozen=True, slots=True)
class Gate:
    """One limit, what was measured, and the verdict.

    Attributes:
        value: the measured value; None if there is none, or if it is not finite.
        interval: its 95 % interval; None for an exact value.
        threshold: the limit.
        decides_at: number of images or samples that would decide an undecided gate, if the value stays.
        counted: what `decides_at` counts.
        at_most: the limit is a maximum.
        unit: unit of value and limit; empty for rates and ratios.
        reason: why it was not judged, or failed without a value.
    """

    name: str
    value: float | None
    interval: Interval | None
    threshold: Quantity
    verdict: Verdict
    decides_at: Count | None = None
    counted: Counted = "images"
    at_most: bool = False
    unit: str = ""
    reason: str = ""

    def __post_init__(self) -> None:
        """Check that the verdict follows from the interval; in an edited record it may not.

        Raises:
            ValueError: it does not.
        """
        if self.verdict is Verdict.NOT_JUDGED:
            return
        if self.value is None:
            if self.verdict is not Verdict.FAILED:
                raise ValueError(f"the verdict of the gate {self.name!r} has no value to follow from")
            return
        at = self.interval or Interval(self.value, self.value)
        decided = at.against(self.threshold, at_most=self.at_most)
        if self.verdict is not decided:
            raise ValueError(
                f"the verdict of the gate {self.name!r} is {self.verdict.value!r}, but its interval "
                f"(low {at.low:g}, high {at.high:g}) and its threshold "
                f"{self.threshold:g} (at_most: {self.at_most}) give {decided.value!r}"
            )


def decided(key: str, limit: float, found: Estimate | str) -> Gate:
    """The gate of a key, decided by an estimate, or not judged for a reason (a text)."""
    kind = KINDS[key]
    undecided = partial(Gate, kind.name, None, None, limit, at_most=kind.at_most, unit=kind.unit)
    if isinstance(found, str):
        return undecided(verdict=Verdict.NOT_JUDGED, reason=found)
    if not math.isfinite(found.value):
        return undecided(verdict=Verdict.FAILED, reason="some logits are not finite")
    interval = found.interval or Interval(found.value, found.value)
    verdict = interval.against(limit, at_most=kind.at_most)
    return Gate(
        kind.name,
        found.value,
        found.interval,
        limit,
        verdict,
        needed(found, limit) if verdict is Verdict.INCONCLUSIVE else None,
        found.counted,
        kind.at_most,
        kind.unit,
    )


def gates_of(
    limits: Limits, found: Mapping[str, Estimate | str], keys: Iterable[str] = KINDS
) -> tuple[Gate, ...]:
    """The gates that are set, among `keys`, each decided by its estimate or not judged for its reason."""
    among = set(keys)
    return tuple(
        decided(key, limit, found.get(key, "it was not measured"))
        for key, limit in limits.set().items()
        if key in among
    )


def needed(found: Estimate, limit: float) -> int | None:
    """Number of images or samples that would decide a gate if the value stays; None if no number is known.

    Wilson's interval is solved for the number. Other intervals narrow as one over the square root of it.
    """
    if found.wilson:
        return images_to_decide(found.value, limit)
    if not found.count or found.interval is None or found.value == limit:
        return None
    towards = found.interval.high if limit > found.value else found.interval.low
    wanted = found.count * ((towards - found.value) / (limit - found.value)) ** 2
    return math.ceil(wanted) + 1 if wanted < _MOST else None


def read_gates(file: Path) -> GateTable:
    """Read a file of gates: the keys of a recipe's table `[gates]`, at the top level.

    Raises:
        GateError: the file cannot be read, is not valid TOML, or has an unknown key or a wrong value.
    """
    try:
        data = parse_toml(read_text(file, most=TEXT_BYTES))
    except (OSError, UnicodeDecodeError) as error:
        hint = "check the path and its permissions; a file of gates is a UTF-8 text file"
        reason = error.strerror if isinstance(error, OSError) else error
        raise GateError(f"the gates cannot be read: {reason}", where=file, hint=hint) from None
    except ValueError as error:
        hint = "write keys such as latency_p50_ms = 5, one a line"
        raise GateError(f"the gates are not valid TOML: {error}", where=file, hint=hint) from None
    if data.keys() == {"gates"}:
        data = data["gates"]  # copied from a recipe with its heading
    return from_plain(GateTable, data, where=file, error=GateError)


# Tables of recipes before cnnx 0.2, what is now called otherwise in them, and their defaults.
_OLD = frozenset({"acceptance", "budgets"})
_OLD_SIZES = {"onnx_mib": "graph_mib"}
_OLD_DEFAULTS: Mapping[str, Mapping[str, float]] = {
    "fp16": {"top1_agreement": 0.99, "top1_in_top5": 0.995, "top5_agreement": 0.98, "accuracy_ratio": 0.99},
    "int8": {"top1_agreement": 0.95, "top1_in_top5": 0.99, "top5_agreement": 0.9, "accuracy_ratio": 0.99},
}


def with_gate_table(data: object, *, where: object) -> object:
    """A recipe's data with `gates` instead of `acceptance` and `budgets`, which recipes had before cnnx 0.2.

    Raises:
        RecipeError: it has both.
    """
    if not isinstance(data, Mapping) or not (old := sorted(data.keys() & _OLD)):
        return data
    if "gates" in data:
        what = f"the recipe has both {old[0]!r} and 'gates', which replaces it"
        raise RecipeError(what, where=where, hint=f"move the keys of {old[0]} to [gates]")
    acceptance, budgets = data.get("acceptance", {}), data.get("budgets", {})
    if not isinstance(acceptance, Mapping) or not isinstance(budgets, Mapping):
        return data  # refused as unknown keys
    acceptance = {key: _without_old_defaults(key, table) for key, table in acceptance.items()}
    sizes = {_OLD_SIZES.get(key, key): limit for key, limit in budgets.items() if limit or limit is False}
    return {**{key: data[key] for key in data if key not in _OLD}, "gates": {**acceptance, **sizes}}


def _without_old_defaults(precision: str, table: object) -> object:
    """A table of `acceptance` without values that were defaults, as manifests state them all."""
    if not isinstance(table, Mapping):
        return table
    old = _OLD_DEFAULTS.get(precision, {})
    return {key: value for key, value in table.items() if key not in old or value != old[key]}


def _first(value: Any, other: Any) -> Any:
    return other if value in (None, "") else value
