"""Peak rates against what vendors state, and at the clocks that were measured."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnx.device import Device
from cnnx.errors import EnvironmentLacks
from cnnx.machine.state import Frequency, MachineState
from cnnx.measure.roofline.chips import CHIPS, MODULES
from cnnx.measure.roofline.peaks import peaks_of

STATE = MachineState(None, None, None, {}, None)
ORIN, GIB = "NVIDIA Jetson AGX Orin Developer Kit", 2**30

# Dense TOPS and TFLOPS of INT8, FP16, TF32 and FP32 (None: not listed), and GB/s, as the documents that
# `chips` names print them.
STATED = {
    "TITAN RTX": (261, 130.5, None, 16.3, 672),
    "T4": (130, 65, None, 8.1, 320),
    "A2": (36, 18, 9, 4.5, 200),
    "A10": (250, 125, 62.5, 31.2, 600),
    "A30": (330, 165, 82, 10.3, 933),
    "A40": (299.3, 149.7, 74.8, 37.4, 696),
    "RTX A6000": (309.7, 154.8, 77.4, 38.7, 768),
    "A100-PCIE-40GB": (624, 312, 156, 19.5, 1555),
    "A100-SXM4-40GB": (624, 312, 156, 19.5, 1555),
    "A100 80GB PCIe": (624, 312, 156, 19.5, 1935),
    "A100-SXM4-80GB": (624, 312, 156, 19.5, 2039),
    "GeForce RTX 3070": (162.6, 81.3, 20.3, 20.3, 448),
    "GeForce RTX 3090": (284.7, 142.3, 35.6, 35.6, 936),
    "L4": (242, 121, 60, 30.3, 300),
    "L40S": (733, 366, 183, 91.6, 864),
    "RTX 6000 Ada Generation": (728.5, 364.2, 182.1, 91.1, 960),
    "GeForce RTX 4080": (389.9, 194.9, 48.7, 48.7, 716.8),
    "GeForce RTX 4090": (660.6, 330.3, 82.6, 82.6, 1008),
    "GeForce RTX 5080": (450.2, 225.1, 56.3, 56.3, 960),
    "GeForce RTX 5090": (838, 419, 104.8, 104.8, 1792),
    "H100 PCIe": (1513, 756, 378, None, 2000),
    "H100 80GB HBM3": (1979, 989.4, 494.7, None, 3350),
    "H200": (1979, 989.4, 494.7, None, 4800),
}
# (board, GiB that the kernel reports, mode) -> dense TOPS of INT8, or of FP16 for Thor, and GB/s.
MODULE_TOPS = {
    (ORIN, 61, "0 MAXN"): (85, 204.8),
    (ORIN, 30, "0 MAXN"): (54, 204.8),
    ("NVIDIA Jetson Orin NX Engineering Reference Developer Kit", 15, "0 MAXN"): (30, 102.4),
    ("NVIDIA Jetson Orin NX Engineering Reference Developer Kit", 7, "0 MAXN"): (25, 102.4),
    ("NVIDIA Jetson Orin Nano Developer Kit", 7, "0 15W"): (20, 68),
    ("NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super", 7, "2 MAXN_SUPER"): (33.5, 102.4),
    ("NVIDIA Jetson Orin Nano Developer Kit", 3, "0 10W"): (10, 34),
    ("NVIDIA Jetson AGX Thor Developer Kit", 122, "0 MAXN"): (258.5, 273),
}


def test_every_chip_and_module_is_compared_with_its_document():
    assert set(STATED) == set(CHIPS)
    assert {(module.words, module.memory_gb) for module in MODULES} >= {("AGX Orin", 64), ("AGX Thor", 128)}
    assert len(MODULE_TOPS) > len(MODULES)


@pytest.mark.parametrize("name", STATED)
def test_the_peaks_of_a_chip_are_those_that_its_vendor_states(name):
    peaks = peaks_of(Device("gpu", f"NVIDIA {name}"))
    *rates, bandwidth = STATED[name]
    for kind, stated in zip(("int8", "fp16", "tf32", "fp32"), rates, strict=True):
        assert (kind in peaks.operations) == (stated is not None)
        if stated is not None:
            assert peaks.operations[kind] / 1e12 == pytest.approx(stated, rel=0.015), kind
    assert peaks.bandwidth / 1e9 == pytest.approx(bandwidth, rel=0.005)
    assert not peaks.measured and peaks.source.startswith("NVIDIA")


@pytest.mark.parametrize("board", MODULE_TOPS, ids=str)
def test_the_peaks_of_a_module_are_those_that_its_vendor_states(board):
    model, memory, mode = board
    tops, bandwidth = MODULE_TOPS[board]
    peaks = peaks_of(Device("gpu", "Orin"), board=model, memory_bytes=memory * GIB, power_mode=mode)
    kind = "fp16" if "Thor" in model else "int8"
    assert peaks.operations[kind] / 1e12 == pytest.approx(tops, rel=0.03)
    assert peaks.bandwidth / 1e9 == pytest.approx(bandwidth, rel=0.01)
    assert ("int8" in peaks.operations) == ("Thor" not in model)


def test_a_power_mode_turns_sms_off_and_slows_memory():
    """30 W leaves 8 of 16 SMs on (TPC_PG_MASK 240), 15 W leaves 6 and memory at 2133 MHz."""
    low, least = (
        peaks_of(Device("gpu", "Orin"), board=ORIN, memory_bytes=61 * GIB, power_mode=mode)
        for mode in ("2 MODE_30W", "1 MODE_15W")
    )
    assert (low.sms, low.clock_mhz, low.bandwidth) == (8, 612, pytest.approx(204.8e9))
    assert (least.sms, least.clock_mhz, least.bandwidth) == (6, 408, pytest.approx(136.5e9, rel=0.001))
    assert low.operations["int8"] == 4096 * 8 * 612e6


@given(st.floats(100, 3000), st.floats(0.1, 1.0))
def test_clocks_that_were_measured_scale_the_peaks(gpu_mhz, memory):
    states = [
        dataclasses.replace(
            STATE, gpu=Frequency(each, None, 2100), gpu_memory=Frequency(9751 * memory, None, 9751)
        )
        for each in (gpu_mhz, gpu_mhz, 210.0)  # the median: one reading came too late
    ]
    peaks, stated = (peaks_of(Device("gpu", "NVIDIA GeForce RTX 3090"), each) for each in (states, ()))
    assert peaks.measured and peaks.clock_mhz == pytest.approx(gpu_mhz)
    assert peaks.operations["fp16"] == pytest.approx(stated.operations["fp16"] * gpu_mhz / 1695)
    assert peaks.bandwidth == pytest.approx(stated.bandwidth * memory)


@pytest.mark.parametrize(
    ("device", "more", "says"),
    [
        (Device("gpu", "NVIDIA GeForce RTX 3080"), {}, "RTX 3080"),  # 10 and 12 GB cards differ
        (Device("gpu", "NVIDIA GeForce RTX 4090 Laptop GPU"), {}, "Laptop"),
        (Device("gpu", "NVIDIA A100 80GB PCIe MIG 3g.40gb"), {}, "MIG"),
        (Device("cpu", "AMD EPYC"), {}, "CPUs"),
        (Device("gpu", "Orin"), {"board": ORIN, "power_mode": "0 MAXN"}, "its memory is not known"),
        (Device("gpu", "Orin"), {"board": ORIN, "memory_bytes": 61 * GIB}, "power mode unknown"),
        (Device("gpu", "Orin"), {"board": ORIN, "memory_bytes": 61 * GIB, "power_mode": "7 MINE"}, "7 MINE"),
        (Device("gpu", "Xavier"), {"board": "NVIDIA Jetson AGX Xavier", "memory_bytes": GIB}, "Xavier"),
    ],
)
def test_what_is_not_listed_is_unknown(device, more, says):
    with pytest.raises(EnvironmentLacks) as raised:
        peaks_of(device, **more)
    assert says in raised.value.what and raised.value.hint
