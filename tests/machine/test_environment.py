from __future__ import annotations

import os
import platform
from pathlib import Path

import numpy as np
import pytest

import cnnx.machine.environment as environment
import cnnx.machine.nvml as nvml
from cnnx.errors import BundleError
from cnnx.machine.environment import Environment, Gpu, cpu_model, detect, installed_version, usable_cores
from cnnx.machine.libcuda import bus_id_by
from cnnx.machine.packages import Package, find_cuda
from tests.doubles.machines import ORIN_NVML, DesktopNvml, orin_nx_jetpack_6, wheels
from tests.doubles.nvml import TwoGpus
from tests.inputs.again import again

ORIN = {
    "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, "
    "DATE: Wed Jan  8 01:49:37 UTC 2025\n# KERNEL_VARIANT: oot\nTARGET_USERSPACE_LIB_DIR=nvidia\n",
    "etc/os-release": 'NAME="Ubuntu"\nPRETTY_NAME="Ubuntu 22.04.5 LTS"\n',
    "proc/device-tree/model": "NVIDIA Jetson AGX Orin Developer Kit\0",
    "proc/cpuinfo": "processor\t: 0\nBogoMIPS\t: 62.50\nCPU implementer\t: 0x41\nCPU part\t: 0xd42\n",
    "proc/meminfo": "MemTotal:       64349492 kB\nMemFree: 1 kB\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "schedutil\n",
    "var/lib/nvpmodel/status": "pmode:0002\n",
    "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=MAXN >\nCPU_ONLINE CORE_0 1\n"
    "< POWER_MODEL ID=2 NAME=MODE_30W >\n",
}
THOR = {
    "etc/nv_tegra_release": "# R39 (release), REVISION: 2.1, GCID: 40000000, BOARD: generic, EABI: aarch64\n",
    "proc/device-tree/model": "NVIDIA Jetson AGX Thor Developer Kit\0",
}


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_a_jetson_orin(tmp_path):
    found = detect(tree(tmp_path, ORIN))
    assert (found.l4t, found.jetpack) == ("36.4.3", "6.2")
    assert found.board == "NVIDIA Jetson AGX Orin Developer Kit"
    assert found.distribution == "Ubuntu 22.04.5 LTS"
    assert found.cpu == "ARM part 0xd42"
    assert found.memory_bytes == 64349492 * 1024
    assert found.cpu_governor == "schedutil"
    assert found.power_mode == "2 MODE_30W"


@pytest.mark.parametrize(
    "line, l4t, jetpack",
    [
        (THOR["etc/nv_tegra_release"], "39.2.1", "7.2.1"),
        ("# R39 (release), REVISION: 2, GCID: 1", "39.2.0", "7.2"),
        ("# R36 (release), REVISION: 3.0, GCID: 1", "36.3.0", "6.0"),
        ("# R36 (release), REVISION: 4.7, GCID: 1", "36.4.7", "6.2.1"),
        ("# R36 (release), REVISION: 4.2, GCID: 1", "36.4.2", "6"),
        ("# R38 (release), REVISION: 2.2, GCID: 1", "38.2.2", "7.0"),
        ("# R41 (release), REVISION: 1.0, GCID: 1", "41.1.0", None),
        ("something else", None, None),
    ],
)
def test_releases_of_jetson_linux(tmp_path, line, l4t, jetpack):
    found = detect(tree(tmp_path, THOR | {"etc/nv_tegra_release": line}))
    assert (found.l4t, found.jetpack) == (l4t, jetpack)


def test_the_installed_jetpack_package_counts_before_the_table(tmp_path):
    other = "Package: nvidia-jetpack-runtime\nVersion: 9.9-b1\n\n"
    package = (
        "Package: nvidia-jetpack\nStatus: install ok installed\nArchitecture: arm64\nVersion: 6.2.1+b38\n\n"
    )
    files = ORIN | {"var/lib/dpkg/status": other + package + "Package: zlib\nVersion: 1.2\n"}
    assert detect(tree(tmp_path, files)).jetpack == "6.2.1"


