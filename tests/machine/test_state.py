from __future__ import annotations

import json
from types import SimpleNamespace
from typing import ClassVar

import pytest

from cnnx.measure import read_state
from tests.doubles.machines import ORIN_NVML, DesktopNvml, orin_nx_jetpack_6, thor_jetpack_7
from tests.doubles.nvml import NVMLError, NVMLLibraryMismatchError


def test_an_orin_whose_clocks_are_pinned(tmp_path):
    orin_nx_jetpack_6(tmp_path)
    found = read_state(tmp_path, nvml=DesktopNvml(**ORIN_NVML))
    assert (found.gpu.now_mhz, found.gpu.most_mhz, found.gpu.pinned) == (918.0, 918.0, True)
    assert found.temperatures_c == {"cpu-thermal": 48.5, "gpu-thermal": 46.25}
    assert (found.gpu_memory, found.throttling, found.cpu) == (None, None, None)
    # Neither the fan's trip point nor one that is switched off slows it; the other zone has none.
    assert found.limits_c == {"cpu-thermal": 99.0}
    assert (found.power_mode, found.power_limit_mw, found.held_ns) == ("2 15W", None, None)


def test_thors_gpu_is_found_by_its_own_name_and_moves(tmp_path):
    thor_jetpack_7(tmp_path)
    gpu = read_state(tmp_path, nvml=DesktopNvml(driver=False)).gpu
    assert (gpu.now_mhz, gpu.least_mhz, gpu.most_mhz, gpu.pinned) == (315.0, 315.0, 1575.0, False)


def test_a_desktop_gpu_tells_clocks_temperature_and_what_throttles(tmp_path):
    nvml = DesktopNvml(reasons=0x44 | 0x4000)
    found = read_state(tmp_path, nvml=nvml)
    assert (found.gpu.now_mhz, found.gpu.least_mhz, found.gpu.most_mhz) == (1200, None, 2100)
    assert found.gpu.pinned is None and found.gpu_memory.now_mhz == 5751
    assert found.temperatures_c == {"GPU": 61.0}
    assert found.throttling == ("software power cap", "hardware thermal slowdown", "reason 0x4000")
    assert read_state(tmp_path, nvml=DesktopNvml(reasons=0)).throttling == ()
    assert (found.limits_c, found.power_mode, found.power_limit_mw) == ({"GPU": 95.0}, None, 70_000)
    assert found.held_ns == {"power": 5_000_000, "thermal": 0}
    assert nvml.initialized == 0


def test_a_driver_without_the_deprecated_questions_answers_by_their_successors(tmp_path):
    """CUDA 13 deprecates them; Ada and newer report the distance to the slowdown instead of a threshold."""

    class Newer(DesktopNvml):
        FIELDS: ClassVar = {74: 5_000_000, 75: 7}

        def nvmlDeviceGetViolationStatus(self, *_):  # noqa: N802
            raise NVMLLibraryMismatchError  # not an NVMLError, as in pynvml

        def nvmlDeviceGetTemperature(self, *_):  # noqa: N802
            raise NVMLError("Function Not Found")

        def nvmlDeviceGetTemperatureThreshold(self, *_):  # noqa: N802
            raise NVMLError("Not Supported")

        def nvmlDeviceGetFieldValues(self, handle, fields):  # noqa: N802
            found = [SimpleNamespace(ullVal=self.FIELDS.get(number), uiVal=None) for number in fields]
            return [SimpleNamespace(nvmlReturn=0, valueType=3, value=value) for value in found]

        def nvmlDeviceGetTemperatureV(self, handle, sensor):  # noqa: N802
            return 61

        def nvmlDeviceGetMarginTemperature(self, handle):  # noqa: N802
            return 24

        def nvmlSystemGetConfComputeState(self):  # noqa: N802
            return SimpleNamespace(ccFeature=1)

    found = read_state(tmp_path, nvml=Newer())
    assert (found.temperatures_c, found.limits_c) == ({"GPU": 61.0}, {"GPU": 85.0})
    assert found.held_ns == {"power": 5_000_000, "thermal": 7} and found.confidential


def test_what_falls_first_when_a_load_ends_is_read_first(tmp_path):
    nvml = DesktopNvml()
    read_state(tmp_path, nvml=nvml)
    reasons = nvml.asked.index("nvmlDeviceGetCurrentClocksThrottleReasons")
    assert nvml.asked[0] == "nvmlDeviceGetClockInfo" and reasons < nvml.asked.index(
        "nvmlDeviceGetTemperature"
    )


def test_a_pcs_zones_are_not_the_gpus(tmp_path):
    zone = tmp_path / "sys/class/thermal/thermal_zone0"
    zone.mkdir(parents=True)
    values = {"type": "wifi", "temp": "52000", "trip_point_0_type": "passive", "trip_point_0_temp": "50000"}
    for name, value in values.items():
        (zone / name).write_text(value + "\n")
    found = read_state(tmp_path, nvml=DesktopNvml())
    assert found.temperatures_c == {"wifi": 52.0, "GPU": 61.0} and found.limits_c == {"GPU": 95.0}


@pytest.mark.parametrize("minimum, pinned", [("3600000", True), ("800000", False)])
def test_the_cpus_clock_is_in_kilohertz(tmp_path, minimum, pinned):
    folder = tmp_path / "sys/devices/system/cpu/cpu0/cpufreq"
    folder.mkdir(parents=True)
    for bound, value in {"cur": "2100000", "min": minimum, "max": "3600000"}.items():
        (folder / f"scaling_{bound}_freq").write_text(value + "\n")
    cpu = read_state(tmp_path, nvml=DesktopNvml(driver=False)).cpu
    assert (cpu.now_mhz, cpu.pinned) == (pytest.approx(2100), pinned)


def test_a_machine_with_nothing_gives_nothing(tmp_path):
    state = read_state(tmp_path, nvml=DesktopNvml(driver=False))
    said = json.loads(json.dumps(state.as_dict()))
    assert said == {
        "cpu": None, "gpu": None, "gpu_memory": None, "temperatures_c": {}, "throttling": None,
        "limits_c": {}, "power_mode": None, "power_limit_mw": None, "held_ns": None,
        "confidential": None, "at_ns": state.at_ns,
    }  # fmt: skip
