"""Probes of NVML and the power sensors: what they answer, and whether they agree."""

from __future__ import annotations

import itertools
import os
import statistics
from collections.abc import Callable, Mapping
from typing import Any

from cnnx.machine.nvml import cudas_handle, errors_of
from cnnx.measure.footprint import gpu_memory
from cnnx.measure.power.finding import find_sensors
from cnnx.measure.power.sensors.sensor import Sample, Unsupported
from cnnx.measure.power.trace import Trace
from tools.check.probes import copies
from tools.check.probes.probe import Machine, Tell

QUESTIONS: Mapping[str, tuple[tuple[Any, ...], ...]] = {
    "nvmlDeviceGetArchitecture": ((),),
    "nvmlDeviceGetClockInfo": ((1,), (2,)),
    "nvmlDeviceGetComputeRunningProcesses": ((),),
    "nvmlDeviceGetCudaComputeCapability": ((),),
    "nvmlDeviceGetCurrentClocksEventReasons": ((),),
    "nvmlDeviceGetCurrentClocksThrottleReasons": ((),),
    "nvmlDeviceGetEnforcedPowerLimit": ((),),
    "nvmlDeviceGetFieldValues": (([74],), ([75],), ([185],), ([186],)),
    "nvmlDeviceGetGraphicsRunningProcesses": ((),),
    "nvmlDeviceGetMarginTemperature": ((),),
    "nvmlDeviceGetMaxClockInfo": ((1,), (2,)),
    "nvmlDeviceGetMemoryInfo": ((),),
    "nvmlDeviceGetMigMode": ((),),
    "nvmlDeviceGetName": ((),),
    "nvmlDeviceGetPowerUsage": ((),),
    "nvmlDeviceGetTemperature": ((0,),),
    "nvmlDeviceGetTemperatureThreshold": ((1,),),
    "nvmlDeviceGetTemperatureV": ((0,),),
    "nvmlDeviceGetTotalEnergyConsumption": ((),),
    "nvmlDeviceGetViolationStatus": ((0,), (1,)),
}
"""Every question that cnnx asks about a GPU, with the arguments that it asks with."""
OF_SYSTEM = (
    "nvmlDeviceGetCount",
    "nvmlSystemGetConfComputeState",
    "nvmlSystemGetCudaDriverVersion",
    "nvmlSystemGetDriverVersion",
)
"""Every question that it asks without a GPU."""
_LOAD_S, _SENSORS_S = 6.0, 8.0
# Until clocks and averages have settled.
_SETTLE_S = 2.5
_AGREE = 0.05
_COUNTER = "nvml-energy"


def nvml(machine: Machine, tell: Tell) -> None:
    """What NVML answers to every question of cnnx, at rest and after some seconds of load."""
    asked = machine.questions()
    asked.nvmlInit()
    handle, remark = cudas_handle(asked)
    tell("the GPU of CUDA", remark or "found", holds=not remark, expected="found")
    before = _answers(asked, handle)
    with copies.busy(machine):
        machine.sleep(_LOAD_S / machine.speed)
        after = _answers(asked, handle)
    for question, answer in before.items():
        tell(question, {"at rest": answer, "under load": after[question]})
    asked.nvmlShutdown()


def _answers(asked: Any, handle: Any) -> dict[str, Any]:
    found = {name: _answer(asked, name) for name in OF_SYSTEM}
    for name, calls in QUESTIONS.items():
        for arguments in calls:
            shown = ", ".join(map(str, arguments))
            found[f"{name}({shown})"] = _answer(asked, name, handle, *arguments)
    return found


def _answer(asked: Any, name: str, *arguments: Any) -> Any:
    """The answer as plain data, or the words of the refusal."""
    question = getattr(asked, name, None)
    if question is None:
        return "missing in this pynvml"
    try:
        return _plain(question(*arguments))
    except errors_of(asked) as error:
        return f"{type(error).__name__}: {error}"


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    names = [name for name, *_ in getattr(value, "_fields_", ())] or list(getattr(value, "__dict__", ()))
    if names:
        return {name: _plain(getattr(value, name)) for name in names}
    return value if isinstance(value, (int, float, str, type(None))) else str(value)


def processes(machine: Machine, tell: Tell) -> None:
    """Whether NVML lists this process among those that use the GPU."""
    cuda, asked = machine.cuda(), machine.questions()
    unit = copies.Copies(cuda, machine.most_bytes)
    asked.nvmlInit()
    handle, _ = cudas_handle(asked)
    listed = _answer(asked, "nvmlDeviceGetComputeRunningProcesses", handle)
    pids = [each["pid"] for each in listed] if isinstance(listed, list) else listed
    own = isinstance(pids, list) and os.getpid() in pids
    tell("processes", {"own": os.getpid(), "listed": pids}, holds=own, expected="its own, but in a container")
    memory = gpu_memory(machine.root, nvml=machine.nvml)
    found = {"process": memory.process, "device": memory.device, "available": memory.available}
    tell("memory, as cnnx reads it", found)
    unit.free()
    asked.nvmlShutdown()


def sensors(machine: Machine, tell: Tell) -> None:
    """How often each sensor has a new value, and whether those of one device agree."""
    opened = []
    for each in find_sensors(machine.root, nvml=machine.nvml):
        if isinstance(each, Unsupported):
            tell(each.sensor, each.reason)
        else:
            opened.append(each)
    read: dict[str, list[Sample]] = {each.info.name: [] for each in opened}
    with copies.busy(machine):
        until = machine.clock() + int(_SENSORS_S * 1e9 / machine.speed)
        while machine.clock() < until:
            for each in opened:
                read[each.info.name].append(each.read())
            machine.sleep(0.002)
    traces = {each.info.name: Trace(each.info, 100.0, tuple(read[each.info.name])) for each in opened}
    _tell_agreement(traces, machine, tell)
    for each in opened:
        each.close()


def _tell_agreement(traces: Mapping[str, Trace], machine: Machine, tell: Tell) -> None:
    """Power of each sensor over the time for which all have settled; the counter's is taken for right."""
    powers: dict[str, float] = {}
    for name, trace in sorted(traces.items(), key=lambda item: item[0] != _COUNTER):
        stamps = [sample.stamp_ns for sample in trace.samples]
        found: dict[str, Any] = {"renewed every ms": _renewal_ms(trace.samples), "reads": len(stamps)}
        start = stamps[0] + int(_SETTLE_S * 1e9 / machine.speed)
        holds, expected = None, ""
        if trace.sensor.total.rails and start < stamps[-1]:
            covers = trace.sensor.total.covers
            found["W"] = watts = trace.power_mw(trace.sensor.total.rails, start, stamps[-1]) / 1e3
            if right := powers.get(covers):
                holds, expected = abs(watts / right - 1) <= _AGREE, f"within {_AGREE:.0%} of {right:.1f} W"
            powers.setdefault(covers, watts)
        tell(name, found, holds=holds, expected=expected)


def _renewal_ms(samples: list[Sample] | tuple[Sample, ...]) -> float | None:
    """Median time between two changes of the first rail; None if it changed less than twice."""
    changed = [
        after.stamp_ns for before, after in itertools.pairwise(samples) if before.values[0] != after.values[0]
    ]
    gaps = [(after - before) / 1e6 for before, after in itertools.pairwise(changed)]
    return statistics.median(gaps) if gaps else None


PROBES: Mapping[str, Callable[[Machine, Tell], None]] = {
    each.__name__: each for each in (nvml, sensors, processes)
}
