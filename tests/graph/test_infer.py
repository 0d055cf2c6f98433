"""What follows from shapes and constants alone, operator by operator."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from cnnx.graph.infer import infer, lengths, types_at

CONSTANTS = {
    "three": np.array([3]),
    "axes": np.array([0]),
    "floats": np.array([1.5, 0.0, -2.0], np.float32),
    "half": np.array(0.5, np.float32),
    "zero": np.array(0, np.int8),
    "integers": np.array([1, 2], np.int8),
    "vast": np.array([1 << 17]),
    "largest": np.array([1 << 16]),
    "two": np.array(2),
}


def model_of(*nodes, batch="n"):
    """A model of (operator, inputs, outputs, attributes), whose first input has (n, 8, 4, 6) values."""
    made = [
        helper.make_node(op, inputs.split(), outputs.split(), outputs.split()[0], **attributes)
        for op, inputs, outputs, attributes in nodes
    ]
    graph = helper.make_graph(
        made,
        "graph",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 8, 4, 6]),
            helper.make_tensor_value_info("other", TensorProto.FLOAT, ["m", 2]),
        ],
        [],
        [numpy_helper.from_array(values, name) for name, values in CONSTANTS.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=10)


@pytest.mark.parametrize(
    ("op", "inputs", "attributes", "values"),
    [
        ("Shape", "x", {}, [5, 8, 4, 6]),
        ("Shape", "x", {"start": 1}, [8, 4, 6]),
        ("Shape", "x", {"start": -2, "end": -1}, [4]),
        ("Shape", "other", {}, None),
        ("Size", "x", {}, 5 * 8 * 4 * 6),
        ("Size", "other", {}, None),
        ("Relu", "x", {}, None),
        ("Mul", "three three", {}, [9]),
        ("Mul", "three x", {}, None),
        ("NonZero", "floats", {}, [[0, 2]]),
        ("Abs", "floats", {}, [1.5, 0, 2]),
        ("RandomUniformLike", "floats", {}, None),
        ("Bernoulli", "floats", {}, None),
        ("RandomNormal", "", {"shape": [2]}, None),
        ("QuantizeLinear", "floats half zero", {}, None),
        ("DequantizeLinear", "integers half zero", {}, None),
        ("ConstantOfShape", "three", {}, [0, 0, 0]),
        ("ConstantOfShape", "vast", {}, None),
        ("ConstantOfShape", "largest", {}, [0] * (1 << 16)),
    ],
)
def test_values_follow_where_all_that_is_read_is_known(op, inputs, attributes, values):
    known, _ = infer(model_of((op, inputs, "y", attributes)), 5)
    assert ("y" in known) == (values is not None)
    if values is not None:
        np.testing.assert_array_equal(known["y"], values)


def test_values_follow_from_values_that_follow():
    model = model_of(
        ("Shape", "x", "shape", {"start": 0, "end": 1}),
        ("Mul", "shape three", "tripled", {}),
        ("Split", "tripled", "whole", {"axis": 0, "num_outputs": 1}),
        ("Concat", "whole three", "target", {"axis": 0}),
        ("Expand", "half target", "grown", {}),
        ("ConstantOfShape", "vast", "beyond", {}),
        ("Shape", "beyond", "length", {}),
        ("TopK", "beyond axes", "most place", {}),
        ("Twirl", "grown", "unknown", {}),
        ("Relu", "unknown", "after", {}),
    )
    known, types = infer(model, 2)
    assert known["target"].tolist() == [6, 3] and known["grown"].shape == (6, 3)
    assert lengths(types["grown"]) == [6, 3] and lengths(types["beyond"]) == [1 << 17]
    assert known["length"].tolist() == [1 << 17] and "beyond" not in known
    assert not {"unknown", "after"} & types.keys() and lengths(types.get("after")) is None
    assert lengths(types["other"]) is None


@pytest.mark.parametrize(("batch", "found"), [("n", 7), (None, 7), (3, 3)])
def test_only_a_free_number_of_images_is_chosen(batch, found):
    model = model_of(("Flatten", "x", "flat", {}), ("Relu", "other", "rows", {}), batch=batch)
    types = types_at(model, 7)
    assert types["flat"].shape == (found, 192) and types["rows"].lengths is None
    assert model.graph.input[0] == helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 8, 4, 6])
