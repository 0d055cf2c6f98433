"""Kinds of layers by name and operator, and their shares of the time."""

import pytest

from cnnx.runtimes.layer_times import LayerTime, kind_of_name, kind_of_operator, shares


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("Reformatting CopyNode for Input Tensor 0 to conv1", "reformat"),
        # What follows is the layer that the copy is for.
        ("Reformatting CopyNode for Input Tensor 0 to conv1 + relu1", "reformat"),
        ("input_QuantizeLinear", "quantize"),
        ("QuantLinearNode__838", "quantize"),
        ("conv1.weight_DequantizeLinear + conv1 + relu1", "compute"),
        ("/features/Cast_7", "cast"),
        ("cast_out + input_QuantizeLinear", "cast"),
        ("broadcast_add", "compute"),
        ("conv1 + relu1", "compute"),
        # Generated kernels are named by their operators.
        ("__myl_Cast_myl0_0", "cast"),
        ("__myl_CastConc_myl0_0", "cast"),
        ("__myl_MulMinMaxRounCastConc_myl0_0", "quantize"),
        ("__myl_ReshTran_myl0_4", "reformat"),
        ("__myl_CastConv_layers_9_myl0_3", "compute"),
        ("__myl_MulCastAddReluMulMinMaxRounCast_myl0_2", "compute"),
        ("__myl_Conc_myl0_7", "compute"),
    ],
)
def test_names_of_tensorrt(name, kind):
    assert kind_of_name(name) == kind


def test_shares_add_up():
    ops = {"Conv": 60.0, "Cast": 10.0, "QuantizeLinear": 15.0, "DequantizeLinear": 5.0, "ReorderInput": 10.0}
    found = shares(LayerTime(op, op, kind_of_operator(op), time) for op, time in ops.items())
    assert found == {"compute": 0.6, "cast": 0.1, "reformat": 0.1, "quantize": 0.2}
    assert shares(()) == {}
