"""The step that writes the typed or Q/DQ graph, which every target compiles, and the plan of its layers."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

from cnnx.graph.scales import FileScales
from cnnx.machine.environment import installed_version
from cnnx.options import Precision, Scales
from cnnx.pipeline.progress import Progress, Steps
from cnnx.pipeline.steps.artefacts import LAYERS, MODEL, Fp32Graph, Ranges, TypedGraph
from cnnx.quant.calibration import Calibration
from cnnx.quant.methods import FILE
from cnnx.recipe import Recipe
from cnnx.store.own_code import own_code


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
    from cnnx.graph.load import load_model, logits_name, save_model
    from cnnx.graph.passes.fp16 import type_fp16
    from cnnx.graph.passes.qdq import insert_qdq
    from cnnx.graph.policy.placement import plan_layers

    model = load_model(graph.model)
    maxima = observed_maxima(observed) if observed else None
    of_file = file_scales(graph, observed) if observed else None
    plan = plan_layers(
        model, precision=precision, policy=recipe.precision, maxima=maxima, scales=scales, of_file=of_file
    )
    if precision == "int8" and observed:
        ranges = {name: tensor.amax for name, tensor in observed.ranges.items()}
        steps = of_file.weights if of_file else None
        model = insert_qdq(model, plan, ranges=ranges, scales=scales, means=observed.means, steps=steps)
    if precision == "fp16" or (precision == "int8" and scales == "fp16"):
        model = type_fp16(model, plan)
    findings = lint(model)
    refuse(findings, where=recipe.name)
    save_model(model, folder / MODEL)
    rows = inspect_layers(model) if precision == "int8" else ()
    described = {
        "output": logits_name(model),
        "int8_share": int8_share(rows),
        "left_out": left_out(rows, {layer.node: layer.reason for layer in plan})[0],
        "costs": {row.name: row.multiply_adds for row in rows if row.data_type == "int8"},
        "layers": [dataclasses.asdict(layer) for layer in plan],
        "warnings": [dataclasses.asdict(finding) for finding in findings],
    }
    (folder / LAYERS).write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")


def observed_maxima(calibration: Calibration) -> dict[str, float]:
    """The largest |x| of each activation, for planning; infinite if it had values that were not finite."""
    return {**calibration.maxima, **dict.fromkeys(calibration.nonfinite, math.inf)}


def file_scales(graph: Fp32Graph, calibration: Calibration) -> FileScales | None:
    """The scales of the graph's file if the ranges are theirs; else None."""
    return graph.scales if calibration.method == FILE else None
