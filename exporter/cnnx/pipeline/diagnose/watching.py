"""Runs an engine or a graph of a bundle and keeps the tensors that the FP32 graph has, too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from cnnx import runtimes
from cnnx.bundle import EVIDENCE, Bundle
from cnnx.graph.inspect import expected_types
from cnnx.graph.load import load_model, save_model
from cnnx.graph.trace import Trace, with_outputs
from cnnx.options.bundles import BuildOptions
from cnnx.pipeline.progress import Steps
from cnnx.pipeline.steps.engine import engine_step
from cnnx.runtimes import EmittingSession, Images
from cnnx.runtimes.evidence import kernels_in
from cnnx.runtimes.layout import Layout
from cnnx.runtimes.written import Written, layouts_of, written_by
from cnnx.store.cache import cache_folder

How = Literal["unfused", "outputs", "graph"]
"""How tensors are seen: emitted by an engine that fuses as ever, or outputs of an engine, or of the graph."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A tensor of one batch.

    Attributes:
        tensor: the tensor of the FP32 graph that it should equal.
        values: in the type that they have there.
        scales: of INT8 values, quantized activation -> scale; usually one. Empty for floats.
        unordered: whether it is not known how they lie in memory; they were read row by row.
    """

    tensor: str
    values: NDArray[Any]
    scales: dict[str, float] = field(default_factory=dict)
    unordered: bool = False

    def readings(self) -> Iterator[tuple[str, NDArray[Any]]]:
        """The values in each way that they may have to be read, with the scale: one way, if all is known."""
        orders = [self.values]
        if self.unordered and self.values.ndim > 2:
            channels_last = Layout(channels_last=True)
            orders.append(channels_last.unpacked(self.values.reshape(-1), self.values.shape))
        for values in orders:
            yield from ((name, values * scale) for name, scale in self.scales.items())
            if not self.scales:
                yield "", values


class Watched(Protocol):
    """Something that runs a bundle's graph and shows its tensors.

    Attributes:
        how: how its tensors are seen.
        unknown: its names of tensors that are none of the FP32 graph's, so far.
    """

    how: How
    unknown: set[str]

    def run(self, images: Images) -> Iterator[Seen]:
        """Run one batch."""
        ...

    def close(self) -> None:
        """Free the memory."""
        ...


class WatchedOutputs:
    """A graph, or an engine of it, whose tensors are outputs.

    Args:
        file: graph or engine with these outputs.
        runtime: what opens it.
        how: how tensors are seen.
        tensors: names of the outputs to keep.
    """

    def __init__(self, file: Path, runtime: runtimes.Runtime, how: How, tensors: Sequence[str]) -> None:
        self.how, self.unknown = how, set[str]()
        self._tensors, self._session = tensors, runtime.open(file)

    def run(self, images: Images) -> Iterator[Seen]:
        """See `Watched`."""
        found = self._session.run(images)
        return (Seen(name, found[name]) for name in self._tensors)

    def close(self) -> None:
        """See `Watched`."""
        self._session.close()


class WatchedEngine:
    """An engine that emits the tensors that fusion left.

    Args:
        session: its session.
        tensors: what its builder reported about them.
        trace: the graphs that it was built from.
    """

    how: How = "unfused"

    def __init__(self, session: EmittingSession, tensors: Sequence[Written], trace: Trace) -> None:
        self.unknown = set[str]()
        self._session, self._trace = session, trace
        self._written = {each.name: each for each in tensors}
        self._layouts = layouts_of(tensors)

    def run(self, images: Images) -> Iterator[Seen]:
        """See `Watched`."""
        emission = self._session.emitted(images, self._layouts)
        self.unknown.update(emission.unread)
        for name, values in {**emission.tensors, **emission.outputs}.items():
            seen = self._matched(name, values)
            if seen is None:
                self.unknown.add(name)
            else:
                yield seen

    def _matched(self, name: str, values: NDArray[Any]) -> Seen | None:
        """The tensor of the FP32 graph that an emitted one should equal; None if that is not clear."""
        reported = self._written.get(name, Written(name, (), None))
        unordered = reported.layout is None and name not in self._session.output_names
        tensor = self._trace.named(name, values.shape)
        if tensor is None:
            tensor = self._trace.result_of(reported.nodes, values.shape, reported.begun)
        if tensor is None:
            return None
        if np.issubdtype(values.dtype, np.floating):
            return Seen(tensor, values, unordered=unordered)
        scales = self._trace.scales(tensor, reported.nodes) if values.dtype == np.int8 else {}
        return Seen(tensor, values, scales, unordered) if scales else None

    def close(self) -> None:
        """See `Watched`."""
        self._session.close()


def watch_graph(model: Path, tensors: Sequence[str], *, scratch: Path) -> WatchedOutputs:
    """A graph in ONNX Runtime, with these tensors as outputs.

    Args:
        model: the graph.
        tensors: tensors of it.
        scratch: an existing folder for the graph with outputs.
    """
    file = scratch / f"{len(list(scratch.iterdir()))}.onnx"
    save_model(with_outputs(load_model(model), tensors), file)
    runtime = runtimes.get(runtimes.GRAPHS)
    return WatchedOutputs(file, runtime, "graph", tensors)


def watch_engine(
    bundle: Bundle, runtime: runtimes.Runtime, trace: Trace, steps: Steps, *, scratch: Path
) -> Watched:
    """An engine of the bundle's graph, built here to show its tensors; the bundle does not get it.

    Raises:
        BuildFailed: the build failed, or the requested precision was not reached.
        EnvironmentLacks: a package, driver or GPU is missing.
    """
    manifest, model = bundle.manifest, bundle.model
    low, high = manifest.batch
    typed = load_model(model)
    emits = runtime.emits()
    if not emits:
        model = scratch / "outputs.onnx"
        save_model(with_outputs(typed, trace.tensors), model)
    request = runtimes.BuildRequest(
        precision=manifest.precision,
        expected=expected_types(typed),
        batch=(low, high, high),
        emits=emits,
        options=BuildOptions(timing_cache_folder=str(cache_folder() / "timing-caches")),
    )
    [(plan, _)] = engine_step(steps, model, runtime=runtime, request=request).read()
    if not emits:
        return WatchedOutputs(plan, runtime, "outputs", trace.tensors)
    evidence = {
        name: (plan.parent / name).read_text(encoding="utf-8")
        for name in EVIDENCE
        if (plan.parent / name).is_file()
    }
    session = runtime.open(plan)
    assert runtimes.is_emitting(session), "a runtime that emits has sessions that do"
    nodes = [node.name for node in typed.graph.node]
    return WatchedEngine(session, written_by(kernels_in(evidence, nodes), nodes), trace)
