"""Pin what CI installs, with hashes: python -m tools.pins (make pins)

Writes one file per Python: everything that the checks import on Python 3.11, and what a device installs on
3.10 (JetPack 6). An installer compares each download with the hashes, so neither an index nor a mirror can
change what CI runs. PyTorch is pinned by its version alone (torch.txt), as its builds for CPUs and for each
CUDA release have different files. The files name no index: pip asks those that it is configured with.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

from tools import ROOT

_FOLDER = Path(__file__).resolve().parent
_TORCH = str(_FOLDER / "torch.txt")
_EXTRAS = ("export", "cpu", "rtx", "report", "sign", "opencv", "fleet", "dev")
_WITHOUT_DEPENDENCIES = ("timm", "torchvision")
"""Networks to compare with; what else they ask for, such as CUDA's packages, is not needed for that."""
_HEADER = "# Written by make pins. Install with: pip install --require-hashes --no-deps -r {name}\n"


def _compiled(python: str, sources: list[str], *options: str) -> str:
    command = ["uv", "pip", "compile", *sources, *options, "--python-version", python, "--generate-hashes"]
    command += ["--python-platform", "x86_64-manylinux_2_28", "--no-header", "--no-annotate", "--quiet"]
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def _networks() -> str:
    """Pins of the packages that are installed without what they ask for."""
    with tempfile.TemporaryDirectory() as scratch:
        wanted = Path(scratch, "networks.in")
        wanted.write_text("\n".join(_WITHOUT_DEPENDENCIES), encoding="utf-8")
        found = _compiled("3.11", [str(wanted), _TORCH])  # torch decides which torchvision
        pins = [line.split(" ")[0] for line in found.splitlines() if line.startswith(_WITHOUT_DEPENDENCIES)]
        wanted.write_text("\n".join(pins), encoding="utf-8")
        return _compiled("3.11", [str(wanted)], "--no-deps")


def _write(python: str, *parts: str) -> None:
    file = _FOLDER / f"python{python}.txt"
    file.write_text(_HEADER.format(name=file.relative_to(ROOT)) + "".join(parts), encoding="utf-8")


def main() -> None:
    """Write the pins again, with the newest releases that pyproject.toml allows."""
    for name in ("FIND_LINKS", "INDEX_URL"):  # what pip is configured with
        if f"PIP_{name}" in os.environ:
            os.environ.setdefault(f"UV_{name}", os.environ[f"PIP_{name}"])
    extras = [word for extra in _EXTRAS for word in ("--extra", extra)]
    checks = _compiled("3.11", ["pyproject.toml", _TORCH], *extras, "--no-emit-package", "torch")
    _write("3.11", checks, _networks())
    _write("3.10", _compiled("3.10", ["pyproject.toml"], "--extra", "cpu"))


if __name__ == "__main__":
    main()
