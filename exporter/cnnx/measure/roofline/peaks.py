"""Peak rates of a device at its clocks. A device that is not listed in `chips` is unknown, never guessed."""

from __future__ import annotations

import dataclasses
import re
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cnnx.device import Device
from cnnx.errors import EnvironmentLacks
from cnnx.machine.state import Frequency, MachineState
from cnnx.measure.roofline.chips import CHIPS, MODULES, Mode, Module, Multiplies
from cnnx.schema import Positive, Quantity

_VENDOR = re.compile(r"^(?:NVIDIA |Tesla )+")
_GB = 2**30
_HINT = "send its vendor's document: CONTRIBUTING.md says where peaks are listed"


@dataclass(frozen=True, slots=True)
class Peaks:
    """Peak rates of a device.

    Attributes:
        device: the device, with memory and power mode for a Jetson.
        operations: type -> operations per second, two for each MAC; types whose rate is not stated are
            absent.
        bandwidth: bytes per second of its memory.
        sms: number of SMs that are on.
        clock_mhz: GPU clock of these peaks.
        measured: whether the GPU clock was measured; else it is the one of the vendor's peaks.
        source: documents that state the rates.
    """

    device: str
    operations: Mapping[Multiplies, Quantity]
    bandwidth: Quantity
    sms: Positive
    clock_mhz: Quantity
    measured: bool
    source: str

    def as_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return dataclasses.asdict(self)


def peaks_of(
    device: Device,
    states: Iterable[MachineState] = (),
    *,
    board: str | None = None,
    memory_bytes: int | None = None,
    power_mode: str | None = None,
) -> Peaks:
    """Peak rates of a device at the clocks that were measured.

    Args:
        device: what ran.
        states: states of the machine while it ran. Their median GPU clock replaces the one of the vendor's
            peaks; memory that ran slower than its highest clock has less bandwidth.
        board: model of a Jetson in its device tree.
        memory_bytes: memory of the machine.
        power_mode: nvpmodel's mode of a Jetson, such as "0 MAXN".

    Raises:
        EnvironmentLacks: no peaks are listed for the device or its power mode.
    """
    if device.kind == "cpu":
        raise EnvironmentLacks("no peak rates are listed for CPUs", hint="measure an engine on a GPU")
    states = tuple(states)
    clock = _median(state.gpu for state in states)
    if board and "Jetson" in board:
        return _of_module(board, memory_bytes, power_mode, clock)
    name = _VENDOR.sub("", device.name)
    chip = CHIPS.get(name)
    if chip is None:
        raise EnvironmentLacks(f"no peak rates are listed for {device.name}", hint=_HINT)
    hertz = (clock or chip.clock_mhz) * 1e6
    return Peaks(
        device.name,
        {kind: rate * chip.sms * hertz for kind, rate in chip.rates.items()},
        chip.gigabytes * 1e9 * _share(state.gpu_memory for state in states),
        chip.sms,
        hertz / 1e6,
        clock is not None,
        chip.source,
    )


def _of_module(board: str, memory_bytes: int | None, power_mode: str | None, clock: float | None) -> Peaks:
    module = _module(board, memory_bytes)
    name = (power_mode or "").partition(" ")[2]
    if name not in module.modes:
        listed = ", ".join(module.modes)
        shown = f"{module.words} {module.memory_gb} GB"
        what = f"no peak rates are listed for {shown} in power mode {power_mode or 'unknown'}"
        raise EnvironmentLacks(what, hint=f"choose a mode with nvpmodel -m; listed are {listed}")
    mode: Mode = module.modes[name]
    hertz = (clock or mode.gpu_mhz) * 1e6
    return Peaks(
        f"Jetson {module.words} {module.memory_gb} GB, {name}",
        {kind: rate * mode.sms * hertz for kind, rate in module.rates.items()},
        module.bandwidth(mode),
        mode.sms,
        hertz / 1e6,
        clock is not None,
        module.source,
    )


def _module(board: str, memory_bytes: int | None) -> Module:
    """The module with these words and the least memory that holds what the kernel reports of it."""
    named = [module for module in MODULES if module.words in board]
    fitting = [module for module in named if memory_bytes and memory_bytes <= module.memory_gb * _GB]
    if not fitting:
        known = "" if memory_bytes or not named else ", as its memory is not known"
        raise EnvironmentLacks(f"no peak rates are listed for {board}{known}", hint=_HINT)
    return min(fitting, key=lambda module: module.memory_gb)


def _median(clocks: Iterable[Frequency | None]) -> float | None:
    known = [clock.now_mhz for clock in clocks if clock and clock.now_mhz]
    return statistics.median(known) if known else None


def _share(clocks: Iterable[Frequency | None]) -> float:
    """Clock over its highest value; 1 if unknown."""
    shares = [
        clock.now_mhz / clock.most_mhz for clock in clocks if clock and clock.now_mhz and clock.most_mhz
    ]
    return min(1.0, statistics.median(shares)) if shares else 1.0
