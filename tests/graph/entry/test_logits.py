"""Which output is judged, by its shape, its name and what computes it."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from cnnx.errors import GraphError
from cnnx.graph.entry.logits import logits_first

NODES = {
    # output: operator, inputs, attributes
    "flat": ("Flatten", "x", {}),
    "ten": ("MatMul", "flat w10", {}),
    "deep": ("Relu", "ten", {}),
    "seven": ("MatMul", "flat w7", {}),
    "one": ("MatMul", "flat w1", {}),
    "two": ("MatMul", "flat w2", {}),
    "likely": ("Softmax", "ten", {}),
    "log_likely": ("LogSoftmax", "ten", {}),
    "gates": ("Sigmoid", "ten", {}),
    "cast": ("Cast", "likely", {"to": TensorProto.FLOAT}),
    "flat_likely": ("Flatten", "cast", {}),
    "doubled": ("Add", "likely likely", {}),
    "map": ("Conv", "x k", {}),
    "column": ("GlobalAveragePool", "map", {}),
    "one_map": ("Conv", "x k1", {}),
    "one_value": ("GlobalAveragePool", "one_map", {}),
    "likely_column": ("Softmax", "column", {"axis": 1}),
    "row": ("Transpose", "row4", {"perm": [0, 3, 2, 1]}),
    "row4": ("MaxPool", "map", {"kernel_shape": [2, 1]}),
    "id": ("ArgMax", "ten", {"axis": 1}),
    "float_id": ("Cast", "id", {"to": TensorProto.FLOAT}),
    "sum": ("ReduceSum", "ten axis", {"keepdims": 0}),
    "half": ("Cast", "ten", {"to": TensorProto.FLOAT16}),
    "picked": ("Compress", "ten positive", {"axis": 1}),
    "positive": ("Greater", "firsts zero", {}),
    "firsts": ("ReduceMax", "ten zero_axis", {"keepdims": 0}),
    "scores": ("Relu", "seven", {}),
    "aux_scores": ("Relu", "scores", {}),
}


def model_of(*outputs: str) -> ModelProto:
    """The nodes on which these outputs depend, in order."""
    nodes, done = [], set()

    def add(name: str) -> None:
        if name in NODES and name not in done:
            done.add(name)
            op, read, attributes = NODES[name]
            for each in read.split():
                add(each)
            nodes.append(helper.make_node(op, read.split(), [name], name=f"{name}.node", **attributes))

    for name in outputs:
        add(name)
    constants = {f"w{n}": np.ones((48, n), np.float32) for n in (1, 2, 7, 10)}
    constants |= {"k": np.ones((10, 3, 3, 3), np.float32), "k1": np.ones((1, 3, 3, 3), np.float32)}
    constants |= {"axis": np.array([1]), "zero_axis": np.array([0])}
    constants["zero"] = np.zeros(1, np.float32)
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 4, 4])],
        [helper.make_tensor_value_info(name, TensorProto.UNDEFINED, None) for name in outputs],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    kinds = {"id": TensorProto.INT64, "half": TensorProto.FLOAT16}
    for value in graph.output:
        value.type.tensor_type.elem_type = kinds.get(value.name, TensorProto.FLOAT)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=10)


def first(*outputs: str, **options):
    model = model_of(*outputs)
    classes, notes = logits_first(model, **options)
    return [value.name for value in model.graph.output], classes, notes


JUDGED = "judged by the output"


@pytest.mark.parametrize(
    ("outputs", "options", "order", "classes", "notes"),
    [
        (("ten",), {}, ["ten"], 10, []),
        (("half",), {}, ["half"], 10, []),
        (("two",), {}, ["two"], 2, []),
        (("log_likely",), {}, ["log_likely"], 10, []),
        (("doubled",), {}, ["doubled"], 10, []),
        (
            ("id", "ten"),
            {},
            ["ten", "id"],
            10,
            [f"{JUDGED} ten (n, 10); the others are id (n, 1)"],
        ),
        (
            ("seven", "ten", "map"),
            {"classes": 7},
            ["seven", "ten", "map"],
            7,
            [f"{JUDGED} seven (n, 7); the others are ten (n, 10), map (n, 10, 2, 2) (--logits NAME chooses)"],
        ),
        (("seven", "ten"), {"wanted": "ten"}, ["ten", "seven"], 10, []),
        (("seven", "ten"), {"wanted": "ten", "classes": 10}, ["ten", "seven"], 10, []),
    ],
)
def test_an_output_of_logits_comes_first(outputs, options, order, classes, notes):
    assert first(*outputs, **options) == (order, classes, notes)


@pytest.mark.parametrize(
    ("outputs", "chosen"),
    [
        (("ten", "deep"), "deep"),
        (("deep", "ten"), "deep"),
        (("scores", "deep"), "scores"),
        (("deep", "scores"), "scores"),
        (("aux_scores", "ten"), "ten"),
        (("two", "ten"), "two"),  # equal in all: the first
    ],
)
def test_of_several_outputs_the_name_and_then_the_depth_chooses(outputs, chosen):
    order, _, [note] = first(*outputs)
    assert order[0] == chosen and note.startswith(f"{JUDGED} {chosen} ")


@pytest.mark.parametrize(
    ("output", "kind", "logits"),
    [
        ("likely", "Softmax", "ten"),
        ("gates", "Sigmoid", "ten"),
        ("cast", "Softmax", "ten"),
        ("flat_likely", "Softmax", "ten"),
        ("likely_column", "Softmax", "column.logits"),
    ],
)
def test_what_a_normalized_output_is_made_of_is_judged(output, kind, logits):
    order, classes, [note] = first(output)
    assert (order, classes) == ([logits, output], 10)
    assert (
        note == f"the output {output} ends in {kind}; its input is the first output, {logits}, and is judged"
    )
    again, _, _ = first(output, "ten")
    assert again.count("ten") == 1


def test_maps_of_one_value_are_flattened():
    model = model_of("column")
    assert logits_first(model) == (10, [])
    assert model.graph.node[-1].op_type == "Flatten" and model.graph.output[0].name == "column.logits"
    assert [value.name for value in model.graph.output] == ["column.logits", "column"]


DEFAULT = "export a classifier whose output is logits of shape (N, classes)"
CLASS_IDS = "the network returns class numbers; export it so that it returns logits, before ArgMax or TopK"
MAP = "the network returns a feature map, as a backbone or a segmentation network does; "
FIXED = "export the network again with logits of a fixed shape (N, classes)"


@pytest.mark.parametrize(
    ("outputs", "options", "what", "hint"),
    [
        (("one",), {}, "no float output has the shape (N, classes); outputs: one (n, 1)", DEFAULT),
        (("id",), {}, "outputs: id (n, 1)", CLASS_IDS),
        (("float_id", "map"), {}, "outputs: float_id (n, 1), map (n, 10, 2, 2)", CLASS_IDS),
        (("map", "sum"), {}, "outputs: map (n, 10, 2, 2), sum (n)", MAP),
        (("one_value",), {}, "outputs: one_value (n, 1, 1, 1)", DEFAULT),
        (("one_map",), {}, "outputs: one_map (n, 1, 2, 2)", MAP),
        (("row4",), {}, "outputs: row4 (n, 10, 1, 2)", MAP),
        (("row",), {}, "outputs: row (n, 2, 1, 10)", MAP),
        (("sum",), {}, "outputs: sum (n)", DEFAULT),
        (("picked",), {}, "outputs: picked (n, unk__0)", FIXED),
        ((), {}, "outputs: none", DEFAULT),
        (("ten",), {"classes": 7}, "no float output has the shape (N, 7); outputs: ten (n, 10)", DEFAULT),
        (
            ("ten", "map"), {"wanted": "map"},
            "the output map (n, 10, 2, 2) is not logits of shape (N, classes)", MAP,
        ),
        (
            ("ten", "seven"), {"wanted": "ten", "classes": 7},
            "the output ten (n, 10) is not logits of shape (N, 7)", DEFAULT,
        ),
        (
            ("ten", "seven"), {"wanted": "gone"}, "the graph has no output 'gone'; outputs: ten, seven",
            "give one of them with --logits, such as --logits ten",
        ),
        ((), {"wanted": "gone"}, "the graph has no output 'gone'; outputs: none", None),
    ],
)  # fmt: skip
def test_where_no_output_is_logits_the_outputs_are_listed_with_a_hint(outputs, options, what, hint):
    with pytest.raises(GraphError) as refusal:
        logits_first(model_of(*outputs), **options)
    assert refusal.value.what.endswith(what) and refusal.value.where == "graph net"
    assert (refusal.value.hint or "").startswith(hint or "") and bool(refusal.value.hint) == bool(hint)