def test_a_bare_tree_knows_nothing_and_guesses_nothing(tmp_path):
    found = detect(tmp_path)
    unknown = (
        found.distribution, found.board, found.cpu, found.cpu_governor, found.memory_bytes,
        found.power_mode, found.l4t, found.jetpack,
    )  # fmt: skip
    assert unknown == (None,) * 8
    assert found.cores == len(os.sched_getaffinity(0))


def test_this_machine():
    found = detect()
    assert found.machine == platform.machine()
    assert found.python == platform.python_version()
    assert found.packages["numpy"] == np.__version__
    assert found.packages["cnnx"] == installed_version("cnnx")
    assert 1 <= found.cores <= (os.cpu_count() or 1)
    assert cpu_model() == found.cpu


def test_an_environment_survives_json():
    gpu = Gpu("NVIDIA RTX 4090", compute_capability=89, driver="595.78", memory_bytes=24 << 30)
    for has_gpu in (None, gpu):
        found = Environment(**{**detect().as_dict(), "gpu": has_gpu})
        assert again(Environment, found.as_dict()) == found


@pytest.mark.parametrize("damage", [{"gpu": {"colour": "green"}}, {"colour": "green"}, {"gpu": 3}])
def test_a_damaged_description_is_refused(damage):
    with pytest.raises(BundleError, match=r"key|should be"):
        again(Environment, detect().as_dict() | damage)
    with pytest.raises(BundleError, match=r"key|should be"):
        again(Environment, {"python": "3.10"})


def siblings(groups: str) -> dict[str, str]:
    return {
        f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list": groups
        for cpu in os.sched_getaffinity(0)
    }


def test_threads_of_one_core_count_once(tmp_path):
    assert usable_cores(tree(tmp_path, siblings("0-255\n"))) == 1


@pytest.mark.parametrize(
    "quota, at_most",
    [("100000 100000", 1), ("50000 100000", 1), ("max 100000", 10**6), ("99900000 100000", 999)],
)
def test_a_containers_quota_caps_the_cores(tmp_path, quota, at_most):
    root = tree(tmp_path, {"sys/fs/cgroup/cpu.max": quota + "\n"})
    assert usable_cores(root) == min(len(os.sched_getaffinity(0)), at_most)


def test_packages_that_are_absent_have_no_version():
    assert installed_version("no-such-package-as-this") is None


@pytest.mark.parametrize("driver, gpu", [(False, None), (True, Gpu("Orin (nvgpu)", 87, "595.78", None))])
def test_nvml_that_answers_half(monkeypatch, driver, gpu):
    """Seen on a Jetson Orin with JetPack 7.2.1 (HazyResearch/intelligence-per-watt #40)."""
    monkeypatch.delattr(DesktopNvml, "nvmlSystemGetCudaDriverVersion")
    orins = DesktopNvml(**{**ORIN_NVML, "name": b"Orin (nvgpu)"}, driver=driver)
    monkeypatch.setitem(__import__("sys").modules, "pynvml", orins)
    assert environment.detect_gpu() == gpu
    assert orins.initialized == 0


def test_the_gpu_described_is_the_one_that_cuda_takes(monkeypatch):
    """An engine for SM 89 was refused for ever where a T400 stood before the RTX 4090 on the bus."""
    monkeypatch.setattr(nvml, "device_0_bus_id", lambda: "0000:02:00.0")
    found = environment.detect_gpu(TwoGpus())
    assert (found.name, found.compute_capability, found.remark) == ("NVIDIA GeForce RTX 4090", 89, "")


@pytest.mark.parametrize("bus_id", [None, "0000:09:00.0"])
def test_where_cuda_does_not_say_which_that_is_remarked(monkeypatch, bus_id):
    monkeypatch.setattr(nvml, "device_0_bus_id", lambda: bus_id)
    found = environment.detect_gpu(TwoGpus())
    assert found.name == "NVIDIA T400" and found.remark.startswith(
        "could not determine which of 2 GPUs CUDA uses"
    )


def test_an_instance_of_a_partitioned_gpu_is_remarked():
    """NVML's handle is that of the parent (MIG user guide)."""

    class Partitioned(DesktopNvml):
        def nvmlDeviceGetMigMode(self, handle):  # noqa: N802
            return [1, 1]

    assert environment.detect_gpu(Partitioned()).remark.startswith("MIG is enabled")


