"""Turns an exported graph into quantized ones, for export, calibrate, diagnose and every search."""

from __future__ import annotations

import dataclasses
import glob
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cnnx.data.crops import Crops
from cnnx.options import Precision, Scales
from cnnx.pipeline.progress import Steps
from cnnx.pipeline.steps.artefacts import MODEL, Fp32Graph, Ranges, Statistics, TypedGraph
from cnnx.pipeline.steps.equalized import equalize_step
from cnnx.pipeline.steps.ranges import calibration_step
from cnnx.pipeline.steps.statistics import statistics_step
from cnnx.pipeline.steps.typed_graph import graph_step, type_graph, write_reference
from cnnx.quant.calibration import Calibration
from cnnx.recipe import LayerOverride, Recipe


@dataclass(frozen=True, slots=True)
class Quantizer:
    """Quantizes an FP32 graph, based on the statistics of its activations on calibration images.

    Attributes:
        steps: runs the steps.
        recipe: recipe, with preprocessing and precision policy.
        graph: FP32 graph; for INT8 with equalized channels, unless the recipe disables that.
        images_digest: digest of the list of calibration images.
        statistics: statistics of the activations.
        precision: "int8", or "fp16", which needs only maxima and no ranges.
        scales: type of the scales.
    """

    steps: Steps
    recipe: Recipe
    graph: Fp32Graph
    images_digest: str
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
        statistics: Callable[..., Statistics] = statistics_step,
    ) -> Quantizer:
        """Equalize channels if the recipe says so, and run the calibration images through the graph.

        Args:
            steps: runs the steps.
            exported: the FP32 graph.
            images: calibration images.
            recipe: the network's recipe.
            precision: precision to plan for.
            scales: type of the scales.
            statistics: runs the images; see `cnnx.pipeline.runs.Runs`.

        Raises:
            BuildFailed: the equalized graph gives different logits.
        """
        graph = equalized_graph(steps, exported, images, recipe) if precision == "int8" else exported
        seen = statistics(steps, graph, images, recipe, precision=precision)
        return cls(steps, recipe, graph, images.list_digest, seen, precision, scales)

    def ranges(self, method: str) -> Ranges:
        """The ranges chosen by a method, with the recipe's exceptions.

        Raises:
            RecipeError: an exception matches no layer.
        """
        return calibration_step(
            self.steps,
            self.statistics,
            images_digest=self.images_digest,
            method=method,
            graph=self.graph,
            overrides=self.recipe.calibration.overrides if self.precision == "int8" else (),
        )

    def typed(self, ranges: Ranges) -> TypedGraph:
        """The graph typed by these ranges.

        Raises:
            GraphError: TensorRT would reject it.
        """
        return graph_step(
            self.steps, self.graph, ranges, self.recipe, precision=self.precision, scales=self.scales
        )

    def write_typed(self, folder: Path, calibration: Calibration) -> Path:
        """Write the typed graph to a folder outside the cache, and return the ONNX file.

        Raises:
            GraphError: TensorRT would reject it.
        """
        type_graph(folder, self.graph, calibration, self.recipe, precision=self.precision, scales=self.scales)
        return folder / MODEL

    def write_reference(self, folder: Path, calibration: Calibration) -> Path:
        """Write the FP32 graph with the activations that the typed graph quantizes; returns the ONNX file."""
        return write_reference(folder, self.graph, calibration, self.recipe, scales=self.scales)

    def with_fp16(self, reasons: Mapping[str, str]) -> Quantizer:
        """A copy that keeps some layers in FP16; `reasons`: layer -> reason."""
        return dataclasses.replace(self, recipe=in_fp16(self.recipe, reasons))

    def quiet(self) -> Quantizer:
        """A copy whose steps report nothing, for use within a step."""
        return dataclasses.replace(self, steps=Steps(store=self.steps.store))


def equalized_graph(steps: Steps, exported: Fp32Graph, images: Crops, recipe: Recipe) -> Fp32Graph:
    """The graph that INT8 starts from, with equalized channels unless the recipe disables that."""
    return equalize_step(steps, exported, images, recipe) if recipe.precision.equalize else exported


def in_fp16(recipe: Recipe, reasons: Mapping[str, str]) -> Recipe:
    """The recipe with some layers in FP16; `reasons`: layer -> reason."""
    overrides = [LayerOverride(glob.escape(name), "fp16", reason) for name, reason in reasons.items()]
    policy = recipe.precision
    policy = dataclasses.replace(policy, overrides=(*policy.overrides, *overrides))
    return dataclasses.replace(recipe, precision=policy)
