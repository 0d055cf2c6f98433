"""Snapshots of the machine state that affects measurements: clocks, temperatures, throttling, power mode.

Take one before and one after a measurement; constant properties are in `cnnx.machine.environment`. Values are
read one by one from files and NVML. Unreadable values are None, never 0.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cnnx.machine.environment import power_mode
from cnnx.machine.kernel import integer_of
from cnnx.machine.nvml import NvmlGpu, errors_of, first_gpu

# Exact devfreq names of Jetson GPUs: Orin (two releases), Xavier, TX2, Nano, and Thor (jetson_stats #885).
# Other devfreq devices are memory and video engines.
_DEVFREQ = (
    "17000000.gpu",
    "17000000.ga10b",
    "17000000.gv11b",
    "17000000.gp10b",
    "57000000.gpu",
    "gpu-gpc-0",
)
# From nvml.h: NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU, NVML_TEMPERATURE_THRESHOLD_SLOWDOWN.
_CLOCK_SM, _CLOCK_MEMORY, _TEMPERATURE_GPU, _THRESHOLD_SLOWDOWN = 1, 2, 0, 1
# nvml.h: NVML_PERF_POLICY_POWER and _THERMAL; and the fields NVML_FI_DEV_PERF_POLICY_POWER and _THERMAL, that
# stay when nvmlDeviceGetViolationStatus goes (deprecated in CUDA 13). Both count nanoseconds.
_POLICIES = {"power": (0, 74), "thermal": (1, 75)}
# nvml.h: NVML_CC_SYSTEM_FEATURE_ENABLED.
_CONFIDENTIAL = 1
# Trip points at which the kernel throttles or shuts down. "active" trip points only start a fan.
_SLOWING = ("passive", "critical")
# nvml.h: nvmlClocksEventReason*, formerly nvmlClocksThrottleReason*.
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
    """A clock frequency and its allowed range; None for unknown values.

    Attributes:
        now_mhz: current frequency.
        least_mhz: lower bound.
        most_mhz: upper bound, such as that of the power mode.
    """

    now_mhz: float | None
    least_mhz: float | None
    most_mhz: float | None

    @property
    def pinned(self) -> bool | None:
        """Whether the clock is fixed, as by jetson_clocks; None if a bound is unknown."""
        if self.least_mhz is None or self.most_mhz is None:
            return None
        return self.least_mhz == self.most_mhz

    def as_dict(self) -> dict[str, Any]:
        """The frequency as plain data for JSON."""
        return {**dataclasses.asdict(self), "pinned": self.pinned}


@dataclass(frozen=True, slots=True)
class MachineState:
    """A snapshot of the machine state.

    Attributes:
        cpu: clock of the first core; None without cpufreq.
        gpu: GPU clock, from devfreq on Jetson and from NVML elsewhere.
        gpu_memory: GPU memory clock from NVML.
        temperatures_c: temperatures by name of the kernel's thermal zone; "GPU" is NVML's.
        throttling: reasons for a reduced GPU clock, in NVML's terms; None if unknown.
        limits_c: throttling temperatures by the same names, for a Jetson's zones and NVML's GPU. A PC's zones
            are not those of the GPU and are omitted.
        power_mode: nvpmodel mode of a Jetson.
        power_limit_mw: power limit enforced according to NVML.
        held_ns: accumulated time of clocks reduced by "power" and "thermal" limits; None if NVML does not
            count it.
        confidential: whether confidential computing is on, as on Hopper; None if NVML does not report it.
        at_ns: monotonic time of the snapshot; None in older records.
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
    confidential: bool | None = None
    at_ns: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """The state as plain data for JSON."""
        clocks = {name: getattr(self, name) for name in ("cpu", "gpu", "gpu_memory")}
        return {
            **{name: clock.as_dict() if clock else None for name, clock in clocks.items()},
            "temperatures_c": dict(self.temperatures_c),
            "throttling": None if self.throttling is None else list(self.throttling),
            "limits_c": dict(self.limits_c),
            "power_mode": self.power_mode,
            "power_limit_mw": self.power_limit_mw,
            "held_ns": None if self.held_ns is None else dict(self.held_ns),
            "confidential": self.confidential,
            "at_ns": self.at_ns,
        }


def read_state(root: Path = Path("/"), *, nvml: Any = None) -> MachineState:
    """Read the current machine state. Takes milliseconds and never raises.

    The GPU clock is read first, then its throttling reasons, as they change first when a load ends.

    Args:
        root: root of the file system; tests pass their own tree.
        nvml: module with pynvml's functions; None for pynvml, which stays initialized until the process ends.
    """
    jetson = _devfreq(root)
    if nvml is None:
        _keep_nvml_started()
    with first_gpu(nvml) as gpu:
        readings = _ask(gpu) if gpu else _GpuReadings()
    temperatures, limits = _thermal_zones(root)
    if jetson is None:
        limits = {}
    if readings.celsius is not None:
        temperatures["GPU"] = float(readings.celsius)
        if readings.slowdown_c:
            limits["GPU"] = float(readings.slowdown_c)
    cpufreq = root / "sys/devices/system/cpu/cpu0/cpufreq"
    return MachineState(
        cpu=_range(*(_number(cpufreq / f"scaling_{bound}_freq", 1e-3) for bound in ("cur", "min", "max"))),
        gpu=jetson or readings.clock,
        gpu_memory=readings.memory,
        temperatures_c=temperatures,
        throttling=readings.throttling,
        limits_c=limits,
        power_mode=power_mode(root),
        power_limit_mw=readings.power_limit_mw,
        held_ns=readings.held_ns,
        confidential=readings.confidential,
        at_ns=time.monotonic_ns(),
    )


