"""Parsing of logs captured from TensorRT for RTX 1.7.1 builds with DETAILED profiling verbosity."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnx.runtimes.kernels import mismatches
from cnnx.runtimes.rtx.build_log import layer_types, parse_kernels

CAPTURED = Path(__file__).parent / "captured"
INT8 = (CAPTURED / "rtx-1.7.1-int8.txt").read_text()
SQUEEZE = (CAPTURED / "rtx-1.7.1-squeeze.txt").read_text()
FP16 = (CAPTURED / "rtx-1.7.1-fp16.txt").read_text()


def test_types_of_an_int8_network():
    """Names with slashes, blanks, dots and colons; a first layer in FP16; grouped and depthwise layers."""
    found = layer_types(INT8)
    assert {
        node: found[node]
        for node in (
            "/features/0/Conv",
            "/inc/b1 conv",
            "inc.b2.conv",
            "inc.b2.conv3",
            "inc::b3",
            "dw",
            "grp",
        )
    } == {
        "/features/0/Conv": "fp16",
        "/inc/b1 conv": "int8",
        "inc.b2.conv": "int8",
        "inc.b2.conv3": "int8",
        "inc::b3": "int8",
        "dw": "int8",
        "grp": "int8",
    }
    assert (found["fc1"], found["fc2"]) == ("int8", "int8")


def test_a_layer_that_quantizes_its_own_input_is_int8_only_with_int8_weights():
    """Captured from TinyNet: a layer of squeeze-and-excitation, fused with the quantization before it."""
    expand = "/blocks/blocks.1/blocks.1.0/se/conv_expand/Conv"
    assert layer_types(SQUEEZE)[expand] == "int8"
    assert layer_types(SQUEEZE.replace("Datatype: Int8", "Datatype: Half"))[expand] == "fp32"
    kept = SQUEEZE.replace("[ONNX Layer: /blocks/blocks.1/blocks.1.0/se/act1/Mul_output_0.quantized]", "")
    assert layer_types(kept)[expand] == "fp32"


def test_a_node_with_brackets_in_its_name_is_found():
    name = "x] [ONNX Layer: y"
    log = INT8.replace("[ONNX Layer: dw]", f"[ONNX Layer: {name}]")
    assert name not in layer_types(log)
    assert layer_types(log, [name, "dw"])[name] == layer_types(INT8)["dw"]


def test_an_fp32_layer_that_was_narrowed_shows():
    """The graph has Cast, an FP32 Conv with FP32 weights, Cast; the kernel is FP16 with a different name."""
    assert layer_types(INT8)["island"] == "fp16"
    assert mismatches({"island": "fp32", "dw": "int8"}, layer_types(INT8)) == (
        "island: fp16 instead of fp32",
    )


def test_layers_fused_or_generated_are_found():
    found = layer_types(FP16)
    assert [found[node] for node in ("grp", "fc1", "fc2")] == ["fp16"] * 3


def test_a_1x1_convolution_that_became_a_matrix_product_is_found():
    """Captured from LeViT-256: the suffix follows the bracket, "[ONNX Layer: x]__gemm_from_conv1x1"."""
    assert layer_types(FP16)["stages.1.downsample.mlp.ln1.linear"] == "fp16"


def test_one_kernel_whole():
    kernel = next(kernel for kernel in parse_kernels(INT8) if kernel.name.startswith("inc.b2.conv_myl"))
    assert kernel.kind == "correlation"
    assert kernel.inputs == ("int8",)
    assert kernel.constants == ("int8", "fp32", "fp32")
    assert kernel.outputs == ("fp32",)
    assert kernel.layers == ("inc.b2.conv", "/features/0/Conv_yr_dequant", "inc.b2.conv_w_dequant")


def test_kernels_without_data_are_read_too():
    signal = next(kernel for kernel in parse_kernels(INT8) if kernel.kind == "signal")
    assert (signal.inputs, signal.constants, signal.layers) == ((), (), ())


@pytest.mark.parametrize(
    "change",
    [
        ("Name: /features/0/Conv_myl0_1,", "Name: __mye99_myl0_1,"),
        ("LayerType: correlation", "LayerType: novel"),
    ],
    ids=["by kind", "by name"],
)
def test_the_kernel_that_multiplies_is_distinguished_from_the_one_that_pads(change):
    """A generated kernel also names the first convolution, and reads its FP32 input."""
    assert parse_kernels(INT8)[0].inputs == ("fp32",)
    assert "/features/0/Conv" in parse_kernels(INT8)[0].layers
    assert change[0] in INT8
    assert layer_types(INT8.replace(*change))["/features/0/Conv"] == "fp16"


def test_int8_data_with_other_weights_is_not_int8():
    line = next(line for line in INT8.splitlines() if line.startswith("Name: dw_myl"))
    head, constants, tail = line.partition("Constants:")
    wrong = head + constants + tail.replace("Datatype: Int8", "Datatype: Half")
    assert layer_types(wrong)["dw"] == "int8 data, fp16 weights"


@pytest.mark.parametrize(
    "text", ["", "Layers:\n", "Name: x, LayerType: y", INT8.replace("Metadata:", "Meta:")]
)
def test_what_cannot_be_read_is_not_found_and_refuses_nothing(text):
    assert layer_types(text) == {}
    assert mismatches({"dw": "int8"}, layer_types(text)) == ()


@given(st.text(max_size=200), st.integers(0, len(INT8)))
def test_damaged_text_raises_nothing(junk, at):
    layer_types(INT8[:at] + junk + INT8[at:])


def test_a_shortcut_in_fp32_that_comes_first_is_not_the_data_of_the_product():
    """A block of ConvNeXt: product, scale and sum in one kernel, whose weight is FP16."""
    [kernel] = parse_kernels((CAPTURED / "rtx-1.7.1-convnext.txt").read_text())
    assert (kernel.inputs, kernel.constants) == (("fp32", "fp16"), ("fp32", "fp16", "fp16"))
    assert kernel.weight == "fp16"
    assert layer_types((CAPTURED / "rtx-1.7.1-convnext.txt").read_text())[kernel.layers[0]] == "fp16"
