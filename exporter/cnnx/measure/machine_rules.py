"""Rules on the machine during a measurement: throttling, clocks, temperatures, power mode."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from cnnx.machine.state import MachineState
from cnnx.measure.verdict import ValidityFinding

# nvbench discards samples taken below three quarters of the clock it expects.
_FALLEN = 0.75
# NVML's reasons for a clock reduced under load by hardware or driver: SwPowerCap 0x4, HwSlowdown 0x8,
# SwThermal 0x20, HwThermal 0x40, PowerBrake 0x80. A clock set by the user, or idle, is not throttling.
THROTTLING = {
    "software power cap": "raise the power limit or power mode, or measure at lower clocks",
    "hardware slowdown": "check the power supply and cooling",
    "software thermal slowdown": "cool the device, or let it idle before measuring",
    "hardware thermal slowdown": "cool the device, or let it idle before measuring",
    "hardware power brake": "check the power supply",
}
"""Reasons for a reduced clock, with what to do about each."""
# NVML's time counters and the corresponding reasons.
_HELD = {"power": "software power cap", "thermal": "software thermal slowdown"}
# Share of the time for which a counter may hold the clock down, and by which a power limit may change.
_HELD_SHARE, _LIMIT_SHARE = 0.01, 0.10
# This close to its limit, a part may have been throttled between snapshots.
_MARGIN_C = 2.0


Judged = tuple[list[ValidityFinding], list[ValidityFinding]]
"""Findings, which make a measurement invalid, and remarks, which do not."""


def judge_machine(states: Sequence[MachineState]) -> Judged:
    """Judge the states of a GPU from the end of warm-up until just after the last run."""
    rules = (_throttled, _confidential, _fell, _changed, _heat)
    judged = [rule(states) for rule in rules]
    findings = [finding for found, _ in judged for finding in found]
    remarks = [remark for _, found in judged for remark in found]
    return findings, [*_below_most(states), *remarks, *_unknown(states)]


def _throttled(states: Sequence[MachineState]) -> Judged:
    """Judge throttling by NVML's counters where it counts, and else by the reasons seen in the snapshots.

    Nearly every GPU under load is held down for moments (DCGM #285), so a counter must reach a share of the
    measured time, and a reason that is counted is not judged by a snapshot as well.
    """
    findings: list[ValidityFinding] = []
    remarks: list[ValidityFinding] = []
    counted = _held_ms(states)
    for kind, (held_ms, share) in counted.items():
        much = share is None or share > _HELD_SHARE
        of = "" if share is None else f", {share:.2%} of the time"
        reason = f"the GPU clock was reduced for {held_ms:.1f} ms{of} by the {kind} limit"
        found = ValidityFinding("throttled", reason, THROTTLING[_HELD[kind]])
        if held_ms > 0:
            (findings if much else remarks).append(found)
    for reason in dict.fromkeys(reason for state in states for reason in state.throttling or ()):
        if reason in THROTTLING and reason not in (_HELD[kind] for kind in counted):
            what = f"the GPU clock was reduced: {reason}"
            findings.append(ValidityFinding("throttled", what, THROTTLING[reason]))
    return findings, remarks


def held_shares(states: Sequence[MachineState]) -> dict[str, float]:
    """Kind of limit -> share of the time for which it held the GPU's clock down, where NVML counts it."""
    return {kind: share for kind, (_, share) in _held_ms(states).items() if share is not None}


def _held_ms(states: Sequence[MachineState]) -> dict[str, tuple[float, float | None]]:
    """Kind of limit -> time that it held the clock down, in ms, and its share; None: unknown."""
    found: dict[str, tuple[float, float | None]] = {}
    for kind in _HELD:
        times = [(one.held_ns[kind], one.at_ns) for one in states if one.held_ns and kind in one.held_ns]
        if len(times) < 2:
            continue
        (first, start), (last, end) = times[0], times[-1]
        span = end - start if start is not None and end is not None else 0
        found[kind] = (last - first) / 1e6, (last - first) / span if span > 0 else None
    return found


def _confidential(states: Sequence[MachineState]) -> Judged:
    if not any(state.confidential for state in states):
        return [], []
    reason = "confidential computing is on, in which the times of CUDA events are unreliable"
    return [ValidityFinding("confidential", reason, "measure with confidential computing off")], []


def _changed(states: Sequence[MachineState]) -> Judged:
    findings: list[ValidityFinding] = []
    remarks: list[ValidityFinding] = []
    modes = dict.fromkeys(state.power_mode for state in states if state.power_mode is not None)
    if len(modes) > 1:
        findings.append(_change("power mode", modes))
    limits = [state.power_limit_mw for state in states if state.power_limit_mw is not None]
    watts = dict.fromkeys(f"{limit / 1000:g} W" for limit in limits)
    if len(watts) > 1:
        # Dynamic Boost moves the limit of a laptop's GPU by some watts, all the time.
        much = max(limits) - min(limits) > _LIMIT_SHARE * max(limits)
        (findings if much else remarks).append(_change("power limit", watts))
    return findings, remarks


def _change(what: str, seen: Iterable[str]) -> ValidityFinding:
    reason = f"the {what} changed during the measurement: {', then '.join(seen)}"
    return ValidityFinding("power mode", reason, "set it before the measurement and keep it")


def _heat(states: Sequence[MachineState]) -> Judged:
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


def _fell(states: Sequence[MachineState]) -> Judged:
    clocks = [state.gpu.now_mhz for state in states if state.gpu and state.gpu.now_mhz is not None]
    if not clocks or min(clocks) >= _FALLEN * clocks[0]:
        return [], []
    reason = f"the GPU clock fell from {clocks[0]:.0f} to {min(clocks):.0f} MHz"
    return [ValidityFinding("clock fell", reason, "lock the clocks, and check cooling and power")], []


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
