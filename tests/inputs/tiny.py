"""The smallest network that a command takes, and options that keep it quick."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper

DIGITS = ("--calibration-data", "digits", "--calibration-images", "16", "--validation-data", "digits")
FEW = (*DIGITS, "--validation-images", "16")


def tiny_graph(*, op="Relu"):
    """A classifier of 32x32 gray images: one convolution, an activation, one Gemm."""
    random = np.random.default_rng(0)
    constants = {
        "conv.weight": random.normal(size=(16, 1, 5, 5)) / 5,
        "conv.bias": np.zeros(16),
        "fc.weight": random.normal(size=(10, 16 * 14 * 14)) / 56,
        "fc.bias": np.zeros(10),
    }
    nodes = [
        helper.make_node("Conv", ["input", "conv.weight", "conv.bias"], ["conv"], "conv", strides=[2, 2]),
        helper.make_node(op, ["conv"], ["act"], "act"),
        helper.make_node("Flatten", ["act"], ["flat"], "flat"),
        helper.make_node("Gemm", ["flat", "fc.weight", "fc.bias"], ["logits"], "fc", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 1, 32, 32])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 10])],
        [numpy_helper.from_array(v.astype(np.float32), name) for name, v in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=10)
