"""Types by the kernels of a build, as TensorRT for RTX reported them."""

from __future__ import annotations

import pytest

from cnnx.runtimes.kernels import Kernel, types_of


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
