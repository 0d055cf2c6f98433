"""What vendors state of GPUs and Jetson modules: rates, SMs, clocks and memory, each with its document.

Rates are dense, without sparsity, and per SM and clock cycle, so that a peak follows from the SMs that are on
and the clock that was measured. tests/measure/roofline/test_peaks.py compares the products with the TOPS and
TFLOPS in the documents.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Multiplies = Literal["int8", "fp16", "tf32", "fp32"]
"""A type that layers multiply in; "tf32": FP32 data on tensor cores."""

Rates = Mapping[Multiplies, int]

# Operations of one SM in one cycle; a MAC is two. FP16 is with FP16 sums: GeForce cards have
# half that rate with FP32 sums.
_TURING: Rates = {"int8": 2048, "fp16": 1024, "fp32": 128}
_GA100: Rates = {"int8": 4096, "fp16": 2048, "tf32": 1024, "fp32": 128}
_GEFORCE: Rates = {"int8": 2048, "fp16": 1024, "tf32": 256, "fp32": 256}
_WORKSTATION: Rates = {"int8": 2048, "fp16": 1024, "tf32": 512, "fp32": 256}
# Without FP32, which runs at a higher clock than the tensor cores.
_HOPPER: Rates = {"int8": 8192, "fp16": 4096, "tf32": 2048}
_ORIN: Rates = {"int8": 4096, "fp16": 2048, "fp32": 256}
_THOR: Rates = {"fp16": 8192, "fp32": 256}  # NVIDIA states rates of FP4, FP8 and FP16, and none of INT8

_A100 = "NVIDIA A100 Tensor Core GPU data sheet"
_GA102 = "NVIDIA Ampere GA102 GPU Architecture V2.0"
_AD102 = "NVIDIA Ada GPU Architecture V2.01"
_GB202 = "NVIDIA RTX Blackwell GPU Architecture"
_H100 = "NVIDIA H100 Tensor Core GPU Architecture"


@dataclass(frozen=True, slots=True)
class Chip:
    """A GPU.

    Attributes:
        rates: operations per SM and cycle by type.
        sms: number of SMs.
        clock_mhz: clock at which the vendor states its peaks.
        gigabytes: memory bandwidth in GB/s.
        source: document that states this.
    """

    rates: Rates
    sms: int
    clock_mhz: float
    gigabytes: float
    source: str


CHIPS: Mapping[str, Chip] = {
    "TITAN RTX": Chip(_TURING, 72, 1770, 672, _GA102),
    "T4": Chip(_TURING, 40, 1590, 320, "NVIDIA T4 data sheet"),
    "A2": Chip(_WORKSTATION, 10, 1770, 200, "NVIDIA A2 data sheet"),
    "A10": Chip(_WORKSTATION, 72, 1695, 600, "NVIDIA A10 data sheet"),
    "A30": Chip(_GA100, 56, 1440, 933, "NVIDIA A30 data sheet"),
    "A40": Chip(_WORKSTATION, 84, 1740, 696, _GA102),
    "RTX A6000": Chip(_WORKSTATION, 84, 1800, 768, _GA102),
    "A100-PCIE-40GB": Chip(_GA100, 108, 1410, 1555, _A100),
    "A100-SXM4-40GB": Chip(_GA100, 108, 1410, 1555, _A100),
    "A100 80GB PCIe": Chip(_GA100, 108, 1410, 1935, _A100),
    "A100-SXM4-80GB": Chip(_GA100, 108, 1410, 2039, _A100),
    "GeForce RTX 3070": Chip(_GEFORCE, 46, 1725, 448, _GA102),
    "GeForce RTX 3090": Chip(_GEFORCE, 82, 1695, 936, _GA102),
    "L4": Chip(_WORKSTATION, 58, 2040, 300, "NVIDIA L4 data sheet"),
    "L40S": Chip(_WORKSTATION, 142, 2520, 864, "NVIDIA L40S data sheet"),
    "RTX 6000 Ada Generation": Chip(_WORKSTATION, 142, 2505, 960, _AD102),
    "GeForce RTX 4080": Chip(_GEFORCE, 76, 2505, 717, _AD102),
    "GeForce RTX 4090": Chip(_GEFORCE, 128, 2520, 1008, _AD102),
    "GeForce RTX 5080": Chip(_GEFORCE, 84, 2617, 960, _GB202),
    "GeForce RTX 5090": Chip(_GEFORCE, 170, 2407, 1792, _GB202),
    "H100 PCIe": Chip(_HOPPER, 114, 1620, 2000, _H100),
    "H100 80GB HBM3": Chip(_HOPPER, 132, 1830, 3350, _H100),
    "H200": Chip(_HOPPER, 132, 1830, 4800, "NVIDIA H200 data sheet"),
}
"""By the name that CUDA and NVML report, without "NVIDIA" and "Tesla".

