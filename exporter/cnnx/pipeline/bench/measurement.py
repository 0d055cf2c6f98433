"""What a benchmark gives back: figures beside the raw samples that they follow from."""

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
from cnnx.measure.samples import Latency
from cnnx.measure.validity import Validity
from cnnx.record import Subject
from cnnx.runtimes.layer_times import LayerTime, shares


@dataclass(frozen=True, slots=True)
class Conditions:
    """How it was measured, so far as raw samples do not say.

    Attributes:
        cuda_graph: the kernels went to the GPU as one CUDA graph; None: there is no such thing here.
        percentile: that was asked for, in percent.
        min_seconds: the least sum of samples.
        side_by_side: subjects that took turns.
        tuned_for: batch that an engine's kernels were chosen for; None: no engine, or not known.
        largest: batch that an engine takes at most, which its memory is of; None likewise.
    """

    cuda_graph: bool | None
    percentile: float
    min_seconds: float
    side_by_side: int
    tuned_for: int | None = None
    largest: int | None = None


@dataclass(frozen=True, slots=True)
class Prediction:
    """Memory as it was foretold, in bytes; None: not known.

    Attributes:
        source: "engine": the engine told it; "graph": read off the ONNX graph, nothing fused.
        weights_bytes: the graph's constants; of an engine its file, in which code lies, too.
        scratch_bytes: activations.
        io_bytes: inputs and outputs.
    """

    source: Literal["engine", "graph"]
    weights_bytes: int
    scratch_bytes: int | None
    io_bytes: int | None


@dataclass(frozen=True, slots=True)
class LayerProfile:
    """Time by layers, from a session of its own: profiling slows runs, so it does not add up to latency."""

    runs: int
    layers: tuple[LayerTime, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain data: layers, and the share of the time by kind."""
        return {
            "runs": self.runs,
            "shares": shares(self.layers),
            "layers": [dataclasses.asdict(layer) for layer in self.layers],
        }


@dataclass(frozen=True, slots=True)
class Measurement:
    """Latency and memory of one subject at one batch on one device.

    Attributes:
        subject: what was measured.
        latency: raw samples and what follows from them.
        memory: measured in a process that did nothing else.
        remark: what the figures do not say.
        conditions: how it was measured.
        predicted: memory as it was foretold.
        validity: whether the latency may be believed.
        states: clocks, temperatures and throttling when all were warm, about every second, and right after
            the last run.
        layers: time by layers; None unless asked for.
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
        """Of each series (`Latency.series`), the one that stands for all first."""
        percentile = self.conditions.percentile
        return {name: figures_of(times, percentile=percentile) for name, times in self.latency.series.items()}

    def as_dict(self) -> dict[str, Any]:
        """Plain data: raw samples, and for readers the figures derived from them."""
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
    """INT8 beside FP16 of one network at one batch, both as engines on a GPU.

    Attributes:
        comparison: INT8's time over FP16's, of GPU compute.
        undecided: why nothing is recommended: one of the two measurements is invalid; empty: both are valid.
        engine: INT8's, where several of the network took turns; else empty.
    """

    network: str
    batch: int
    comparison: Comparison
    undecided: str = ""
    engine: str = ""

    @property
    def recommended(self) -> Literal["fp16", "int8"] | None:
        """FP16 where INT8 is not shown to be faster: it is more exact and needs no calibration.

        None where that is undecided.
        """
        if self.undecided:
            return None
        return "int8" if self.comparison.outcome == "faster" else "fp16"

    def __str__(self) -> str:
        name = pair_name(self.network, self.engine, self.batch)
        if self.undecided:
            return f"{name}: whether INT8 is faster is undecided, as {self.undecided}"
        ratio, interval = self.comparison.ratio, self.comparison.interval
        what = {
            "faster": "is faster than FP16",
            "slower": "is slower than FP16: take FP16",
            "no difference shown": "is not faster than FP16, as far as was measured: take FP16",
        }[self.comparison.outcome]
        return (
            f"{name}: INT8 {what} "
            f"(its time is {ratio:.3f} of FP16's, 95 % interval {interval.low:.3f} .. {interval.high:.3f})"
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


class _Subjected(Protocol):
    @property
    def subject(self) -> Subject: ...


_Found = TypeVar("_Found", bound=_Subjected)


def int8_beside_fp16(
    found: Sequence[_Found], way: Callable[[_Found], object]
) -> Iterator[tuple[_Found, _Found, str]]:
    """Each INT8 with its FP16 of the same network, artefact, runtime and device.

    Where several engines of a network took turns, an INT8's is held against the FP16's of the same identity,
    which was built for the same in the same way, or against none; its identity comes third, else "".

    Args:
        found: measurements of any kind.
        way: what else must be equal for two to be held against each other.
    """

    def key(one: _Found) -> tuple[object, ...]:
        subject = one.subject
        return subject.network, subject.artefact, subject.runtime, subject.device, way(one)

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
    """What INT8 and FP16 that are held against each other are called."""
    return f"{network}{f' {engine}' if engine else ''}, batch {batch}"


def advice_of(measurements: Sequence[Measurement]) -> tuple[Advice, ...]:
    """INT8 against FP16, wherever engines of both stood side by side.

    Never for graphs: ONNX Runtime runs Q/DQ unfused, and that predicts nothing for an engine.
    """
    engines = [
        one for one in measurements if one.subject.artefact == "engine" and one.subject.device_kind == "gpu"
    ]
    found = []
    for int8, fp16, engine in int8_beside_fp16(
        engines, lambda one: (one.latency.batch, one.conditions.cuda_graph)
    ):
        comparison = compare(int8.latency, fp16.latency)
        if comparison is not None:
            undecided = _undecided(fp16, int8)
            found.append(Advice(int8.subject.network, int8.latency.batch, comparison, undecided, engine))
    return tuple(found)


def _undecided(*measured: Measurement) -> str:
    """What makes one of them invalid, by its rules."""
    return " and ".join(
        f"the measurement of {one.subject.precision} is invalid "
        f"({', '.join(finding.rule for finding in one.validity.findings)})"
        for one in measured
        if not one.validity.valid
    )
