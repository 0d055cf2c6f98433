"""Validity of a measurement, as a pure function of the recorded data."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from cnnx.machine.state import MachineState
from cnnx.measure.samples import Breakdown, Latency, variation

# trtexec (TensorRT's samples/common/sampleReporting.cpp) warns at these.
_ENQUEUE_SHARE = 0.8
_UNSTEADY = 0.025
# nvbench discards samples taken below three quarters of the clock it expects.
_FALLEN = 0.75
# NVML's reasons for a clock reduced under load by hardware or driver: SwPowerCap 0x4, HwSlowdown 0x8,
# SwThermal 0x20, HwThermal 0x40, PowerBrake 0x80. A clock set by the user, or idle, is not throttling.
_THROTTLING = {
    "software power cap": "raise the power limit or power mode, or measure at lower clocks",
    "hardware slowdown": "check the power supply and cooling",
    "software thermal slowdown": "cool the device, or let it idle before measuring",
    "hardware thermal slowdown": "cool the device, or let it idle before measuring",
    "hardware power brake": "check the power supply",
}
# NVML's time counters and the corresponding reasons.
_HELD = {"power": "software power cap", "thermal": "software thermal slowdown"}
# This close to its limit, a part may have been throttled between snapshots.
_MARGIN_C = 2.0


@dataclass(frozen=True, slots=True)
class ValidityFinding:
    """A problem with a measurement.

    Attributes:
        rule: short name of the problem.
        reason: what was found, with the value.
        hint: hint that says how to avoid it.
    """

    rule: str
    reason: str
    hint: str


@dataclass(frozen=True, slots=True)
class Validity:
    """Verdict on a measurement.

    Attributes:
        findings: problems that make it invalid; empty if it is valid.
        remarks: problems that do not make it invalid. On a CPU all problems are remarks, as desktops and
            laptops are never quiet enough for rules made for GPUs.
    """

    findings: tuple[ValidityFinding, ...]
    remarks: tuple[ValidityFinding, ...]

    @property
    def valid(self) -> bool:
        """Whether there are no findings."""
        return not self.findings

    def as_dict(self) -> dict[str, Any]:
        """The verdict as plain data for JSON."""

        def plain(findings: tuple[ValidityFinding, ...]) -> list[dict[str, str]]:
            return [{"rule": f.rule, "reason": f.reason, "hint": f.hint} for f in findings]

        return {
            "valid": self.valid,
            "findings": plain(self.findings),
            "remarks": plain(self.remarks),
        }


def judge_validity(
    latency: Latency,
    *,
    on_gpu: bool,
    states: Sequence[MachineState] = (),
    cuda_graph: bool = False,
) -> Validity:
    """Check a measurement by trtexec's rules, NVML's throttling reasons, clocks, temperatures and power mode.

    Args:
        latency: raw samples, with a breakdown if the session reports it.
        on_gpu: whether it ran on a GPU.
        states: machine states from the end of warm-up until just after the last run; empty if unknown.
        cuda_graph: whether the kernels were launched as a CUDA graph.
    """
    found = [*_settled(latency), *_unsteady(latency, states)]
    if not on_gpu:
        return Validity((), tuple(found))
    if latency.parts is not None:
        found += [*_enqueue_bound(latency.parts, cuda_graph), *_transfer_bound(latency.parts)]
    found += [*_throttled(states), *_held(states), *_fell(states), *_changed(states)]
    hot, warm = _heat(states)
    return Validity((*found, *hot), (*_below_most(states), *warm, *_unknown(states)))


def _settled(latency: Latency) -> Iterator[ValidityFinding]:
    if latency.warmup_ended != "steady":
        yield ValidityFinding(
            "warm-up", "latencies had not settled when warm-up ended", "measure with more --seconds"
        )
    if not latency.complete:
        reason = f"only {len(latency.samples_ns)} samples at the time limit, fewer than requested"
        yield ValidityFinding("cut short", reason, "measure with more --seconds, or a lower --percentile")


def _unsteady(latency: Latency, states: Sequence[MachineState]) -> Iterator[ValidityFinding]:
    found = variation(latency.steady_ns)
    if found is None or found <= _UNSTEADY:
        return
    what = "GPU compute" if latency.parts else "latency"
    jetson = any(state.gpu is not None and state.gpu.least_mhz is not None for state in states)
    lock = "sudo jetson_clocks" if jetson else "sudo nvidia-smi --lock-gpu-clocks=base"
    hint = f"lock the clocks ({lock})" if latency.parts else "close other programs and lock the clocks"
    yield ValidityFinding("unsteady", f"{what} varies by {found:.1%}, more than {_UNSTEADY:.1%}", hint)


def _enqueue_bound(parts: Breakdown, cuda_graph: bool) -> Iterator[ValidityFinding]:
    enqueue, compute = statistics.median(parts.enqueue_ns), statistics.median(parts.compute_ns)
    if enqueue > _ENQUEUE_SHARE * compute:
        yield ValidityFinding(
            "enqueue-bound",
            f"enqueueing takes {enqueue / 1e6:.3f} ms, GPU compute {compute / 1e6:.3f} ms: the GPU waits",
            "measure a larger --batch: the network is too small to fill the GPU"
            if cuda_graph
            else "measure with --cuda-graph, or a larger --batch",
        )


def _transfer_bound(parts: Breakdown) -> Iterator[ValidityFinding]:
    compute = statistics.median(parts.compute_ns)
    for name, times in (("to the device", parts.h2d_ns), ("to the host", parts.d2h_ns)):
        copying = statistics.median(times)
        if copying >= compute:
            yield ValidityFinding(
                "transfer-bound",
                f"copying {name} takes {copying / 1e6:.3f} ms, GPU compute {compute / 1e6:.3f} ms",
                "use GPU compute as the latency of the network, and keep data on the device if possible",
            )


def _throttled(states: Sequence[MachineState]) -> Iterator[ValidityFinding]:
    seen = dict.fromkeys(reason for state in states for reason in state.throttling or ())
    for reason in seen:
        if reason in _THROTTLING:
            yield ValidityFinding("throttled", f"the GPU clock was reduced: {reason}", _THROTTLING[reason])


def _held(states: Sequence[MachineState]) -> Iterator[ValidityFinding]:
    """Check the throttling counters, which also cover the time between snapshots."""
    counted = [state.held_ns for state in states if state.held_ns is not None]
    for kind, reason in _HELD.items():
        times = [one[kind] for one in counted if kind in one]
        if times and times[-1] > times[0]:
            held = f"the GPU clock was reduced for {(times[-1] - times[0]) / 1e6:.1f} ms"
            yield ValidityFinding("throttled", f"{held} by the {kind} limit", _THROTTLING[reason])


def _changed(states: Sequence[MachineState]) -> Iterator[ValidityFinding]:
    modes = [state.power_mode for state in states if state.power_mode is not None]
    limits = [f"{state.power_limit_mw / 1000:g} W" for state in states if state.power_limit_mw is not None]
    for what, seen in (("power mode", modes), ("power limit", limits)):
        if len(distinct := list(dict.fromkeys(seen))) > 1:
            reason = f"the {what} changed during the measurement: {', then '.join(distinct)}"
            yield ValidityFinding("power mode", reason, "set it before the measurement and keep it")


def _heat(states: Sequence[MachineState]) -> tuple[list[ValidityFinding], list[ValidityFinding]]:
    """A finding for a temperature at its limit, or else a remark on the temperature.

    It is about the part closest to its limit, or else NVML's GPU, or else the hottest part.
    """
    seen: dict[str, float] = {}
    limits: dict[str, float] = {}
    for state in states:
        limits |= state.limits_c
        for name, at in state.temperatures_c.items():
            seen[name] = max(at, seen.get(name, at))
    known = {name: limits[name] - at for name, at in seen.items() if name in limits}
    if known:
        part = min(known, key=known.__getitem__)
        reason = f"{part} reached {seen[part]:.0f} C and is throttled from {limits[part]:.0f} C"
        if known[part] <= _MARGIN_C:
            return [ValidityFinding("hot", reason, "cool the device, or let it idle before measuring")], []
    elif seen:
        part = "GPU" if "GPU" in seen else max(seen, key=seen.__getitem__)
        reason = f"{part} reached {seen[part]:.0f} C; its throttling temperature is unknown"
    else:
        return [], []
    return [], [ValidityFinding("temperature", reason, "the results hold for this temperature")]


def _unknown(states: Sequence[MachineState]) -> Iterator[ValidityFinding]:
    if states and all(state.throttling is None and state.held_ns is None for state in states):
        reason = "throttling is unknown, as NVML reports no reasons; only a falling clock would show it"
        yield ValidityFinding("throttling", reason, "lock the clocks (sudo jetson_clocks)")


def _fell(states: Sequence[MachineState]) -> Iterator[ValidityFinding]:
    clocks = [state.gpu.now_mhz for state in states if state.gpu and state.gpu.now_mhz is not None]
    if clocks and min(clocks) < _FALLEN * clocks[0]:
        yield ValidityFinding(
            "clock fell",
            f"the GPU clock fell from {clocks[0]:.0f} to {min(clocks):.0f} MHz",
            "lock the clocks, and check cooling and power",
        )


def _below_most(states: Sequence[MachineState]) -> Iterator[ValidityFinding]:
    """Remark on a clock below its maximum, which is often locked there for stability."""
    gpu = states[-1].gpu if states else None
    now, most = (gpu.now_mhz, gpu.most_mhz) if gpu else (None, None)
    if now is not None and most is not None and now < _FALLEN * most:
        yield ValidityFinding(
            "clock",
            f"the GPU ran at {now:.0f} of at most {most:.0f} MHz; the results hold for this clock",
            "raise the clock if this was not intended",
        )
