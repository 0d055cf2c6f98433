from __future__ import annotations

import json

import pytest

from cnnx.measure import read_state
from tests.measure.machines import ORIN_NVML, DesktopNvml, orin_nx_jetpack_6, thor_jetpack_7


def test_an_orin_whose_clocks_are_pinned(tmp_path):
    orin_nx_jetpack_6(tmp_path)
    found = read_state(tmp_path, nvml=DesktopNvml(**ORIN_NVML))
    assert (found.gpu.now_mhz, found.gpu.most_mhz, found.gpu.pinned) == (918.0, 918.0, True)
    assert found.temperatures_c == {"cpu-thermal": 48.5, "gpu-thermal": 46.25}
    assert (found.gpu_memory, found.throttling, found.cpu) == (None, None, None)


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
    assert nvml.initialized == 0


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
        "cpu": None, "gpu": None, "gpu_memory": None, "temperatures_c": {}, "throttling": None
    }  # fmt: skip
