"""MACs and bytes of layers, by the arithmetic of the papers' tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from cnnx.device import Device
from cnnx.graph.inspect import Layer
from cnnx.measure.roofline.explanation import explain
from cnnx.measure.roofline.peaks import peaks_of
from cnnx.measure.roofline.work import Network, work_of
from cnnx.runtimes.rtx import build_log
from cnnx.runtimes.trt.inspector import parse_kernels
from tests.inputs.engines import Planted

CAPTURED = Path(__file__).parents[2] / "runtimes" / "rtx" / "captured" / "rtx-1.7.1-int8.txt"
A100 = peaks_of(Device("gpu", "NVIDIA A100 80GB PCIe"))
# AlexNet on two GPUs: channels in and out, kernel, groups, side of the output (NIPS 2012, section 3.5).
ALEXNET = (
    (3, 96, 11, 1, 55),
    (96, 256, 5, 2, 27),
    (256, 384, 3, 1, 13),
    (384, 384, 3, 2, 13),
    (384, 256, 3, 2, 13),
)


def alexnet(kind, batch):
    engine = Planted()
    last = engine.tensor("in", kind, batch, 3, 227, 227)
    for number, (_, outputs, kernel, groups, side) in enumerate(ALEXNET, start=1):
        inputs = ALEXNET[number - 1][0]
        if number > 1:
            last = engine.tensor(f"p{number}", kind, batch, inputs, side, side)
        following = engine.tensor(f"c{number}", kind, batch, outputs, side, side)
        engine.conv(f"conv{number}", 10, [last], following, weight=kind, kernel=kernel, groups=groups)
    for name, inputs, outputs in (("fc6", 9216, 4096), ("fc7", 4096, 4096), ("fc8", 4096, 1000)):
        last = engine.tensor(f"{name}.in", kind, batch, inputs, 1, 1)
        engine.conv(
            name, 10, [last], engine.tensor(f"{name}.out", kind, batch, outputs, 1, 1), weight=kind, kernel=1
        )
    return engine


@pytest.mark.parametrize("batch", [1, 4])
def test_alexnet_has_the_multiply_adds_and_bytes_of_its_paper(batch):
    work = work_of(parse_kernels(alexnet("int8", batch).text), Network(), batch=batch)
    assert sum(each.macs for each in work.values()) == 724_406_816 * batch
    conv1 = work["conv1"]
    assert conv1.macs == 105_415_200 * batch and conv1.weight_bytes == 34_848
    assert conv1.data_bytes == (3 * 227**2 + 290_400) * batch  # 290,400 values in conv1, 55 x 55 x 96
    fc6 = work["fc6"]
    assert (fc6.macs, fc6.weight_bytes) == (37_748_736 * batch, 37_748_736)  # 9216 x 4096, once a batch


def test_alexnet_is_bound_by_the_memory_of_its_products_and_the_arithmetic_of_its_convolutions():
    limits = {each.name: each for each in explain(alexnet("fp16", 1).profiled(), A100).layers}
    fc6 = limits["fc6"]
    # 75.5 MB of weights at 1935 GB/s take 39 us; the products take 0.2 us at 312 TFLOPS.
    assert fc6.bound == "memory" and fc6.memory_ns == pytest.approx(39_000, rel=0.01)
    assert fc6.compute_ns == pytest.approx(2e9 * 37_748_736 / 312e12, rel=0.001)
    assert fc6.intensity == pytest.approx(1, rel=0.01) and fc6.attained == pytest.approx(3.9, rel=0.01)
    conv2 = limits["conv2"]
    assert conv2.macs == 223_948_800 and conv2.compute_ns > conv2.memory_ns and conv2.bound == "launch"


def resnet50(strided=3):
    """(inputs, outputs, kernel, side) of the convolutions of ResNet-50 (arXiv:1512.03385, table 1).

    Args:
        strided: kernel of the convolution that a block strides on: 1 in the paper, 3 in "v1.5".
    """
    yield 3, 64, 7, 112
    inputs = 64
    for stage, blocks in enumerate((3, 4, 6, 3)):
        width, side = 64 << stage, 56 >> stage
        for block in range(blocks):
            before = side << int(bool(stage) and not block)
            yield inputs, width, 1, side if strided == 1 else before
            yield width, width, 3, side
            yield width, 4 * width, 1, side
            if not block:
                yield inputs, 4 * width, 1, side
            inputs = 4 * width
    yield 2048, 1000, 1, 1


@pytest.mark.parametrize(("strided", "macs"), [(1, 3_857_973_248), (3, 4_089_184_256)])
def test_resnet_50_has_the_multiply_adds_of_its_paper(strided, macs):
    engine = Planted()
    for number, (inputs, outputs, kernel, side) in enumerate(resnet50(strided)):
        read = engine.tensor(f"i{number}", "int8", 8, inputs, side, side)
        engine.conv(f"conv{number}", 10, [read], engine.tensor(f"o{number}", "int8", 8, outputs, side, side),
                    weight="int8", kernel=kernel)  # fmt: skip
    work = list(work_of(parse_kernels(engine.text), Network(), batch=8).values())
    assert sum(each.macs for each in work) == 8 * macs and len(work) == 54
    assert work[0].macs == 8 * 118_013_952 and work[-1].macs == 8 * 2_048_000


def row(name, macs, *, weight_bytes=0):
    return Layer(name, "Conv", (), 0, macs, 0, "int8", weight_bytes)


def test_the_graph_gives_the_multiply_adds_to_the_kernel_that_multiplies():
    """NVIDIA's log of a build: kernels that pad, requantize or transpose for a layer name it, too."""
    kernels = build_log.parse_kernels(CAPTURED.read_text(encoding="utf-8"))
    named = "/features/0/Conv", "inc.b2.conv"
    network = Network(layers={name: row(name, 1000) for name in named})
    work = work_of(kernels, network, batch=2, inspected=1)
    assert {name: each.macs for name, each in work.items() if each.macs} == {
        "/features/0/Conv_myl0_1": 2000,
        "inc.b2.conv_myl0_4": 2000,
    }
    first = work["/features/0/Conv_myl0_1"]
    assert first.nodes == ("/features/0/Conv",) and first.type == "fp16"
    assert first.weight_bytes == 2 * (64 * 4 * 9 + 64) + 2 * 4 and first.data_bytes == 2 * 2 * (4096 + 65536)


