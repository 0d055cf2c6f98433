"""Memory foretold from a graph, held to sums done by hand."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from cnnx.graph.footprint import GraphMemory, predict_memory
from tests.inputs.tiny import tiny_graph

MAP = 4 * 16 * 14 * 14  # bytes of the convolution's output, an image


def test_a_chain_holds_two_maps_at_once_and_views_hold_none():
    model = tiny_graph()
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    weights = 4 * (16 * 25 + 16 + 10 * 3136 + 10)
    assert predict_memory(model, 3) == GraphMemory(weights, 3 * 2 * MAP, 3 * 4 * (32 * 32 + 10))


def test_a_shortcut_stays_alive_and_what_is_constant_is_folded():
    """Of input -> a -> b -> c, c = b + a: a, b and c at once, and a's other names take nothing. The scale is
    a constant's square, which is read to the end."""
    names = ["scale"]
    nodes = [
        helper.make_node("Mul", ["scale", "scale"], ["squared"]),
        helper.make_node("Mul", ["input", "squared"], ["a"]),
        helper.make_node("Identity", ["a"], ["same"]),
        helper.make_node("Identity", ["same"], ["again"]),
        helper.make_node("Relu", ["same"], ["b"]),
        helper.make_node("Sum", ["b", "a", "same", "again"], ["c"]),
        helper.make_node("GlobalAveragePool", ["c"], ["pooled"]),
        helper.make_node("Mul", ["pooled", "squared"], ["scaled"]),
        helper.make_node("Flatten", ["scaled"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "shortcut",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 8, 4, 4])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 8])],
        [numpy_helper.from_array(np.ones((1, 8, 1, 1), np.float32), names[0])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=10)
    assert predict_memory(model, 2).scratch_bytes == 3 * 2 * 4 * 8 * 16
    assert predict_memory(model, 2).weights_bytes == 32


def test_what_shape_inference_does_not_know_counts_as_nothing():
    nodes = [
        helper.make_node("Expand", ["input", "shape"], ["a"]),
        helper.make_node("GlobalAveragePool", ["input"], ["pooled"]),
        helper.make_node("NonZero", ["pooled"], ["places"]),  # (4, as many as there are)
        helper.make_node("Mul", ["a", "pooled"], ["logits"]),
    ]
    inputs = [
        helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 8, 4, 4]),
        helper.make_tensor_value_info("shape", TensorProto.INT64, ["rank"]),
    ]
    output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "unknown", inputs, [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=10)
    assert predict_memory(model, 2).scratch_bytes == 2 * 4 * 8
