"""Examines this machine: its devices, sensors and packages, and what cnnx can do with them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnnx import runtimes
from cnnx.data.resampling import missing_opencv
from cnnx.errors import CnnxError, EnvironmentLacks, MissingExtra
from cnnx.machine.driver import install_line
from cnnx.machine.environment import Environment, detect, installed_version
from cnnx.machine.packages import Wheels, extra_brings_anything, find_wheel
from cnnx.machine.state import MachineState, read_state
from cnnx.measure.power import PolledSensor, Unsupported, find_sensors, power_now
from cnnx.measure.power.sensors.sensor import Sleep, Uncertainty
from cnnx.pipeline.doctor.packages import Combination, wrong_combinations
from cnnx.pipeline.plain import plain
from cnnx.pipeline.target import cannot_build
from cnnx.report.result import Result
from cnnx.report.table import Block

_ROOT = Path("/")


@dataclass(frozen=True, slots=True)
class Ability:
    """A capability of cnnx: whether it works here, or why not, with a hint."""

    what: str
    able: bool
    reason: str = ""
    hint: str = ""


@dataclass(frozen=True, slots=True)
class RailReading:
    """The current power of a rail in mW; None if it could not be read."""

    rail: str
    covers: str
    power_mw: float | None


@dataclass(frozen=True, slots=True)
class SensorReading:
    """A power sensor with its current readings.

    Attributes:
        sensor: name of the sensor.
        reason: why it is unsupported here; empty if it is supported.
        rails: rails with their readings; empty if unsupported.
        total_mw: power of the rails that make up the whole; None: no total, or a rail could not be read.
        total_covers: what the total covers, or why there is none.
        uncertainty: stated uncertainty of each rail; None if unsupported.
        rate_hz: rate at which the sensor updates its values; None: unknown.
        notes: what a reader of its figures must know.
        hint: how to make it supported; empty if unknown.
    """

    sensor: str
    reason: str
    rails: tuple[RailReading, ...] = ()
    total_mw: float | None = None
    total_covers: str = ""
    uncertainty: Uncertainty | None = None
    rate_hz: float | None = None
    notes: tuple[str, ...] = ()
    hint: str = ""


@dataclass(frozen=True, slots=True, repr=False)
class DoctorResult(Result):
    """The result of `doctor`.

    Attributes:
        environment: the machine and its packages.
        state: current clocks, temperatures and throttling.
        sensors: power sensors, best first.
        wrong_combinations: conflicting packages.
        abilities: capabilities of cnnx, and whether they work here.
    """

    environment: Environment
    state: MachineState
    sensors: tuple[SensorReading, ...]
    wrong_combinations: tuple[Combination, ...]
    abilities: tuple[Ability, ...]

    def blocks(self, *, verbose: bool = False) -> Iterable[Block]:
        """What the command prints."""
        from cnnx.report.tables.machine import machine_blocks

        return machine_blocks(self.environment, self.state, plain(self))


def doctor(
    *, root: Path = _ROOT, nvml: Any = None, wheels: Wheels = find_wheel, sleep: Sleep = time.sleep
) -> DoctorResult:
    """Examine this machine. Missing devices or packages are reported and never raise.

    Args:
        root: root of the file system; tests use a folder.
        nvml: module with the functions of pynvml; None: pynvml.
        wheels: finds installed Python distributions.
        sleep: waits between two readings of an energy counter.

    Examples:
        >>> [ability.what for ability in cnnx.doctor().abilities if ability.able][:1]
        ['export a network from its PyTorch definition']
    """
    environment = detect(root, nvml=nvml, wheels=wheels)
    found = find_sensors(root, nvml=nvml)
    with contextlib.ExitStack() as stack:
        for sensor in found:
            if isinstance(sensor, PolledSensor):
                stack.callback(sensor.close)
        sensors = tuple(_reading(sensor, sleep) for sensor in found)
    return DoctorResult(
        environment,
        read_state(root, nvml=nvml),
        sensors,
        wrong_combinations(environment, wheels),
        tuple(_abilities(sensors, environment)),
    )


def _reading(sensor: PolledSensor | Unsupported, sleep: Sleep) -> SensorReading:
    if isinstance(sensor, Unsupported):
        return SensorReading(sensor.sensor, sensor.reason, hint=sensor.hint)
    info = sensor.info
    powers = dict(zip((rail.name for rail in info.rails), power_now(sensor, sleep=sleep), strict=True))
    parts = [powers[name] for name in info.total.rails]
    known = [part for part in parts if part is not None]
    return SensorReading(
        info.name,
        "",
        tuple(RailReading(rail.name, rail.covers, powers[rail.name]) for rail in info.rails),
        sum(known) if parts and len(known) == len(parts) else None,
        info.total.covers,
        info.uncertainty,
        info.rate_hz,
        info.notes,
    )


def _abilities(sensors: Sequence[SensorReading], environment: Environment) -> Iterator[Ability]:
    torch = None if installed_version("torch") else MissingExtra("torch", "export", purpose="exporting")
    missing: dict[str, CnnxError | None] = {"export a network from its PyTorch definition": torch}
    for name in runtimes.NAMES:
        runtime = runtimes.get(name)
        missing[f"run and validate with {name}"] = runtime.cannot_run()
        if runtime.engine_suffix is not None:
            missing[f"build engines with {name}"] = cannot_build(runtime)
    missing["measure power and energy"] = _no_power(sensors)
    missing["resample images as OpenCV does"] = missing_opencv()
    missing["write HTML reports and plots"] = _no_plots()
    for what, reason in missing.items():
        yield ability(what, reason, environment)


def ability(what: str, missing: CnnxError | None, environment: Environment) -> Ability:
    """An ability, with a hint that never names an extra without packages for this machine.

    JetPack contains its own TensorRT, which pip must not touch.
    """
    if missing is None:
        return Ability(what, able=True)
    tensorrt = isinstance(missing, MissingExtra) and missing.extra.startswith("tensorrt")
    if tensorrt and environment.gpu is None and environment.l4t is None:
        where = "do this on the machine that will run the engine"
        return Ability(what, able=False, reason="TensorRT needs an NVIDIA GPU; none was found", hint=where)
    if not isinstance(missing, MissingExtra):
        return Ability(what, able=False, reason=missing.what, hint=missing.hint or "")
    if extra_brings_anything(missing.extra, environment.machine):
        return Ability(
            what,
            able=False,
            reason=missing.what,
            hint=install_line(missing.extra.removesuffix("-cu12"), environment),
        )
    by_jetpack = environment.l4t is not None and tensorrt
    return Ability(
        what,
        able=False,
        reason=f"{missing.what}, and there is no package of it for {environment.machine}",
        hint="sudo apt install nvidia-jetpack" if by_jetpack else "do this on an x86-64 machine",
    )


def _no_power(sensors: Sequence[SensorReading]) -> CnnxError | None:
    if any(not sensor.reason for sensor in sensors):
        return None
    for sensor in sensors:
        if sensor.hint:
            return EnvironmentLacks(f"power from {sensor.sensor}: {sensor.reason}", hint=sensor.hint)
    return EnvironmentLacks(
        "no power sensor can be read here; the reasons are listed above",
        hint="measure on a Jetson, or on a machine where NVML or RAPL reports power: "
        "cnnx bench BUNDLE --power",
    )


def _no_plots() -> CnnxError | None:
    from cnnx.report.page import missing

    return missing("an HTML report")
