"""The energy pass: chooses the sensor, and measures the energy per image."""

from __future__ import annotations

import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

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
from cnnx.runtimes import Images, queues

# Kinds of sensors for a network on the CPU and on the GPU, best first, each with the reason to choose it.
_ON_CPU = {
    "ina": "the board's power monitors measure the whole board",
    "rapl": "the network runs on the CPU, and RAPL measures CPU packages",
}
_ON_GPU = {
    "ina": "the board's power monitors measure the whole board",
    "nvml": "the network runs on the GPU, and NVML measures its board",
}
# Time for which runs are queued at a time, back to back.
_QUEUED_S = 0.5
_MEASURES = {"ina": "the board", "rapl": "only the CPU", "nvml": "only the GPU"}


@dataclass(frozen=True, slots=True)
class PowerPass:
    """How energy is measured, in a separate pass after latency.

    Attributes:
        plan: durations of its parts, and the sampling rate.
        sensor: name of the sensor to read; None: the best one that measures the network's device.
        sampler: returns a sampler to use instead of the process that reads the sensor, for tests.
        clock: clock of the sampler's timestamps.
        sleep: function that waits a number of seconds.
        tegrastats: name or path of tegrastats, whose readings are compared with ours; without the program
            nothing is compared.
    """

    plan: Plan = field(default_factory=Plan)
    sensor: str | None = None
    sampler: Callable[[], Sampler] | None = None
    clock: Clock = monotonic_ns
    sleep: Sleep = time.sleep
    tegrastats: str = "tegrastats"


def power_pass(options: MeasuringOptions) -> PowerPass | None:
    """The energy pass that the options request; None if they request none.

    Raises:
        UsageError: a rate or a sensor is given without `power`.
    """
    if not options.power:
        for name, value in (("--rate", options.rate), ("--sensor", options.sensor)):
            if value is not None:
                raise UsageError(f"{name} has no effect without --power", hint="add --power")
        return None
    given = PowerPass() if options.power is True else options.power
    if not isinstance(given, PowerPass):
        raise TypeError(f"power must be a bool or a PowerPass, not {type(given).__name__}")
    plan = given.plan if options.rate is None else dataclasses.replace(given.plan, rate=options.rate)
    return dataclasses.replace(given, plan=plan, sensor=options.sensor or given.sensor)


@dataclass(frozen=True, slots=True)
class Chosen:
    """A function that returns a new sampler, and why its sensor was chosen."""

    sampler: Callable[[], Sampler]
    why: str


def choose_sampler(power: PowerPass, device: Device, *, root: Path = Path("/")) -> Chosen:
    """Choose the sampler for a network on a device. Takes a moment; call it before minutes are spent.

    Args:
        power: energy pass, which may name a sensor or contain a sampler.
        device: device the network runs on.
        root: root of the file system.

    Raises:
        EnvironmentLacks: no suitable sensor; `where` gives the reason for each.
    """
    if power.sampler is not None:
        return Chosen(power.sampler, "the sampler was given by the caller")
    name, why = find_sensor(device, named=power.sensor, root=root)
    return Chosen(lambda: SamplerProcess(name, root=root), why)


def find_sensor(device: Device, *, named: str | None = None, root: Path = Path("/")) -> tuple[str, str]:
    """Name of this machine's sensor to read, and why; raises as `choose_sensor` does."""
    found = find_sensors(root)
    for sensor in found:
        if isinstance(sensor, PolledSensor):
            sensor.close()
    infos = [one.info if isinstance(one, PolledSensor) else one for one in found]
    return choose_sensor(infos, device, named=named)


def choose_sensor(
    found: Sequence[SensorInfo | Unsupported], device: Device, *, named: str | None = None
) -> tuple[str, str]:
    """Name of the sensor to read, and why: the named one, or the best one that measures the device.

    A sensor with a total is preferred to one without.

    Raises:
        EnvironmentLacks: no suitable sensor, or the named one is not available; `where` gives the reason for
            each.
    """
    fitting = _fitting(device)
    available = {one.name: one for one in found if isinstance(one, SensorInfo)}
    if named is not None and named in available:
        limit = "" if _kind(named) in fitting else f", although it measures {_MEASURES[_kind(named)]}"
        return named, f"it was named by the user{limit}"
    suitable = [name for kind in fitting for name in available if _kind(name) == kind]
    if named is not None or not suitable:
        raise _no_sensor(found, device, named)
    name = next((name for name in suitable if available[name].total.rails), suitable[0])
    return name, fitting[_kind(name)]


