"""Small edits of graphs, each on a graph that shows its limits."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from cnnx.errors import GraphError
from cnnx.graph import edit
from cnnx.graph.edit import ValueType


def model_of(*nodes, constants=(), inputs=("x",), outputs=("y",), opsets=(("", 19),)) -> ModelProto:
    """Nodes are (operator, inputs, outputs); constants, names or (name, values)."""
    made = [helper.make_node(op, read.split(), given.split(), name=given) for op, read, given in nodes]
    stored = [
        numpy_helper.from_array(*((np.ones(2, np.float32), each) if isinstance(each, str) else each[::-1]))
        for each in constants
    ]
    values = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3, 4, 4]) for name in names]
        for names in (inputs, outputs)
    ]
    graph = helper.make_graph(made, "graph", *values, stored)
    imports = [helper.make_opsetid(*each) for each in opsets]
    return helper.make_model(graph, opset_imports=imports, ir_version=10, producer_name="a test")


def test_a_tensors_readers_are_listed_once_a_read_and_an_output_has_no_only_one():
    model = model_of(("Add", "x x", "a"), ("Relu", "a", "y"), ("Abs", "y", "b"), constants=["w"])
    wires = edit.wiring(model.graph)
    assert [len(wires.consumers[name]) for name in "xay"] == [2, 1, 1] and "b" not in wires.consumers
    only = {name: wires.only_consumer(name) for name in ("x", "a", "y", "b", "gone")}
    assert only["a"].op_type == "Relu" and [only[name] for name in ("x", "y", "b", "gone")] == [None] * 4
    assert wires.producers.keys() == {"a", "y", "b"} and wires.initializers.keys() == {"w"}
    optional = model_of(("Relu", "x", "y"))
    optional.graph.node[0].input.append("")
    assert edit.wiring(optional.graph).consumers.keys() == {"x"}


@pytest.mark.parametrize(
    ("op", "dims", "attributes", "axis"),
    [
        ("Conv", (8, 3, 3, 3), {}, 0), ("Gemm", (8, 3), {}, 1), ("Gemm", (8, 3), {"transB": 1}, 0),
        ("Gemm", (8, 3), {"transA": 1}, None), ("MatMul", (8, 3), {}, 1), ("MatMul", (2, 8, 3), {}, None),
        ("Add", (8, 3), {}, None),
    ],
)  # fmt: skip
def test_output_channels_are_along_an_axis_of_the_weight(op, dims, attributes, axis):
    node = helper.make_node(op, ["x", "w"], ["y"], **attributes)
    weight = numpy_helper.from_array(np.zeros(dims, np.float32), "w")
    assert edit.weight_axis(node, {"w": weight}) == axis
    assert edit.weight_axis(node, {}) is None
    whole = numpy_helper.from_array(np.zeros(dims, np.int8), "w")
    assert edit.weight_axis(node, {"w": whole}) is None
    assert edit.weight_axis(helper.make_node("Relu", ["w"], ["y"]), {"w": weight}) is None


def test_names_are_fresh_among_nodes_tensors_and_each_other():
    model = model_of(("Relu", "x", "y"), constants=["w", "w_2"])
    model.graph.node[0].name = "relu"
    names = edit.Names(model.graph)
    found = [names.fresh(stem) for stem in ("new", "new", "new", "x", "y", "w", "relu")]
    assert found == ["new", "new_2", "new_3", "x_2", "y_2", "w_3", "relu_2"]


def test_large_constants_are_inputs_of_a_skeleton_and_all_else_is_kept():
    constants = [("small", np.zeros((32, 32), np.float32)), ("large", np.zeros((5, 205), np.float32))]
    model = model_of(("Relu", "x", "y"), constants=constants)
    bones = edit.skeleton(model)
    assert [tensor.name for tensor in bones.graph.initializer] == ["small"]
    assert [value.name for value in bones.graph.input] == ["x", "large"]
    assert edit.value_type(bones.graph.input[1]) == ValueType(TensorProto.FLOAT, (5, 205))
    listed = model_of(("Relu", "x", "y"), constants=constants, inputs=("x", "large"))
    assert [value.name for value in edit.skeleton(listed).graph.input] == ["x", "large"]
    assert [value.name for value in edit.data_inputs(listed.graph)] == ["x"]
    shell = edit.shell(model)
    assert (shell.producer_name, shell.ir_version, shell.graph.name) == ("a test", 10, "graph")
    assert not shell.graph.node and not shell.HasField("doc_string")


def test_unread_nodes_and_constants_go_and_outputs_stay():
    model = model_of(
        ("Relu", "x", "a"), ("Abs", "a", "dead"), ("Neg", "dead", "end"), ("Add", "a w", "y"),
        constants=["w", "idle", "given", "listed"], inputs=("x", "listed"), outputs=("y", "given"),
    )  # fmt: skip
    assert edit.drop_unread_nodes(model.graph) == 2 and edit.drop_unread_nodes(model.graph) == 0
    assert [node.op_type for node in model.graph.node] == ["Relu", "Add"]
    assert edit.drop_unread_initializers(model.graph) == 2
    assert [tensor.name for tensor in model.graph.initializer] == ["w", "given"]
    assert [value.name for value in model.graph.input] == ["x"]
    edit.rename_input(model.graph.node, "a", "b")
    assert [list(node.input) for node in model.graph.node] == [["x"], ["b", "w"]]


def test_attributes_have_pythons_types_and_nodes_a_label():
    node = helper.make_node("Pad", ["x"], ["y", "z"], mode="edge", pads=[1, 2])
    assert (edit.attribute(node, "mode"), list(edit.attribute(node, "pads"))) == ("edge", [1, 2])
    assert (edit.attribute(node, "gone"), edit.attribute(node, "gone", 3)) == (None, 3)
    assert edit.label(node) == "Pad -> y"
    del node.output[:]
    assert edit.label(node) == "Pad -> ?"
    node.name = "pad"
    assert edit.label(node) == "pad"


@pytest.mark.parametrize(
    ("opsets", "version"),
    [
        ([("", 19)], 19),
        ([("ai.onnx", 17)], 17),
        ([("com.example", 99), ("", 13)], 13),
        ([("other", 3)], 0),
        ([], 0),
    ],
)
def test_the_standard_operator_set_is_the_one_that_counts(opsets, version):
    model = model_of(("Relu", "x", "y"))
    del model.opset_import[:]
    model.opset_import.extend(helper.make_opsetid(*each) for each in opsets)
    assert edit.opset(model) == version


@pytest.mark.parametrize(
    ("text", "line"),
    [("\n  first \nsecond", "first"), ("one", "one"), ("", "ValueError"), (" \n", "ValueError")],
)
def test_of_a_message_the_first_line_is_kept(text, line):
    assert edit.first_line(ValueError(text)) == line


def test_lengths_are_known_numbers_names_or_nothing():
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT16, ["n", 3, None, 0])
    kind = edit.value_type(value)
    assert kind == ValueType(TensorProto.FLOAT16, ("n", 3, None, 0))
    assert (kind.rank, kind.lengths, kind.is_float) == (4, None, True)
    assert (
        ValueType(TensorProto.INT8, (2, 0)).lengths == (2, 0)
        and ValueType(TensorProto.INT8, ()).lengths == ()
    )
    unknown = edit.value_type(helper.make_tensor_value_info("x", TensorProto.INT64, None))
    assert unknown == ValueType(TensorProto.INT64, None)
    assert (unknown.rank, unknown.lengths, unknown.is_float) == (None, None, False)


def test_a_constant_of_another_size_than_its_shape_is_refused():
    tensor = edit.tensor_from_array("w", np.arange(6, dtype=np.float32).reshape(2, 3).T)
    assert edit.array(tensor).tolist() == [[0, 3], [1, 4], [2, 5]]
    assert edit.tensor_from_array("s", np.float32(2).reshape(())).dims == []
    tensor.raw_data = tensor.raw_data[:-4]
    with pytest.raises(GraphError, match=r"does not match its shape \[3, 2\]") as refusal:
        edit.array(tensor)
    assert refusal.value.where == "weight w" and "damaged" in refusal.value.hint
