"""Figures in words, as every table writes them. What is not known is "-", never 0."""

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
    """What was measured of one subject.

    Attributes:
        name: what it is called beside the others in a table.
        full: what it is called in a sentence.
        result: as a record holds it.
        date: when; empty: just now.
    """

    name: str
    full: str
    result: Mapping[str, Any]
    date: str = ""


def run_of(record: Record) -> Run:
    """A record's run, called by all that tells its subject from others."""
    return Run(str(record.subject), str(record.subject), record.result, record.date[:19])


def names_of(subjects: Iterable[Subject], *, network: bool = False) -> dict[Subject, str]:
    """What to call each beside all the others of a result, those without figures, too: as short as tells them
    apart. `network`: say the network even where all are of one.
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
    """From the shortest: artefact and precision, with the engine's identity, with the digest."""
    short = f"{f'{subject.network} ' if network else ''}{subject.artefact} {subject.precision}"
    engine = (f"{short} {subject.engine}",) if subject.engine else ()
    return short, *engine, f"{short} {subject.digest[:12]}"


def scaled(value: float | None, factor: float = 1, digits: int = 0) -> str:
    """A figure in another unit."""
    return "-" if value is None else f"{value * factor:.{digits}f}"


def percent(share: float | None, digits: int = 1) -> str:
    """A share."""
    return "-" if share is None else f"{share:.{digits}%}"


def uncertainty(stated: Mapping[str, Any]) -> str:
    """How far a power sensor's readings may be off."""
    from cnnx.measure.power.sensors.sensor import Uncertainty  # judging loads no power sensor

    return str(Uncertainty(**stated))


def ends(interval: Mapping[str, float] | None, factor: float = 1, digits: int = 0) -> str:
    """Both ends of an interval in another unit."""
    return " .. ".join(scaled(interval[end], factor, digits) for end in ("low", "high")) if interval else "-"


def mib(value: int | None, digits: int = 0) -> str:
    """Bytes in MiB."""
    return UNKNOWN if value is None else f"{value / _MIB:,.{digits}f}"


def grouped(count: int) -> str:
    """A count with commas between thousands; empty where there is none."""
    return f"{count:,}" if count else ""


def shape(lengths: Sequence[int | None]) -> str:
    """Lengths of a tensor: "Nx3x224x224"."""
    return "x".join("N" if length is None else str(length) for length in lengths)


def several(count: int, what: str) -> str:
    """A count with its noun: "1 image", "2 images"."""
    return f"{count} {what}{'s' * (count != 1)}"


def first_of(items: Sequence[T], most: int, *, whole: bool) -> tuple[Sequence[T], tuple[Remark, ...]]:
    """So many of a list, or the whole, and the remark that there are more."""
    if whole or len(items) <= most:
        return items, ()
    return items[:most], (Remark(f"and {len(items) - most} more (--verbose shows all)"),)


def shared(items: Iterable[T], say: Callable[[T], str]) -> str:
    """What is said of all alike; empty where that differs: then each row must say it."""
    found = {say(item) for item in items}
    return found.pop() if len(found) == 1 else ""


def graph_words(result: Mapping[str, Any]) -> str:
    """Whether kernels went as one CUDA graph, in latency or energy; empty where there is no such thing."""
    cuda_graph = (result.get("conditions") or result).get("cuda_graph")
    return "" if cuda_graph is None else f"CUDA graph {'on' if cuda_graph else 'off'}"


def on_cpu(subject: Mapping[str, Any]) -> bool:
    """Whether a subject ran on a CPU, where no clocks are judged."""
    return Device.of(subject["device"], subject.get("device_kind", "")).kind == "cpu"
