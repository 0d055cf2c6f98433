"""Finds the power sensors of this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cnnx.errors import EnvironmentLacks
from cnnx.measure.power.sensors.ina import find_ina
from cnnx.measure.power.sensors.nvml import find_nvml
from cnnx.measure.power.sensors.rapl import find_rapl
from cnnx.measure.power.sensors.sensor import PolledSensor, Unsupported


def find_sensors(root: Path = Path("/"), *, nvml: Any = None) -> list[PolledSensor | Unsupported]:
    """All kinds of sensors, best first; unsupported sensors have a reason.

    Board monitors come first, then NVML, which covers only the GPU, then RAPL, which covers only the CPU.

    Args:
        root: root of the file system; tests pass their own tree.
        nvml: module with pynvml's functions; None for pynvml.
    """
    return [find_ina(root), *find_nvml(nvml=nvml), find_rapl(root)]


def open_sensor(name: str, root: Path = Path("/"), *, nvml: Any = None) -> PolledSensor:
    """Open a sensor by name, such as "ina", "nvml-instant" or "rapl".

    Raises:
        EnvironmentLacks: the sensor is not supported here; the message has the reason.
    """
    found = find_sensors(root, nvml=nvml)
    there = {one.info.name: one for one in found if isinstance(one, PolledSensor)}
    wanted = there.pop(name, None)
    for other in there.values():
        other.close()
    if wanted is not None:
        return wanted
    why = next((one for one in found if isinstance(one, Unsupported) and one.sensor == name), None)
    reason, hint = (why.reason, why.hint) if why else ("cnnx has no sensor of this name", "")
    raise EnvironmentLacks(
        f"the power sensor {name} is not supported here: {reason}",
        where=root,
        hint=hint
        or (f"use one of: {', '.join(there)}" if there else "cnnx doctor shows why each sensor fails"),
    )
