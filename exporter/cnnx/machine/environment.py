"""Describes a machine and its installation, without which a measurement has no meaning.

Everything is read from files, package metadata and NVML. No heavy package is imported and no program is run.
Unknown values are None, never guessed.
"""

from __future__ import annotations

import dataclasses
import os
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnnx.device import Device
from cnnx.machine.nvml import first_gpu
from cnnx.machine.packages import Package, Wheels, find_cuda, find_tensorrt, find_wheel, system_packages
from cnnx.schema import Count

# A package may come in several distributions; the first that is installed counts.
_DISTRIBUTIONS: Mapping[str, tuple[str, ...]] = {
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "tensorrt": ("tensorrt", "tensorrt-cu13", "tensorrt-cu12"),
    "tensorrt_rtx": ("tensorrt-rtx-cu13-bindings", "tensorrt-rtx-cu12-bindings", "tensorrt-rtx"),
}

# JetPack version by Jetson Linux release (NVIDIA's JetPack archive and release notes). If the nvidia-jetpack
# package is installed, its version is used instead.
_JETPACK_OF_L4T: Mapping[str, str] = {
    "36.3.0": "6.0",
    "36.4.0": "6.1",
    "36.4.3": "6.2",
    "36.4.4": "6.2.1",
    "36.4.7": "6.2.1",
    "36.5.0": "6.2.2",
    "38.2.0": "7.0",
    "38.2.1": "7.0",
    "38.2.2": "7.0",
    "38.4.0": "7.1",
    "39.2.0": "7.2",
    "39.2.1": "7.2.1",
}
# Of releases that are not in the table, only the major version is known.
_MAJOR_OF_L4T: Mapping[str, str] = {"36": "6", "38": "7", "39": "7"}


@dataclass(frozen=True, slots=True)
class Gpu:
    """The GPU that CUDA uses, according to NVML. On Jetson Orin, NVML reports little more than its name.

    Attributes:
        compute_capability: SM version, such as 86.
        driver: version of the kernel driver.
        memory_bytes: total memory; None if shared with the CPU.
        cuda: newest CUDA version that the driver supports, such as "13.0".
        remark: why it may not be the GPU that CUDA uses; empty if it is.
    """

    name: str
    compute_capability: Count | None = None
    driver: str | None = None
    memory_bytes: Count | None = None
    cuda: str | None = None
    remark: str = ""


