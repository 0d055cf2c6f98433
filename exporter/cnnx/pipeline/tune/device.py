"""The device of a search: builds engines of placements with a runtime, and measures them in turns."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cnnx import runtimes
from cnnx.data.network_input import network_input
from cnnx.errors import BuildFailed, EnvironmentLacks, GraphError
from cnnx.graph.inspect import expected_types
from cnnx.graph.load import load_model, save_model
from cnnx.graph.passes.unsigned import with_unsigned_activations
from cnnx.measure.comparing import compare
from cnnx.measure.latency import measure_side_by_side
from cnnx.options.bundles import BuildOptions
from cnnx.pipeline.steps.engine import write_engine
from cnnx.pipeline.steps.inference import logits_of
from cnnx.pipeline.tune.network import TunedNetwork
from cnnx.quant.tuning.device import Paired, Placement, Refused

# Two hundred runs are twenty pairs of turns. Fewer give no trustworthy interval.
_RUNS = 200
# Of one comparison, for each engine in it.
_PATIENCE_S = 20.0
_SHORTEST_S = 1.0
# Of one measurement, which has at least ten pairs of turns by then.
_LONGEST_S = 120.0
_Z95 = 1.959964


@dataclass(frozen=True, slots=True)
class Built:
    """An engine of a placement, open.

    Attributes:
        placement: its placement.
        model: its graph, as a bundle will have it.
        file: what the runtime opened: the engine, or the graph.
        session: the open session.
    """

    placement: Placement
    model: Path
    file: Path
    session: runtimes.Session


class TargetDevice:
    """Satisfies `cnnx.quant.tuning.device.Device`.

    Args:
        network: what is tuned.
        runtime: builds and runs engines, or runs graphs.
        batch: smallest, tuned and largest batch; the tuned one is measured.
        options: options of builds.
        pixels: crops (N, H, W, C) to measure on.
        folder: folder for engines and graphs.
    """

    def __init__(
        self,
        network: TunedNetwork,
        runtime: runtimes.Runtime,
        *,
        batch: tuple[int, int, int],
        options: BuildOptions,
        pixels: NDArray[np.uint8],
        folder: Path,
    ) -> None:
        self._network, self._runtime, self._batch, self._options = network, runtime, batch, options
        self._folder = folder
        recipe = network.recipe
        self._pool = network_input(pixels, recipe.preprocessing, recipe.input_format)
        self._cuda_graph = runtime.engine_suffix is not None
        self._number = 0
        self._open_engines: list[Built] = []

    def build(self, placement: Placement) -> Built:
        """Write the graph of a placement, build it and open the engine.

        Raises:
            Refused: the linter or the builder refuses it.
        """
        self._number += 1
        folder = self._folder / f"{self._number:04}"
        folder.mkdir()
        try:
            model = self._network.write(folder, placement)
            file = self._compiled(model, folder)
            engine = Built(placement, model, file, self._open(file))
        except (BuildFailed, GraphError) as error:
            raise Refused(error.what) from error
        self._open_engines.append(engine)
        return engine

    def compare(self, engines: Sequence[Built], *, error: float, seconds: float) -> tuple[Paired, ...]:
        """Time engines in alternating turns, until the standard error is reached or the time is over."""
        names = [str(number) for number in range(len(engines))]
        until = time.monotonic() + min(seconds, _PATIENCE_S * len(engines))
        found: list[Paired] = []
        while True:
            measured = measure_side_by_side(
                {name: each.session for name, each in zip(names, engines, strict=True)},
                self._pool,
                batch=self._batch[1],
                min_seconds=0.0,
                min_samples=_RUNS,
                max_seconds=_LONGEST_S,
            )
            pairs = [compare(measured[name], measured[names[0]]) for name in names[1:]]
            if any(pair is None for pair in pairs):
                raise EnvironmentLacks(
                    f"{_LONGEST_S:.0f} s are not enough for ten turns of ten runs",
                    where=self._runtime.name,
                    hint="give a smaller --batch, or tune on a faster device",
                )
            new = [
                Paired(math.log(pair.ratio), _error(pair.interval.low, pair.interval.high), pair.rounds)
                for pair in pairs
                if pair is not None
            ]
            found = [a.with_more(b) for a, b in zip(found, new, strict=True)] if found else new
            left = until - time.monotonic()
            if max(each.error for each in found) <= error or left < _SHORTEST_S:
                return tuple(found)

    def discard(self, engine: Built) -> None:
        """Close an engine and remove its files."""
        engine.session.close()
        self._open_engines.remove(engine)
        for file in {engine.file, engine.model}:
            file.unlink(missing_ok=True)

    def close(self) -> None:
        """Close all engines."""
        for engine in self._open_engines:
            engine.session.close()
        self._open_engines.clear()

    def logits(self, engine: Built, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """An engine's own logits for crops (N, H, W, C)."""
        recipe = self._network.recipe
        return logits_of(
            engine.session, pixels, recipe.preprocessing, form=recipe.input_format, progress=lambda *_: None
        )

    def _compiled(self, model: Path, folder: Path) -> Path:
        """The engine of a graph; for a runtime that runs graphs, the graph with unsigned activations."""
        if self._runtime.engine_suffix is None:
            file = folder / "unsigned.onnx"
            save_model(with_unsigned_activations(load_model(model)), file)
            return file
        request = runtimes.BuildRequest(
            precision="int8",
            expected=expected_types(load_model(model)),
            batch=self._batch,
            options=self._options,
        )
        (built,) = self._runtime.build(model, request)
        return write_engine(folder / "engines", built)

    def _open(self, file: Path) -> runtimes.Session:
        """Open a file and run it once, as a CUDA graph that cannot be captured fails only then."""
        options = runtimes.RunOptions(
            cuda_graph=self._cuda_graph,
            host_code=self._options.version_compatible,
            dla_core=self._options.dla_core,
            fuse_qdq=True,
        )
        try:
            return self._opened(file, options)
        except EnvironmentLacks:
            if not self._cuda_graph:
                raise
        self._cuda_graph = False
        return self._opened(file, dataclasses.replace(options, cuda_graph=False))

    def _opened(self, file: Path, options: runtimes.RunOptions) -> runtimes.Session:
        session = self._runtime.open(file, options)
        images = (
            self._pool[:1]
            if self._batch[1] == 1
            else np.resize(self._pool, (self._batch[1], *self._pool.shape[1:]))
        )
        try:
            getattr(session, "timed_run", session.run)(np.ascontiguousarray(images))
        except EnvironmentLacks:
            session.close()
            raise
        return session


def _error(low: float, high: float) -> float:
    """Standard error of a logarithm, from the ends of its 95 % interval."""
    return max((math.log(high) - math.log(low)) / (2 * _Z95), 1e-5)
