"""Which extra of cnnx fits a driver: packages of a CUDA major release need a driver of that release or newer.

NVIDIA's "CUDA Compatibility" (minor version compatibility) and its table of drivers: CUDA 13 needs 580 or
newer, CUDA 12 needs 525 or newer.
"""

from __future__ import annotations

from cnnx.errors import install_hint
from cnnx.machine.environment import Environment
from cnnx.machine.packages import Wheels

_NEWEST, _OLDEST = 13, 12
# Extra -> distributions that it installs for the newest CUDA.
_OF_NEWEST = {
    "tensorrt": ("tensorrt-cu13", "tensorrt-cu13-bindings", "tensorrt-cu13-libs"),
    "rtx": ("onnxruntime-ep-nv-tensorrt-rtx-cu13", "tensorrt-rtx-cu13-bindings"),
}


def extra_for(extra: str, cuda: str | None) -> str | None:
    """The extra whose packages work with a driver.

    Args:
        extra: "tensorrt" or "rtx"; any other is returned unchanged.
        cuda: newest CUDA version that the driver supports, such as "12.6"; None if unknown.

    Returns:
        None if the driver is too old for any.
    """
    major = _major(cuda)
    if extra not in _OF_NEWEST or major is None or major >= _NEWEST:
        return extra
    return f"{extra}-cu{major}" if major >= _OLDEST else None


def install_line(extra: str, machine: Environment) -> str:
    """The command that installs an extra on a machine, or what to do first."""
    cuda = machine.gpu.cuda if machine.gpu else None
    found = extra_for(extra, cuda)
    if found is None:
        return f"update the driver, which supports CUDA {cuda}, to 525 or newer (CUDA 12)"
    return install_hint(found)


def too_new(machine: Environment, wheels: Wheels) -> dict[str, str]:
    """Extra -> command, for each whose installed packages are for a newer CUDA than the driver supports."""
    cuda = machine.gpu.cuda if machine.gpu else None
    found = {}
    for extra, names in _OF_NEWEST.items():
        installed = [name for name in (extra, *names) if (wheel := wheels(name)) and wheel.source == "wheel"]
        if set(installed) & set(names) and extra_for(extra, cuda) != extra:
            line = install_line(extra, machine)
            found[extra] = f"pip uninstall -y {' '.join(installed)} && {line}" if "pip" in line else line
    return found


def _major(cuda: str | None) -> int | None:
    major = (cuda or "").partition(".")[0]
    return int(major) if major.isdecimal() else None
