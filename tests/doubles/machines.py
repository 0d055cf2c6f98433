"""Whole machines as trees of files, and the NVML of each, for what looks at a machine."""

from __future__ import annotations

import inspect
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from cnnx.machine.packages import Package
from tests.doubles.nvml import FakeNvml, NVMLError
from tests.doubles.power_trees import orin_nx, thor, write


def package(name: str, version: str, status: str = "install ok installed") -> str:
    return (
        f"Package: {name}\nStatus: {status}\nArchitecture: arm64\nVersion: {version}\nDescription: x\n more\n"
    )


def orin_nx_jetpack_6(root: Path) -> None:
    """Orin NX as JetPack 6.2 leaves it, clocks pinned by jetson_clocks."""
    orin_nx(root)
    packages = {
        "nvidia-jetpack": "6.2+b77",
        "libnvinfer10": "10.3.0.30-1+cuda12.5",
        "python3-libnvinfer": "10.3.0.30-1+cuda12.5",
        "libnvinfer-dev": "10.3.0.30-1+cuda12.5",
    }
    stanzas = [package(name, version) for name, version in packages.items()]
    stanzas.append(package("libnvinfer8", "8.6.2.3-1+cuda12.2", "deinstall ok config-files"))
    devfreq = "sys/class/devfreq/17000000.gpu"
    write(
        root,
        {
            "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic",
            "proc/device-tree/model": "NVIDIA Jetson Orin NX Engineering Reference Developer Kit\0",
            "var/lib/dpkg/status": "\n".join(stanzas),
            "var/lib/nvpmodel/status": "pmode:0002",
            "etc/nvpmodel.conf": "< POWER_MODEL ID=2 NAME=15W >",
            "usr/local/cuda/version.json": '{"cuda": {"name": "CUDA SDK", "version": "12.6.11"}}',
            f"{devfreq}/cur_freq": 918000000,
            f"{devfreq}/min_freq": 918000000,
            f"{devfreq}/max_freq": 918000000,
            "sys/class/devfreq/15340000.vic/cur_freq": 115200000,
            "sys/class/thermal/thermal_zone0/type": "cpu-thermal",
            "sys/class/thermal/thermal_zone0/temp": 48500,
            "sys/class/thermal/thermal_zone0/trip_point_0_type": "active",
            "sys/class/thermal/thermal_zone0/trip_point_0_temp": 50000,
            "sys/class/thermal/thermal_zone0/trip_point_1_type": "critical",
            "sys/class/thermal/thermal_zone0/trip_point_1_temp": 104500,
            "sys/class/thermal/thermal_zone0/trip_point_2_type": "passive",
            "sys/class/thermal/thermal_zone0/trip_point_2_temp": 99000,
            "sys/class/thermal/thermal_zone0/trip_point_3_type": "passive",
            "sys/class/thermal/thermal_zone0/trip_point_3_temp": -274000,  # switched off
            "sys/class/thermal/thermal_zone1/type": "gpu-thermal",
            "sys/class/thermal/thermal_zone1/temp": 46250,
            "sys/class/thermal/thermal_zone2/type": "cv0-thermal",  # off: its temp gives EAGAIN
        },
    )


def thor_jetpack_7(root: Path) -> None:
    """AGX Thor with JetPack 7.2; GPU nodes as in jetson_stats #885."""
    thor(root)
    write(
        root,
        {
            "etc/nv_tegra_release": "# R39 (release), REVISION: 2.0, GCID: 1, BOARD: generic",
            "proc/device-tree/model": "NVIDIA Jetson AGX Thor Developer Kit\0",
            "var/lib/dpkg/status": package("libnvinfer10", "10.16.0.1-1+cuda13.2"),
            "usr/local/cuda/version.json": '{"cuda": {"name": "CUDA SDK", "version": "13.2.0"}}',
            "sys/class/devfreq/gpu-gpc-0/cur_freq": 315000000,
            "sys/class/devfreq/gpu-gpc-0/min_freq": 315000000,
            "sys/class/devfreq/gpu-gpc-0/max_freq": 1575000000,
            "sys/class/devfreq/gpu-nvd-0/cur_freq": 1,
        },
    )


class DesktopNvml(FakeNvml):
    """An RTX A2000 at work: clocks, temperature and what holds it down, by NVML's documentation.

    Args:
        reasons: nvmlDeviceGetCurrentClocksThrottleReasons, a bit mask.

    Attributes:
        asked: names of the functions below, in order.
    """

    def __init__(self, *, reasons: int = 0x4, **options: Any) -> None:
        super().__init__(**options)
        self._reasons = reasons
        self.asked: list[str] = []

    def _or_refuse(self, value: Any) -> Any:
        self.asked.append(inspect.stack()[1].function)
        if not self.supported:
            raise NVMLError("Not Supported")
        return value

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        return "595.78"

    def nvmlSystemGetCudaDriverVersion(self) -> int:  # noqa: N802
        return 13020

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:  # noqa: N802
        return self._or_refuse(SimpleNamespace(total=6 << 30))

    def nvmlDeviceGetClockInfo(self, handle: int, kind: int) -> int:  # noqa: N802
        return self._or_refuse({1: 1200, 2: 5751}[kind])

    def nvmlDeviceGetMaxClockInfo(self, handle: int, kind: int) -> int:  # noqa: N802
        return self._or_refuse({1: 2100, 2: 6001}[kind])

    def nvmlDeviceGetTemperature(self, handle: int, sensor: int) -> int:  # noqa: N802
        return self._or_refuse(61)

    def nvmlDeviceGetTemperatureThreshold(self, handle: int, threshold: int) -> int:  # noqa: N802
        return self._or_refuse({0: 98, 1: 95}[threshold])

    def nvmlDeviceGetEnforcedPowerLimit(self, handle: int) -> int:  # noqa: N802
        return self._or_refuse(70_000)

    def nvmlDeviceGetViolationStatus(self, handle: int, policy: int) -> Any:  # noqa: N802
        return self._or_refuse(SimpleNamespace(referenceTime=9, violationTime={0: 5_000_000, 1: 0}[policy]))

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: int) -> int:  # noqa: N802
        return self._or_refuse(self._reasons)


ORIN_NVML = {"name": "Orin (nvgpu)", "capability": (8, 7), "supported": False}


def wheels(*named: str, system: tuple[str, ...] = ()) -> Any:
    """Finds these distributions alone, each "name version"; those of `system` lie in the system's folder."""
    pairs = [(*one.split(), "wheel") for one in named] + [(*one.split(), "system") for one in system]
    known = {name: Package(name, version, source) for name, version, source in pairs}
    return known.get