A name that stands for cards with different SMs or memory, such as GeForce RTX 3080, is not listed.
"""


@dataclass(frozen=True, slots=True)
class Mode:
    """A power mode of a Jetson (nvpmodel).

    Attributes:
        sms: SMs that are on, two for each TPC.
        gpu_mhz: highest GPU clock.
        emc_mhz: highest clock of the memory controller.
    """

    sms: int
    gpu_mhz: float
    emc_mhz: float


@dataclass(frozen=True, slots=True)
class Module:
    """A Jetson module.

    Attributes:
        words: words in the board's model, of the device tree.
        memory_gb: memory, which distinguishes modules of one name.
        rates: operations per SM and cycle by type.
        bus: width of the memory bus in bits; LPDDR5 moves two bits per line and cycle.
        modes: power modes by nvpmodel's name.
        source: documents that state this.
    """

    words: str
    memory_gb: int
    rates: Rates
    bus: int
    modes: Mapping[str, Mode]
    source: str

    def bandwidth(self, mode: Mode) -> float:
        """Bytes per second."""
        return mode.emc_mhz * 1e6 * 2 * self.bus / 8


_AGX = "NVIDIA Jetson AGX Orin Series technical brief V1.2"
_NX = "NVIDIA Jetson Orin NX Series data sheet DS-10712-001"
_NANO = "NVIDIA Jetson Orin Nano Series data sheet"

# SMs, GPU clock and memory clock of a mode: TPC_PG_MASK, "GPU MAX_FREQ" and "EMC MAX_FREQ" of the files in
# /etc/nvpmodel of JetPack 6 (nvpmodel_p3701_*.conf, nvpmodel_p3767_*.conf, with and without "_super").
MODULES: tuple[Module, ...] = (
    Module(
        "AGX Orin",
        64,
        _ORIN,
        256,
        {
            "MAXN": Mode(16, 1301, 3200),
            "MODE_50W": Mode(16, 816, 3200),
            "MODE_30W": Mode(8, 612, 3200),
            "MODE_15W": Mode(6, 408, 2133),
        },
        f"{_AGX}; nvpmodel_p3701_0000.conf",
    ),
    Module(
        "AGX Orin",
        32,
        _ORIN,
        256,
        {
            "MAXN": Mode(14, 930, 3200),
            "MODE_40W": Mode(14, 816, 3200),
            "MODE_30W": Mode(8, 612, 3200),
            "MODE_15W": Mode(6, 408, 2133),
        },
        f"{_AGX}; nvpmodel_p3701_0004.conf",
    ),
    Module(
        "Orin NX",
        16,
        _ORIN,
        128,
        {
            "MAXN": Mode(8, 918, 3199),
            "MAXN_SUPER": Mode(8, 1173, 3199),
            "40W": Mode(8, 1173, 3199),
            "25W": Mode(8, 408, 3199),
            "15W": Mode(4, 612, 3199),
            "10W": Mode(4, 612, 2133),
        },
        f"{_NX}; nvpmodel_p3767_0000.conf, nvpmodel_p3767_0000_super.conf",
    ),
    Module(
        "Orin NX",
        8,
        _ORIN,
        128,
        {
            "MAXN": Mode(8, 765, 3199),
            "MAXN_SUPER": Mode(8, 1173, 3199),
            "40W": Mode(8, 1173, 3199),
            "20W": Mode(8, 408, 3199),
            "15W": Mode(4, 612, 3199),
            "10W": Mode(4, 612, 2133),
        },
        f"{_NX}; nvpmodel_p3767_0001.conf, nvpmodel_p3767_0001_super.conf",
    ),
    Module(
        "Orin Nano",
        8,
        _ORIN,
        128,
        {
            "MAXN_SUPER": Mode(8, 1020, 3199),
            "25W": Mode(8, 918, 3199),
            "15W": Mode(8, 625, 2133),
            "7W": Mode(4, 408, 2133),
        },
        f"{_NANO}; nvpmodel_p3767_0003.conf, nvpmodel_p3767_0003_super.conf",
    ),
    Module(
        "Orin Nano",
        4,
        _ORIN,
        64,
        {
            "MAXN_SUPER": Mode(4, 1020, 3199),
            "25W": Mode(4, 1020, 3199),
            "10W": Mode(4, 625, 2133),
            "7W_AI": Mode(4, 408, 2133),
            "7W_CPU": Mode(4, 306, 2133),
        },
        f"{_NANO}; nvpmodel_p3767_0004.conf, nvpmodel_p3767_0004_super.conf",
    ),
    Module(
        "AGX Thor",
        128,
        _THOR,
        256,
        {"MAXN": Mode(20, 1575, 4266)},
        "NVIDIA Jetson AGX Thor Developer Kit specifications",
    ),
)
