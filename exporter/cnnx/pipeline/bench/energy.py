"""The energy pass: which sensor sees what runs, and what a picture takes by it."""

from __future__ import annotations

import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cnnx.device import Device
from cnnx.errors import EnvironmentLacks, UsageError
from cnnx.machine.isolated import find_program
from cnnx.machine.state import read_state
from cnnx.measure.latency import batches_of
from cnnx.measure.power import (
    COST_LIMIT_S,
    EnergyMeasurement,
    Plan,
    PolledSensor,
    Sampler,
    SamplerCost,
    SamplerProcess,
    SensorInfo,
    Unsupported,
    cost_seconds,
    cost_turns,
    find_sensors,
    measure_energy,
    sampler_cost,
)
from cnnx.measure.power.sensors.sensor import Clock, Sleep, monotonic_ns
from cnnx.options.shared import MeasuringOptions
from cnnx.pipeline.bench.energy_use import EnergyUse, total_and_rails
from cnnx.pipeline.progress import Progress, Steps
from cnnx.pipeline.target import OpenSubject

# Kinds of sensors that see a network on the CPU, and one on the GPU, best first; with the reason.
_ON_CPU = {
    "ina": "the board's monitors see all that it runs on",
    "rapl": "it runs on the CPU, whose packages RAPL counts",
}
_ON_GPU = {
    "ina": "the board's monitors see all that it runs on",
    "nvml": "it runs on the GPU, whose board NVML sees",
}
_SEES = {"ina": "the board", "rapl": "the CPU alone", "nvml": "the GPU alone"}


@dataclass(frozen=True, slots=True)
class PowerPass:
    """How energy is measured, after latency and apart from it.

    Attributes:
        plan: how long its parts take, and the rate.
        sensor: name of the one to read; None: the best that sees where the network runs.
        sampler: makes one to take in place of a process that reads the sensor, for rehearsals and tests.
        clock: that of the sampler's stamps.
        sleep: waits that many seconds.
        tegrastats: name or path of the program that reads a board's monitors beside us for a while; where
            there is none nothing is compared.
    """

    plan: Plan = field(default_factory=Plan)
    sensor: str | None = None
    sampler: Callable[[], Sampler] | None = None
    clock: Clock = monotonic_ns
    sleep: Sleep = time.sleep
    tegrastats: str = "tegrastats"


def power_pass(options: MeasuringOptions) -> PowerPass | None:
    """How the options ask energy to be measured; None: not at all.

    Raises:
        UsageError: a rate or a sensor without `power`.
    """
    if not options.power:
        for name, value in (("--rate", options.rate), ("--sensor", options.sensor)):
            if value is not None:
                raise UsageError(f"{name} says how energy is measured, and it is not", hint="give --power")
        return None
    asked = PowerPass() if options.power is True else options.power
    if not isinstance(asked, PowerPass):
        raise TypeError(f"power must be a bool or a PowerPass, not {type(asked).__name__}")
    plan = asked.plan if options.rate is None else dataclasses.replace(asked.plan, rate=options.rate)
    return dataclasses.replace(asked, plan=plan, sensor=options.sensor or asked.sensor)


@dataclass(frozen=True, slots=True)
class Chosen:
    """A sampler to make, as often as wanted, and why of this sensor."""

    sampler: Callable[[], Sampler]
    why: str


def choose_sampler(power: PowerPass, device: Device, *, root: Path = Path("/")) -> Chosen:
    """What will be sampled for a network on a device. Takes a moment: ask before minutes are spent.

    Args:
        power: may name a sensor, or bring a sampler of its own.
        device: where the network runs.
        root: where the file system starts.

    Raises:
        EnvironmentLacks: no sensor that fits, with the reason for each.
    """
    if power.sampler is not None:
        return Chosen(power.sampler, "the caller brought its sampler")
    found = find_sensors(root)
    for sensor in found:
        if isinstance(sensor, PolledSensor):
            sensor.close()
    infos = [one.info if isinstance(one, PolledSensor) else one for one in found]
    name, why = choose_sensor(infos, device, named=power.sensor)
    return Chosen(lambda: SamplerProcess(name, root=root), why)


