"""What is installed: wheels by their metadata, system packages by dpkg. Nothing is imported or run."""

from __future__ import annotations

import importlib.metadata
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement

# Names of NVIDIA's wheels since TensorRT 8.6; those without a suffix take the newest CUDA.
TENSORRT_WHEELS = tuple(
    f"tensorrt{cuda}{part}" for cuda in ("", "-cu13", "-cu12") for part in ("", "-bindings", "-libs")
)
_CUDA_WHEELS = ("nvidia-cuda-runtime", "nvidia-cuda-runtime-cu13", "nvidia-cuda-runtime-cu12")
# The library has its major release in its name (libnvinfer8, libnvinfer10), the Python module has not.
_TENSORRT_SYSTEM = re.compile(r"libnvinfer\d+|python3-libnvinfer")


@dataclass(frozen=True, slots=True)
class Package:
    """One package.

    Attributes:
        name: of the distribution or the system package.
        version: as its packager writes it.
        source: "wheel": in a Python environment; "system": the system's packages, or /usr/local/cuda.
    """

    name: str
    version: str
    source: Literal["wheel", "system"]


Wheels = Callable[[str], "Package | None"]
"""The Python distribution of a name, or None."""


def find_wheel(name: str) -> Package | None:
    """The Python distribution of a name, by its metadata.

    JetPack's python3-libnvinfer leaves metadata of a distribution "tensorrt" as well. Debian keeps what
    dpkg installs in /usr/lib/python3*/dist-packages and pip out of it (Debian Python Policy), so
    what lies there is the system's.
    """
    try:
        found = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return None
    folder = Path(str(found.locate_file("")))
    of_system = folder.name == "dist-packages" and folder.is_relative_to("/usr/lib")
    return Package(name, found.version, "system" if of_system else "wheel")


def extra_brings_anything(extra: str, machine: str) -> bool:
    """Whether one of cnnx's extras installs a package on an architecture; True where that is not known.

    Args:
        extra: its name, such as "rtx".
        machine: such as "aarch64".
    """
    try:
        needs = [Requirement(line) for line in importlib.metadata.requires("cnnx") or ()]
    except importlib.metadata.PackageNotFoundError:  # run from its sources
        return True
    markers = [need.marker for need in needs if need.marker and "extra" in str(need.marker)]
    return any(marker.evaluate({"extra": extra, "platform_machine": machine}) for marker in markers)


def system_packages(root: Path, names: re.Pattern[str]) -> Mapping[str, str]:
    """Version of each installed package of the system whose whole name fits; empty without dpkg."""
    try:
        text = (root / "var/lib/dpkg/status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    stanzas = re.findall(rf"^Package: ((?:{names.pattern}))\n((?:.+\n?)*)", text, re.MULTILINE)
    found = {}
    for name, fields in stanzas:
        status = re.search(r"^Status: (.*)$", fields, re.MULTILINE)
        version = re.search(r"^Version: (\S+)", fields, re.MULTILINE)
        # A package that was removed keeps its stanza: "deinstall ok config-files".
        if version and (status is None or status[1].split()[-1:] == ["installed"]):
            found[name] = version[1]
    return found


def find_tensorrt(root: Path, wheels: Wheels = find_wheel) -> tuple[Package, ...]:
    """Every part of TensorRT: the system's packages first, then wheels."""
    packages = system_packages(root, _TENSORRT_SYSTEM)
    system = [Package(name, version, "system") for name, version in sorted(packages.items())]
    found = [wheel for wheel in map(wheels, TENSORRT_WHEELS) if wheel is not None]
    return (*system, *(one for one in found if one.source == "wheel"))


def find_cuda(root: Path, wheels: Wheels = find_wheel) -> tuple[Package, ...]:
    """Every CUDA runtime: /usr/local/cuda, as its own version file says, then wheels."""
    toolkit = _toolkit(root / "usr/local/cuda")
    system = [Package("/usr/local/cuda", toolkit, "system")] if toolkit else []
    return (*system, *(wheel for wheel in map(wheels, _CUDA_WHEELS) if wheel is not None))


def _toolkit(folder: Path) -> str | None:
    """From version.json since CUDA 11.1, before that from version.txt ("CUDA Version 10.2.300")."""
    try:
        return str(json.loads((folder / "version.json").read_text(encoding="utf-8"))["cuda"]["version"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    try:
        found = re.search(r"CUDA Version ([\d.]+)", (folder / "version.txt").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found[1] if found else None
