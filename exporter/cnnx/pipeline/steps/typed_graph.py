"""The step that writes the typed or Q/DQ graph, which every target compiles, and the plan of its layers."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cnnx.graph.scales import FileScales
from cnnx.machine.environment import installed_version
from cnnx.options import Precision, Scales
from cnnx.pipeline.progress import Progress, Steps
from cnnx.pipeline.steps.artefacts import LAYERS, MODEL, Fp32Graph, Ranges, TypedGraph
from cnnx.quant.calibration import Calibration
from cnnx.quant.methods import FILE
from cnnx.recipe import Recipe
from cnnx.store.own_code import own_code

if TYPE_CHECKING:
    from onnx import ModelProto

    from cnnx.graph.passes.center import Centered
    from cnnx.graph.policy.placement import LayerPlan


def graph_step(
    steps: Steps,
    graph: Fp32Graph,
    ranges: Ranges | None,
    recipe: Recipe,
    *,
    precision: Precision,
    scales: Scales,
) -> TypedGraph:
    """The typed or Q/DQ graph, linted, and the plan of its layers.

    Raises:
        GraphError: TensorRT would reject the graph.
    """
    inputs = {
        "graph": graph.key,
        "calibration": ranges.key if ranges else None,
        "precision": precision,
        "scales": scales,
        "policy": dataclasses.asdict(recipe.precision),
        "code": own_code(__name__),
        "onnx": installed_version("onnx"),
    }

    def fill(folder: Path, _: Progress) -> None:
        observed = ranges.read() if ranges else None
        type_graph(folder, graph, observed, recipe, precision=precision, scales=scales)

    return TypedGraph(steps.make(f"{precision} graph", "graph", inputs, fill))


@dataclass(frozen=True, slots=True)
class Prepared:
    """An FP32 graph and how it will be typed.

    Attributes:
        model: the graph, with centered activations.
        plan: precision of its layers.
        ranges: activation -> range.
        means: activation -> mean of each channel.
        centered: quantized activations that are centered.
        steps: layer -> largest weight of each channel in steps of its scale, if those of a file are kept.
        smooth: layers whose weights are rounded for smooth images.
    """

    model: ModelProto
    plan: tuple[LayerPlan, ...]
    ranges: Mapping[str, float] = field(default_factory=dict)
    means: Mapping[str, Sequence[float]] = field(default_factory=dict)
    centered: Mapping[str, Centered] = field(default_factory=dict)
    steps: Mapping[str, Sequence[float]] | None = None
    smooth: tuple[str, ...] = ()


def prepare(
    graph: Fp32Graph, observed: Calibration | None, recipe: Recipe, *, precision: Precision, scales: Scales
) -> Prepared:
    """Plan the layers of a graph and, for INT8, center what they read."""
    from cnnx.graph.load import load_model
    from cnnx.graph.passes.center import center
    from cnnx.graph.policy.placement import plan_layers, reading_images, tensors_to_calibrate

    model = load_model(graph.model)
    maxima = observed_maxima(observed) if observed else None
    of_file = file_scales(graph, observed) if observed else None
    plan = plan_layers(
        model, precision=precision, policy=recipe.precision, maxima=maxima, scales=scales, of_file=of_file
    )
    if precision != "int8" or observed is None:
        return Prepared(model, plan)
    ranges = {name: each.amax for name, each in observed.ranges.items()}
    highs = {name: each.one_sided for name, each in observed.ranges.items() if each.one_sided}
    rounds = recipe.precision.first_rounding == "smooth" and of_file is None
    smooth = reading_images(model, plan) if rounds else ()
    if not highs or not recipe.precision.center:
        steps = of_file.weights if of_file else None
        return Prepared(model, plan, ranges, observed.means, steps=steps, smooth=smooth)
    model, centered = center(model, tensors_to_calibrate(model, plan), highs, scales=scales)
    plan = tuple(
        dataclasses.replace(layer, op=node.op_type)  # a Relu that became a Clip
        for layer, node in zip(plan, model.graph.node, strict=True)
    )
    ranges |= {name: each.amax for name, each in centered.items()}
    means = {
        name: tuple(value - centered[name].zero for value in values) if name in centered else values
        for name, values in observed.means.items()
    }
    return Prepared(model, plan, ranges, means, centered, smooth=smooth)


def type_graph(
    folder: Path,
    graph: Fp32Graph,
    observed: Calibration | None,
    recipe: Recipe,
    *,
    precision: Precision,
    scales: Scales,
) -> None:
    """Write the typed graph and the plan of its layers into a folder.

    Raises:
        GraphError: TensorRT would reject the graph.
    """
    from cnnx.graph.inspect import int8_share, left_out
    from cnnx.graph.inspect import layers as inspect_layers
    from cnnx.graph.lint import lint, refuse
    from cnnx.graph.load import logits_name, save_model
    from cnnx.graph.passes.fp16 import type_fp16
    from cnnx.graph.passes.qdq import insert_qdq
    from cnnx.graph.policy.rules import cause

    prepared = prepare(graph, observed, recipe, precision=precision, scales=scales)
    model, plan = prepared.model, prepared.plan
    if precision == "int8" and observed:
        model = insert_qdq(
            model,
            plan,
            ranges=prepared.ranges,
            scales=scales,
            means=prepared.means,
            steps=prepared.steps,
            smooth=prepared.smooth,
        )
    if precision == "fp16" or (precision == "int8" and scales == "fp16"):
        model = type_fp16(model, plan)
    findings = lint(model)
    refuse(findings, where=recipe.name)
    save_model(model, folder / MODEL)
    rows = inspect_layers(model) if precision == "int8" else ()
    described = {
        "output": logits_name(model),
        "int8_share": int8_share(rows),
        "left_out": left_out(rows, {layer.node: cause(layer.rule, layer.reason) for layer in plan}),
        "costs": {row.name: row.multiply_adds for row in rows if row.data_type == "int8"},
        "layers": [dataclasses.asdict(layer) for layer in plan],
        "warnings": [dataclasses.asdict(finding) for finding in findings],
    }
    (folder / LAYERS).write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")


def write_reference(
    folder: Path, graph: Fp32Graph, observed: Calibration, recipe: Recipe, *, scales: Scales
) -> Path:
    """Write the FP32 graph whose activations the INT8 graph quantizes, and return the ONNX file."""
    from cnnx.graph.load import save_model

    save_model(prepare(graph, observed, recipe, precision="int8", scales=scales).model, folder / MODEL)
    return folder / MODEL


def observed_maxima(calibration: Calibration) -> dict[str, float]:
    """The largest |x| of each activation, for planning; infinite if it had values that were not finite."""
    return {**calibration.maxima, **dict.fromkeys(calibration.nonfinite, math.inf)}


def file_scales(graph: Fp32Graph, calibration: Calibration) -> FileScales | None:
    """The scales of the graph's file if the ranges are theirs; else None."""
    return graph.scales if calibration.method == FILE else None