@functools.cache
def _keep_nvml_started() -> None:
    """Keep NVML initialized, so that no snapshot waits for it while clocks drop; NVML counts references."""
    import pynvml

    with contextlib.suppress(*errors_of(pynvml)):
        pynvml.nvmlInit()


@dataclass(frozen=True, slots=True)
class _GpuReadings:
    """Values read from NVML."""

    clock: Frequency | None = None
    throttling: tuple[str, ...] | None = None
    held_ns: Mapping[str, int] | None = None
    memory: Frequency | None = None
    celsius: int | None = None
    slowdown_c: int | None = None
    power_limit_mw: int | None = None
    confidential: bool | None = None


def _ask(gpu: NvmlGpu) -> _GpuReadings:
    """Query NVML in the order that `read_state` describes."""
    clock, throttling, held = _clock(gpu, _CLOCK_SM), _throttling(gpu), _held(gpu)
    celsius = _celsius(gpu)
    state = gpu.ask_system("nvmlSystemGetConfComputeState")
    return _GpuReadings(
        clock=clock,
        throttling=throttling,
        held_ns=held,
        memory=_clock(gpu, _CLOCK_MEMORY),
        celsius=celsius,
        slowdown_c=_slowdown_c(gpu, celsius),
        power_limit_mw=gpu.ask("nvmlDeviceGetEnforcedPowerLimit"),
        confidential=None if state is None else state.ccFeature == _CONFIDENTIAL,
    )


def _celsius(gpu: NvmlGpu) -> int | None:
    """Temperature of the GPU; nvmlDeviceGetTemperature is deprecated in CUDA 13."""
    found: int | None = gpu.ask("nvmlDeviceGetTemperature", _TEMPERATURE_GPU)
    return gpu.ask("nvmlDeviceGetTemperatureV", _TEMPERATURE_GPU) if found is None else found


def _slowdown_c(gpu: NvmlGpu, celsius: int | None) -> int | None:
    """Temperature from which the clock is reduced.

    Ada and newer report the distance to it instead of a threshold ("T.Limit" in nvidia-smi;
    nvmlDeviceGetMarginTemperature: "the distance to the nearest slowdown threshold").
    """
    threshold: int | None = gpu.ask("nvmlDeviceGetTemperatureThreshold", _THRESHOLD_SLOWDOWN)
    if threshold or celsius is None:
        return threshold
    margin: int | None = gpu.ask("nvmlDeviceGetMarginTemperature")
    return None if margin is None else celsius + margin


def _held(gpu: NvmlGpu) -> dict[str, int] | None:
    """Throttling times from NVML, in nanoseconds since the driver was loaded (nvmlViolationTime_t)."""
    found = {}
    for name, (policy, field_number) in _POLICIES.items():
        status = gpu.ask("nvmlDeviceGetViolationStatus", policy)
        found[name] = gpu.field(field_number) if status is None else status.violationTime
    return {name: int(value) for name, value in found.items() if value is not None} or None


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
    """A GPU clock without a lower bound, which NVML has only for each performance state."""
    return _range(gpu.ask("nvmlDeviceGetClockInfo", kind), None, gpu.ask("nvmlDeviceGetMaxClockInfo", kind))


def _throttling(gpu: NvmlGpu) -> tuple[str, ...] | None:
    bits = gpu.ask("nvmlDeviceGetCurrentClocksEventReasons")
    if bits is None:  # a driver or pynvml older than the new name
        bits = gpu.ask("nvmlDeviceGetCurrentClocksThrottleReasons")
    if bits is None:
        return None
    known = [words for bit, words in _REASONS.items() if bits & bit]
    unknown = bits & ~sum(_REASONS)
    return (*known, *([f"reason {unknown:#x}"] if unknown else []))


def _thermal_zones(root: Path) -> tuple[dict[str, float], dict[str, float]]:
    """Temperatures and lowest throttling temperatures by thermal zone.

    Zones of components that are off cannot be read and are omitted.
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
        if slowing := [trip for trip in trips if trip is not None and trip > 0]:  # 0 or less means disabled
            limits[name] = min(slowing)
    return temperatures, limits


def _word(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def _number(path: Path, factor: float) -> float | None:
    word = _word(path)
    value = None if word is None else integer_of(word)
    return None if value is None else value * factor
