"""Whether a measurement on a device may be believed: a pure function of what was recorded."""

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
# What NVML names when the hardware or the driver holds the clock down under load: SwPowerCap 0x4, HwSlowdown
# 0x8, SwThermal 0x20, HwThermal 0x40, PowerBrake 0x80. A clock that was set, or rests, is no throttling.
_THROTTLING = {
    "software power cap": "raise the power limit or the power mode, or measure at lower clocks",
    "hardware slowdown": "look to power supply and cooling",
    "software thermal slowdown": "cool the device, or let it rest before",
    "hardware thermal slowdown": "cool the device, or let it rest before",
    "hardware power brake": "look to the power supply",
}
# What NVML counts the time of, as it names the reasons.
_HELD = {"power": "software power cap", "thermal": "software thermal slowdown"}
# So close to the limit a part may have been slowed between looks.
_MARGIN_C = 2.0


@dataclass(frozen=True, slots=True)
class ValidityFinding:
    """One thing that speaks against a measurement.

    Attributes:
        rule: its short name.
        reason: what was seen, with the figure.
        mend: what helps.
    """

    rule: str
    reason: str
    mend: str


@dataclass(frozen=True, slots=True)
class Validity:
    """The verdict on a measurement.

    Attributes:
        findings: what makes it invalid; empty: it is valid.
        remarks: what a reader should know that does not make it invalid. On a CPU everything is one: a
            desktop or laptop is never quiet enough for the rules made for GPUs.
    """

    findings: tuple[ValidityFinding, ...]
    remarks: tuple[ValidityFinding, ...]

    @property
    def valid(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    def as_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""

        def plain(findings: tuple[ValidityFinding, ...]) -> list[dict[str, str]]:
            return [{"rule": f.rule, "reason": f.reason, "mend": f.mend} for f in findings]

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
    """Judge a measurement by trtexec's rules, NVML's reasons, clocks, temperatures and the power mode.

    Args:
        latency: raw samples, with parts where the session told them.
        on_gpu: it ran on a GPU.
        states: the machine from when the network was warm until right after the last run; empty: not known.
        cuda_graph: the kernels went to the GPU as one graph.
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
            "warm-up", "the network had not settled when warm-up ended", "give it more --seconds"
        )
    if not latency.complete:
        reason = f"{len(latency.samples_ns)} samples at the time limit are fewer than was asked"
        yield ValidityFinding("cut short", reason, "give it more --seconds, or ask for a lower --percentile")


def _unsteady(latency: Latency, states: Sequence[MachineState]) -> Iterator[ValidityFinding]:
    found = variation(latency.steady_ns)
    if found is None or found <= _UNSTEADY:
        return
    what = "GPU compute" if latency.parts else "latency"
    jetson = any(state.gpu is not None and state.gpu.least_mhz is not None for state in states)
    lock = "sudo jetson_clocks" if jetson else "sudo nvidia-smi --lock-gpu-clocks=base"
    mend = f"lock the clocks ({lock})" if latency.parts else "close other programs, lock the clocks"
    yield ValidityFinding("unsteady", f"{what} varies by {found:.1%}, more than {_UNSTEADY:.1%}", mend)


def _enqueue_bound(parts: Breakdown, cuda_graph: bool) -> Iterator[ValidityFinding]:
    enqueue, compute = statistics.median(parts.enqueue_ns), statistics.median(parts.compute_ns)
    if enqueue > _ENQUEUE_SHARE * compute:
        yield ValidityFinding(
            "enqueue-bound",
            f"queueing takes {enqueue / 1e6:.3f} ms, computing {compute / 1e6:.3f}: the GPU waits",
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
                f"copying {name} takes {copying / 1e6:.3f} ms, computing {compute / 1e6:.3f}",
                "take GPU compute for the network's figure; keep data on the device where speed counts",
            )


def _throttled(states: Sequence[MachineState]) -> Iterator[ValidityFinding]:
    seen = dict.fromkeys(reason for state in states for reason in state.throttling or ())
    for reason in seen:
        if reason in _THROTTLING:
            yield ValidityFinding(
                "throttled", f"the GPU's clock was held down: {reason}", _THROTTLING[reason]
            )


def _held(states: Sequence[MachineState]) -> Iterator[ValidityFinding]:
    """Reasons are of a moment; counters miss nothing between looks."""
    counted = [state.held_ns for state in states if state.held_ns is not None]
    for kind, reason in _HELD.items():
        times = [one[kind] for one in counted if kind in one]
        if times and times[-1] > times[0]:
            held = f"for {(times[-1] - times[0]) / 1e6:.1f} ms the GPU's clock was held down"
            yield ValidityFinding("throttled", f"{held} by its {kind} limit", _THROTTLING[reason])


def _changed(states: Sequence[MachineState]) -> Iterator[ValidityFinding]:
    modes = [state.power_mode for state in states if state.power_mode is not None]
    limits = [f"{state.power_limit_mw / 1000:g} W" for state in states if state.power_limit_mw is not None]
    for what, seen in (("power mode", modes), ("power limit", limits)):
        if len(distinct := list(dict.fromkeys(seen))) > 1:
            reason = f"the {what} changed meanwhile: {', then '.join(distinct)}"
            yield ValidityFinding("power mode", reason, "set it before, and let nothing change it")


def _heat(states: Sequence[MachineState]) -> tuple[list[ValidityFinding], list[ValidityFinding]]:
    """What was too hot, or else a remark on the temperature.

    Of the parts whose limit is known the one closest to it counts; else NVML's GPU; else the hottest part.
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
        reason = f"{part} was at up to {seen[part]:.0f} C and is slowed from {limits[part]:.0f} C on"
        if known[part] <= _MARGIN_C:
            return [ValidityFinding("hot", reason, "cool the device, or let it rest before")], []
    elif seen:
        part = "GPU" if "GPU" in seen else max(seen, key=seen.__getitem__)
        reason = f"{part} was at up to {seen[part]:.0f} C; from where on it is slowed is not known"
    else:
        return [], []
    return [], [ValidityFinding("temperature", reason, "the figures hold for that temperature")]


def _unknown(states: Sequence[MachineState]) -> Iterator[ValidityFinding]:
    if states and all(state.throttling is None and state.held_ns is None for state in states):
        reason = "throttling is not known here: NVML gives no reasons, a clock that falls alone would tell"
        yield ValidityFinding("throttling", reason, "sudo jetson_clocks keeps clocks from moving")


def _fell(states: Sequence[MachineState]) -> Iterator[ValidityFinding]:
    clocks = [state.gpu.now_mhz for state in states if state.gpu and state.gpu.now_mhz is not None]
    if clocks and min(clocks) < _FALLEN * clocks[0]:
        yield ValidityFinding(
            "clock fell",
            f"the GPU's clock fell from {clocks[0]:.0f} to {min(clocks):.0f} MHz meanwhile",
            "lock the clocks, and see to cooling and power",
        )


def _below_most(states: Sequence[MachineState]) -> Iterator[ValidityFinding]:
    """No fault, as clocks are locked below their most for steadiness; but figures hold for that clock."""
    gpu = states[-1].gpu if states else None
    now, most = (gpu.now_mhz, gpu.most_mhz) if gpu else (None, None)
    if now is not None and most is not None and now < _FALLEN * most:
        yield ValidityFinding(
            "clock",
            f"the GPU ran at {now:.0f} of at most {most:.0f} MHz: the figures hold for that clock",
            "raise it if it was not meant",
        )
