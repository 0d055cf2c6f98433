"""The input and the opset in one form, step by step on small graphs."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from cnnx.errors import GraphError
from cnnx.graph import edit
from cnnx.graph.entry.inputs import name_batch, to_float_nchw
from cnnx.graph.entry.versions import convert_version, drop_listed_constants, drop_unread_outputs

TO_NCHW = {"perm": [0, 3, 1, 2]}


def model_of(
    *nodes, inputs=(("x", ["n", 3, 8, 8]),), outputs=("y",), opset=19, kind=TensorProto.FLOAT, constants=()
):
    made = [
        helper.make_node(op, read.split(), given.split(), name=given.split()[0], **attributes)
        for op, read, given, attributes in nodes
    ]
    graph = helper.make_graph(
        made,
        "net",
        [helper.make_tensor_value_info(name, kind, shape) for name, shape in inputs],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["m", 5]) for name in outputs],
        [numpy_helper.from_array(np.ones(3, np.float32), name) for name in constants],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def shape_of(model: ModelProto):
    return edit.value_type(model.graph.input[0]).shape


@pytest.mark.parametrize(
    ("shape", "nhwc"),
    [
        (["n", 3, 8, 8], False), (["n", 8, 8, 3], True), (["n", 8, 8, 1], True), (["n", 8, 8, 4], False),
        (["n", 3, 8, 3], False), (["n", 1, 8, 3], False), (["n", 8, 3], False), (["n", 8, 8, 3, 3], False),
        (["n", 4, 8, 1], True), (None, False),
    ],
)  # fmt: skip
def test_channels_at_the_end_come_to_the_front(shape, nhwc):
    model = model_of(("Relu", "x", "y", {}), inputs=[("x", shape)])
    assert to_float_nchw(model) == (False, nhwc)
    front = [node.op_type for node in model.graph.node]
    assert front == (["Transpose", "Relu"] if nhwc else ["Relu"])
    if nhwc:
        assert shape_of(model) == ("n", shape[3], shape[1], shape[2])
        back, relu = model.graph.node
        assert list(back.attribute[0].ints) == [0, 2, 3, 1] and list(back.input) == ["x"]
        assert back.output == relu.input == ["x.nhwc"]
    elif shape:
        assert shape_of(model) == tuple(shape)


@pytest.mark.parametrize(
    ("readers", "kept"),
    [
        ([("Transpose", "x", "a", TO_NCHW)], ["Identity", "Relu"]),
        (
            [("Transpose", "x", "a", TO_NCHW), ("Transpose", "x", "b", TO_NCHW)],
            ["Identity", "Identity", "Relu"],
        ),
        (
            [("Transpose", "x", "a", TO_NCHW), ("Abs", "x", "b", {})],
            ["Transpose", "Transpose", "Abs", "Relu"],
        ),
        ([("Transpose", "x", "a", {"perm": [0, 3, 2, 1]})], ["Transpose", "Transpose", "Relu"]),
        ([("Transpose", "x", "a", {})], ["Transpose", "Transpose", "Relu"]),
        ([("Identity", "c", "a", {})], ["Transpose", "Identity", "Relu"]),
    ],
)
def test_a_graph_that_only_moves_channels_to_the_front_need_not(readers, kept):
    model = model_of(*readers, ("Relu", "a", "y", {}), inputs=[("x", ["n", 8, 8, 3])], constants=["c"])
    assert to_float_nchw(model) == (False, True) and shape_of(model) == ("n", 3, 8, 8)
    assert [node.op_type for node in model.graph.node] == kept
    assert all(not node.attribute for node in model.graph.node if node.op_type == "Identity")


def test_pixels_become_floats_and_several_inputs_are_left_alone():
    model = model_of(("Cast", "x", "y", {"to": 1}), kind=TensorProto.UINT8)
    assert to_float_nchw(model) == (True, False)
    assert model.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT
    two = model_of(
        ("Add", "x z", "y", {}), inputs=[("x", ["n", 8, 8, 3]), ("z", [1])], kind=TensorProto.UINT8
    )
    before = two.SerializeToString()
    assert to_float_nchw(two) == (False, False) and two.SerializeToString() == before


@pytest.mark.parametrize(
    ("batch", "named"), [("n", "batch"), (None, "batch"), (0, "batch"), (-1, "batch"), (1, 1), (4, 4)]
)
def test_a_free_batch_is_named_and_outputs_lose_their_lengths(batch, named):
    model = model_of(("Relu", "x", "y", {}), inputs=[("x", [batch, 3, 8, 8])])
    model.graph.value_info.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, [9]))
    name_batch(model)
    assert shape_of(model) == (named, 3, 8, 8) and not model.graph.value_info
    assert edit.value_type(model.graph.output[0]).shape == (None, None)
    scalar = model_of(("Relu", "x", "y", {}), inputs=[("x", [])])
    name_batch(scalar)
    assert shape_of(scalar) == ()


@pytest.mark.parametrize(
    ("inputs", "left"),
    [("x w", ["x"]), ("w x v", ["x"]), ("x", ["x"]), ("w", ["w"]), ("w v", ["w", "v"])],
)
def test_constants_are_no_inputs_unless_nothing_else_is(inputs, left):
    model = model_of(("Relu", "x", "y", {}), inputs=[(name, [3]) for name in inputs.split()], constants="wv")
    drop_listed_constants(model)
    assert [value.name for value in model.graph.input] == left
    assert model.ir_version == (10 if "x" in left else 8)


@pytest.mark.parametrize(
    ("node", "after", "left"),
    [
        (("MaxPool", "x", "a b", {"kernel_shape": [2, 2]}), "a", "a"),
        (("MaxPool", "x", "a b", {"kernel_shape": [2, 2]}), "b", "a b"),
        (("Dropout", "x", "a b", {}), "a", "a"),
        (("Dropout", "x", "a y", {}), "", "a y"),
        (("BatchNormalization", "x w w w w", "a b c", {"training_mode": 1}), "a", "a b c"),
        (("BatchNormalization", "x w w w w", "a b c", {}), "a", "a"),
        (("BatchNormalization", "x w w w w", "a b c", {}), "b", "a b"),
        (("Split", "x", "a b c", {"num_outputs": 3, "axis": 1}), "a", "a b c"),
        (("TopK", "x k", "a b", {}), "a", "a b"),
    ],
)
def test_optional_outputs_that_nothing_reads_go_from_the_end(node, after, left):
    nodes = [node, *([("Relu", after, "y", {})] if after else [])]
    model = model_of(*nodes)
    drop_unread_outputs(model)
    assert list(model.graph.node[0].output) == left.split()


@pytest.mark.parametrize(("opset", "kept"), [(7, 20), (18, 20), (19, 19), (20, 20), (21, 20)])
def test_an_opset_becomes_the_newest_that_all_read(opset, kept):
    model = model_of(("Relu", "x", "y", {}), opset=opset)
    del model.graph.output[0].type.tensor_type.shape.dim[:]
    model.graph.output[0].CopyFrom(onnx.ValueInfoProto(name="y", type=model.graph.input[0].type))
    convert_version(model)
    assert (edit.opset(model), model.ir_version) == (kept, 10)


def test_an_opset_that_is_too_old_is_refused():
    with pytest.raises(GraphError, match="opset 6 is older than 7") as refusal:
        convert_version(model_of(("Relu", "x", "y", {}), opset=6))
    assert "opset 19" in refusal.value.hint and refusal.value.where == "graph net"
