"""The bundle that doors change: small, with names, records and an engine; made once in a run."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tools import ROOT
from tools.check.fuzz.door import Content


def apart(function: Callable[..., object], *paths: Path) -> None:
    """Call a module's function in another process, so that the threads it starts do not live on in this one.

    Raises:
        SystemExit: it failed.
    """
    code = "import importlib, pathlib, sys\nmodule, name, *paths = sys.argv[1:]\n"
    code += "getattr(importlib.import_module(module), name)(*map(pathlib.Path, paths))"
    command = [sys.executable, "-c", code, function.__module__, function.__name__, *map(str, paths)]
    if subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=sys.stderr).returncode:
        raise SystemExit("a valid input could not be made")


HOME = "CNNX_FUZZ_BUNDLE"
"""Environment variable: the folder of a bundle that another process of this run made."""


@functools.cache
def small_bundle() -> Path:
    """The folder of an INT8 bundle, beside the network that it was made from. Copy it to write."""
    if HOME in os.environ:
        return Path(os.environ[HOME]) / "b"
    folder = Path(tempfile.mkdtemp(prefix="cnnx-bundle-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    make_apart(folder)
    return folder / "b"


def make_apart(folder: Path) -> None:
    """Make the bundle in another process."""
    apart(make_bundle, folder)


@functools.cache
def files_of_bundle() -> dict[str, Content]:
    """Its files, by path in it."""
    bundle = small_bundle()
    found = sorted(path for path in bundle.rglob("*") if path.is_file())
    return {path.relative_to(bundle).as_posix(): path.read_bytes() for path in found}


def digit() -> Path:
    """An image beside the bundle, as it takes them."""
    return small_bundle().parent / "digit.pgm"


def make_bundle(folder: Path) -> None:
    """Make the bundle in a folder."""
    import onnx

    import cnnx
    from tests.inputs.tiny import tiny_graph
    from tests.inputs.whole import make_whole

    onnx.save(tiny_graph(), folder / "tiny.onnx")
    (folder / "digit.pgm").write_bytes(b"P5 32 32 255\n" + bytes(range(256)) * 4)
    (folder / "names.txt").write_text("\n".join(f"class {number}" for number in range(10)), encoding="utf-8")
    images = {"calibration_data": "digits", "calibration_images": 16, "validation_data": "digits"}
    rest = {"class_names": folder / "names.txt", "validation_images": 16, "with_source": True}
    cnnx.export(folder / "tiny.onnx", precision="int8", out=folder / "made", **images, **rest)
    make_whole(folder / "made", folder / "b")