def test_a_question_that_the_driver_lacks_raises_nothing():
    """pynvml then raises an error that is not an NVMLError."""

    class Older(DesktopNvml):
        def nvmlDeviceGetMemoryInfo(self, handle):  # noqa: N802
            raise self.NVMLLibraryMismatchError

    assert environment.detect_gpu(Older()).memory_bytes is None


def test_a_single_gpu_is_not_asked_for(monkeypatch):
    """libcuda takes time and memory to start."""

    def never():
        raise AssertionError

    monkeypatch.setattr(nvml, "device_0_bus_id", never)
    assert environment.detect_gpu(DesktopNvml()).name == "NVIDIA RTX A2000"


class Libcuda:
    """The three functions, as ctypes gives them; `refuses`: the one that fails."""

    def __init__(self, refuses: str = "") -> None:
        def tell(name, size, device):
            name.value = b"0000:02:00.0"

        for function, act in {
            "cuInit": lambda flags: None,
            "cuDeviceGet": lambda device, ordinal: None,
            "cuDeviceGetPCIBusId": tell,
        }.items():
            setattr(self, function, self._coded(act, 100 if function == refuses else 0))

    @staticmethod
    def _coded(act, code):
        def call(*arguments):
            act(*arguments)
            return code

        return call


def test_libcuda_tells_where_device_0_is():
    assert bus_id_by(Libcuda()) == "0000:02:00.0"
    for refuses in ("cuInit", "cuDeviceGet", "cuDeviceGetPCIBusId"):
        assert bus_id_by(Libcuda(refuses)) is None
    assert bus_id_by(object()) is None


def test_tensorrt_and_cuda_of_jetpack_are_the_systems(tmp_path):
    orin_nx_jetpack_6(tmp_path)
    # JetPack's Python module has metadata of a distribution "tensorrt", in the system's folder.
    found = detect(tmp_path, nvml=DesktopNvml(**ORIN_NVML), wheels=wheels(system=("tensorrt 10.3.0",)))
    version = "10.3.0.30-1+cuda12.5"
    assert found.tensorrt == tuple(
        Package(name, version, "system") for name in ("libnvinfer10", "python3-libnvinfer")
    )
    assert found.cuda == (Package("/usr/local/cuda", "12.6.11", "system"),)
    assert (found.jetpack, found.power_mode) == ("6.2", "2 15W")
    assert found.gpu == Gpu("Orin (nvgpu)", 87, "595.78", None, cuda="13.2")
    assert again(Environment, found.as_dict()) == found


def test_a_desktop_has_them_by_wheels(tmp_path):
    have = wheels("tensorrt-cu12 10.9.0", "tensorrt-cu12-libs 10.9.0", "nvidia-cuda-runtime-cu12 12.8.90")
    found = detect(tmp_path, nvml=DesktopNvml(), wheels=have)
    assert {one.name: one.source for one in (*found.tensorrt, *found.cuda)} == dict.fromkeys(
        ("tensorrt-cu12", "tensorrt-cu12-libs", "nvidia-cuda-runtime-cu12"), "wheel"
    )
    assert found.gpu.memory_bytes == 6 << 30
    nothing = detect(tmp_path, nvml=DesktopNvml(driver=False), wheels=wheels())
    assert (nothing.cuda, nothing.tensorrt, nothing.gpu) == ((), (), None)


def test_cuda_of_before_it_had_a_json_file(tmp_path):
    tree(tmp_path, {"usr/local/cuda/version.txt": "CUDA Version 10.2.300\n"})
    assert find_cuda(tmp_path, wheels()) == (Package("/usr/local/cuda", "10.2.300", "system"),)
    tree(tmp_path, {"usr/local/cuda/version.json": "{torn"})
    assert find_cuda(tmp_path, wheels())[0].version == "10.2.300"


def test_a_description_of_before_cuda_was_looked_for_can_be_read():
    said = {key: value for key, value in detect().as_dict().items() if key not in ("cuda", "tensorrt")}
    assert again(Environment, said).tensorrt == ()
