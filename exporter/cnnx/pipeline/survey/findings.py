"""The findings of Canziani, Paszke and Culurciello 2016, tested on the rows of a survey.

Each has a criterion that is stated beside its outcome. The paper measured a Jetson TX1 with Torch7: a finding
that does not hold elsewhere is no error.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cnnx.pipeline.survey.figures import (
    accuracy_of,
    at_largest,
    at_smallest,
    gops_of,
    memory_mib,
    parameters_mib,
    per_image_ms,
)
from cnnx.report.words import several

Row = Mapping[str, Any]

_FEW = 5  # networks below which nothing is tested
_PERMUTATIONS, _LEVEL = 2000, 0.05
_SAME_POWER = 0.1  # coefficient of variation
_GOOD_FIT, _SOME_FIT = 0.8, 0.5  # share of the variance


@dataclass(frozen=True, slots=True)
class Finding:
    """A finding of the paper, and whether it holds here.

    Attributes:
        claim: the paper's finding.
        criterion: what is tested.
        outcome: "holds", "does not hold" or "not tested".
        why: the figures, or why it was not tested.
    """

    claim: str
    criterion: str
    outcome: Literal["holds", "does not hold", "not tested"]
    why: str


def findings_of(rows: Sequence[Row]) -> Iterator[Finding]:
    """Test every finding on the finished and valid rows of one device in one precision."""
    done = [row for row in rows if row["status"] == "done" and row.get("valid", True)]
    for claim, criterion, test in _TESTS:
        found = test(done)
        if isinstance(found, str):
            yield Finding(claim, criterion, "not tested", found)
        else:
            holds, why = found
            yield Finding(claim, criterion, "holds" if holds else "does not hold", why)


_Outcome = tuple[bool, str] | str


def _power(rows: Sequence[Row]) -> _Outcome:
    known = [row for row in rows if row.get("power_mw")]
    if not known:
        return "no power was measured"
    networks, batches = len({row["model"] for row in known}), len({row["batch"] for row in known})
    if networks < _FEW or batches < 2:
        return f"power was measured for {networks} networks at {batches} batch sizes; {_FEW} and 2 are needed"
    powers = np.array([row["power_mw"] for row in known], float)
    variation = float(powers.std(ddof=1) / powers.mean())
    return variation <= _SAME_POWER, f"it varies by {variation:.1%} over {len(powers)} cells"


def _hyperbola(rows: Sequence[Row]) -> _Outcome:
    found = [(time, top1) for row, top1 in _accuracies(rows) if (time := per_image_ms(row))]
    if (few := _too_few(found, "accuracy and time")) is not None:
        return few
    times, accuracies = np.array(found).T
    inverse, line = _fit(1 / times, accuracies), _fit(times, accuracies)
    why = f"R2 is {inverse.share:.2f} with 1/time and {line.share:.2f} with time, {len(found)} points"
    return inverse.slope < 0 and inverse.share > max(line.share, _SOME_FIT), why


def _energy(rows: Sequence[Row]) -> _Outcome:
    found = [(row["gross_mj"], top1) for row, top1 in _accuracies(rows) if row.get("gross_mj")]
    if (few := _too_few(found, "accuracy and energy")) is not None:
        return few
    return _rises(*np.array(found).T)


def _operations(rows: Sequence[Row]) -> _Outcome:
    found = [
        (gops, time) for row in at_largest(rows) if (gops := gops_of(row)) and (time := per_image_ms(row))
    ]
    if (few := _too_few(found, "operations and time")) is not None:
        return few
    gops, times = np.log(np.array(found)).T
    fit = _fit(gops, times)
    holds = fit.share >= _GOOD_FIT and fit.slope > 0
    return (
        holds,
        f"R2 is {fit.share:.2f} between their logarithms, slope {fit.slope:.2f}, {len(found)} points",
    )


def _memory(rows: Sequence[Row]) -> _Outcome:
    found = [
        (size, mib)
        for row in at_smallest(rows)
        if (size := parameters_mib(row)) and (mib := memory_mib(row)) is not None
    ]
    if (few := _too_few(found, "memory and parameters")) is not None:
        return few
    sizes, memories = np.array(found).T
    fit = _fit(sizes, memories)
    why = f"{fit.start:.0f} MiB + {fit.slope:.2f} x parameters, R2 {fit.share:.2f}, {len(found)} points"
    return fit.share >= _GOOD_FIT and fit.slope > 0, why


_TESTS: tuple[tuple[str, str, Callable[[Sequence[Row]], _Outcome]], ...] = (
    (
        "Power is independent of batch size and architecture.",
        f"mean power under load varies by at most {_SAME_POWER:.0%} over all cells",
        _power,
    ),
    (
        "Accuracy and inference time are in a hyperbolic relationship.",
        f"accuracy = a - b / time, b > 0, explains over {_SOME_FIT:.0%} of the variance, more than a line",
        _hyperbola,
    ),
    (
        "Energy bounds the accuracy that can be reached.",
        f"more energy goes with more accuracy: Spearman's rank correlation is positive, p < {_LEVEL}",
        _energy,
    ),
    (
        "The number of operations is a reliable estimate of the inference time.",
        f"log(time) rises with log(operations), which explains at least {_GOOD_FIT:.0%} of its variance",
        _operations,
    ),
    (
        "Memory is constant at first, then grows linearly with the parameters.",
        f"a rising line explains at least {_GOOD_FIT:.0%} of the variance of memory",
        _memory,
    ),
)


def _accuracies(rows: Sequence[Row]) -> list[tuple[Row, float]]:
    """Rows of the largest batch with their accuracy, all of the image set that most of them have."""
    known = [(row, found) for row in at_largest(rows) if (found := accuracy_of(row))]
    origins = Counter(found[3] for _, found in known)
    usual = origins.most_common(1)[0][0] if origins else ""
    return [(row, found[0]) for row, found in known if found[3] == usual]


def _too_few(found: Sequence[Any], what: str) -> str | None:
    return (
        None
        if len(found) >= _FEW
        else f"{what} are known for {several(len(found), 'network')}; {_FEW} are needed"
    )


@dataclass(frozen=True, slots=True)
class _Line:
    """y = start + slope x, and the share of the variance of y that it explains."""

    start: float
    slope: float
    share: float


def _fit(x: NDArray[np.float64], y: NDArray[np.float64]) -> _Line:
    """Least squares."""
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return _Line(float(y.mean()), 0.0, 0.0)
    slope, start = np.polyfit(x, y, 1)
    return _Line(float(start), float(slope), float(np.corrcoef(x, y)[0, 1] ** 2))


def _rises(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[bool, str]:
    """Spearman's rank correlation, with the share of seeded permutations that reach it."""
    ranks = [_ranks(each) for each in (x, y)]
    found = _correlation(*ranks)
    random = np.random.default_rng(0)
    chance = [_correlation(ranks[0], random.permutation(ranks[1])) for _ in range(_PERMUTATIONS)]
    p = (1 + sum(each >= found for each in chance)) / (1 + _PERMUTATIONS)
    return found > 0 and p < _LEVEL, f"the correlation is {found:.2f}, p = {p:.3f}, {len(x)} points"


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks; equal values share the mean of theirs."""
    smaller = (values[:, None] > values[None, :]).sum(axis=1)
    equal = (values[:, None] == values[None, :]).sum(axis=1)
    return np.asarray(smaller + (equal - 1) / 2, float)


def _correlation(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return 0.0
    return float(np.corrcoef(x, y)[0, 1])
