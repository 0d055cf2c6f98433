"""`compare`: what changed from a base to something new, and whether gates hold."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from cnnx.errors import RecordError
from cnnx.gates import (
    AGREEMENT,
    RELATIVE,
    SIZES,
    Estimate,
    Gate,
    GateTable,
    Limits,
    gates_of,
    read_gates,
)
from cnnx.options import takes
from cnnx.options.bundles import CompareOptions
from cnnx.pipeline.compare.changes import (
    Change,
    accuracy_change,
    agreement_changes,
    energy_change,
    latency_change,
    memory_change,
    outcomes_of_the_same_images,
    size_change,
)
from cnnx.pipeline.compare.evidence import Evidence, Judged, Side, Timed, Used, differing
from cnnx.pipeline.compare.sources import names, read_side
from cnnx.pipeline.judge.costs import memory_estimate
from cnnx.report.result import Result
from cnnx.report.table import Block
from cnnx.stats import Interval, Verdict, worst

_Measured = TypeVar("_Measured", Timed, Used)


@dataclass(frozen=True, slots=True)
class Pair:
    """One network of the base and of what is new.

    Attributes:
        network: name of the network.
        base: precision and subject of the base.
        new: precision and subject of what is new.
        changes: every value that one of them has.
        gates: every gate that is set.
    """

    network: str
    base: str
    new: str
    changes: tuple[Change, ...]
    gates: tuple[Gate, ...]

    @property
    def verdict(self) -> Verdict | None:
        """The verdict of the gates; None if none is set."""
        return worst(gate.verdict for gate in self.gates) if self.gates else None


@dataclass(frozen=True, slots=True, repr=False)
class CompareResult(Result):
    """A comparison.

    Attributes:
        base: path of the base.
        new: path of what is new.
        pairs: one for each network and precision that both have.
        notes: what was left out, and why.
    """

    base: str
    new: str
    pairs: tuple[Pair, ...]
    notes: tuple[str, ...]

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """The verdict of every gate."""
        return tuple(gate.verdict for pair in self.pairs for gate in pair.gates)

    @property
    def verdict(self) -> Verdict | None:
        """The verdict of all gates; None if none is set."""
        return worst(self.verdicts) if self.verdicts else None

    @property
    def exit_code(self) -> int:
        """0 if every gate passed or none is set, 1 if one failed, else 6."""
        return worst(self.verdicts).exit_code

    def blocks(self, *, verbose: bool = False) -> Iterable[Block]:
        """What the command prints."""
        from cnnx.pipeline.plain import plain
        from cnnx.report.tables.compare import compare_blocks

        return compare_blocks(plain(self), [pair.gates for pair in self.pairs])

    def as_dict(self) -> dict[str, object]:
        """Plain data, with the outcome of each change and the verdicts."""
        pairs = [
            {
                **{key: getattr(pair, key) for key in ("network", "base", "new", "gates")},
                "changes": [{**dataclasses.asdict(each), "outcome": each.outcome} for each in pair.changes],
                "verdict": pair.verdict,
            }
            for pair in self.pairs
        ]
        return {
            "base": self.base,
            "new": self.new,
            "verdict": self.verdict,
            "pairs": pairs,
            "notes": self.notes,
        }


@takes(CompareOptions)
def compare(base: str | Path, new: str | Path, options: CompareOptions) -> CompareResult:
    """Compare agreement, accuracy, latency, memory, energy and size with a base, and judge gates.

    Each side is a bundle, a record in a bundle's runs/, a survey's folder, or a report in JSON. Networks are
    paired by name and precision; if each side has one precision of a network, these two are compared.

    Latencies that took turns in one process are compared round by round. Others are compared by the intervals
    of their medians, and only if device, batch and conditions are equal. Accuracies on the same images are
    compared by McNemar's test.

    Args:
        base: path of the base.
        new: path of what is compared with it.
        options: options as an object; each can also be given by keyword. Gates are those of the file, else of
            the new bundle's recipe; those on agreement have defaults.

    Raises:
        RecordError: a side cannot be read or holds nothing, or both sides have no network in common.
        BundleError: a bundle is damaged.
        GateError: the file of gates is invalid.

    Examples:
        >>> result = cnnx.compare("lenet5-int8", "lenet5-int8")
        >>> {change.outcome for change in result.pairs[0].changes if change.what == "graph size"}
        {'no difference shown'}
    """
    table = read_gates(Path(options.gates)) if options.gates is not None else None
    sides = read_side(Path(base)), read_side(Path(new))
    pairs, alone = _matched(*sides)
    return CompareResult(
        str(base),
        str(new),
        tuple(_pair(before, after, table) for before, after in pairs),
        (*(f"{side.name}: {note}" for side in sides for note in side.notes), *alone),
    )


def _matched(base: Side, new: Side) -> tuple[list[tuple[Evidence, Evidence]], tuple[str, ...]]:
    """Evidence of both sides by network and precision, and what has no counterpart.

    Raises:
        RecordError: there is nothing in common.
    """
    pairs, alone = [], []
    for after in new.evidence:
        of_network = [one for one in base.evidence if one.network == after.network]
        same = [one for one in of_network if one.precision == after.precision]
        only = sum(one.network == after.network for one in new.evidence) == 1
        found = same or (of_network if only and len(of_network) == 1 else [])
        if found:
            pairs.append((found[0], after))
        else:
            alone.append(f"{new.name}: {after.network} {after.precision} has no counterpart in the base")
    if not pairs:
        what = (
            f"different networks: the base has {names(base.evidence)}, the other side {names(new.evidence)}"
        )
        raise RecordError(what, where=new.name, hint="compare bundles, runs or surveys of the same networks")
    matched = [before for before, _ in pairs]
    alone += [
        f"{base.name}: {one.network} {one.precision} has no counterpart in what is new"
        for one in base.evidence
        if one not in matched
    ]
    return pairs, tuple(alone)


def _pair(base: Evidence, new: Evidence, table: GateTable | None) -> Pair:
    before, after = _validations(base.judged, new.judged)
    changes = [*agreement_changes(before, after)] if before or after else []
    timed = list(_counterparts(base.timed, new.timed))
    changes += [latency_change(*each) for each in timed] + [memory_change(*each) for each in timed]
    used = list(_counterparts(base.used, new.used))
    changes += [energy_change(*each) for each in used]
    changes += [
        size_change(key, base.sizes[key], new.sizes[key])
        for key in SIZES
        if key in base.sizes and key in new.sizes
        if any(isinstance(side.sizes[key], Estimate) for side in (base, new))
    ]
    stated, limits = _limits(new, table)
    found = _estimates(limits.batch or 1, (before, after), timed, used, new)
    keys = [key for key in limits.set() if key in stated or isinstance(found.get(key), Estimate)]
    if after and after.proves_nothing:  # such as stand-in weights
        found |= dict.fromkeys((*AGREEMENT, "accuracy", "accuracy_loss_points"), after.proves_nothing)
    gates = gates_of(limits, found, keys)
    return Pair(new.network, _described(base), _described(new), tuple(changes), gates)


def _limits(new: Evidence, table: GateTable | None) -> tuple[frozenset[str], Limits]:
    """Keys of the gates that are stated, and all limits."""
    own = new.table or GateTable()
    file = (table or GateTable()).stated(new.precision)
    return frozenset(file.set()), file.over(own.of(new.precision))


def _described(side: Evidence) -> str:
    """Precision, and what was validated or measured last."""
    if not (subjects := side.subjects):
        return f"{side.precision}, without records"
    return str(subjects[-1]).removeprefix(f"{side.network} ")


def _validations(base: Sequence[Judged], new: Sequence[Judged]) -> tuple[Judged | None, Judged | None]:
    """The newest validations of the same images, else of equally named sets, else the newest."""
    tests: tuple[Callable[[Judged, Judged], object], ...] = (outcomes_of_the_same_images, _named_alike)
    for alike in tests:
        for after in reversed(new):
            for before in reversed(base):
                if alike(before, after):
                    return before, after
    return (base[-1] if base else None), (new[-1] if new else None)


def _named_alike(one: Judged, other: Judged) -> bool:
    return (one.image_set, one.images) == (other.image_set, other.images)


def _counterparts(
    base: Sequence[_Measured], new: Sequence[_Measured]
) -> Iterator[tuple[_Measured, _Measured]]:
    """The newest measurement of each batch and of each device, with the base's that fits best."""
    newest = {(one.batch, tuple(map(str, one.conditions.values()))): one for one in new}
    for one in newest.values():
        at_batch = [each for each in base if each.batch == one.batch]
        alike = [each for each in at_batch if not differing(each.conditions, one.conditions)]
        turns = [each for each in alike if one.together and each.together == one.together]
        if found := turns or alike or at_batch:
            yield found[-1], one


