"""The results of a benchmark: figures, and the raw samples they are computed from."""

from __future__ import annotations

import dataclasses
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar

from cnnx.errors import CnnxError
from cnnx.machine.state import MachineState
from cnnx.measure.comparing import Comparison, compare
from cnnx.measure.figures import Figures, figures_of
from cnnx.measure.footprint import Footprint
from cnnx.measure.roofline.explanation import Explanation
from cnnx.measure.samples import Latency
from cnnx.measure.validity import Validity
from cnnx.record import Subject
from cnnx.runtimes.layer_times import LayerTime, shares


@dataclass(frozen=True, slots=True)
class Conditions:
    """The conditions of a measurement.

    Attributes:
        cuda_graph: whether the kernels were launched as one CUDA graph; None: not supported here.
        percentile: requested percentile, in percent.
        min_seconds: minimum total time of the samples.
        side_by_side: number of subjects that took turns.
        tuned_for: batch that an engine is tuned for; None: not an engine, or unknown.
        largest: largest batch of an engine, which sets its memory; None: not an engine, or unknown.
        together: names the measurements that took turns in one process; empty in older records, and for one
            measured alone.
    """

    cuda_graph: bool | None
    percentile: float
    min_seconds: float
    side_by_side: int
    tuned_for: int | None = None
    largest: int | None = None
    together: str = ""


@dataclass(frozen=True, slots=True)
class Prediction:
    """Predicted memory in bytes; None: unknown.

    Attributes:
        source: "engine": reported by the engine; "graph": computed from the ONNX graph without fusion.
        weights_bytes: size of the graph's constants; for an engine, of its file, which also contains code.
        scratch_bytes: size of activations.
        io_bytes: size of inputs and outputs.
    """

    source: Literal["engine", "graph"]
    weights_bytes: int
    scratch_bytes: int | None
    io_bytes: int | None


