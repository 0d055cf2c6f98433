"""Shows what fuzzing found, as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tools.check.fuzz.doors import all_doors
from tools.check.fuzz.running import Finding, Tally
from tools.markdown import table

_COLUMNS = (
    "entry point", "input", "tried", "also by command", "refused", "same result", "another valid result",
    "findings", "slowest, ms", "peak, MiB",
)  # fmt: skip
_KINDS = ("refused", "same", "valid", "finding")


def table_of(tallies: Sequence[Tally]) -> str:
    """A row for each entry point, and their sum."""
    doors = all_doors()
    rows = []
    for each in tallies:
        kinds = (each.kinds[kind] for kind in _KINDS)
        peak = f"{each.peak_bytes / 2**20:.0f}"
        rows.append(
            (
                each.door,
                doors[each.door].reads,
                *_numbers(each.tried, each.commands, *kinds),
                f"{each.slowest_s * 1e3:.0f}",
                peak,
            )
        )
    sums = [sum(each.kinds[kind] for each in tallies) for kind in _KINDS]
    tried, commands = (sum(values) for values in zip(*((e.tried, e.commands) for e in tallies), strict=True))
    rows.append(("all", "", *_numbers(tried, commands, *sums), "", ""))
    return table(_COLUMNS, rows, left=(0, 1))


def classes_of(tallies: Iterable[Tally]) -> str:
    """A line for each entry point: the errors, the differences that are right, and ends of commands."""
    return "\n".join(f"- {each.door}: {_listed(each)}" for each in tallies)


def findings_of(found: Iterable[Finding]) -> str:
    """One line for each kind of finding: how many there are, and the first of them."""
    alike: dict[tuple[str, str, str], list[Finding]] = {}
    for each in found:
        alike.setdefault((each.door, each.judged.what, _last(each.judged.detail)), []).append(each)
    return "\n".join(
        f"{door} {what} ({len(them)}, as input {them[0].index}, {them[0].how}): {detail}"
        for (door, what, detail), them in alike.items()
    )


def _numbers(*values: int) -> list[str]:
    return [f"{value:,}" for value in values]


def _listed(tally: Tally) -> str:
    return "; ".join(f"{name} {count:,}" for name, count in tally.classes.most_common())


def _last(detail: str) -> str:
    lines = [line for line in detail.splitlines() if line.strip()]
    return lines[-1][:200] if lines else ""
