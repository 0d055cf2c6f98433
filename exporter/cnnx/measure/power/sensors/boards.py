"""Power rails of Jetson modules by exact name: what each supplies, and which add up to the total.

Rails are never matched by a part of their name: VDD_CPU_GPU_CV is neither the CPU nor the GPU.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from cnnx.measure.power.sensors.sensor import Total


@dataclass(frozen=True, slots=True)
class Board:
    """One module, or several with the same rails.

    Attributes:
        name: name of the module.
        rails: label from the kernel or tegrastats -> what the rail supplies.
        total: labels to add up for `total_covers`; none is part of another.
        total_covers: what the sum covers.
        source: source of the names and their meaning.
        ina238: rail of an INA238 without a label.
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
        source=f"{_DTS}tegra234-p3701.dtsi; public power loggers quote NVIDIA's guide: "
        '"VDDQ_VDD2_1V8AO power is also included in VIN_SYS_5V0 power"',
    ),
    Board(
        name="Jetson AGX Thor",
        rails={
            "VDD_GPU": "GPU",
            "VDD_CPU_SOC_MSS": "CPU, SoC and memory subsystem",
            "VIN_SYS_5V0": "system 5 V",
            "VIN": "system input, including the carrier board",
        },
        total=("VIN",),
        total_covers="system input, including the carrier board: more than the module",
        source="tegrastats of L4T r38 and r39; that VIN includes the others follows from its name and value, "
        "not from NVIDIA's documentation",
        ina238="VIN",
    ),
)


def board_of(rails: Collection[str]) -> Board | None:
    """The board that has the most of these rails; None if no board has any, or several fit equally well.

    If several boards with the same total fit (VDD_IN only), the first is returned.
    """
    known = {board.name: len(set(rails) & set(board.rails)) for board in BOARDS}
    most = max(known.values())
    fitting = [board for board in BOARDS if known[board.name] == most]
    return fitting[0] if len({board.total for board in fitting}) == 1 else None


def total_of(rails: Collection[str]) -> Total:
    """The rails to add up for the total, or the reason why the board has none."""
    board = board_of(rails)
    if board is None:
        return Total((), "no total on this board: cnnx does not know its rails")
    if missing := [name for name in board.total if name not in rails]:
        return Total((), f"no total on this board: {', '.join(missing)} cannot be read")
    return Total(board.total, board.total_covers)


def covers(rail: str, board: Board | None) -> str:
    """What a rail supplies."""
    return board.rails.get(rail, "unknown rail") if board else "unknown rail"
