"""Files of the kernel: power monitors, energy counters, clocks and temperatures."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

from tools.check.fuzz.door import Content, Door, Files
from tools.check.fuzz.mutators import octets, text
from tools.check.fuzz.states import leaves, numbers_in

_MACHINE = {
    "proc/device-tree/model": "NVIDIA Jetson Orin NX Engineering Reference Developer Kit\0",
    "proc/device-tree/compatible": "nvidia,p3768-0000+p3767-0000\0nvidia,tegra234\0",
    "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64\n",
    "proc/meminfo": "MemTotal:       15656404 kB\nMemFree:  900000 kB\nMemAvailable: 12000000 kB\n",
    "sys/fs/cgroup/cpu.max": "200000 100000\n",
    "proc/cpuinfo": "processor\t: 0\nmodel name\t: ARMv8 Processor rev 1 (v8l)\n",
    "etc/os-release": 'NAME="Ubuntu"\nVERSION="22.04"\nPRETTY_NAME="Ubuntu 22.04.5 LTS"\n',
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1984000\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_min_freq": "729600\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq": "1984000\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "schedutil\n",
    "sys/class/devfreq/17000000.gpu/cur_freq": "306000000\n",
    "sys/class/devfreq/17000000.gpu/min_freq": "306000000\n",
    "sys/class/devfreq/17000000.gpu/max_freq": "918000000\n",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "49500\n",
    "sys/class/thermal/thermal_zone0/trip_point_0_type": "passive\n",
    "sys/class/thermal/thermal_zone0/trip_point_0_temp": "99000\n",
    "var/lib/nvpmodel/status": "pmode:0000",
    "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=MAXN >\n< POWER_MODEL ID=1 NAME=15W >\n",
}  # fmt: skip
_COUNTERS = {
    "sys/class/powercap/intel-rapl:0/name": "package-0\n",
    "sys/class/powercap/intel-rapl:0/energy_uj": "1000000\n",
    "sys/class/powercap/intel-rapl:0/max_energy_range_uj": "262143328850\n",
    "sys/class/powercap/intel-rapl:0:0/name": "core\n",
    "sys/class/powercap/intel-rapl:0:0/energy_uj": "400000\n",
    "sys/class/powercap/intel-rapl:0:0/max_energy_range_uj": "262143328850\n",
}


class SensorDoor(Door):
    """The files of a Jetson or a PC below /sys, /proc and /etc."""

    name, reads = "sysfs", "files of the kernel: power, clocks, temperatures"

    def prepare(self) -> None:
        import cnnx.measure.power
        import cnnx.pipeline.doctor.doctor  # noqa: F401

    def seeds(self, scratch: Path) -> dict[str, Files]:
        from tests.doubles import power_trees

        found: dict[str, Files] = {"pc": _encoded(_COUNTERS)}
        for name in ("nano", "agx_orin", "thor"):
            root = scratch / name
            getattr(power_trees, name)(root)
            files: dict[str, Content] = {
                path.relative_to(root).as_posix(): path.read_bytes()
                for path in root.rglob("*")
                if path.is_file()
            }
            found[name] = {**files, **_encoded(_MACHINE)}
        return found

    def mutate(self, dice: Random, files: Files) -> tuple[Files, str]:
        name = dice.choice(list(files))
        content = files[name]
        assert isinstance(content, bytes)
        match dice.randrange(6):
            case 0:
                return {path: each for path, each in files.items() if path != name}, "missing file"
            case 1:
                folder = {path: each for path, each in files.items() if path != name}
                return {**folder, f"{name}/x": b""}, "a folder in place of a file"
            case 2:
                return {**files, name: octets.damage(dice, content)[0]}, "damaged"
            case _:
                return {**files, name: text.encoded(dice, content.decode())[0]}, "other text"

    def read(self, folder: Path) -> Any:
        """What sensors and snapshots of the machine make of the files, without the time."""
        from cnnx.machine.environment import available_memory_bytes, cpu_model, power_mode, usable_cores
        from cnnx.machine.state import read_state
        from cnnx.measure.power.sensors.ina import find_ina
        from cnnx.measure.power.sensors.rapl import find_rapl
        from cnnx.measure.power.sensors.sensor import Unsupported

        readings: list[Any] = []
        for sensor in (find_ina(folder), find_rapl(folder, sleep=lambda _: None)):
            if isinstance(sensor, Unsupported):
                readings.append("unsupported")
            else:
                readings.append((sensor.info.as_dict(), sensor.read().values))
        state = read_state(folder).as_dict()
        state.pop("at_ns", None)
        facts = [each(folder) for each in (available_memory_bytes, cpu_model, power_mode, usable_cores)]
        return readings, state, facts

    def legitimate(self, before: Any, after: Any, folder: Path) -> str:
        """Every number follows from one that stands in a file, and what is missing is not zero."""
        stated = {0.0}
        for path in folder.rglob("*"):
            if path.is_file():
                stated |= numbers_in(path.read_text(encoding="utf-8", errors="replace"))
        measured = [each for reading in after[0] if isinstance(reading, tuple) for each in reading[1]]
        state = {key: after[1][key] for key in ("cpu", "gpu", "temperatures_c", "limits_c")}
        found = [each for each in (*measured, *leaves(state)) if isinstance(each, float)]
        products = {
            round(one * other / 1e3) for one in stated for other in stated if max(abs(one), abs(other)) < 1e20
        }
        for value in found:
            scaled = {round(value), round(value * 1e3), round(value * 1e6)}
            if not (
                scaled & {round(each) for each in stated if abs(each) < 1e300} or round(value) in products
            ):
                return ""
        return "other readings, as the files state"

    def command(self, folder: Path) -> list[str]:
        return []  # commands read those of the computer that they run on


def _encoded(files: dict[str, str]) -> Files:
    return {name: content.encode() for name, content in files.items()}


DOORS = (SensorDoor(),)