def test_shapes_for_another_batch_are_scaled_and_weights_are_not():
    work = work_of(parse_kernels(alexnet("fp16", 8).text), Network(), batch=2, inspected=8)["conv1"]
    assert work.macs == 2 * 105_415_200 and work.weight_bytes == 2 * 34_848
    assert work.data_bytes == 2 * 2 * (3 * 227**2 + 290_400)


def test_a_stride_that_skips_positions_reads_fewer_bytes():
    """A projection of ResNet, 1x1 with stride 2, reads a quarter of its input, and a shortcut whole."""
    engine = Planted()
    x, y = engine.tensor("x", "int8", 1, 64, 56, 56), engine.tensor("y", "int8", 1, 128, 28, 28)
    other = engine.tensor("other", "int8", 1, 128, 28, 28)
    engine.conv("projection", 5, [x, other], y, weight="int8", kernel=1)
    engine.layers[0] |= {"Kernel": [1, 1], "Stride": [2, 2]}
    work = work_of(parse_kernels(engine.text), Network(), batch=1)["projection"]
    assert work.data_bytes == 64 * 28 * 28 + 2 * 128 * 28 * 28


def test_a_free_batch_is_the_measured_one():
    engine = Planted()
    read, write = engine.tensor("x", "fp16", -1, 8, 4, 4), engine.tensor("y", "fp16", -1, 16, 4, 4)
    engine.conv("conv", 5, [read], write, weight="fp16")
    work = work_of(parse_kernels(engine.text), Network(), batch=3, inspected=8)["conv"]
    assert work.data_bytes == 2 * 3 * (8 + 16) * 16 and work.macs == 3 * 16 * 8 * 9 * 16


def test_what_is_not_reported_is_unknown_and_not_zero():
    engine = Planted()
    x, y = engine.tensor("x", "int8", 1, 64, 56, 56), engine.tensor("y", "int8", 1, 64, 28, 28)
    engine.layer("conv1 + pool1", 10, [x], y, "ConvActPool")
    engine.layer("{ForeignNode[a...b]}", 10, [x], y, "Myelin")
    engine.layer("pool2", 10, [x], y, "CudaPooling")
    kernels = parse_kernels(engine.text)
    alone = work_of(kernels, Network(), batch=1)
    assert [each.macs for each in alone.values()] == [None, None, 0]
    assert alone["conv1 + pool1"].nbytes is None
    known = work_of(kernels, Network(layers={"conv1": row("conv1", 77, weight_bytes=9)}), batch=1)
    assert (known["conv1 + pool1"].macs, known["conv1 + pool1"].weight_bytes) == (77, 9)
    assert explain(engine.profiled(), A100).attained is None


def test_fp32_data_on_tensor_cores_has_their_rate():
    engine = Planted()
    x, y = engine.tensor("x", "fp32", 1, 64, 56, 56), engine.tensor("y", "fp32", 1, 64, 56, 56)
    engine.conv("conv1", 10, [x], y, weight="fp32")
    engine.conv("conv2", 10, [x], y, weight="fp32")
    engine.layers[0]["TacticName"] = "sm80_xmma_fprop_implicit_gemm_tf32f32_tf32f32_f32_nhwckrsc"
    first, second = explain(engine.profiled(), A100).layers
    assert (first.type, second.type) == ("tf32", "fp32")
    assert second.compute_ns == pytest.approx(8 * first.compute_ns)
