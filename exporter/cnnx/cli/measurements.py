"""Latency, memory, validity and layers as tables."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cnnx.cli.columns import print_told, titled
from cnnx.report.tables import MemoryTold, layer_table, memory_table

if TYPE_CHECKING:
    from cnnx.measure.figures import Figures
    from cnnx.pipeline.bench.bench import BenchResult
    from cnnx.pipeline.bench.measurement import Measurement, Prediction, Unmeasured
    from cnnx.record import Subject

_MIB = 2**20
_UNKNOWN = "not known"


def print_bench(out: Console, result: BenchResult, *, verbose: bool) -> None:
    """`cnnx bench`: figures, memory, verdicts, layers, and what could not be measured."""
    full = names_of(result.subjects, network=True)
    print_measurements(out, result.measurements, among=result.subjects)
    if result.unmeasured:
        out.print(unmeasured_table("Not measured", result.unmeasured, full))
    for measured in result.measurements:
        if measured.layers:
            name = f"{full[measured.subject]}, batch {measured.latency.batch}"
            print_told(out, layer_table(name, measured.layers.as_dict(), whole=verbose, hint=" (--verbose)"))
    for advice in result.advice:
        color = "green" if advice.recommended == "int8" else "yellow"
        out.print(f"[{color}]{escape(str(advice))}[/]", soft_wrap=True)


def print_measurements(
    out: Console, measurements: Sequence[Measurement], *, among: Sequence[Subject] = ()
) -> None:
    """Latency, one table a batch; memory; then what speaks against the figures.

    Args:
        out: where to.
        measurements: batch by batch.
        among: subjects of the same result, that names must tell these from.
    """
    subjects = [*among, *(measured.subject for measured in measurements)]
    short, full = names_of(subjects), names_of(subjects, network=True)
    for _, group in itertools.groupby(measurements, lambda measured: measured.latency.batch):
        together = list(group)
        out.print(_latency_table(together, short))
        samples = ", ".join(str(len(measured.latency.samples_ns)) for measured in together)
        out.print(f"{samples} samples; - where they are too few for the figure. {_conditions(together)}")
    told = [
        MemoryTold(
            short[one.subject], one.latency.batch, one.memory.as_dict(), dataclasses.asdict(one.predicted)
        )
        for one in measurements
    ]
    print_told(out, memory_table(told))
    for line in dict.fromkeys(map(_engine, measurements)):
        if line:
            out.print(escape(line), soft_wrap=True)
    for measured in measurements:
        for line in _verdict(measured, full[measured.subject]):
            out.print(line, soft_wrap=True)
    for remark in dict.fromkeys(measured.remark for measured in measurements if measured.remark):
        out.print(escape(remark))


def prediction(predicted: Prediction) -> str:
    """Predicted memory in words."""
    parts = {
        "weights": predicted.weights_bytes,
        "activations": predicted.scratch_bytes,
        "I/O": predicted.io_bytes,
    }
    said = ", ".join(f"{name} {_mib(value, 2)}" for name, value in parts.items())
    return f"{said} MiB; libraries and workspace come on top"


def _latency_table(together: Sequence[Measurement], names: Mapping[Subject, str]) -> Table:
    first = together[0]
    subject, asked = first.subject, first.conditions.percentile
    extra = asked not in (50, 90)  # these stand there anyway
    columns = (
        "p50 ms",
        "95 % interval",
        "p90 ms",
        *((f"p{asked:g} ms",) if extra else ()),
        "mean ms",
        "CoV %",
        "images/s",
    )
    title = f"Latency at batch {first.latency.batch} on {subject.runtime}, {subject.device}"
    told = any(measured.latency.parts for measured in together)
    table = titled(title, "what", *(("of",) if told else ()), *columns, right=columns)
    for measured in together:
        name = names[measured.subject]
        throughput = f"{measured.latency.throughput:.1f}"
        for place, (series, figures) in enumerate(measured.figures().items()):
            head = (name if place == 0 else "", *((series,) if told else ()))
            table.add_row(*head, *_times(figures, extra=extra), throughput if series == "end to end" else "")
    return table


def _times(figures: Figures, *, extra: bool) -> tuple[str, ...]:
    interval = figures.p50_interval
    return (
        _ms(figures.p50_ns),
        f"{_ms(interval.low)} .. {_ms(interval.high)}" if interval else "-",
        _ms(figures.p90_ns),
        *([_ms(figures.percentile_ns)] if extra else []),
        _ms(figures.mean_ns),
        "-" if figures.coefficient_of_variation is None else f"{figures.coefficient_of_variation * 100:.1f}",
    )


def _conditions(together: Sequence[Measurement]) -> str:
    first = together[0].conditions
    graphs = graph_words(measured.conditions.cuda_graph for measured in together)
    said = [f"At least {first.min_seconds:g} s each"]
    if first.side_by_side > 1:
        said.append(f"{first.side_by_side} in alternating turns")
    if graphs:
        said.append(graphs)
    return ", ".join(said) + "."


def graph_words(flags: Iterable[bool | None]) -> str:
    """Whether kernels went as CUDA graphs; empty where there is no such thing."""
    found = set(flags) - {None}
    if len(found) > 1:
        return "CUDA graph mixed"
    return f"CUDA graph {'on' if found.pop() else 'off'}" if found else ""


def _verdict(measured: Measurement, name: str) -> Iterator[str]:
    name = f"{name}, batch {measured.latency.batch}"
    validity = measured.validity
    if measured.subject.device_kind == "gpu" and validity.valid:
        yield f"[green]valid:[/] {escape(name)}"
    for color, word, findings in (
        ("red", "invalid", validity.findings),
        ("yellow", "remark", validity.remarks),
    ):
        for finding in findings:
            yield f"[{color}]{word}:[/] {escape(name)}: {escape(finding.reason)}; {escape(finding.mend)}"


def unmeasured_table(title: str, rows: Sequence[Unmeasured], names: Mapping[Subject, str]) -> Table:
    """A row and its reason for each."""
    table = titled(title, "what", "batch", "reason", "mend", right=("batch",))
    for row in rows:
        table.add_row(
            names[row.subject], str(row.batch), escape(row.error.what), escape(row.error.mend or "")
        )
    return table


def _engine(measured: Measurement) -> str:
    """Which engine, what it is tuned for and what its memory is of; empty of a graph."""
    subject, conditions = measured.subject, measured.conditions
    if not subject.engine:
        return ""
    said = f"{subject.network} {subject.artefact} {subject.precision} is {subject.engine}"
    if conditions.largest is None:
        return f"{said}."
    tuned = f"tuned for batch {conditions.tuned_for}"
    return f"{said}, {tuned}; its memory is of its largest batch, {conditions.largest}."


def names_of(subjects: Iterable[Subject], *, network: bool = False) -> dict[Subject, str]:
    """What to call each beside all the others of a result: as short as tells them apart.

    Args:
        subjects: that stand side by side, those without figures, too.
        network: say the network, too, where all are of one.
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


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value / 1e6:.3f}"


def _mib(value: int | None, digits: int) -> str:
    return _UNKNOWN if value is None else f"{value / _MIB:.{digits}f}"
