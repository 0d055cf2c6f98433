"""Tensors of a typed graph and of the FP32 graph that it was made from."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from cnnx.errors import GraphError
from cnnx.graph.passes.fp16 import type_fp16
from cnnx.graph.passes.qdq import insert_qdq
from cnnx.graph.policy.placement import plan_layers
from cnnx.graph.trace import Trace, with_outputs
from cnnx.recipe import PrecisionPolicy
from tests.inputs.graphs import GRAPHS, images, maxima_of, residual, run


def typed_of(model: onnx.ModelProto) -> onnx.ModelProto:
    maxima = maxima_of(model, images())
    plan = plan_layers(model, precision="int8", policy=PrecisionPolicy(), maxima=maxima, scales="fp16")
    return type_fp16(insert_qdq(model, plan, ranges=maxima, scales="fp16", means={}), plan)


@pytest.mark.parametrize("name", GRAPHS)
def test_tensors_of_both_graphs_hold_the_same(name: str) -> None:
    """Up to quantization, in any of these networks."""
    model = GRAPHS[name]()
    typed = typed_of(model)
    trace = Trace(model, typed)
    assert trace.tensors and "input" not in trace.tensors and "input" in trace.shapes
    x = images(2)
    found, expected = (run(with_outputs(each, trace.tensors), x) for each in (typed, model))
    for tensor in trace.tensors:
        a, b = expected[tensor].astype(np.float64), found[tensor].astype(np.float64)
        assert ((a - b) ** 2).sum() < 0.01 * (a**2).sum(), tensor


def test_steps_lie_between_the_tensors_that_are_left() -> None:
    trace = Trace(residual(), typed_of(residual()))
    steps = {step.tensor: step for step in trace.steps(["logits", "stem.relu", "a.relu2", "b.relu2"])}
    assert list(steps) == ["stem.relu", "a.relu2", "b.relu2", "logits"]
    assert steps["stem.relu"].before == () and steps["stem.relu"].quantized == ("input",)
    block = steps["a.relu2"]
    assert block.nodes == ("a.conv1", "a.relu1", "a.conv2", "a.add", "a.relu2")
    assert block.before == ("stem.relu",) and set(block.quantized) == {"stem.relu", "a.relu1"}
    assert steps["logits"].before == ("b.relu2",) and steps["logits"].nodes == ("gap", "flatten", "fc")


def test_what_a_kernel_writes_follows_from_its_nodes_and_its_shape() -> None:
    trace = Trace(residual(), typed_of(residual()))
    # As TensorRT for RTX reports a convolution: a sum, and then the rest with the quantization behind it.
    assert trace.result_of(["a.conv1"], (1, 16, 12, 12), {"a.conv1"}) is None
    rest = ["a.relu1", "a.conv1", "a.relu1.quantized"]
    assert trace.result_of(rest, (1, 16, 12, 12), ()) == "a.relu1"
    assert trace.scales("a.relu1", rest).keys() == {"a.relu1"}
    # Quantized before it is pooled and flattened: the shape tells.
    pooled = ["b.add", "b.relu2", "gap", "flatten.quantized"]
    assert trace.result_of(pooled, (1, 32, 1, 1), ()) in ("flatten", "gap")
    assert trace.result_of(pooled, (1, 32, 12, 12), ()) == "b.relu2"
    assert trace.scales("b.relu2", pooled).keys() == {"flatten"}
    assert trace.result_of(["gap"], (1, 32), ()) == "gap" and trace.scales("gap", ["gap"]).keys() == {
        "flatten"
    }
    assert trace.result_of(["strange"], (1, 32), ()) is None
    assert trace.named("a.relu1.quantized", (1, 16, 12, 12)) == "a.relu1"
    assert trace.named("a.relu1.quantized", (1, 16, 6, 6)) is None
    assert trace.named("__myln_k_arg__bb1_3_myl0", (1, 16, 12, 12)) is None


def test_a_tensor_that_is_none_cannot_be_an_output() -> None:
    with pytest.raises(GraphError, match="no tensor 'nothing'"):
        with_outputs(residual(), ["nothing"])
