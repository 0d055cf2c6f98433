"""How values of a base and of something new differ, with an interval where the data allow one."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from cnnx.agreement import Outcomes
from cnnx.gates import KINDS, SIMILARITY, Counted, Estimate
from cnnx.measure.comparing import compare as compare_turns
from cnnx.pipeline.compare.evidence import Judged, Timed, Used, differing, rates_of
from cnnx.pipeline.judge.costs import memory_estimate
from cnnx.stats import Interval, Paired, difference

Outcome = Literal["better", "worse", "no difference shown", "no interval", "not compared"]
EXACT = "exact"
"""How a value without an interval is compared that has no error, such as the size of a file."""


@dataclass(frozen=True, slots=True)
class Change:
    """One value of the base and of what is new.

    Attributes:
        what: name of the value.
        unit: unit of `base` and `new`; empty for rates.
        base: value of the base; None if unknown.
        new: the new value; None if unknown.
        change: new over base (`ratio`), or new minus base; None if not compared.
        interval: 95 % interval of the change; None for values without one, such as sizes.
        ratio: `change` is a ratio.
        lower_is_better: a lower value is better.
        how: the method, and the number of images, samples or rounds; or why the values are not compared.
        count: number behind the interval; 0 if unknown.
        counted: what `count` counts.
        batch: batch size of a measurement; None for others.
    """

    what: str
    unit: str
    base: float | None
    new: float | None
    change: float | None
    interval: Interval | None
    ratio: bool
    lower_is_better: bool
    how: str
    count: int = 0
    counted: Counted = "images"
    batch: int | None = None

    @property
    def outcome(self) -> Outcome:
        """Better or worse if the interval excludes equality, or if an exact value differs."""
        if self.change is None:
            return "not compared"
        if self.interval is None and self.how != EXACT:
            return "no interval"
        interval, same = self.interval or Interval(self.change, self.change), 1.0 if self.ratio else 0.0
        if interval.low <= same <= interval.high:
            return "no difference shown"
        return "better" if (interval.high < same) == self.lower_is_better else "worse"


def agreement_changes(base: Judged | None, new: Judged | None) -> list[Change]:
    """Changes of the rates, the divergence and the accuracy of two validations."""
    if base is None or new is None:
        return [_uncompared("agreement", "", _missing(base, "validation"))]
    before, after = rates_of(base), rates_of(new)
    found = [_independent(key, before[key], after[key]) for key in SIMILARITY]
    if outcomes := outcomes_of_the_same_images(base, new):
        agree = [tuple(map(operator.eq, each.original, each.engine)) for each in outcomes]
        found[0] = _paired("top-1 agreement", *agree)
    return [*found, accuracy_change(base, new)]


def accuracy_change(base: Judged, new: Judged) -> Change:
    """Change of the top-1 accuracy: McNemar's test where both judged the same images, else independent."""
    right = [
        tuple(map(operator.eq, each.engine, each.labels))
        for each in outcomes_of_the_same_images(base, new)
        if each.labels
    ]
    if right:
        return _paired("accuracy", *right)
    return _independent("accuracy", base.found.get("accuracy", ""), new.found.get("accuracy", ""))


def outcomes_of_the_same_images(base: Judged, new: Judged) -> tuple[Outcomes, ...]:
    """The outcomes of two validations that judged the same images, and so can be paired; else nothing."""
    one, other = base.outcomes, new.outcomes
    if one is None or other is None:
        return ()
    same = (one.images, one.labels, len(one.original)) == (other.images, other.labels, len(other.original))
    return (one, other) if same else ()


def _paired(what: str, before: Sequence[bool], after: Sequence[bool]) -> Change:
    counts = [
        sum(a == first and b == second for a, b in zip(before, after, strict=True))
        for first, second in ((True, True), (True, False), (False, True), (False, False))
    ]
    paired = Paired(*counts)
    rates = sum(before) / paired.n, sum(after) / paired.n
    how = (
        f"paired on {paired.n} images: {paired.only_original} only base, {paired.only_engine} only new, "
        f"McNemar p = {paired.mcnemar():.2g}"
    )
    return Change(what, "", *rates, rates[1] - rates[0], paired.margin(1.0), False, False, how, paired.n)


def _independent(key: str, base: Estimate | str, new: Estimate | str) -> Change:
    kind = KINDS[key]
    if isinstance(base, str) or isinstance(new, str):
        reason = next(each or "it is unknown" for each in (base, new) if isinstance(each, str))
        return _uncompared(kind.name, kind.unit, reason, base, new)
    if base.interval is None or new.interval is None or not math.isfinite(base.value + new.value):
        return _uncompared(kind.name, kind.unit, "a value has no interval", base, new)
    interval = difference(new.value, new.interval, base.value, base.interval)
    how = f"not paired: {base.count} and {new.count} images"
    return Change(
        kind.name,
        kind.unit,
        base.value,
        new.value,
        new.value - base.value,
        interval,
        False,
        kind.at_most,
        how,
        min(base.count, new.count),
    )


