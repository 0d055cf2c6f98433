"""One way from an exported graph to quantized ones, taken by export, calibrate, diagnose and every search."""

from __future__ import annotations

import dataclasses
import glob
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cnnx.data.crops import Crops
from cnnx.options import Precision, Scales
from cnnx.pipeline.progress import Steps
from cnnx.pipeline.steps.artefacts import MODEL, Fp32Graph, Ranges, Statistics, TypedGraph
from cnnx.pipeline.steps.equalized import equalize_step
from cnnx.pipeline.steps.ranges import calibration_step
from cnnx.pipeline.steps.statistics import statistics_step
from cnnx.pipeline.steps.typed_graph import graph_step, type_graph
from cnnx.quant.calibration import Calibration
from cnnx.recipe import LayerOverride, Recipe


@dataclass(frozen=True, slots=True)
class Quantizer:
    """An FP32 graph, what calibration images show of it, and the typed graphs that follow.

    Attributes:
        steps: what does the steps, or finds them done.
        recipe: preprocessing, and the policy that places layers.
        graph: the FP32 graph that is typed; for INT8 with its channels equalized where the recipe asks.
        images: the calibration images.
        statistics: what they show of the graph.
        precision: "int8" or "fp16", which needs no ranges, only maxima.
        scales: type of the scales.
    """

    steps: Steps
    recipe: Recipe
    graph: Fp32Graph
    images: Crops
    statistics: Statistics
    precision: Precision = "int8"
    scales: Scales = "fp16"

    @classmethod
    def observe(
        cls,
        steps: Steps,
        exported: Fp32Graph,
        images: Crops,
        recipe: Recipe,
        *,
        precision: Precision = "int8",
        scales: Scales = "fp16",
    ) -> Quantizer:
        """Equalize the channels where the recipe asks, and run the calibration images through the graph.

        Raises:
            BuildFailed: the equalized graph computes something else.
        """
        graph = equalized_graph(steps, exported, images, recipe) if precision == "int8" else exported
        statistics = statistics_step(steps, graph, images, recipe, precision=precision)
        return cls(steps, recipe, graph, images, statistics, precision, scales)

    def ranges(self, method: str) -> Ranges:
        """The ranges that a method chooses."""
        return calibration_step(self.steps, self.statistics, self.images, method=method)

    def typed(self, ranges: Ranges) -> TypedGraph:
        """The graph typed by these ranges.

        Raises:
            GraphError: TensorRT would refuse it.
        """
        return graph_step(
            self.steps, self.graph, ranges, self.recipe, precision=self.precision, scales=self.scales
        )

    def write_typed(self, folder: Path, calibration: Calibration) -> Path:
        """The typed graph in a folder of the caller's, outside the cache; returns the ONNX file.

        Raises:
            GraphError: TensorRT would refuse it.
        """
        type_graph(folder, self.graph, calibration, self.recipe, precision=self.precision, scales=self.scales)
        return folder / MODEL

    def with_fp16(self, reasons: Mapping[str, str]) -> Quantizer:
        """The same with some layers out of INT8: layer -> reason."""
        overrides = [LayerOverride(glob.escape(name), "fp16", reason) for name, reason in reasons.items()]
        policy = self.recipe.precision
        policy = dataclasses.replace(policy, overrides=(*policy.overrides, *overrides))
        return dataclasses.replace(self, recipe=dataclasses.replace(self.recipe, precision=policy))

    def quiet(self) -> Quantizer:
        """The same with steps that report nothing, for use within a step."""
        return dataclasses.replace(self, steps=Steps(store=self.steps.store))


def equalized_graph(steps: Steps, exported: Fp32Graph, images: Crops, recipe: Recipe) -> Fp32Graph:
    """The graph that INT8 starts from: its channels equalized, unless the recipe says not to."""
    return equalize_step(steps, exported, images, recipe) if recipe.precision.equalize else exported
