"""Which power sensors this machine has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cnnx.errors import EnvironmentLacks
from cnnx.measure.power.sensors.ina import find_ina
from cnnx.measure.power.sensors.nvml import find_nvml
from cnnx.measure.power.sensors.rapl import find_rapl
from cnnx.measure.power.sensors.sensor import PolledSensor, Unsupported


def find_sensors(root: Path = Path("/"), *, nvml: Any = None) -> list[PolledSensor | Unsupported]:
    """Every kind of sensor, best first: each is there, or says why not.

    Board monitors come before NVML's, which see the GPU alone; RAPL, which sees the CPU alone, is last.

    Args:
        root: where the file system starts; tests give a tree of their own.
        nvml: a module with pynvml's functions; None: pynvml.
    """
    return [find_ina(root), *find_nvml(nvml=nvml), find_rapl(root)]


def open_sensor(name: str, root: Path = Path("/"), *, nvml: Any = None) -> PolledSensor:
    """The sensor of a name, such as "ina", "nvml-instant" or "rapl".

    Raises:
        EnvironmentLacks: it is not supported here, with the reason.
    """
    found = find_sensors(root, nvml=nvml)
    there = {one.info.name: one for one in found if isinstance(one, PolledSensor)}
    wanted = there.pop(name, None)
    for other in there.values():
        other.close()
    if wanted is not None:
        return wanted
    why = next((one for one in found if isinstance(one, Unsupported) and one.sensor == name), None)
    reason, mend = (why.reason, why.mend) if why else ("cnnx knows none of that name", "")
    raise EnvironmentLacks(
        f"the power sensor {name} is unsupported here: {reason}",
        where=root,
        mend=mend or (f"sensors here: {', '.join(there)}" if there else None),
    )
