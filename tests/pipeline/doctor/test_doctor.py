from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path

import pytest
from rich.console import Console

import cnnx
from cnnx.device import Device
from cnnx.errors import EnvironmentLacks, MissingExtra
from cnnx.machine import nvml
from cnnx.machine.environment import Gpu, detect
from cnnx.measure.power import PolledSensor, Sample, SensorInfo, power_now
from cnnx.measure.power.sensors.sensor import Rail, Total, Uncertainty
from cnnx.pipeline.bench.energy import choose_sampler
from cnnx.pipeline.doctor.doctor import DoctorResult, ability
from cnnx.pipeline.doctor.packages import wrong_combinations
from cnnx.pipeline.plain import plain
from cnnx.report.tables.machine import machine_blocks
from cnnx.report.terminal import draw
from tests.doubles.machines import ORIN_NVML, DesktopNvml, orin_nx_jetpack_6, thor_jetpack_7, wheels
from tests.doubles.nvml import TwoGpus
from tests.doubles.power_trees import write


def looked_at(root, nvml=None, have=None) -> DoctorResult:
    nvml = nvml or DesktopNvml(driver=False)
    return cnnx.doctor(root=root, nvml=nvml, wheels=have or wheels(), sleep=lambda _: None)


def screen(diagnosis: DoctorResult, width: int = 80) -> str:
    out = io.StringIO()
    blocks = machine_blocks(diagnosis.environment, diagnosis.state, plain(diagnosis))
    draw(Console(file=out, width=width), blocks)
    return out.getvalue()


def test_an_orin_nx_with_jetpack_6(tmp_path):
    orin_nx_jetpack_6(tmp_path)
    found = looked_at(tmp_path, DesktopNvml(**ORIN_NVML), wheels(system=("tensorrt 10.3.0",)))
    ina, *others = found.sensors
    assert {rail.rail: rail.power_mw for rail in ina.rails} == {
        "VDD_IN": 2800, "VDD_CPU_GPU_CV": 650, "VDD_SOC": 655
    }  # fmt: skip
    assert (ina.total_mw, ina.total_covers) == (2800, "module input")
    assert all(other.reason for other in others) and others[-1].sensor == "rapl"
    assert found.wrong_combinations == ()
    assert {ability.what: ability.able for ability in found.abilities}["measure power and energy"]
    shown = screen(found)
    for words in ("6.2, Jetson Linux 36.4.3", "2 15W", "918 MHz (pinned)", "10.3.0.30-1+cuda12.5", "2,800"):
        assert words in shown
    assert "power sensor ina: no uncertainty stated, in steps of 40 mW" in shown
    assert "power sensor ina: rails of Jetson Xavier NX, Orin NX, Orin Nano" in shown
    assert "field 186 returned the error code" in shown and "unsupported" in shown


def test_a_thor_with_jetpack_7(tmp_path):
    thor_jetpack_7(tmp_path)
    found = looked_at(tmp_path)
    assert found.sensors[0].total_mw == 36_487
    shown = screen(found)
    for words in ("36,487", "-312", "7.2, Jetson Linux 39.2.0", "315 MHz (from 315 to 1575)", "10.16.0.1"):
        assert words in shown


def test_a_desktop_with_wheels(tmp_path):
    have = wheels("tensorrt-cu12-bindings 10.9.0.34", "tensorrt-cu12-libs 10.9.0.34")
    nvml = DesktopNvml()
    found = looked_at(tmp_path, nvml, have)
    assert [one.total_mw for one in found.sensors if one.sensor.startswith("nvml-")][:3] == [
        41_000, 40_000, 41_000
    ]  # fmt: skip
    assert found.wrong_combinations == () and nvml.initialized == 0
    shown = screen(found)
    assert "power sensor nvml-instant, nvml-average, nvml-usage, nvml-energy: within 5%" in shown
    for words in ("595.78, for CUDA up to 13.2", "41,000", "1200 MHz (to 2100)", "61.0 C", "power cap"):
        assert words in shown