def choose_sensor(
    found: Sequence[SensorInfo | Unsupported], device: Device, *, named: str | None = None
) -> tuple[str, str]:
    """Name of the sensor to read, and why: the one named, else the best that sees the device.

    One that has a total counts before one that has none.

    Raises:
        EnvironmentLacks: there is none, or not the one named; with the reason for each.
    """
    fitting = _fitting(device)
    there = {one.name: one for one in found if isinstance(one, SensorInfo)}
    if named is not None and named in there:
        sees = "" if _kind(named) in fitting else f", though it sees {_SEES[_kind(named)]}"
        return named, f"it was named{sees}"
    seeing = [name for kind in fitting for name in there if _kind(name) == kind]
    if named is not None or not seeing:
        raise _no_sensor(found, device, named)
    name = next((name for name in seeing if there[name].total.rails), seeing[0])
    return name, fitting[_kind(name)]


def _fitting(device: Device) -> dict[str, str]:
    return _ON_CPU if device.kind == "cpu" else _ON_GPU


def _no_sensor(
    found: Sequence[SensorInfo | Unsupported], device: Device, named: str | None
) -> EnvironmentLacks:
    reasons = [
        f"{one.sensor}: {one.reason}"
        if isinstance(one, Unsupported)
        else f"{one.name}: is there and sees {_SEES[_kind(one.name)]}"
        for one in found
    ]
    hints = [
        one.hint
        for one in found
        if isinstance(one, Unsupported)
        and one.hint
        and (one.sensor == named if named else _kind(one.sensor) in _fitting(device))
    ]
    what = "no power sensor here sees" if named is None else f"the power sensor {named} is not here for"
    return EnvironmentLacks(
        f"{what} a network on {device}",
        where="; ".join(reasons),
        hint=hints[0] if hints else "cnnx doctor says more; without --power latency and memory are measured",
    )


def _kind(sensor: str) -> str:
    return sensor.split("-")[0]


def how_long(plan: Plan, passes: int) -> str:
    """A sentence on the time that passes will take, for who may not want to wait.

    What sampling costs is in it: least for short runs, most for the longest of which that is measured.
    """
    least, most = plan.seconds
    least, most = least + cost_seconds(0.0), most + COST_LIMIT_S
    minutes = f"{math.ceil(passes * least / 60)} to {math.ceil(passes * most / 60)} minutes"
    each = f"{least:.0f} to {most:.0f} s each" + (", one after another" if passes > 1 else "")
    by = "by how soon the load is warm and how long a run takes"
    return f"{passes} pass{'es' * (passes > 1)} of {each}, {by}: {minutes} in all"


def measure_use(
    subject: OpenSubject,
    images: NDArray[np.float32],
    *,
    batch: int,
    cuda_graph: bool | None,
    power: PowerPass,
    chosen: Chosen,
    run_ns: float,
    remark: str,
    steps: Steps,
    title: str,
) -> EnergyUse:
    """Open a network, measure its energy on pictures in turn, then what sampling costs it.

    Args:
        images: (M, C, H, W), normalised; cycled through.
        batch: pictures a run.
        cuda_graph: launch an engine's kernels as one CUDA graph; None: there is no such thing here.
        run_ns: how long a run takes, about.
        remark: what the figures will not say.
        title: of the step.

    Raises:
        EnvironmentLacks: the sampler did not start, or died.
    """
    batches = itertools.cycle(batches_of(images, batch))
    session = subject.open(cuda_graph=bool(cuda_graph))

    def load() -> int:
        session.run(next(batches))
        return batch

    def energy(progress: Progress) -> EnergyMeasurement:
        return measure_energy(
            load,
            chosen.sampler(),
            plan=power.plan,
            clock=power.clock,
            sleep=power.sleep,
            tegrastats=find_program(power.tegrastats),
            progress=lambda share: progress(round(share * 100), 100),
        )

    def costs(progress: Progress) -> SamplerCost:
        return sampler_cost(load, chosen.sampler, turns=turns, clock=power.clock, progress=progress)

    turns = cost_turns(run_ns / 1e9)
    try:
        before = read_state()
        measured = steps.run(title, energy, timed=True)
        cost = steps.run("what sampling costs", costs, timed=True) if turns else None
        after = read_state()
    finally:
        session.close()
    total, no_total, rails = total_and_rails(measured)
    return EnergyUse(
        subject=subject.subject,
        batch=batch,
        cuda_graph=cuda_graph,
        why=chosen.why,
        total=total,
        no_total=no_total,
        rails=rails,
        measured=measured,
        cost=cost,
        no_cost="" if cost else f"a run takes {run_ns / 1e9:.1f} s: too long to take turns",
        state_before=before,
        state_after=after,
        remark=remark,
    )
