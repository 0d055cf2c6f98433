"""Who runs images through networks: this machine, or the nodes of a fleet. The flow around it is the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cnnx.data.crops import Crops
from cnnx.options import Batch, Precision
from cnnx.pipeline.preconditions.refusals import refuse_without_torch
from cnnx.pipeline.progress import Steps
from cnnx.pipeline.steps.artefacts import Fp32Graph, Statistics
from cnnx.pipeline.steps.floor import floor_step
from cnnx.pipeline.steps.fp32_graph import export_step
from cnnx.pipeline.steps.original import Original, original_logits
from cnnx.pipeline.steps.statistics import statistics_step
from cnnx.recipe import Recipe


class Runs(Protocol):
    """Runs images through an original and its FP32 graph. A subject runs by itself: `target.Judged`."""

    def check_torch(self) -> None:
        """Raise if a PyTorch definition cannot be run.

        Raises:
            EnvironmentLacks: PyTorch is missing.
        """
        ...

    def graph(self, steps: Steps, original: Original, *, batch: Batch) -> Fp32Graph:
        """The original's FP32 graph; see `export_step`."""
        ...

    def original(self, steps: Steps, original: Original, crops: Crops, recipe: Recipe) -> NDArray[np.float32]:
        """The original's logits, which are finite; see `original_logits`."""
        ...

    def floor(self, steps: Steps, graph: Fp32Graph, crops: Crops, recipe: Recipe) -> NDArray[np.float32]:
        """The logits of the FP32 graph on the runtime of the subject; see `floor_step`."""
        ...

    def statistics(
        self,
        steps: Steps,
        graph: Fp32Graph,
        crops: Crops,
        recipe: Recipe,
        *,
        precision: Precision,
        parts: Sequence[Statistics] = (),
        title: str = ...,
    ) -> Statistics:
        """The statistics of the FP32 graph's activations; see `statistics_step`."""
        ...


class Here:
    """This machine."""

    def check_torch(self) -> None:
        """Raise if PyTorch is not installed."""
        refuse_without_torch()

    def graph(self, steps: Steps, original: Original, *, batch: Batch) -> Fp32Graph:
        """Export it, unless the cache has it."""
        return export_step(steps, original, batch=batch)

    def original(self, steps: Steps, original: Original, crops: Crops, recipe: Recipe) -> NDArray[np.float32]:
        """Run it."""
        return steps.run(
            "original's logits",
            lambda progress: original_logits(original, crops.pixels, recipe, progress=progress),
        )

    def floor(self, steps: Steps, graph: Fp32Graph, crops: Crops, recipe: Recipe) -> NDArray[np.float32]:
        """Run the graph, unless the cache has its logits."""
        return floor_step(steps, graph, crops, recipe).logits

    statistics = staticmethod(statistics_step)


HERE = Here()
