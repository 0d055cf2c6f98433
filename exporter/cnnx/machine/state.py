"""What changes from moment to moment and moves every figure: clocks, temperatures, throttling, power mode.

It is a snapshot, to be taken before and after a measurement; what stays is `cnnx.machine.environment`'s. All
of it is read from files and NVML, each value asked apart; what cannot be read is None, never 0.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cnnx.machine.environment import NvmlGpu, first_gpu, power_mode

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
# Numbers of nvml.h: NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU, NVML_TEMPERATURE_THRESHOLD_SLOWDOWN.
_CLOCK_SM, _CLOCK_MEMORY, _TEMPERATURE_GPU, _THRESHOLD_SLOWDOWN = 1, 2, 0, 1
# nvml.h: NVML_PERF_POLICY_POWER, NVML_PERF_POLICY_THERMAL.
_POLICIES = {"power": 0, "thermal": 1}
# Trip points at which the kernel slows a part down, or shuts down. At "active" ones a fan turns.
_SLOWING = ("passive", "critical")
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
        limits_c: at which a part is slowed down, by names of temperatures: a Jetson's zones and NVML's GPU. A
            PC's zones are not the GPU's, and are left out.
        power_mode: a Jetson's nvpmodel mode.
        power_limit_mw: that NVML says is enforced.
        held_ns: how long clocks were held down since some moment, by "power" and "thermal" limits; None: NVML
            does not count it here.
    """

    cpu: Frequency | None
    gpu: Frequency | None
    gpu_memory: Frequency | None
    temperatures_c: Mapping[str, float]
    throttling: tuple[str, ...] | None
    limits_c: Mapping[str, float] = field(default_factory=dict)
    power_mode: str | None = None
    power_limit_mw: int | None = None
    held_ns: Mapping[str, int] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        clocks = {name: getattr(self, name) for name in ("cpu", "gpu", "gpu_memory")}
        return {
            **{name: clock.as_dict() if clock else None for name, clock in clocks.items()},
            "temperatures_c": dict(self.temperatures_c),
            "throttling": None if self.throttling is None else list(self.throttling),
            "limits_c": dict(self.limits_c),
            "power_mode": self.power_mode,
            "power_limit_mw": self.power_limit_mw,
            "held_ns": None if self.held_ns is None else dict(self.held_ns),
        }


def read_state(root: Path = Path("/"), *, nvml: Any = None) -> MachineState:
    """Look at the machine now. Takes milliseconds and raises nothing.

    What falls first when a load ends is read first: the GPU's clock, then what holds it.

    Args:
        root: where the file system starts; tests give a tree of their own.
        nvml: a module with pynvml's functions; None: pynvml, which stays started until the process ends.
    """
    jetson = _devfreq(root)
    if nvml is None:
        _keep_nvml_started()
    with first_gpu(nvml) as gpu:
        told = _ask(gpu) if gpu else _GpuReadings()
    temperatures, limits = _thermal_zones(root)
    if jetson is None:
        limits = {}
    if told.celsius is not None:
        temperatures["GPU"] = float(told.celsius)
        if told.slowdown_c:
            limits["GPU"] = float(told.slowdown_c)
    cpufreq = root / "sys/devices/system/cpu/cpu0/cpufreq"
    return MachineState(
        cpu=_range(*(_number(cpufreq / f"scaling_{bound}_freq", 1e-3) for bound in ("cur", "min", "max"))),
        gpu=jetson or told.clock,
        gpu_memory=told.memory,
        temperatures_c=temperatures,
        throttling=told.throttling,
        limits_c=limits,
        power_mode=power_mode(root),
        power_limit_mw=told.power_limit_mw,
        held_ns=told.held_ns,
    )


@functools.cache
def _keep_nvml_started() -> None:
    """NVML counts its starts: while this one stands, a look waits for none, in which clocks would fall."""
    import pynvml

    with contextlib.suppress(pynvml.NVMLError):
        pynvml.nvmlInit()


@dataclass(frozen=True, slots=True)
class _GpuReadings:
    """What NVML answers."""

    clock: Frequency | None = None
    throttling: tuple[str, ...] | None = None
    held_ns: Mapping[str, int] | None = None
    memory: Frequency | None = None
    celsius: int | None = None
    slowdown_c: int | None = None
    power_limit_mw: int | None = None


def _ask(gpu: NvmlGpu) -> _GpuReadings:
    """In this order, see `read_state`."""
    return _GpuReadings(
        clock=_clock(gpu, _CLOCK_SM),
        throttling=_throttling(gpu),
        held_ns=_held(gpu),
        memory=_clock(gpu, _CLOCK_MEMORY),
        celsius=gpu.ask("nvmlDeviceGetTemperature", _TEMPERATURE_GPU),
        slowdown_c=gpu.ask("nvmlDeviceGetTemperatureThreshold", _THRESHOLD_SLOWDOWN),
        power_limit_mw=gpu.ask("nvmlDeviceGetEnforcedPowerLimit"),
    )


def _held(gpu: NvmlGpu) -> dict[str, int] | None:
    """NVML counts in nanoseconds since the driver was loaded (nvmlViolationTime_t)."""
    found = {name: gpu.ask("nvmlDeviceGetViolationStatus", policy) for name, policy in _POLICIES.items()}
    return {name: int(one.violationTime) for name, one in found.items() if one is not None} or None


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


def _thermal_zones(root: Path) -> tuple[dict[str, float], dict[str, float]]:
    """Degrees by zone, and the lowest at which it is slowed.

    A zone whose part is off refuses to be read, and is left out.
    """
    temperatures, limits = {}, {}
    for zone in sorted((root / "sys/class/thermal").glob("thermal_zone*")):
        celsius = _number(zone / "temp", 1e-3)
        name = _word(zone / "type")
        if name is None or celsius is None:
            continue
        temperatures[name] = celsius
        trips = [
            _number(kind.with_name(kind.name.replace("_type", "_temp")), 1e-3)
            for kind in zone.glob("trip_point_*_type")
            if _word(kind) in _SLOWING
        ]
        if slowing := [trip for trip in trips if trip is not None and trip > 0]:  # 0 and below: switched off
            limits[name] = min(slowing)
    return temperatures, limits


def _word(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def _number(path: Path, factor: float) -> float | None:
    try:
        return int(path.read_text(encoding="utf-8", errors="replace")) * factor
    except (OSError, ValueError):
        return None
