"""What builders report about an engine's tensors: how they lie in memory, and which nodes they are of."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnx.runtimes.evidence import kernels_in
from cnnx.runtimes.kernels import Kernel, Tensor
from cnnx.runtimes.layout import LINEAR, Layout, layout_in
from cnnx.runtimes.written import written_by

SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 70), st.integers(1, 4), st.integers(1, 4))


@given(SHAPES, st.sampled_from(["last", "last8", "wide4", "wide32", "strides", "rows"]))
def test_what_lies_in_any_order_is_read_again(shape: tuple[int, ...], kind: str) -> None:
    values = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    n, c, h, w = shape
    multiple = {"last8": 8, "wide4": 4, "wide32": 32}.get(kind, 1)
    whole = np.full((n, -(-c // multiple) * multiple, h, w), np.nan, np.float32)
    whole[:, :c] = values
    if kind in ("last", "last8", "strides"):
        memory = whole.transpose(0, 2, 3, 1)
    elif kind.startswith("wide"):
        memory = whole.reshape(n, -1, multiple, h, w).transpose(0, 1, 3, 4, 2)
    else:
        memory = whole
    layout = {
        "last": layout_in("(NHWC) Channel major format"),
        "last8": layout_in("Channel major FP16 format where channel % 8 == 0"),
        "wide4": layout_in("Four wide channel vectorized row major Int8 format"),
        "wide32": layout_in("Thirty-two wide channel vectorized row major Int8 format"),
        "strides": Layout(strides=(h * w * c, 1, w * c, c)),
        "rows": layout_in("Row major linear FP32"),
    }[kind]
    assert layout is not None and layout.elements(shape) == memory.size
    np.testing.assert_array_equal(layout.unpacked(np.ascontiguousarray(memory).reshape(-1), shape), values)


def test_a_vector_lies_in_a_row_whatever_is_reported() -> None:
    """The same values may be emitted with fewer axes than reported."""
    for layout in (LINEAR, Layout(strides=(10, 1, 1, 1)), Layout(channels_last=True), Layout(together=4)):
        assert layout.elements((3,)) == 3 and list(layout.unpacked(np.arange(3), (3,))) == [0, 1, 2]
    assert Layout(strides=(10, 1, 1, 1)).unpacked(np.arange(20), (2, 10)).shape == (2, 10)


@pytest.mark.parametrize(
    ("words", "layout"),
    [
        ("Row major Int8 format", LINEAR),
        ("Two wide channel vectorized row major FP16 format", Layout(together=2)),
        ("Channel major FP32 format where channel % 4 == 0", Layout(channels_last=True, multiple=4)),
        # Formats of a DLA, and words without a format.
        ("Channel major INT8 format where channel == 4 and column stride % 32 == 0", None),
        ("Half", None),
        ("N/A due to dynamic shapes", None),
        ("Five wide channel vectorized row major Int8 format", None),
    ],
)
def test_words_for_formats(words: str, layout: Layout | None) -> None:
    assert layout_in(words) == layout


def test_nodes_that_a_later_kernel_names_are_only_begun() -> None:
    """And TensorRT 10's names without dots are those of the graph, where that is clear."""

    def kernel(tensor: str, *nodes: str) -> Kernel:
        return Kernel("", "", (), (), (), nodes, writes=(Tensor(tensor, "fp16", (1,), LINEAR),))

    names = ["layers.0.conv", "layers.0.relu", "a.b", "a_b"]
    found = written_by(
        [
            kernel("sum", "layers_0_conv"),
            kernel("act", "layers_0_conv", "layers.0.relu"),
            kernel("other", "a.b", "strange"),
        ],
        names,
    )
    assert [(each.name, each.nodes, each.begun) for each in found] == [
        ("sum", ("layers.0.conv",), {"layers.0.conv"}),
        ("act", ("layers.0.conv", "layers.0.relu"), frozenset()),
        ("other", ("a.b", "strange"), frozenset()),
    ]
    [unclear] = written_by([kernel("x", "a_b")], ["a.b", "a_b"])
    assert unclear.nodes == ("a_b",)


def test_what_cannot_be_read_is_not_there() -> None:
    for text in ("", "[]", "{", '{"Layers": 3}', '{"Layers": [1, {"Outputs": 5}, {"Outputs": [2]}]}'):
        assert written_by(kernels_in({"inspector.json": text}), ()) == ()
    assert written_by(kernels_in({"layers.log": "Name: nothing"}), ()) == ()
    layer = {"Name": "c + r", "LayerType": "CaskConvolution", "Metadata": ""}
    tensor = {"Name": "r_y", "Format/Datatype": "Channel major FP16 format where channel % 8 == 0"}
    text = json.dumps({"Layers": [{**layer, "Outputs": [tensor]}]})
    [found] = written_by(kernels_in({"inspector.json": text}), ())
    assert (found.name, found.nodes) == ("r_y", ("c", "r"))
    assert found.layout == Layout(channels_last=True, multiple=8)


def test_a_line_of_a_real_log() -> None:
    """TensorRT for RTX 1.7.1, LeNet-5 in INT8: it quantizes before it pools."""
    line = (
        "Name: __myl_MulCastAddReluMulMinMaxRounCast_myl0_2, LayerType: kgen, Inputs: [ { Name: "
        "__myln_k_arg__bb1_3_myl0, Dimensions: [1,6,28,28], Strides: [4704,1,168,6], StrideOrder: [3,0,2,1], "
        "Datatype: Float, Format: (NHWC) Channel major format }], Constants: [ { Name: __mye2483_c, "
        "Dimensions: [1], Strides: [1], StrideOrder: [0], Datatype: Half, Format: (Linear) Row major linear "
        "format }], Outputs: [ { Name: pool1.quantized.1_4_myl0, Dimensions: [1,6,28,28], Strides: "
        "[4704,1,168,6], StrideOrder: [3,0,2,1], Datatype: Int8, Format: (NHWC) Channel major format }], "
        "TacticName: __myl_x, StreamId: 0, Metadata: [ONNX Layer: relu1][ONNX Layer: conv1]"
        "[ONNX Layer: pool1.quantized]"
    )
    [found] = written_by(kernels_in({"layers.log": line}), ())
    assert found.name == "pool1.quantized.1_4_myl0" and found.layout == Layout((4704, 1, 168, 6))
    assert found.nodes == ("relu1", "conv1", "pool1.quantized")