@dataclass(frozen=True, slots=True)
class Environment:
    """Machine and software that ran something.

    Attributes:
        system: kernel name and release.
        distribution: PRETTY_NAME of /etc/os-release.
        machine: architecture, such as "x86_64" or "aarch64".
        board: model in the device tree, such as that of a Jetson.
        cpu: model name.
        cores: number of physical cores this process may use (see `usable_cores`).
        cpu_governor: frequency governor of the first core.
        memory_bytes: memory of the machine.
        power_mode: number and name of a Jetson's nvpmodel mode, such as "0 MAXN".
        l4t: Jetson Linux release, such as "36.4.3".
        jetpack: JetPack version.
        python: Python version.
        packages: versions of the packages a result may depend on; None if not installed.
        cuda: CUDA runtimes from the system and from wheels.
        tensorrt: TensorRT packages from the system and from wheels.
    """

    system: str
    distribution: str | None
    machine: str
    board: str | None
    cpu: str | None
    cores: Count
    cpu_governor: str | None
    memory_bytes: Count | None
    power_mode: str | None
    l4t: str | None
    jetpack: str | None
    gpu: Gpu | None
    python: str
    packages: Mapping[str, str | None]
    cuda: tuple[Package, ...] = ()
    tensorrt: tuple[Package, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The environment as plain data for JSON."""
        return dataclasses.asdict(self)


def detect(root: Path = Path("/"), *, nvml: Any = None, wheels: Wheels = find_wheel) -> Environment:
    """Describe this machine.

    Args:
        root: root of the file system; tests pass their own tree. Values that do not come from files (kernel,
            Python, packages) are always those of this machine.
        nvml: module with pynvml's functions; None for pynvml.
        wheels: finds the Python distributions of CUDA and TensorRT.
    """
    l4t = _l4t(root)
    return Environment(
        system=f"{platform.system()} {platform.release()}",
        distribution=_field(root / "etc/os-release", r'^PRETTY_NAME="?([^"\n]+)'),
        machine=platform.machine(),
        board=_board(root),
        cpu=cpu_model(root),
        cores=usable_cores(root),
        cpu_governor=_field(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", r"(\S+)"),
        memory_bytes=_memory_bytes(root),
        power_mode=power_mode(root),
        l4t=l4t,
        jetpack=_jetpack(root, l4t),
        gpu=detect_gpu(nvml),
        python=platform.python_version(),
        packages={
            name: installed_version(name)
            for name in ("cnnx", "numpy", "torch", "onnx", "onnxruntime", "tensorrt", "tensorrt_rtx")
        },
        cuda=find_cuda(root, wheels),
        tensorrt=find_tensorrt(root, wheels),
    )


def free_memory_bytes(root: Path = Path("/"), *, nvml: Any = None) -> int | None:
    """Memory that a network could use now: the GPU's own, or on Jetson and CPUs that of the machine."""
    with first_gpu(nvml) as gpu:
        memory = gpu.ask("nvmlDeviceGetMemoryInfo") if gpu else None
    if memory is not None:
        return int(memory.free)
    return available_memory_bytes(root)


def available_memory_bytes(root: Path = Path("/")) -> int | None:
    """Memory of the machine that a program could use now without swapping."""
    kib = _field(root / "proc/meminfo", r"^MemAvailable:\s*([0-9]{1,15}) kB")
    return int(kib) * 1024 if kib else None


def installed_version(name: str) -> str | None:
    """Version of an installed package from its metadata, without importing it; None if missing."""
    found = map(find_wheel, _DISTRIBUTIONS.get(name, (name,)))
    return next((wheel.version for wheel in found if wheel is not None), None)


def cpu_model(root: Path = Path("/")) -> str | None:
    """CPU name, or the part number of the core on ARM, where /proc/cpuinfo has no name."""
    cpuinfo = root / "proc/cpuinfo"
    name = _field(cpuinfo, r"^model name\s*:\s*(.+)$")
    part = _field(cpuinfo, r"^CPU part\s*:\s*(\S+)")
    return name or (f"ARM part {part}" if part else None)


def cpu_device() -> Device:
    """The CPU here."""
    return Device("cpu", cpu_model() or "unknown model")


def usable_cores(root: Path = Path("/")) -> int:
    """Number of physical cores that this process may use, a good size for a thread pool.

    Logical CPUs of one core count once, as two threads of a matrix kernel share its vector units. CPUs
    outside the affinity of the process do not count. The CPU quota of a container (cgroup v2, cpu.max) is the
    limit.
    """
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    topology = root / "sys/devices/system/cpu"
    cores = {
        _field(topology / f"cpu{cpu}/topology/thread_siblings_list", r"(\S+)") or str(cpu) for cpu in allowed
    }
    quota = re.match(r"([0-9]{1,18}) ([1-9][0-9]{0,17})", _text(root / "sys/fs/cgroup/cpu.max"))
    limit = max(1, int(quota[1]) // int(quota[2])) if quota else len(cores)
    return max(1, min(len(cores), limit))


def detect_gpu(nvml: Any = None) -> Gpu | None:
    """CUDA's first GPU according to NVML, or None without a driver.

    On Jetson Orin, NVML starts but refuses most queries, so each query may fail on its own.

    Args:
        nvml: module with pynvml's functions; None for pynvml.
    """
    with first_gpu(nvml) as gpu:
        name = gpu.ask("nvmlDeviceGetName") if gpu else None
        if gpu is None or name is None:
            return None
        capability = gpu.ask("nvmlDeviceGetCudaComputeCapability")
        memory = gpu.ask("nvmlDeviceGetMemoryInfo")
        cuda = gpu.ask_system("nvmlSystemGetCudaDriverVersion")
        return Gpu(
            name=name,
            compute_capability=capability[0] * 10 + capability[1] if capability else None,
            driver=gpu.ask_system("nvmlSystemGetDriverVersion"),
            memory_bytes=int(memory.total) if memory else None,
            # 13020 is 13.2: NVML_CUDA_DRIVER_VERSION_MAJOR and _MINOR of nvml.h.
            cuda=f"{cuda // 1000}.{cuda % 1000 // 10}" if cuda else None,
            remark=gpu.remark,
        )


def _l4t(root: Path) -> str | None:
    """L4T release from a line such as "# R36 (release), REVISION: 4.3, ..."; REVISION may be only "4"."""
    found = re.search(r"R(\d+)\s*\(release\),\s*REVISION:\s*([\d.]+)", _text(root / "etc/nv_tegra_release"))
    if found is None:
        return None
    parts = [found[1], *found[2].strip(".").split(".")]
    return ".".join([*parts, "0"] if len(parts) == 2 else parts)


def _jetpack(root: Path, l4t: str | None) -> str | None:
    installed = system_packages(root, re.compile("nvidia-jetpack")).get("nvidia-jetpack", "")
    number = re.match(r"[\d.]+", installed)
    if number:
        return number[0]
    release = l4t or ""
    return _JETPACK_OF_L4T.get(release) or _MAJOR_OF_L4T.get(release.partition(".")[0])


def power_mode(root: Path = Path("/")) -> str | None:
    """Mode last set by nvpmodel: the number from its status file, the name from its configuration."""
    number = _field(root / "var/lib/nvpmodel/status", r"pmode:\s*([0-9]{1,9})")
    if number is None:
        return None
    name = _field(root / "etc/nvpmodel.conf", rf"<\s*POWER_MODEL\s+ID={int(number)}\s+NAME=(\S+)\s*>")
    return f"{int(number)} {name}" if name else str(int(number))


def _board(root: Path) -> str | None:
    """Board model from the device tree, whose strings end with a zero byte."""
    for file in ("proc/device-tree/model", "sys/firmware/devicetree/base/model"):
        if name := _text(root / file).strip("\0\n "):
            return name
    return None


def _memory_bytes(root: Path) -> int | None:
    kib = _field(root / "proc/meminfo", r"^MemTotal:\s*([0-9]{1,15}) kB")
    return int(kib) * 1024 if kib else None


def _field(path: Path, pattern: str) -> str | None:
    found = re.search(pattern, _text(path), re.MULTILINE)
    return found[1].strip() if found else None


def _text(path: Path) -> str:
    """Content of a file; empty if it is missing or not readable."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
