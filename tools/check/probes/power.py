"""Probes of energy: what the sampler costs, and whether two sensors and two passes agree."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

import numpy as np

from cnnx.measure.power.cost import sampler_cost
from cnnx.measure.power.driving import drive
from cnnx.measure.power.finding import find_sensors
from cnnx.measure.power.sensors.sensor import PolledSensor
from tools.check.probes import copies
from tools.check.probes.probe import Machine, Tell

# Until clocks and averages have settled, and a counted pass.
_SETTLE_S, _PASS_S = 2.5, 8.0
_AGREE, _COST = 0.05, 0.01
_TURNS = 8
# A run: copies that take this time together.
_RUN_NS, _COPIES = 1_000_000, 20
_COUNTER, _INSTANT = "nvml-energy", "nvml-instant"


def cost(machine: Machine, tell: Tell) -> None:
    """How much slower runs are while the sampler reads at the rate of a measurement."""
    names = _supported(machine)
    if not names:
        tell("sensors", "none is supported here")
        return
    with _run(machine) as run:
        turns = max(2, int(_TURNS / machine.speed))
        found = sampler_cost(run, lambda: machine.sampler(names[0]), turns=turns)
    low, high = found.interval.low, found.interval.high
    value = {"sensor": names[0], "ratio": found.ratio, "interval": [low, high]}
    tell("time with the sampler over without", value, holds=low <= 1 + _COST, expected=f"below {1 + _COST}")


def energy(machine: Machine, tell: Tell) -> None:
    """Energy of a run in two passes, with two sensors at a time: the instant power and the counter."""
    names = [each for each in (_INSTANT, _COUNTER) if each in _supported(machine)] or _supported(machine)[:2]
    if not names:
        tell("sensors", "none is supported here")
        return
    mj: dict[str, list[float]] = {name: [] for name in names}
    for number in (1, 2):
        found = _pass(machine, names)
        tell(f"pass {number}: mJ of a run", found)
        for name in names:
            mj[name].append(found[name])
    for name, (first, second) in mj.items():
        apart = second / first - 1 if first else None
        near = apart is not None and abs(apart) <= _AGREE
        tell(f"{name}: the second pass over the first", apart, holds=near, expected=f"within {_AGREE:.0%}")
    if mj.keys() == {_INSTANT, _COUNTER}:
        apart = statistics.fmean(mj[_INSTANT]) / statistics.fmean(mj[_COUNTER]) - 1
        tell("instant over counter", apart, holds=abs(apart) <= _AGREE, expected=f"within {_AGREE:.0%}")


def _pass(machine: Machine, names: list[str]) -> dict[str, float]:
    """Energy of a run in mJ by sensor, back to back, after a time to settle."""
    with ExitStack() as stack:
        run = stack.enter_context(_run(machine))
        running = {name: stack.enter_context(machine.sampler(name)) for name in names}

        def check() -> None:
            for each in running.values():
                each.check()

        driving = functools.partial(
            drive, run, rate=None, check=check, clock=machine.clock, sleep=machine.sleep
        )
        driving(seconds=_SETTLE_S / machine.speed)
        driven = driving(seconds=_PASS_S / machine.speed)
        driving(seconds=0.5 / machine.speed)  # samples on both sides of the end
        found = {}
        for name, each in running.items():
            trace = each.trace()
            rails = trace.sensor.total.rails or tuple(rail.name for rail in trace.sensor.rails)
            found[name] = trace.energy_mj(rails, driven.span.start_ns, driven.span.end_ns) / driven.inferences
    return found


def _supported(machine: Machine) -> list[str]:
    """Names of the sensors that can be read, best first."""
    opened = [
        each for each in find_sensors(machine.root, nvml=machine.nvml) if isinstance(each, PolledSensor)
    ]
    for each in opened:
        each.close()
    return [each.info.name for each in opened]


@contextmanager
def _run(machine: Machine) -> Iterator[Callable[[], int]]:
    """A run of about a millisecond in cnnx's session, as a load."""
    cuda = machine.cuda()
    unit = copies.of_time(cuda, _RUN_NS / _COPIES, most=machine.most_bytes)
    images = np.zeros((1, 3, 32, 32), np.float32)
    with copies.session(cuda, lambda stream: unit.queue(stream, _COPIES), images.shape) as session:

        def run() -> int:
            session.run(images)
            return 1

        yield run
    unit.free()


PROBES: Mapping[str, Callable[[Machine, Tell], None]] = {each.__name__: each for each in (cost, energy)}