@dataclass(frozen=True, slots=True)
class LayerProfile:
    """Time by layer, from a separate session. Profiling slows runs, so times do not add up to the latency.

    Attributes:
        runs: number of profiled runs.
        layers: time of each layer.
        explanation: why they take that time; None in older records.
    """

    runs: int
    layers: tuple[LayerTime, ...]
    explanation: Explanation | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain data: layers, and the share of the time by kind of layer."""
        return {
            "runs": self.runs,
            "shares": shares(self.layers),
            "layers": [dataclasses.asdict(layer) for layer in self.layers],
            "explanation": self.explanation.as_dict() if self.explanation else None,
        }


@dataclass(frozen=True, slots=True)
class Measurement:
    """Latency and memory of one subject at one batch on one device.

    Attributes:
        subject: what was measured.
        latency: raw samples.
        memory: memory, measured in a separate process.
        remark: what a reader must know in addition to the figures.
        conditions: how it was measured.
        predicted: predicted memory.
        validity: whether the latency is valid.
        states: clocks, temperatures and throttling after warm-up, about every second, and right after the
            last run.
        layers: time by layer; None unless requested.
    """

    subject: Subject
    latency: Latency
    memory: Footprint
    remark: str
    conditions: Conditions
    predicted: Prediction
    validity: Validity
    states: tuple[MachineState, ...]
    layers: LayerProfile | None = None

    def figures(self) -> dict[str, Figures]:
        """Figures of each series (`Latency.series`), the main series first."""
        percentile = self.conditions.percentile
        return {name: figures_of(times, percentile=percentile) for name, times in self.latency.series.items()}

    def as_dict(self) -> dict[str, Any]:
        """Plain data: the raw samples, and the figures computed from them."""
        series = self.figures()
        first = next(iter(series))
        return {
            "subject": dataclasses.asdict(self.subject),
            "figures": {"of": first, **series[first].as_dict(), "images_per_second": self.latency.throughput},
            "series": {name: figures.as_dict() for name, figures in series.items()},
            "latency": self.latency.as_dict(),
            "memory": self.memory.as_dict(),
            "predicted": dataclasses.asdict(self.predicted),
            "conditions": dataclasses.asdict(self.conditions),
            "validity": self.validity.as_dict(),
            "states": [state.as_dict() for state in self.states],
            "layers": self.layers.as_dict() if self.layers else None,
            "remark": self.remark,
        }


@dataclass(frozen=True, slots=True)
class Unmeasured:
    """A row without figures: why a subject was not measured at a batch."""

    subject: Subject
    batch: int
    error: CnnxError

    def as_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return {
            "subject": dataclasses.asdict(self.subject),
            "batch": self.batch,
            "reason": self.error.what,
            "hint": self.error.hint,
        }


@dataclass(frozen=True, slots=True)
class Advice:
    """INT8 compared with FP16 of one network at one batch, both as engines on a GPU.

    Attributes:
        network: name of the network.
        batch: images per run.
        comparison: INT8's GPU compute time over FP16's.
        undecided: why nothing is recommended, as a measurement is invalid; empty if both are valid.
        engine: the INT8 engine if several engines of the network were measured; else empty.
    """

    network: str
    batch: int
    comparison: Comparison
    undecided: str = ""
    engine: str = ""

    @property
    def recommended(self) -> Literal["fp16", "int8"] | None:
        """INT8 if it is shown to be faster, else FP16, which is more exact; None if undecided."""
        if self.undecided:
            return None
        return "int8" if self.comparison.outcome == "faster" else "fp16"

    def __str__(self) -> str:
        name = pair_name(self.network, self.engine, self.batch)
        if self.undecided:
            return f"{name}: undecided whether INT8 is faster, as {self.undecided}"
        ratio, interval = self.comparison.ratio, self.comparison.interval
        what = {
            "faster": "is faster than FP16",
            "slower": "is slower than FP16: use FP16",
            "no difference shown": "is not measurably faster than FP16: use FP16",
        }[self.comparison.outcome]
        return (
            f"{name}: INT8 {what} "
            f"({ratio:.3f} times FP16's time, 95 % interval {interval.low:.3f} .. {interval.high:.3f})"
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return {
            "network": self.network,
            "engine": self.engine,
            "batch": self.batch,
            **dataclasses.asdict(self.comparison),
            "outcome": self.comparison.outcome,
            "recommended": self.recommended,
            "undecided": self.undecided,
        }


class _HasSubject(Protocol):
    @property
    def subject(self) -> Subject: ...


_Found = TypeVar("_Found", bound=_HasSubject)


def int8_with_fp16(
    found: Sequence[_Found], conditions: Callable[[_Found], object]
) -> Iterator[tuple[_Found, _Found, str]]:
    """Yield each INT8 measurement with the FP16 one of the same network, artefact, runtime and device.

    If several engines of a network were measured, only engines of the same identity are paired, as they
    were built with the same options. The third item is that identity, else "".

    Args:
        found: measurements of any kind.
        conditions: returns what must also be equal for two measurements to be compared.
    """

    def key(one: _Found) -> tuple[object, ...]:
        subject = one.subject
        return subject.network, subject.artefact, subject.runtime, subject.device, conditions(one)

    engines: dict[tuple[str, str], set[str]] = defaultdict(set)
    for one in found:
        engines[one.subject.network, one.subject.precision].add(one.subject.engine)
    for int8, fp16 in itertools.product(found, repeat=2):
        network = int8.subject.network
        if (int8.subject.precision, fp16.subject.precision) != ("int8", "fp16") or key(int8) != key(fp16):
            continue
        several = max(len(engines[network, precision]) for precision in ("int8", "fp16")) > 1
        if not several or int8.subject.engine == fp16.subject.engine:
            yield int8, fp16, int8.subject.engine if several else ""


def pair_name(network: str, engine: str, batch: int) -> str:
    """Name of a pair of INT8 and FP16 measurements in messages."""
    return f"{network}{f' {engine}' if engine else ''}, batch {batch}"


def advice_of(measurements: Sequence[Measurement]) -> tuple[Advice, ...]:
    """Advice on INT8 or FP16, where engines of both were measured side by side.

    Never for graphs: ONNX Runtime runs Q/DQ unfused, which predicts nothing for an engine.
    """
    engines = [
        one for one in measurements if one.subject.artefact == "engine" and one.subject.device_kind == "gpu"
    ]
    found = []
    for int8, fp16, engine in int8_with_fp16(
        engines, lambda one: (one.latency.batch, one.conditions.cuda_graph)
    ):
        comparison = compare(int8.latency, fp16.latency)
        if comparison is not None:
            undecided = _undecided(fp16, int8)
            found.append(Advice(int8.subject.network, int8.latency.batch, comparison, undecided, engine))
    return tuple(found)


def _undecided(*measured: Measurement) -> str:
    """Which of the measurements are invalid, and the rules they break; empty if none are."""
    return " and ".join(
        f"the {one.subject.precision} measurement is invalid "
        f"({', '.join(finding.rule for finding in one.validity.findings)})"
        for one in measured
        if not one.validity.valid
    )
