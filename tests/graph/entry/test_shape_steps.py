"""What follows from shapes, step by step on small graphs."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from cnnx.errors import GraphError
from cnnx.graph import edit
from cnnx.graph.entry import shapes
from cnnx.graph.entry.shapes import declare_outputs, fix_baked_batch, fold_known, refuse_huge

CONSTANTS = {
    "i0": np.array([0]), "i1": np.array([1]), "i3": np.array([3]), "rest": np.array([-1]),
    "w": np.ones((48, 2), np.float32),
    "one_row": np.array([1, -1]), "scalar": np.float32(2),
}  # fmt: skip


def model_of(*nodes, batch="batch", outputs=("y",), opset=19) -> ModelProto:
    made = [
        helper.make_node(op, read.split(), given.split(), name=given.split()[0], **attributes)
        for op, read, given, attributes in nodes
    ]
    graph = helper.make_graph(
        made,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, 4, 4])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(values, name) for name, values in CONSTANTS.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


@pytest.mark.parametrize("kind", [TensorProto.FLOAT, TensorProto.DOUBLE])
def test_a_tensor_of_the_largest_size_for_one_image_is_taken_and_a_larger_one_refused(monkeypatch, kind):
    model = model_of(("Cast", "x", "a", {"to": kind}), ("Concat", "a a", "y", {"axis": 1}), batch=8)
    size = 2 * 8 * 48 * (8 if kind == TensorProto.DOUBLE else 4)
    model.graph.output[0].type.tensor_type.elem_type = kind
    monkeypatch.setattr(shapes, "TENSOR_BYTES", size)
    refuse_huge(model)
    monkeypatch.setattr(shapes, "TENSOR_BYTES", size - 1)
    with pytest.raises(GraphError, match=r"the tensor y has 0\.0 GiB for one image"):
        refuse_huge(model)
    free = model_of(("Concat", "x x", "y", {"axis": 1}))
    monkeypatch.setattr(shapes, "TENSOR_BYTES", 2 * 48 * 4)
    refuse_huge(free)


@pytest.mark.parametrize(
    ("nodes", "batch", "baked"),
    [
        ([("Reshape", "x one_row", "y", {})], "batch", True),
        ([("Reshape", "x one_row", "y", {})], 1, False),
        ([("Flatten", "x", "y", {})], "batch", False),
        ([("Flatten", "x", "y", {}), ("Reshape", "x one_row", "z", {})], "batch", True),
        (
            [("Compress", "x positive", "y", {"axis": 0}), ("Greater", "i1 i0", "positive", {})][::-1],
            "batch",
            False,
        ),
    ],
)
def test_a_batch_that_shapes_give_is_fixed(nodes, batch, baked):
    model = model_of(*nodes, batch=batch, outputs=[node[2] for node in nodes if node[2] in "yz"])
    assert fix_baked_batch(model) == baked
    assert edit.value_type(model.graph.input[0]).shape[0] == (1 if baked else batch)


LENGTHS = [("Shape", "x", "shape", {}), ("Gather", "shape i0", "n", {"axis": 0})]


@pytest.mark.parametrize(
    ("nodes", "batch", "target"),
    [
        # Of the batch and the rest: 0 copies the batch, whatever it is.
        ([*LENGTHS, ("Concat", "n rest", "to", {"axis": 0}), ("Reshape", "x to", "y", {})], "batch", [0, 48]),
        ([*LENGTHS, ("Concat", "n rest", "to", {"axis": 0}), ("Reshape", "x to", "y", {})], 5, [5, 48]),
        (
            [*LENGTHS, ("Concat", "rest n", "to", {"axis": 0}), ("Reshape", "x to", "y", {})],
            "batch", [48, -1],
        ),
        # Three times the batch: what follows from the other lengths.
        (
            [*LENGTHS, ("Mul", "n i3", "m", {}), ("Concat", "m rest", "to", {"axis": 0}),
             ("Reshape", "x to", "y", {})],
            "batch", [-1, 16],
        ),
        # The batch in two places, neither of which it has in the input.
        (
            [
                *LENGTHS, ("Flatten", "x", "f", {}), ("Gemm", "f f", "g", {"transB": 1}),
                ("Concat", "i1 i1 n n", "to", {"axis": 0}), ("Reshape", "g to", "y", {}),
            ],
            "batch", None,
        ),
        # Twice three times the batch in two places: it stays computed.
        (
            [
                *LENGTHS, ("Mul", "n i3", "m", {}), ("Concat", "m i1 m", "to", {"axis": 0}),
                ("Expand", "scalar to", "y", {}),
            ],
            "batch", None,
        ),
    ],
)  # fmt: skip
def test_the_target_of_a_reshape_serves_any_batch(nodes, batch, target):
    model = model_of(*nodes, batch=batch)
    fold_known(model)
    stored = {name: edit.array(tensor).tolist() for name, tensor in edit.initializers(model.graph).items()}
    last = model.graph.node[-1]
    assert stored.get(last.input[1]) == target
    assert ("Shape" in {node.op_type for node in model.graph.node}) == (target is None)
    assert not last.attribute


def test_what_depends_on_the_size_alone_is_a_constant_and_what_depends_on_the_batch_is_not():
    model = model_of(
        ("Shape", "x", "shape", {}),
        ("Gather", "shape i1", "channels", {"axis": 0}),
        ("Gather", "shape i0", "n", {"axis": 0}),
        ("Concat", "n channels", "both", {"axis": 0}),
        ("Size", "x", "size", {}),
        ("ConstantOfShape", "channels", "a", {}),
        ("ConstantOfShape", "both", "b", {}),
        ("Add", "a b", "y", {}),
    )
    fold_known(model)
    assert [node.op_type for node in model.graph.node] == [
        "Shape",
        "Gather",
        "Concat",
        "ConstantOfShape",
        "Add",
    ]
    stored = {name: edit.array(tensor).tolist() for name, tensor in edit.initializers(model.graph).items()}
    assert stored[model.graph.node[-1].input[0]] == [0, 0, 0] and model.graph.node[2].input[0] == "n"
    assert stored[model.graph.node[2].input[1]] == [3] and "w" not in stored and "size" not in stored


def test_outputs_are_declared_as_they_are_inferred():
    model = model_of(
        ("Flatten", "x", "f", {}), ("MatMul", "f w", "y", {}), ("ArgMax", "y", "z", {"axis": 1}), outputs="yz"
    )
    model.graph.output[1].type.tensor_type.elem_type = TensorProto.INT64
    declare_outputs(model)
    assert [edit.value_type(value).shape for value in model.graph.output] == [("batch", 2), ("batch", 1)]
    assert [value.type.tensor_type.elem_type for value in model.graph.output] == [
        TensorProto.FLOAT,
        TensorProto.INT64,
    ]
