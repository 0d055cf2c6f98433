"""Types by the kernels of a build, as TensorRT for RTX reported them."""

from __future__ import annotations

import re

import pytest

from cnnx.runtimes.kernels import Kernel, converts, mismatches, nodes_in, of_nodes, types_of


def kernel(layers, constants):
    return Kernel("__myl_Fused_myl0_99", "kgen", ("fp32", "fp32"), constants, ("fp16",), layers)


@pytest.mark.parametrize(
    ("layers", "constants", "found"),
    [
        # The head of ViT-Tiny at one token: LayerNormalization in FP32, a Cast, and the product.
        (("norm", "norm.fp16", "select", "head"), ("fp16", "fp32", "fp32"), "fp16"),
        # A projection of LeViT behind Softmax in FP32: TensorRT names the Cast last.
        (("product", "head", "act", "softmax.fp16"), ("fp16", "fp16"), "fp16"),
        # Compiled with FP32 weights after all.
        (("norm", "norm.fp16", "select", "head"), ("fp32", "fp32", "fp32"), "fp32"),
        # An FP32 island whose result is cast, with an FP16 sum after it.
        (("head", "head.fp16", "sum"), ("fp32", "fp16"), "fp32"),
        (("head", "head_output_0.fp16", "other"), ("fp32", "fp16"), "fp32"),
    ],
)
def test_a_cast_to_fp16_within_a_kernel_counts_for_what_follows_it(layers, constants, found):
    assert types_of([kernel(layers, constants)])["head"] == found


@pytest.mark.parametrize(
    ("inputs", "weight", "found"),
    [
        # The second product of a ConvNeXt block, fused with its scale and the shortcut, which comes first.
        (("fp32", "fp16"), "fp16", "fp16"),
        # An FP32 island of a ResNet behind an FP16 shortcut.
        (("fp16", "fp32"), "fp32", "fp32"),
        # Which of two products has the INT8 weights is not known.
        (("fp16", "int8"), "int8", "fp16"),
        # Compiled in FP32 after all: the weight says so.
        (("fp32", "fp16"), "fp32", "fp32"),
        (("fp32", "fp32"), "fp16", "fp32"),
        # INT8 data with weights that are not.
        (("int8", "fp16"), "fp16", "int8 data, fp16 weights"),
    ],
)
def test_the_weight_tells_which_input_of_a_fused_sum_is_the_products(inputs, weight, found):
    layers = ("head", "head_output.fp32", "sum", "scale")
    fused = Kernel(
        "__myl_CorrCastMulAdd_myl0_7", "runtime_fusion", inputs, (weight,), ("fp32",), layers, weight
    )
    assert types_of([fused])["head"] == found


def test_names_match_where_dots_became_underscores_and_only_if_that_is_clear():
    """TensorRT #4397: `layers_9` for `layers.9`."""
    found = {"layers_9_conv": "int8", "a_b": "fp16", "exact.name": "fp32"}
    nodes = ("layers.9.conv", "a.b", "a_b", "exact.name", "gone")
    assert of_nodes(found, nodes) == {"layers.9.conv": "int8", "a_b": "fp16", "exact.name": "fp32"}
    expected = dict.fromkeys(nodes, "int8")
    assert mismatches(expected, of_nodes(found, nodes)) == (
        "a_b: fp16 instead of int8",
        "exact.name: fp32 instead of int8",
    )


@pytest.mark.parametrize(
    ("layers", "constants", "found"),
    [
        # A small layer that is fused with the quantization before it.
        (("a.quantized", "a.dequantized", "w.dequantized", "head"), ("int8", "fp16"), "int8"),
        (("a_quantized", "a_dequantized", "w_dequantized", "head"), ("fp16", "int8"), "int8"),
        (("a.quantized", "a.dequantized", "w.dequantized", "v.dequantized", "head"), ("int8",), "fp32"),
        (("a.quantized", "a.dequantized", "w.dequantized", "v.dequantized", "head"), ("int8",) * 2, "int8"),
        # Its weights were dequantized when the engine was built.
        (("a.quantized", "a.dequantized", "w.dequantized", "head"), ("fp32",), "fp32"),
        # What it quantizes is what it gives, or it only dequantizes.
        (("head", "a.quantized", "a.dequantized"), ("int8",), "fp32"),
        (("head", "b.quantized", "w.dequantized"), ("int8",), "fp32"),
        (("head", "w.dequantized"), ("int8",), "fp32"),
    ],
)
def test_a_kernel_that_quantizes_its_data_for_int8_weights_is_int8(layers, constants, found):
    assert types_of([kernel(layers, constants)])["head"] == found


def test_the_kernel_that_does_a_nodes_work_has_its_name_or_multiplies_or_is_the_first():
    def named(name, kind, data, *layers, inputs=1):
        return Kernel(name, kind, (data,) * inputs, (), (data,), layers or ("conv.1",))

    first, pad = named("pad", "kgen", "fp32"), named("pad2", "kgen", "int8")
    product, own = named("fused", "CaskConvolution", "fp16"), named("conv_1_myl0_3", "kgen", "int8")
    part = named("x + conv.1 + relu", "kgen", "int8")
    for kernels, found in (
        ([first, pad], "fp32"),
        ([first, product], "fp16"),
        ([product, first], "fp16"),
        ([first, product, own], "int8"),
        ([product, part], "int8"),
        ([product, named("conv_1_myl0_3 + relu", "kgen", "int8")], "fp16"),
        ([named("conv.1", "gemm", "fp16", "conv.1"), own], "fp16"),
        ([own, named("conv.1", "gemm", "fp16", "conv.1")], "fp16"),
    ):
        assert types_of(kernels)["conv.1"] == found
    assert types_of([named("conv.1", "gemm", "fp16", inputs=0)]) == {}
    assert types_of([named("other", "gemm", "fp16", "other")]) == {"other": "fp16"}


@pytest.mark.parametrize(
    ("layer", "is_one"),
    [
        ("a.fp16", True), ("a_fp16", True), ("a.quantized", True), ("a_dequantized", True), ("fp16", False),
        ("a.fp16.b", False), ("quantized", False), ("aquantized", False),
    ],
)  # fmt: skip
def test_conversions_are_known_by_their_names(layer, is_one):
    assert converts(kernel(("conv", layer), ())) == is_one


def test_names_with_brackets_are_looked_for_as_a_whole():
    pattern, metadata = re.compile(r"\[ONNX Layer: ([^\[\]]+)\]"), " [ONNX Layer: a][ONNX Layer: b[0]] "
    assert nodes_in(metadata, pattern, ["a", "b[0]", "c[0]", "d"]) == ("a", "b[0]")
