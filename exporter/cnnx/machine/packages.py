"""Finds installed packages from wheel metadata and dpkg. Nothing is imported or run."""

from __future__ import annotations

import importlib.metadata
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement

# Names of NVIDIA's wheels since TensorRT 8.6; those without a suffix use the newest CUDA.
TENSORRT_WHEELS = tuple(
    f"tensorrt{cuda}{part}" for cuda in ("", "-cu13", "-cu12") for part in ("", "-bindings", "-libs")
)
_CUDA_WHEELS = ("nvidia-cuda-runtime", "nvidia-cuda-runtime-cu13", "nvidia-cuda-runtime-cu12")
# The library name contains the major version (libnvinfer8, libnvinfer10), the Python module's does not.
_TENSORRT_SYSTEM = re.compile(r"libnvinfer\d+|python3-libnvinfer")


@dataclass(frozen=True, slots=True)
class Package:
    """An installed package.

    Attributes:
        name: name of the distribution or system package.
        version: version string of the package.
        source: "wheel" for a Python distribution, "system" for a system package or /usr/local/cuda.
    """

    name: str
    version: str
    source: Literal["wheel", "system"]


Wheels = Callable[[str], "Package | None"]
"""Returns the Python distribution with a name, or None."""


def find_wheel(name: str) -> Package | None:
    """The Python distribution with a name, from its metadata; None if it is not installed.

    JetPack's python3-libnvinfer also has metadata of a distribution "tensorrt". Debian reserves
    /usr/lib/python3*/dist-packages for dpkg (Debian Python Policy), so distributions there are system
    packages.
    """
    try:
        found = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return None
    folder = Path(str(found.locate_file("")))
    of_system = folder.name == "dist-packages" and folder.is_relative_to("/usr/lib")
    return Package(name, found.version, "system" if of_system else "wheel")


def extra_brings_anything(extra: str, machine: str) -> bool:
    """Whether an extra of cnnx installs a package on an architecture; True if unknown.

    Args:
        extra: name of the extra, such as "rtx".
        machine: architecture, such as "aarch64".
    """
    try:
        needs = [Requirement(line) for line in importlib.metadata.requires("cnnx") or ()]
    except importlib.metadata.PackageNotFoundError:  # cnnx runs from its sources
        return True
    markers = [need.marker for need in needs if need.marker and "extra" in str(need.marker)]
    return any(marker.evaluate({"extra": extra, "platform_machine": machine}) for marker in markers)


def system_packages(root: Path, names: re.Pattern[str]) -> Mapping[str, str]:
    """Versions of installed system packages whose full name matches; empty without dpkg."""
    try:
        text = (root / "var/lib/dpkg/status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    stanzas = re.findall(rf"^Package: ((?:{names.pattern}))\n((?:.+\n?)*)", text, re.MULTILINE)
    found = {}
    for name, fields in stanzas:
        status = re.search(r"^Status: (.*)$", fields, re.MULTILINE)
        version = re.search(r"^Version: (\S+)", fields, re.MULTILINE)
        # A removed package keeps its stanza with "deinstall ok config-files".
        if version and (status is None or status[1].split()[-1:] == ["installed"]):
            found[name] = version[1]
    return found


def find_tensorrt(root: Path, wheels: Wheels = find_wheel) -> tuple[Package, ...]:
    """All TensorRT packages: system packages first, then wheels."""
    packages = system_packages(root, _TENSORRT_SYSTEM)
    system = [Package(name, version, "system") for name, version in sorted(packages.items())]
    found = [wheel for wheel in map(wheels, TENSORRT_WHEELS) if wheel is not None]
    return (*system, *(one for one in found if one.source == "wheel"))


def find_cuda(root: Path, wheels: Wheels = find_wheel) -> tuple[Package, ...]:
    """All CUDA runtimes: /usr/local/cuda, from its version file, then wheels."""
    toolkit = _toolkit(root / "usr/local/cuda")
    system = [Package("/usr/local/cuda", toolkit, "system")] if toolkit else []
    return (*system, *(wheel for wheel in map(wheels, _CUDA_WHEELS) if wheel is not None))


def _toolkit(folder: Path) -> str | None:
    """CUDA version from version.json, or from version.txt before CUDA 11.1 ("CUDA Version 10.2.300")."""
    try:
        return str(json.loads((folder / "version.json").read_text(encoding="utf-8"))["cuda"]["version"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    try:
        found = re.search(r"CUDA Version ([\d.]+)", (folder / "version.txt").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found[1] if found else None
