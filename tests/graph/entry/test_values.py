"""Infinite pads and bounds: what TensorRT does not take goes, and the values stay."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper, numpy_helper

from cnnx.errors import GraphError
from cnnx.graph import edit
from cnnx.graph.entry import read_network
from cnnx.graph.entry.values import finite, refuse_training, widen
from tests.inputs.graphs import Sketch, images, ops, run

INF = np.float32(np.inf)


def small(*nodes, opset=19, constants=None) -> ModelProto:
    """A graph of (operator, inputs, outputs, attributes)."""
    made = [
        helper.make_node(op, read.split(), given.split(), name=f"{op}.node", **attributes)
        for op, read, given, attributes in nodes
    ]
    stored = {"c": np.ones(3, np.float32), "on": np.array(True), "off": np.array(False), "r": np.float32(0.5)}
    graph = helper.make_graph(
        made,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(values, name) for name, values in (stored | (constants or {})).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


NORM = "BatchNormalization"


@pytest.mark.parametrize(
    ("nodes", "opset", "named"),
    [
        ([(NORM, "x c c c c", "y", {})], 19, ""),
        ([(NORM, "x c c c c", "y", {"training_mode": 1})], 19, NORM),
        ([("Relu", "x", "a", {}), (NORM, "a c c c c", "y m v", {"training_mode": 1})], 19, NORM),
        ([(NORM, "c c c c c", "y m v", {"training_mode": 1})], 19, ""),  # of a weight alone
        ([(NORM, "x c c c c", "y m v", {})], 19, ""),
        ([(NORM, "x c c c c", "y m v", {})], 14, ""),
        ([(NORM, "x c c c c", "y m v", {})], 13, NORM),
        ([(NORM, "x c c c c", "y", {})], 13, ""),
        ([("Dropout", "x r on", "y", {})], 19, "Dropout"),
        ([("Dropout", "x r off", "y", {})], 19, ""),
        ([("Dropout", "c r on", "y", {})], 19, "Dropout"),  # by chance, whatever it drops
        ([("Dropout", "x r", "y", {})], 19, ""),
        ([("Not", "on", "computed", {}), ("Dropout", "x r computed", "y", {})], 19, ""),
        ([("Relu", "x r on", "y", {})], 19, ""),
    ],
)
def test_only_what_depends_on_the_batch_or_on_chance_is_training(nodes, opset, named):
    model = small(*nodes, opset=opset)
    if not named:
        refuse_training(model)
        return
    with pytest.raises(GraphError, match=f"^{named} is in training mode") as refusal:
        refuse_training(model)
    assert refusal.value.where == f"node {named}.node" and "model.eval()" in refusal.value.hint


def test_all_floats_become_float32_and_nothing_else_changes():
    half = numpy_helper.from_array(np.array([0.5], np.float16))
    model = small(
        ("Cast", "x", "a", {"to": TensorProto.FLOAT16}),
        ("Cast", "a", "b", {"to": TensorProto.INT64}),
        ("ConstantOfShape", "s", "d", {"value": half}),
        ("Softmax", "b", "y", {"axis": TensorProto.FLOAT16}),
        constants={"h": np.array([1, 2], np.float16), "s": np.array([1]), "e": np.array([1e300, 2.5])},
    )
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.DOUBLE
    model.graph.value_info.append(helper.make_tensor_value_info("a", TensorProto.FLOAT16, [1]))
    assert widen(model) == "double and float16"
    stored = edit.initializers(model.graph)
    assert {name: tensor.data_type for name, tensor in stored.items() if name in "hse"} == {
        "h": TensorProto.FLOAT, "s": TensorProto.INT64, "e": TensorProto.FLOAT
    }  # fmt: skip
    assert edit.array(stored["h"]).tolist() == [1, 2] and edit.array(stored["e"]).tolist() == [np.inf, 2.5]
    kinds = [edit.attribute(model.graph.node[place], "to") for place in (0, 1)]
    assert kinds == [TensorProto.FLOAT, TensorProto.INT64]
    assert edit.attribute(model.graph.node[2], "value").data_type == TensorProto.FLOAT
    assert edit.attribute(model.graph.node[3], "axis") == TensorProto.FLOAT16
    assert model.graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT
    assert model.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT and not model.graph.value_info
    assert widen(model) == ""


def test_infinite_weights_stay_for_a_refusal_and_other_infinities_become_the_largest_fp16():
    low, mixed = np.float32(-np.inf), np.array([np.inf, 1, -np.inf], np.float32)
    model = small(
        ("Conv", "x w", "a", {}),
        ("Clip", "a low high", "b", {}),
        ("Add", "b mixed", "e", {}),
        ("MatMul", "e both", "f", {}),
        ("Add", "f both", "g", {}),
        ("ConstantOfShape", "n", "h", {"value": numpy_helper.from_array(np.array([1, 2]))}),
        ("Max", "g h", "y", {}),
        constants={
            "w": np.full((2, 3, 1, 1), np.inf, np.float32), "low": low, "high": np.float32(6), "mixed": mixed,
            "both": np.full((4, 4), -np.inf, np.float32), "n": np.array([1]), "unread": np.float32(np.inf),
        },
    )  # fmt: skip
    finite(model)
    stored = {name: edit.array(tensor) for name, tensor in edit.initializers(model.graph).items()}
    assert np.isinf(stored["w"]).all() and np.isinf(stored["both"]).all()
    assert stored["mixed"].tolist() == [65504, 1, -65504] and stored["unread"] == 65504
    assert list(model.graph.node[1].input) == ["a", "", "high"]
    assert edit.array(edit.attribute(model.graph.node[5], "value")).tolist() == [1, 2]


@dataclass(frozen=True)
class Padded:
    """A Pad that a MaxPool reads; `pads` of height and width, as (top, left, bottom, right)."""

    pads: tuple[int, int, int, int] = (1, 1, 1, 1)
    channels: int = 0
    value: float = -np.inf
    mode: str = "constant"
    axes: bool = False
    kernel: tuple[int, int] = (3, 3)
    own: tuple[int, int, int, int] | None = None
    auto_pad: str = ""
    read_twice: bool = False

    def graph(self) -> ModelProto:
        s = Sketch(seed=7)
        x = s.conv("input", "conv", 3, 4)
        top, left, bottom, right = self.pads
        pads = (
            [top, left, bottom, right]
            if self.axes
            else [0, self.channels, *self.pads[:2], 0, 0, *self.pads[2:]]
        )
        given = [s.constant("pads", np.array(pads)), s.constant("value", np.float32(self.value))]
        if self.axes:
            given.append(s.constant("axes", np.array([-2, 3])))
        padded = s.node("Pad", [x, *given], "pad", mode=self.mode)
        options = {"pads": [*self.own]} if self.own else {}
        options |= {"auto_pad": self.auto_pad} if self.auto_pad else {}
        x = s.node("MaxPool", [padded], "pool", kernel_shape=[*self.kernel], strides=[2, 1], **options)
        x = s.node("GlobalAveragePool", [x], "gap")
        if self.read_twice:
            x = s.node("Add", [x, s.node("GlobalMaxPool", [padded], "largest")], "sum")
        return s.classify(x, 4 + self.channels * (not self.axes))

    @property
    def is_a_pools(self) -> bool:
        """Whether the pool can do the padding, which is then less than a window on every side."""
        own = self.own or (0, 0, 0, 0)
        fits = all(
            a + b < self.kernel[side % 2] for side, (a, b) in enumerate(zip(self.pads, own, strict=True))
        )
        plain = self.mode == "constant" and self.auto_pad in ("", "NOTSET") and not self.read_twice
        spatial = min(self.pads) >= 0 and (self.axes or not self.channels)
        return fits and plain and spatial and self.value == -np.inf


def read(model: ModelProto, folder) -> ModelProto:
    onnx.save(model, folder / "net.onnx")
    return read_network(folder / "net.onnx").model


@pytest.mark.parametrize("place", range(8))
def test_padding_of_other_axes_than_those_of_an_image_stays(place):
    pads = np.zeros(8, np.int64)
    pads[place] = 1
    model = small(
        ("Pad", "x pads low", "a", {}),
        ("MaxPool", "a", "y", {"kernel_shape": [2, 2]}),
        constants={"pads": pads, "low": np.float32(-np.inf)},
    )
    finite(model)
    assert ("Pad" in ops(model)) == (place not in (2, 3, 6, 7))


lengths = st.integers(-1, 2)


@settings(max_examples=60)
@given(
    padded=st.builds(
        Padded,
        pads=st.tuples(lengths, lengths, lengths, lengths),
        channels=st.sampled_from([0, 0, 0, 1]),
        value=st.sampled_from([-np.inf, -np.inf, -np.inf, 0.0, -1.0]),
        mode=st.sampled_from(["constant", "constant", "constant", "edge"]),
        axes=st.booleans(),
        kernel=st.tuples(st.integers(2, 4), st.integers(2, 4)),
        own=st.sampled_from([None, (0, 0, 0, 0), (1, 0, 1, 0), (1, 1, 0, 0)]),
        auto_pad=st.sampled_from(["", "", "NOTSET", "VALID"]),
        read_twice=st.sampled_from([False, False, False, True]),
    )
)
def test_padding_by_minus_infinity_is_left_to_the_pool_that_reads_it(padded, tmp_path_factory):
    assume(not (padded.auto_pad == "VALID" and padded.own))  # which exclude each other
    model = padded.graph()
    expected = run(model, images())["logits"]
    assume(np.isfinite(expected).all())
    found = read(model, tmp_path_factory.mktemp("padded"))
    assert ("Pad" not in ops(found)) == padded.is_a_pools
    np.testing.assert_allclose(run(found, images())["logits"], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bounds", [(0, np.inf), (-np.inf, 1), (-np.inf, np.inf), (-1, 1)])
def test_an_infinite_bound_is_none(tmp_path, bounds):
    s = Sketch()
    low, high = (s.constant(name, np.float32(bound)) for name, bound in zip("ab", bounds, strict=True))
    x = s.node("Clip", [s.conv("input", "conv", 3, 8), low, high], "clip")
    model = s.classify(s.node("GlobalAveragePool", [x], "gap"), 8)
    found = read(model, tmp_path)
    [clip] = [node for node in found.graph.node if node.op_type == "Clip"]
    assert [bool(name) for name in clip.input[1:]] == [bool(np.isfinite(bound)) for bound in bounds]
    np.testing.assert_array_equal(run(found, images())["logits"], run(model, images())["logits"])


def test_an_infinite_mask_is_the_largest_number_of_fp16(tmp_path):
    """Added, as attention does before its Softmax, or made by ConstantOfShape."""
    s = Sketch()
    mask = np.zeros((1, 8, 1, 1), np.float32)
    mask[0, :3], mask[0, 7] = -np.inf, np.inf
    x = s.node("Add", [s.conv("input", "conv", 3, 8), s.constant("mask", mask)], "masked")
    x = s.node("Min", [x, s.constant("limit", np.float32(70000))], "least")
    made = onnx.numpy_helper.from_array(np.array([-INF]), "v")
    shape = s.node("Shape", [x], "shape")
    x = s.node("Max", [x, s.node("ConstantOfShape", [shape], "made", value=made)], "most")
    found = read(s.classify(s.node("GlobalAveragePool", [x], "gap"), 8), tmp_path)
    values = np.concatenate([edit.array(tensor).reshape(-1) for tensor in found.graph.initializer])
    assert np.isfinite(values).all() and {-65504.0, 65504.0} <= set(values)
    for node in found.graph.node:
        for entry in node.attribute:
            assert entry.name != "value" or edit.array(entry.t) == -65504
