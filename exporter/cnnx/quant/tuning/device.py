"""What the search asks of a device and of a judge of accuracy, and what it keeps of the answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from cnnx.quant.repair import Outcome
from cnnx.stats import Interval

E = TypeVar("E")
Placement = frozenset[str]
"""Names of the sites that carry Q/DQ."""
Judge = Callable[[Placement], Outcome]
"""How far the network with this placement is from the original, and whether it passes the gates."""

_Z95 = 1.959964


class Refused(Exception):
    """The builder refuses a placement; the message says why."""


@dataclass(frozen=True, slots=True)
class Paired:
    """Time of one engine over that of another, from alternating turns.

    Attributes:
        log_ratio: mean logarithm of the ratio.
        error: its standard error.
        rounds: number of pairs of turns.
    """

    log_ratio: float
    error: float
    rounds: int

    @property
    def ratio(self) -> float:
        """The ratio; below 1 is faster."""
        return math.exp(self.log_ratio)

    @property
    def interval(self) -> Interval:
        """95 % interval of the ratio."""
        half = _Z95 * self.error
        return Interval(math.exp(self.log_ratio - half), math.exp(self.log_ratio + half))

    def with_more(self, other: Paired) -> Paired:
        """Both measurements together, weighted by their precision."""
        mine, theirs = (1 / max(each.error, 1e-9) ** 2 for each in (self, other))
        mean = (mine * self.log_ratio + theirs * other.log_ratio) / (mine + theirs)
        return Paired(mean, (mine + theirs) ** -0.5, self.rounds + other.rounds)


SAME = Paired(0.0, 0.0, 0)
"""An engine compared with itself."""


class Device(Protocol[E]):
    """Builds engines and measures them against each other."""

    def build(self, placement: Placement) -> E:
        """An engine of the network with this placement.

        Raises:
            Refused: the builder does not accept it.
        """
        ...

    def compare(self, engines: Sequence[E], *, error: float, seconds: float) -> tuple[Paired, ...]:
        """Time each engine after the first over the first, in alternating turns.

        Args:
            engines: at least two engines.
            error: standard error of the logarithm of a ratio at which to stop.
            seconds: time after which to stop in any case.
        """
        ...

    def discard(self, engine: E) -> None:
        """Free an engine that is not needed again."""
        ...


@dataclass(frozen=True, slots=True)
class Tried:
    """A placement that was built, or that its builder refused.

    Attributes:
        placement: names of the sites with Q/DQ.
        outcome: its accuracy.
        time: its time over that of FP16; None if it was refused.
        refused: why the builder refused it; empty if it did not.
    """

    placement: Placement
    outcome: Outcome
    time: Paired | None
    refused: str = ""


@dataclass(slots=True)
class Ledger:
    """Everything a search has learnt. It resumes from it.

    Attributes:
        judged: outcome of each placement that was judged.
        tried: placements that were built or refused, in order.
        seconds: time spent so far.
    """

    judged: dict[Placement, Outcome] = field(default_factory=dict)
    tried: dict[Placement, Tried] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def measured(self) -> tuple[Tried, ...]:
        """Placements with a time."""
        return tuple(each for each in self.tried.values() if each.time is not None)


@dataclass(frozen=True, slots=True)
class Budget:
    """How long to search.

    Attributes:
        seconds: time for everything, with the final comparison.
        builds: maximum number of engines.
    """

    seconds: float = math.inf
    builds: int = 96
