"""Facts about a graph that the rules for the precision of a layer use."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from onnx import ModelProto

from cnnx.graph import edit
from cnnx.graph.edit import Wiring
from cnnx.graph.scales import FileScales
from cnnx.options import Precision, Scales
from cnnx.recipe import PrecisionPolicy

# FP16 subnormals are 2**-24 apart. At the floor, rounding a scale up costs at most a sixteenth of it. The
# FP32 floor is the smallest normal number.
SCALE_FLOORS: dict[Scales, float] = {"fp16": 2.0**-20, "fp32": 2.0**-126}
LEVELS = 127


@dataclass(frozen=True, slots=True)
class Context:
    """Facts about a graph that the rules use.

    Attributes:
        base: precision of everything that is neither INT8 nor an FP32 island.
        constants: largest absolute value of each float constant.
        weights: constants with two or more axes.
        first: weighted layers that read a graph input.
        last: weighted layers that produce a graph output.
        kept: layers whose weights have scales in the file; None if its scales are not used.
        ranges: activation -> range by the file's scales; empty if they are not used.
    """

    graph: Wiring
    maxima: Mapping[str, float] | None
    policy: PrecisionPolicy
    precision: Precision
    base: Precision
    graph_inputs: frozenset[str]
    outputs: Mapping[str, Sequence[str]]
    constants: Mapping[str, float]
    weights: frozenset[str]
    first: frozenset[str]
    last: frozenset[str]
    kept: frozenset[str] | None
    ranges: Mapping[str, float]

    @property
    def narrowest(self) -> float:
        """The smallest range that a scale of the network's type can represent."""
        return LEVELS * SCALE_FLOORS["fp32" if self.base == "fp32" else "fp16"]


def context_of(
    model: ModelProto,
    *,
    precision: Precision,
    policy: PrecisionPolicy,
    maxima: Mapping[str, float] | None,
    scales: Scales,
    of_file: FileScales | None,
) -> Context:
    """Context of a graph for the rules; for the arguments see `plan_layers`."""
    wide = precision == "fp32" or (precision == "int8" and scales == "fp32")
    return Context(
        graph=edit.wiring(model.graph),
        maxima=maxima,
        policy=policy,
        precision=precision,
        base="fp32" if wide else "fp16",
        graph_inputs=frozenset(value.name for value in edit.data_inputs(model.graph)),
        outputs={node.name: tuple(node.output) for node in model.graph.node},
        constants={} if precision == "fp32" else _largest(model),
        # Biases are excluded: a small bias is added to larger values and does no harm.
        weights=frozenset(tensor.name for tensor in model.graph.initializer if len(tensor.dims) > 1),
        first=_first(model),
        last=_last(model),
        kept=None if of_file is None else frozenset(of_file.weights),
        ranges={} if of_file is None else of_file.ranges(model),
    )


def _first(model: ModelProto) -> frozenset[str]:
    """Weighted layers that read a graph input, directly or through layers without weights."""
    raw = {value.name for value in edit.data_inputs(model.graph)}
    constants = edit.initializers(model.graph)
    found = set()
    for node in model.graph.node:
        if raw.isdisjoint(node.input):
            continue
        if edit.weight_axis(node, constants) is None:
            raw.update(node.output)
        else:
            found.add(node.name)
    return frozenset(found)


def _last(model: ModelProto) -> frozenset[str]:
    """Weighted layers that reach a graph output, directly or through layers without weights."""
    given = {value.name for value in model.graph.output}
    constants = edit.initializers(model.graph)
    found = set()
    for node in reversed(model.graph.node):
        if given.isdisjoint(node.output):
            continue
        if edit.weight_axis(node, constants) is None:
            given.update(node.input)
        else:
            found.add(node.name)
    return frozenset(found)


def _largest(model: ModelProto) -> dict[str, float]:
    """Largest absolute value of each float constant."""
    found = {}
    for tensor in model.graph.initializer:
        if tensor.data_type == edit.FLOAT and math.prod(tensor.dims):
            values = edit.array(tensor)
            found[tensor.name] = float(max(values.max(), -values.min()))
    return found