def _fitting(device: Device) -> dict[str, str]:
    return _ON_CPU if device.kind == "cpu" else _ON_GPU


def _no_sensor(
    found: Sequence[SensorInfo | Unsupported], device: Device, named: str | None
) -> EnvironmentLacks:
    reasons = [
        f"{one.sensor}: {one.reason}"
        if isinstance(one, Unsupported)
        else f"{one.name}: measures {_MEASURES[_kind(one.name)]}"
        for one in found
    ]
    hints = [
        one.hint
        for one in found
        if isinstance(one, Unsupported)
        and one.hint
        and (one.sensor == named if named else _kind(one.sensor) in _fitting(device))
    ]
    if named is None:
        what = f"no power sensor here measures a network on {device}"
    else:
        what = f"the power sensor {named} is not available here, for a network on {device}"
    return EnvironmentLacks(
        what,
        where="; ".join(reasons),
        hint=hints[0] if hints else "see cnnx doctor; or drop --power to measure latency and memory only",
    )


def _kind(sensor: str) -> str:
    return sensor.split("-")[0]


def how_long(plan: Plan, passes: int) -> str:
    """A phrase on how long the energy passes will take, shown before they start.

    Includes measuring the cost of sampling, which takes longest for the longest runs.
    """
    least, most = plan.seconds
    least, most = least + cost_seconds(0.0), most + COST_LIMIT_S
    minutes = f"{math.ceil(passes * least / 60)} to {math.ceil(passes * most / 60)} minutes"
    each = f"{least:.0f} to {most:.0f} s" + (" each, one after another" if passes > 1 else "")
    return (
        f"{passes} pass{'es' * (passes > 1)} of {each}, {minutes} in total, depending on warm-up and run time"
    )


def measure_use(
    subject: OpenSubject,
    images: Images,
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
    """Open a network and measure its energy, then the cost of sampling.

    Args:
        subject: the network.
        images: normalized images (M, C, H, W); cycled through.
        batch: images per run.
        cuda_graph: launch an engine's kernels as one CUDA graph; None: not supported here.
        power: the energy pass.
        chosen: the sampler.
        run_ns: approximate time of a run.
        remark: remark to keep with the figures.
        steps: runs the steps.
        title: title of the step.

    Raises:
        EnvironmentLacks: the sampler did not start, or died before the energy was measured.
    """
    batches = itertools.cycle(batches_of(images, batch))
    session = subject.open(cuda_graph=bool(cuda_graph))

    def single() -> int:
        session.run(next(batches))
        return batch

    queued = _QUEUED_S * 1e9 / max(1.0, run_ns)

    def back_to_back() -> int:
        # Copying images into page-locked memory takes longer than a GPU needs for them: measured one by one,
        # it would be at rest most of the time.
        assert queues(session)
        runs = len(session.timed_series(next(batches), max(1, int(queued))).runs)
        return batch * (runs + 1)

    load = back_to_back if queues(session) and power.plan.rate is None else single

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
        return sampler_cost(single, chosen.sampler, turns=turns, clock=power.clock, progress=progress)

    turns = cost_turns(run_ns / 1e9)
    cost, no_cost = None, "" if turns else f"a run takes {run_ns / 1e9:.1f} s, too long for alternating turns"
    try:
        before = read_state()
        measured = steps.run(title, energy, timed=True)
        try:
            cost = steps.run("cost of sampling", costs, timed=True) if turns else None
        except EnvironmentLacks as error:  # the energy was measured all the same
            no_cost = error.what
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
        no_cost=no_cost,
        state_before=before,
        state_after=after,
        remark=remark,
    )
