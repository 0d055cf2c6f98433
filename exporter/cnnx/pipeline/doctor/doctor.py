"""What this machine has, and what cnnx can do on it."""

from __future__ import annotations

import contextlib
import importlib.util
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnnx import runtimes
from cnnx.errors import CnnxError, EnvironmentLacks, MissingExtra
from cnnx.machine.environment import Environment, detect, installed_version
from cnnx.machine.packages import Wheels, extra_brings_anything, find_wheel
from cnnx.machine.state import MachineState, read_state
from cnnx.measure.power import PolledSensor, Unsupported, find_sensors, power_now
from cnnx.measure.power.sensors.sensor import Sleep, Uncertainty
from cnnx.pipeline.doctor.packages import Combination, wrong_combinations
from cnnx.pipeline.target import cannot_build

_ROOT = Path("/")


@dataclass(frozen=True, slots=True)
class Ability:
    """One thing cnnx does: whether it can here, or why not, with a hint."""

    what: str
    able: bool
    reason: str = ""
    hint: str = ""


@dataclass(frozen=True, slots=True)
class RailReading:
    """A rail's power just now, in mW; None: it was not read this time."""

    rail: str
    covers: str
    power_mw: float | None


@dataclass(frozen=True, slots=True)
class SensorReading:
    """A power sensor, and that it lives.

    Attributes:
        sensor: its name.
        reason: why it is unsupported here; empty where it is supported.
        rails: each with a reading; empty where it is unsupported.
        total_mw: of the rails that make the whole; None: no total, or one of them was not read.
        total_covers: what the total stands for, or why there is none.
        uncertainty: of each rail, as far as it is stated; None where the sensor is unsupported.
        rate_hz: at which it renews its values by itself; None: not known.
        notes: what a reader of its figures must know.
        hint: what makes it supported; empty where nothing is known to.
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


@dataclass(frozen=True, slots=True)
class DoctorResult:
    """What there is.

    Attributes:
        environment: the machine and its installation.
        state: clocks, temperatures and throttling at the moment.
        sensors: of power, best first.
        wrong_combinations: of packages.
        abilities: what cnnx does.
    """

    environment: Environment
    state: MachineState
    sensors: tuple[SensorReading, ...]
    wrong_combinations: tuple[Combination, ...]
    abilities: tuple[Ability, ...]


def doctor(
    *, root: Path = _ROOT, nvml: Any = None, wheels: Wheels = find_wheel, sleep: Sleep = time.sleep
) -> DoctorResult:
    """Look at this machine. Never raises for what is absent: that is what it reports.

    Args:
        root: where the file system starts; tests give a tree of their own.
        nvml: a module with pynvml's functions; None: pynvml.
        wheels: finds Python distributions.
        sleep: waits between two readings of a counter of energy.
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
    lacking: dict[str, CnnxError | None] = {"export a network from its PyTorch definition": torch}
    for name in runtimes.NAMES:
        runtime = runtimes.get(name)
        lacking[f"run and validate with {name}"] = runtime.cannot_run()
        if runtime.engine_suffix is not None:
            lacking[f"build engines with {name}"] = cannot_build(runtime)
    lacking["measure power and energy"] = _no_power(sensors)
    lacking["write HTML reports and pictures"] = _no_pictures()
    for what, reason in lacking.items():
        yield ability(what, reason, environment)


def ability(what: str, lacking: CnnxError | None, environment: Environment) -> Ability:
    """One ability; its hint never names an extra that has nothing for this machine.

    JetPack brings its own TensorRT, which pip must not touch.
    """
    if lacking is None:
        return Ability(what, able=True)
    if not isinstance(lacking, MissingExtra) or extra_brings_anything(lacking.extra, environment.machine):
        return Ability(what, able=False, reason=lacking.what, hint=lacking.hint or "")
    by_jetpack = environment.l4t is not None and lacking.extra == "tensorrt"
    return Ability(
        what,
        able=False,
        reason=f"{lacking.what}, nor is there one for {environment.machine}",
        hint="sudo apt install nvidia-jetpack" if by_jetpack else "do this on an x86-64 machine",
    )


def _no_power(sensors: Sequence[SensorReading]) -> CnnxError | None:
    if any(not sensor.reason for sensor in sensors):
        return None
    for sensor in sensors:
        if sensor.hint:
            return EnvironmentLacks(f"power by {sensor.sensor}: {sensor.reason}", hint=sensor.hint)
    return EnvironmentLacks(
        "no power sensor here can be read: see the reasons above",
        hint="run on a Jetson, or where NVML or RAPL tells power: cnnx bench BUNDLE --power",
    )


def _no_pictures() -> CnnxError | None:
    for package in ("jinja2", "matplotlib"):
        if importlib.util.find_spec(package) is None:
            return MissingExtra(package, "report", purpose="an HTML report")
    return None
