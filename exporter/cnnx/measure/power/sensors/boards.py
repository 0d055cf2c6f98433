"""Rails of the Jetson modules, by exact name: what each covers and which of them make the whole.

A rail is never recognised by a part of its name: VDD_CPU_GPU_CV is neither "the CPU" nor "the GPU".
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from cnnx.measure.power.sensors.sensor import Total


@dataclass(frozen=True, slots=True)
class Board:
    """One module, or several with the same rails.

    Attributes:
        name: module.
        rails: label as the kernel or tegrastats gives it, and what it covers.
        total: labels to add up for `total_covers`; no rail in it is inside another one.
        total_covers: what the sum stands for.
        source: where names and meanings come from.
        ina238: rail of an INA238 that carries no label.
    """

    name: str
    rails: Mapping[str, str]
    total: tuple[str, ...]
    total_covers: str
    source: str
    ina238: str | None = None


_FORUM = "https://forums.developer.nvidia.com/t/"
_DTS = "Linux, arch/arm64/boot/dts/nvidia/"

BOARDS: tuple[Board, ...] = (
    Board(
        name="Jetson Nano",
        rails={
            "POM_5V_IN": "5 V input of the module",
            "POM_5V_GPU": "GPU, part of POM_5V_IN",
            "POM_5V_CPU": "CPU, part of POM_5V_IN",
        },
        total=("POM_5V_IN",),
        total_covers="module input",
        source=f'{_FORUM}power-consumption-monitoring/73608/8: "represents the total power consumption"',
    ),
    Board(
        name="Jetson TX2",
        rails={
            "VDD_IN": "module input",
            "VDD_SYS_CPU": "CPU, part of VDD_IN",
            "VDD_CPU": "CPU, part of VDD_IN",
            "VDD_SYS_GPU": "GPU, part of VDD_IN",
            "VDD_GPU": "GPU, part of VDD_IN",
            "VDD_SYS_SOC": "SoC, part of VDD_IN",
            "VDD_SOC": "SoC, part of VDD_IN",
            "VDD_SYS_DDR": "memory, part of VDD_IN",
            "VDD_DDR": "memory, part of VDD_IN",
            "VDD_4V0_WIFI": "wireless, part of VDD_IN",
            "VDD_WIFI": "wireless, part of VDD_IN",
        },
        total=("VDD_IN",),
        total_covers="module input",
        source="L4T Development Guide r32, Power Management for Jetson TX2: INA3221 rails",
    ),
    Board(
        name="Jetson AGX Xavier",
        rails={
            "GPU": "GPU",
            "CPU": "CPU",
            "SOC": "SoC",
            "CV": "DLA and PVA",
            "VDDRQ": "memory",
            "SYS5V": "system 5 V: I/O and the rest of the module",
        },
        total=("GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"),
        total_covers="sum of the module's rails",
        source=f"{_FORUM}xavier-jetson-total-power-consumption/81016: the total is the sum of all",
    ),
    Board(
        name="Jetson Xavier NX, Orin NX, Orin Nano",
        rails={
            "VDD_IN": "module input",
            "VDD_CPU_GPU_CV": "CPU, GPU, DLA and PVA together, part of VDD_IN",
            "VDD_SOC": "SoC (memory subsystem, video engines), part of VDD_IN",
        },
        total=("VDD_IN",),
        total_covers="module input",
        source=f'{_DTS}tegra234-p3767.dtsi; {_FORUM}interpretation-of-jetson-nx-power-rail/200883: "VDD_IN '
        'is the total power of module"',
    ),
    Board(
        name="Jetson AGX Orin",
        rails={
            "VDD_GPU_SOC": "GPU and SoC together",
            "VDD_CPU_CV": "CPU, DLA and PVA together",
            "VIN_SYS_5V0": "system 5 V: I/O and the rest of the module",
            "VDDQ_VDD2_1V8AO": "memory and always-on 1.8 V, part of VIN_SYS_5V0",
        },
        total=("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"),
        total_covers="sum of the module's supply rails",
        source=f"{_DTS}tegra234-p3701.dtsi; what public power loggers quote from NVIDIA's guide: "
        '"VDDQ_VDD2_1V8AO power is also included in VIN_SYS_5V0 power"',
    ),
    Board(
        name="Jetson AGX Thor",
        rails={
            "VDD_GPU": "GPU",
            "VDD_CPU_SOC_MSS": "CPU, SoC and memory subsystem",
            "VIN_SYS_5V0": "system 5 V",
            "VIN": "system input, carrier board included",
        },
        total=("VIN",),
        total_covers="system input, carrier board included: more than the module",
        source="tegrastats of L4T r38 and r39; that VIN contains the others is told by its name and size, "
        "not by NVIDIA",
        ina238="VIN",
    ),
)


def board_of(rails: Collection[str]) -> Board | None:
    """The board that has most of these rails; None where no table row has any, or two fit as well.

    Two rows with the same total may both fit (VDD_IN alone): then it does not matter which.
    """
    known = {board.name: len(set(rails) & set(board.rails)) for board in BOARDS}
    most = max(known.values())
    fitting = [board for board in BOARDS if most and known[board.name] == most]
    return fitting[0] if fitting and len({board.total for board in fitting}) == 1 else None


def total_of(rails: Collection[str]) -> Total:
    """What to add up among these rails, or that there is no total on this board, with the reason."""
    board = board_of(rails)
    if board is None:
        return Total((), "no total on this board: its rails are in no table of cnnx")
    if missing := [name for name in board.total if name not in rails]:
        return Total((), f"no total on this board: {', '.join(missing)} cannot be read")
    return Total(board.total, board.total_covers)


def covers(rail: str, board: Board | None) -> str:
    """What a rail supplies."""
    return board.rails.get(rail, "not in the table") if board else "not in the table"