def test_which_of_two_gpus_cuda_uses_is_not_guessed(tmp_path, monkeypatch):
    monkeypatch.setattr(nvml, "device_0_bus_id", lambda: None)
    shown = screen(looked_at(tmp_path, TwoGpus()), width=200)
    assert "NVIDIA T400" in shown and "could not determine which of 2 GPUs CUDA uses" in shown


def test_a_machine_without_sensors_reports_none_and_never_zero(tmp_path):
    found = looked_at(tmp_path)
    assert all(one.reason and one.total_mw is None and not one.rails for one in found.sensors)
    power = next(one for one in found.abilities if one.what == "measure power and energy")
    assert not power.able and power.hint
    shown = screen(found)
    assert shown.count("none found") == 3 and "NVML Shared Library Not Found" in shown
    assert json.loads(json.dumps(plain(found)))["state"]["gpu"] is None


def refused(monkeypatch, *names):
    """Make files with these names unreadable; needed as tests may run as root, which can read every file."""
    read = Path.read_text

    def refusing(path, *arguments, **options):
        if any(path.match(name) for name in names):
            raise PermissionError(13, "Permission denied")
        return read(path, *arguments, **options)

    monkeypatch.setattr(Path, "read_text", refusing)


def test_counters_that_only_root_may_read_are_named_with_a_hint(tmp_path, monkeypatch):
    """Not with sudo, which would not find cnnx in a virtual environment and would make files of root."""
    zone = tmp_path / "sys/class/powercap/intel-rapl:0"
    write(zone, {"name": "package-0", "energy_uj": 1, "max_energy_range_uj": 9})
    refused(monkeypatch, "energy_uj")
    found = looked_at(tmp_path)
    power = next(one for one in found.abilities if one.what == "measure power and energy")
    hint = f"sudo chmod a+r {zone.parent}/intel-rapl:*/energy_uj  # until the next boot"
    assert "only root" in power.reason and power.hint == found.sensors[-1].hint == hint
    with pytest.raises(EnvironmentLacks) as caught:
        choose_sampler(cnnx.PowerPass(), Device("cpu", "AMD EPYC"), root=tmp_path)
    assert caught.value.hint == hint


def test_monitors_that_may_not_be_read_are_named_with_a_hint(tmp_path, monkeypatch):
    orin_nx_jetpack_6(tmp_path)
    refused(monkeypatch, "curr*_input")
    found = looked_at(tmp_path).sensors[0]
    files = f"{tmp_path}/sys/class/hwmon/hwmon3/*_input"
    assert files in found.reason and found.hint == f"sudo chmod a+r {files}  # until the next boot"
    assert f"hint:  sudo chmod a+r {files}" in screen(looked_at(tmp_path))


def combinations(root, have, nvml=None):
    found = detect(root, nvml=nvml or DesktopNvml(driver=False), wheels=have)
    return wrong_combinations(found, have)


@pytest.mark.parametrize("gpu, stays, goes", [(True, "onnxruntime-gpu==1.23", "onnxruntime"),
                                              (False, "onnxruntime==1.24", "onnxruntime-gpu")])  # fmt: skip
def test_two_onnx_runtimes(tmp_path, gpu, stays, goes):
    [wrong] = combinations(
        tmp_path, wheels("onnxruntime 1.24", "onnxruntime-gpu 1.23"), DesktopNvml(driver=gpu)
    )
    assert wrong.hint == f"pip uninstall -y {goes} && pip install --force-reinstall --no-deps {stays}"


def test_a_tensorrt_wheel_over_jetpacks(tmp_path):
    orin_nx_jetpack_6(tmp_path)
    have = wheels("tensorrt-cu12 10.9.0", "tensorrt-cu12-bindings 10.9.0", system=("tensorrt 10.3.0",))
    [wrong] = combinations(tmp_path, have)
    # Only wheels are uninstalled, and none is installed over JetPack's.
    assert wrong.hint == "pip uninstall -y tensorrt-cu12 tensorrt-cu12-bindings"
    assert "libnvinfer10 10.3.0.30" in wrong.what


class Driver560(DesktopNvml):
    """An RTX 4090 with a driver for CUDA 12.6."""

    def nvmlSystemGetCudaDriverVersion(self):  # noqa: N802
        return 12060


