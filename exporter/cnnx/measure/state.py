"""What changes from moment to moment and moves every figure: clocks, temperatures, throttling.

It is a snapshot, to be taken before and after a measurement; what stays is `cnnx.environment`'s. All of it is
read from files and NVML, each value asked apart; what cannot be read is None, never 0.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnnx.environment import NvmlGpu, first_gpu

# Jetson's GPU among the devfreq devices, by exact name: Orin (two releases), Xavier, TX2, Nano; Thor
# (jetson_stats #885). Other devices there are memory and video engines.
_DEVFREQ = (
    "17000000.gpu",
    "17000000.ga10b",
    "17000000.gv11b",
    "17000000.gp10b",
    "57000000.gpu",
    "gpu-gpc-0",
)
# Numbers of nvml.h: NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU.
_CLOCK_SM, _CLOCK_MEMORY, _TEMPERATURE_GPU = 1, 2, 0
# nvml.h: nvmlClocksEventReason*, earlier nvmlClocksThrottleReason*.
_REASONS = {
    0x1: "GPU idle",
    0x2: "application clocks setting",
    0x4: "software power cap",
    0x8: "hardware slowdown",
    0x10: "sync boost",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "hardware power brake",
    0x100: "display clock setting",
}


@dataclass(frozen=True, slots=True)
class Frequency:
    """A clock, and the range it may move in. None: not known.

    Attributes:
        now_mhz: at the moment.
        least_mhz: lower bound.
        most_mhz: upper bound, such as the power mode's.
    """

    now_mhz: float | None
    least_mhz: float | None
    most_mhz: float | None

    @property
    def pinned(self) -> bool | None:
        """Whether it cannot move (as jetson_clocks makes it); None where a bound is not known."""
        if self.least_mhz is None or self.most_mhz is None:
            return None
        return self.least_mhz == self.most_mhz

    def as_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return {**dataclasses.asdict(self), "pinned": self.pinned}


@dataclass(frozen=True, slots=True)
class MachineState:
    """A snapshot.

    Attributes:
        cpu: of the first core; None: no cpufreq.
        gpu: by devfreq on Jetson, else by NVML.
        gpu_memory: by NVML.
        temperatures_c: by name of the kernel's thermal zone; "GPU" is NVML's.
        throttling: what holds the GPU's clock down or lets it rest, in NVML's terms; None: not known.
    """

    cpu: Frequency | None
    gpu: Frequency | None
    gpu_memory: Frequency | None
    temperatures_c: Mapping[str, float]
    throttling: tuple[str, ...] | None

    def as_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        clocks = {name: getattr(self, name) for name in ("cpu", "gpu", "gpu_memory")}
        return {
            **{name: clock.as_dict() if clock else None for name, clock in clocks.items()},
            "temperatures_c": dict(self.temperatures_c),
            "throttling": None if self.throttling is None else list(self.throttling),
        }


def read_state(root: Path = Path("/"), *, nvml: Any = None) -> MachineState:
    """Look at clocks, temperatures and throttling now. Takes milliseconds and raises nothing.

    Args:
        root: where the file system starts; tests give a tree of their own.
        nvml: a module with pynvml's functions; None: pynvml.
    """
    temperatures = _thermal_zones(root)
    with first_gpu(nvml) as gpu:
        by_nvml = _clock(gpu, _CLOCK_SM) if gpu else None
        memory = _clock(gpu, _CLOCK_MEMORY) if gpu else None
        throttling = _throttling(gpu) if gpu else None
        celsius = gpu.ask("nvmlDeviceGetTemperature", _TEMPERATURE_GPU) if gpu else None
    if celsius is not None:
        temperatures["GPU"] = float(celsius)
    cpufreq = root / "sys/devices/system/cpu/cpu0/cpufreq"
    return MachineState(
        cpu=_range(*(_number(cpufreq / f"scaling_{bound}_freq", 1e-3) for bound in ("cur", "min", "max"))),
        gpu=_devfreq(root) or by_nvml,
        gpu_memory=memory,
        temperatures_c=temperatures,
        throttling=throttling,
    )


def _range(now: float | None, least: float | None, most: float | None) -> Frequency | None:
    return None if now is None and least is None and most is None else Frequency(now, least, most)


def _devfreq(root: Path) -> Frequency | None:
    for name in _DEVFREQ:
        folder = root / "sys/class/devfreq" / name
        found = _range(*(_number(folder / f"{bound}_freq", 1e-6) for bound in ("cur", "min", "max")))
        if found is not None:
            return found
    return None


def _clock(gpu: NvmlGpu, kind: int) -> Frequency | None:
    """Without a lower bound: NVML has one for each performance state, none of all."""
    return _range(gpu.ask("nvmlDeviceGetClockInfo", kind), None, gpu.ask("nvmlDeviceGetMaxClockInfo", kind))


def _throttling(gpu: NvmlGpu) -> tuple[str, ...] | None:
    bits = gpu.ask("nvmlDeviceGetCurrentClocksEventReasons")
    if bits is None:  # a driver or pynvml of before the name changed
        bits = gpu.ask("nvmlDeviceGetCurrentClocksThrottleReasons")
    if bits is None:
        return None
    known = [words for bit, words in _REASONS.items() if bits & bit]
    unknown = bits & ~sum(_REASONS)
    return (*known, *([f"reason {unknown:#x}"] if unknown else []))


def _thermal_zones(root: Path) -> dict[str, float]:
    """Degrees by zone; a zone whose part is off refuses to be read, and is left out."""
    found = {}
    for zone in sorted((root / "sys/class/thermal").glob("thermal_zone*")):
        celsius = _number(zone / "temp", 1e-3)
        try:
            name = (zone / "type").read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            continue
        if celsius is not None:
            found[name] = celsius
    return found


def _number(path: Path, factor: float) -> float | None:
    try:
        return int(path.read_text(encoding="utf-8", errors="replace")) * factor
    except (OSError, ValueError):
        return None