def latency_change(base: Timed, new: Timed) -> Change:
    """Ratio of two latencies: by rounds if they took turns, else by the intervals of both medians."""
    what = f"latency p50, batch {new.batch}"
    if differs := differing(base.conditions, new.conditions):
        return _uncompared(what, "ms", differs, base.p50_ms, new.p50_ms, new.batch)
    for name, value in (("base", base.p50_ms), ("new", new.p50_ms)):
        if isinstance(value, str):
            return _uncompared(what, "ms", f"{name}: {value}", base.p50_ms, new.p50_ms, new.batch)
    assert isinstance(base.p50_ms, Estimate) and isinstance(new.p50_ms, Estimate)
    turns = None
    if base.together and base.together == new.together and base.latency and new.latency:
        turns = compare_turns(new.latency, base.latency)
    if turns:
        change, interval = turns.ratio, turns.interval
        how, count = f"paired bootstrap over {turns.rounds} rounds of turns", turns.rounds
        counted: Counted = "rounds"
    else:
        change, interval = _ratio(base.p50_ms, new.p50_ms)
        count, counted = min(base.p50_ms.count, new.p50_ms.count), "samples"
        how = "not in turns: intervals of both medians, which do not cover drift between the runs"
    values = base.p50_ms.value, new.p50_ms.value
    return Change(what, "ms", *values, change, interval, True, True, how, count, counted, new.batch)


def _ratio(base: Estimate, new: Estimate) -> tuple[float, Interval]:
    """New over base, and its interval on a logarithmic scale."""
    assert base.interval and new.interval
    logs = [
        Interval(math.log(max(each.interval.low, 1e-12)), math.log(max(each.interval.high, 1e-12)))
        for each in (new, base)
        if each.interval
    ]
    found = difference(math.log(new.value), logs[0], math.log(base.value), logs[1])
    return new.value / base.value, Interval(math.exp(found.low), math.exp(found.high))


def memory_change(base: Timed, new: Timed) -> Change:
    """Ratio of the memory that both networks add; each was measured once, so there is no interval."""
    what = f"memory, batch {new.batch}"
    before, after = (memory_estimate(each.memory) for each in (base, new))
    if isinstance(before, str) or isinstance(after, str):
        reason = next(each for each in (before, after) if isinstance(each, str))
    elif base.memory[0] != new.memory[0]:
        reason = f"kind of memory differs: {base.memory[0]} and {new.memory[0]}"
    elif base.subject.device != new.subject.device:
        reason = differing(base.conditions, new.conditions)
    elif before.value == 0:
        reason = "it is 0"
    else:
        values, how = (before.value, after.value), f"{new.memory[0]}, measured once: no interval"
        return Change(what, "MiB", *values, values[1] / values[0], None, True, True, how, batch=new.batch)
    return _uncompared(what, "MiB", reason, before, after, new.batch)


def energy_change(base: Used, new: Used) -> Change:
    """Ratio of two gross energies per image."""
    what = f"energy per image, batch {new.batch}"
    differs = differing(base.conditions, new.conditions)
    for name, value in (("base", base.gross_mj), ("new", new.gross_mj)):
        differs = differs or (f"{name}: {value}" if isinstance(value, str) else "")
    if differs:
        return _uncompared(what, "mJ", differs, base.gross_mj, new.gross_mj, new.batch)
    assert isinstance(base.gross_mj, Estimate) and isinstance(new.gross_mj, Estimate)
    before, after = base.gross_mj, new.gross_mj
    if before.interval is None or after.interval is None or before.interval.low <= 0:
        return _uncompared(what, "mJ", "a value has no interval above 0", before, after, new.batch)
    change, interval = _ratio(before, after)
    how = "intervals of both energies, which include the sensor's uncertainty"
    values = before.value, after.value
    return Change(what, "mJ", *values, change, interval, True, True, how, batch=new.batch)


def size_change(key: str, base: Estimate | str, new: Estimate | str) -> Change:
    """Ratio of two sizes of files, which are exact."""
    kind = KINDS[key]
    if isinstance(base, str) or isinstance(new, str) or base.value == 0:
        reason = next((each for each in (base, new) if isinstance(each, str)), "it is 0")
        return _uncompared(kind.name, kind.unit, reason, base, new)
    ratio = new.value / base.value
    return Change(kind.name, kind.unit, base.value, new.value, ratio, None, True, True, EXACT)


def _uncompared(
    what: str,
    unit: str,
    reason: str,
    base: Estimate | str = "",
    new: Estimate | str = "",
    batch: int | None = None,
) -> Change:
    values = [
        each.value if isinstance(each, Estimate) and math.isfinite(each.value) else None
        for each in (base, new)
    ]
    return Change(what, unit, values[0], values[1], None, None, False, True, reason, batch=batch)


def _missing(base: object, what: str) -> str:
    return f"{'new' if base is not None else 'the base'} has no {what}"
