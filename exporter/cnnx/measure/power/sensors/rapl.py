"""RAPL energy counters of x86 CPUs, from the kernel's powercap interface.

Sources: Linux, Documentation/power/powercap/powercap.rst; Intel SDM volume 3B, 15.10 (RAPL). Since
Linux 5.10 only root can read the counters (CVE-2020-8694).
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection
from pathlib import Path

from cnnx.measure.power.sensors.sensor import (
    Channel,
    Clock,
    PolledSensor,
    Rail,
    Read,
    SensorInfo,
    Sleep,
    Total,
    Uncertainty,
    Unsupported,
    integer,
    label,
    leave_to_read,
    monotonic_ns,
    read_text,
)

NAME = "rapl"

# intel-rapl:0 is a package, intel-rapl:0:1 a part of it. AMD uses the same names. intel-rapl-mmio is not
# used, as it counts the same packages through another register.
_ZONE = re.compile(r"intel-rapl:(\d+)(?::(\d+))?")
_COVERS = {
    "core": "cores, part of the package",
    "uncore": "graphics and other parts outside the cores, part of the package",
    "dram": "memory, not included in the package",
    "psys": "the whole platform, including packages",
}
_PACKAGE = re.compile(r"package-\d+(-die-\d+)?")
# Counters update about every millisecond (Intel SDM). In virtual machines zones may exist but never change.
_LOOK_S, _LOOKS = 0.005, 20


def find_rapl(
    root: Path = Path("/"),
    *,
    read: Read = read_text,
    clock: Clock = monotonic_ns,
    sleep: Sleep = time.sleep,
) -> PolledSensor | Unsupported:
    """Energy counters of the CPU in mJ, without overflow; or the reason why there are none.

    The total is the sum of all packages, without their parts, the platform or memory.

    Args:
        root: root of the file system.
        read: returns the content of a file; raises OSError.
        clock: clock of the readings.
        sleep: waits for a number of seconds until counters change, usually a few milliseconds.
    """
    zones = _zones(root, read)
    if not zones:
        return Unsupported(NAME, f"no intel-rapl zone under {root / 'sys/class/powercap'}")
    channels: dict[str, Channel] = {}
    refused: list[str] = []
    for name, zone in zones.items():
        try:
            read(zone / "energy_uj")
        except OSError as error:
            refused.append(f"{zone / 'energy_uj'}: {error.strerror or error}")
            continue
        channels[name] = _Counter(read, zone)
    if not channels:
        reason = f"{refused[0]}; since Linux 5.10 only root can read it (CVE-2020-8694)"
        return Unsupported(NAME, reason, leave_to_read(root / "sys/class/powercap/intel-rapl:*/energy_uj"))
    if not _move(channels.values(), sleep):
        waited = f"no counter changed in {_LOOK_S * _LOOKS:g} s"
        return Unsupported(NAME, f"{waited}, as in a virtual machine")
    return PolledSensor(_info(list(channels)), list(channels.values()), clock=clock)


def _move(counters: Collection[Channel], sleep: Sleep) -> bool:
    """Whether any counter changes. Counters of idle parts, such as unused graphics, may never change."""
    before = [counter() for counter in counters]
    for _ in range(_LOOKS):
        sleep(_LOOK_S)
        if [counter() for counter in counters] != before:
            return True
    return False


def _info(names: list[str]) -> SensorInfo:
    packages = tuple(name for name in names if _PACKAGE.fullmatch(name))
    return SensorInfo(
        name=NAME,
        quantity="energy_mj",
        rails=tuple(Rail(name, _covers(name)) for name in names),
        total=Total(packages, "CPU packages, without memory and the rest of the machine")
        if packages
        else Total((), "no total: no package counter can be read"),
        rate_hz=1000.0,  # "updated approximately every 1 ms" (Intel SDM)
        window_ns=0,
        uncertainty=Uncertainty(None, None, "not stated by Intel or AMD"),
        drivers=("intel-rapl",),
    )


def _covers(name: str) -> str:
    return _COVERS.get(name.rsplit("/", 1)[-1], "a CPU package")


def _zones(root: Path, read: Read) -> dict[str, Path]:
    """Zones by name; parts have the name of their package as a prefix: package-0/core."""
    folder = root / "sys/class/powercap"
    # The class folder lists all zones; parts are also in the folder of their package.
    found = {path.name: path for path in [*folder.glob("intel-rapl:*"), *folder.glob("intel-rapl:*/*")]}
    zones = {}
    for key in sorted(found):
        match = _ZONE.fullmatch(key)
        own = label(read, found[key] / "name")
        if match is None or own is None:
            continue
        parent = label(read, found[key].with_name(f"intel-rapl:{match[1]}") / "name") if match[2] else None
        if match[2] and parent is None:
            parent = label(read, found[key].parent / "name") or f"package {match[1]}"
        zones[f"{parent}/{own}" if parent else own] = found[key]
    return zones


class _Counter:
    """Unwraps a counter that overflows at its range.

    It must be read more than once per overflow: every 4 minutes for a range of 65 kJ at 250 W.
    """

    def __init__(self, read: Read, zone: Path) -> None:
        self._read, self._zone = read, zone
        # The counter has the values 0 .. range. Without the range, overflows cannot be corrected.
        self._range = integer(read, zone / "max_energy_range_uj")
        self._last: int | None = None
        self._overflow_uj = 0
        self._lost = False

    def __call__(self) -> float | None:
        now = integer(self._read, self._zone / "energy_uj")
        if now is None or self._lost:
            return None
        if self._last is not None and now < self._last:
            if self._range is None:
                self._lost = True  # the energy since the last reading is unknown for good
                return None
            self._overflow_uj += self._range + 1
        self._last = now
        return (self._overflow_uj + now) / 1000