def _estimates(
    batch: int,
    judged: tuple[Judged | None, Judged | None],
    timed: Sequence[tuple[Timed, Timed]],
    used: Sequence[tuple[Used, Used]],
    new: Evidence,
) -> dict[str, Estimate | str]:
    """Key of each gate -> its estimate, or why there is none."""
    before, after = judged
    found: dict[str, Estimate | str] = dict(after.found) if after else {}
    found |= new.sizes
    absolute = [one for one in new.timed if one.batch == batch]
    if absolute:
        one = absolute[-1]
        found |= {"latency_p50_ms": one.p50_ms, "latency_p99_ms": one.p99_ms}
        found["memory_mib"] = memory_estimate(one.memory)
    energies = [one for one in new.used if one.batch == batch]
    if energies:
        found["energy_mj"] = energies[-1].gross_mj
    found |= dict.fromkeys(RELATIVE, "base and new have no measurements in common")
    if before and after:
        found["accuracy_loss_points"] = _loss(accuracy_change(before, after))
    for pairs, keys, changed in (
        (timed, "latency_ratio", latency_change),
        (timed, "memory_ratio", memory_change),
        (used, "energy_ratio", energy_change),
    ):
        changes = [changed(*each) for each in pairs if each[1].batch == batch]
        if changes:
            found[keys] = _as_estimate(changes[-1])
    return found


def _as_estimate(change: Change) -> Estimate | str:
    if change.change is None:
        return change.how
    return Estimate(change.change, change.interval, change.count, change.counted)


def _loss(change: Change) -> Estimate | str:
    """Accuracy lost, in percentage points, from the change of accuracy in 0..1."""
    if change.change is None or change.interval is None:
        return change.how
    interval = Interval(-100 * change.interval.high, -100 * change.interval.low)
    return Estimate(-100 * change.change, interval, change.count)