def test_packages_for_a_newer_cuda_than_the_driver_have_one_line_that_replaces_them(tmp_path):
    """`tensorrt` resolves to CUDA 13, which needs driver 580."""
    have = wheels("tensorrt 11.4.0", "tensorrt-cu13 11.4.0", "tensorrt-rtx-cu13-bindings 1.7.1")
    lines = {each.what: each.hint for each in combinations(tmp_path, have, Driver560())}
    assert lines["the extra tensorrt for CUDA 13"].startswith(
        "pip uninstall -y tensorrt tensorrt-cu13 && pip install '.[tensorrt-cu12]'"
    )
    assert "pip install '.[rtx-cu12]'" in lines["the extra rtx for CUDA 13"]
    assert combinations(tmp_path, have, DesktopNvml()) == ()  # CUDA 13.2
    assert combinations(tmp_path, wheels("tensorrt-cu12 11.4.0"), Driver560()) == ()
    orin_nx_jetpack_6(tmp_path)
    assert not [each for each in combinations(tmp_path, have, Driver560()) if "CUDA 13" in each.what]


@pytest.mark.parametrize(
    ("cuda", "extra"), [("13.2", "rtx"), ("12.6", "rtx-cu12"), (None, "rtx"), ("11.8", None)]
)
def test_the_extra_for_a_driver(tmp_path, cuda, extra):
    here = detect(tmp_path, nvml=DesktopNvml(driver=False), wheels=wheels())
    desktop = dataclasses.replace(here, machine="x86_64", gpu=Gpu("RTX 4090", cuda=cuda))
    found = ability("build", MissingExtra("x", "rtx", purpose="it"), desktop).hint
    assert found.startswith(
        f"pip install '.[{extra}]'" if extra else "update the driver, which supports CUDA"
    )


def test_bindings_without_libraries(tmp_path):
    have = wheels("tensorrt-cu13-bindings 10.16.0.1")
    [wrong] = combinations(tmp_path, have)
    assert wrong.hint == "pip install tensorrt-cu13-libs==10.16.0.1"
    status = tmp_path / "var/lib/dpkg/status"
    status.parent.mkdir(parents=True)
    status.write_text("Package: libnvinfer10\nStatus: install ok installed\nVersion: 10.16.0.1-1+cuda13.2\n")
    assert combinations(tmp_path, have) == ()  # the system has libraries of that release
    status.write_text(status.read_text().replace("10.16.0.1", "10.3.0.30"))
    assert len(combinations(tmp_path, have)) == 1


def test_an_energy_counter_is_read_twice_and_a_constant_one_is_not_zero():
    rails, unstated = (Rail("a", ""), Rail("b", "")), Uncertainty(None, None, "")
    info = SensorInfo("rapl", "energy_mj", rails, Total((), ""), None, 0, unstated)
    now = [0]
    sensor = PolledSensor(info, [lambda: now[0] / 1e9 * 500, lambda: 7.0], clock=lambda: now[0])
    assert power_now(sensor, sleep=lambda seconds: now.append(now.pop() + int(seconds * 1e9))) == (500, None)
    assert isinstance(sensor.read(), Sample)


def test_an_extra_without_packages_for_a_jetson_is_not_recommended_there(tmp_path):
    orin_nx_jetpack_6(tmp_path)
    here = detect(tmp_path, nvml=DesktopNvml(driver=False), wheels=wheels())
    jetson, laptop = (dataclasses.replace(here, machine=name) for name in ("aarch64", "x86_64"))
    laptop = dataclasses.replace(laptop, l4t=None, gpu=None)
    desktop = dataclasses.replace(laptop, gpu=Gpu("NVIDIA GeForce RTX 4090"))
    lacking = MissingExtra("tensorrt", "tensorrt", purpose="building")
    assert ability("build", lacking, jetson).hint == "sudo apt install nvidia-jetpack"
    assert ability("build", lacking, desktop).hint.startswith("pip install '.[tensorrt]'")
    assert "pip" not in ability("build", lacking, laptop).hint  # without a GPU TensorRT would be of no use
    assert "pip" not in ability("build", MissingExtra("x", "rtx", purpose="it"), jetson).hint
    assert "pip" in ability("draw", MissingExtra("x", "report", purpose="it"), jetson).hint
