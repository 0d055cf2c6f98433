"""Formats figures the same way in every table. An unknown figure is "-", never 0."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from cnnx.device import Device
from cnnx.record import Record, Subject
from cnnx.report.table import UNKNOWN, Remark

_MIB = 2**20

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Run:
    """A measurement of one subject.

    Attributes:
        name: short name, unique within a table.
        full: name in a sentence.
        result: result as stored in a record.
        date: date of the record; empty for a measurement just made.
    """

    name: str
    full: str
    result: Mapping[str, Any]
    date: str = ""


def run_of(record: Record) -> Run:
    """A record as a `Run`, under the full name of its subject."""
    return Run(str(record.subject), str(record.subject), record.result, record.date[:19])


def names_of(subjects: Iterable[Subject], *, network: bool = False) -> dict[Subject, str]:
    """The shortest unique name of each subject of a result.

    Args:
        subjects: all subjects of the result, including those without figures.
        network: include the network even if all subjects share it.
    """
    among = set(subjects)
    network = network or len({subject.network for subject in among}) > 1
    forms = {subject: _forms(subject, network=network) for subject in among}
    taken = Counter(form for several in forms.values() for form in several)
    return {
        subject: next((form for form in several if taken[form] == 1), several[-1])
        for subject, several in forms.items()
    }


def _forms(subject: Subject, *, network: bool) -> tuple[str, ...]:
    """Names, shortest first: artefact and precision, then the engine's identity, then the digest."""
    short = f"{f'{subject.network} ' if network else ''}{subject.artefact} {subject.precision}"
    engine = (f"{short} {subject.engine}",) if subject.engine else ()
    return short, *engine, f"{short} {subject.digest[:12]}"


def scaled(value: float | None, factor: float = 1, digits: int = 0) -> str:
    """A figure times a factor, with fixed digits."""
    return "-" if value is None else f"{value * factor:.{digits}f}"


def percent(share: float | None, digits: int = 1) -> str:
    """A share in percent."""
    return "-" if share is None else f"{share:.{digits}%}"


def uncertainty(stated: Mapping[str, Any]) -> str:
    """The uncertainty of a power sensor, in words."""
    from cnnx.measure.power.sensors.sensor import Uncertainty  # lazy: validation needs no power sensors

    return str(Uncertainty(**stated))


def ends(interval: Mapping[str, float] | None, factor: float = 1, digits: int = 0) -> str:
    """Both ends of an interval, times a factor."""
    return " .. ".join(scaled(interval[end], factor, digits) for end in ("low", "high")) if interval else "-"


def mib(value: int | None, digits: int = 0) -> str:
    """Bytes in MiB."""
    return UNKNOWN if value is None else f"{value / _MIB:,.{digits}f}"


def grouped(count: int) -> str:
    """A count with thousands separators; empty for 0."""
    return f"{count:,}" if count else ""


def shape(lengths: Sequence[int | None]) -> str:
    """A tensor's shape: "Nx3x224x224"."""
    return "x".join("N" if length is None else str(length) for length in lengths)


def several(count: int, what: str) -> str:
    """A count with its noun: "1 image", "2 images"."""
    return f"{count} {what}{'s' * (count != 1)}"


def duration(seconds: float) -> str:
    """A duration in words: "10 min", "1 h 30 min", "45 s"."""
    whole = round(seconds)
    if seconds < 10:
        return f"{seconds:.2g} s"
    hours, minutes, rest = whole // 3600, whole % 3600 // 60, whole % 60
    parts = (f"{hours} h" * bool(hours), f"{minutes} min" * bool(minutes), f"{rest} s" * bool(rest))
    return " ".join(filter(None, parts))


def first_of(items: Sequence[T], most: int, *, whole: bool) -> tuple[Sequence[T], tuple[Remark, ...]]:
    """The first `most` items, or all of them, and a remark about the rest."""
    if whole or len(items) <= most:
        return items, ()
    return items[:most], (Remark(f"and {len(items) - most} more (--verbose shows all)"),)


def shared(items: Iterable[T], say: Callable[[T], str]) -> str:
    """The text that all items share; empty if they differ, and each row must show its own."""
    found = {say(item) for item in items}
    return found.pop() if len(found) == 1 else ""


def graph_words(result: Mapping[str, Any]) -> str:
    """Whether a CUDA graph was used, in a latency or energy result; empty if not applicable."""
    cuda_graph = (result.get("conditions") or result).get("cuda_graph")
    return "" if cuda_graph is None else f"CUDA graph {'on' if cuda_graph else 'off'}"


def on_cpu(subject: Mapping[str, Any]) -> bool:
    """Whether a subject ran on a CPU, where clocks are not checked."""
    return Device.of(subject["device"], subject.get("device_kind", "")).kind == "cpu"


def visible(text: str) -> str:
    """Text in which characters that are not printable, except line breaks, are escapes such as \\x1b.

    A name could otherwise move the cursor, change the terminal's title, or reverse the order of text.
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() or each == "\n" else _escaped(each) for each in text)


def _escaped(character: str) -> str:
    return (
        character.encode("ascii", "backslashreplace").decode()
        if ord(character) > 126
        else repr(character)[1:-1]
    )
