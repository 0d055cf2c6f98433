"""A folder of modules and programs that tell when anybody runs them from there."""

from __future__ import annotations

MODULES = ("json", "numpy", "onnx", "onnxruntime", "pynvml", "runpy", "sitecustomize", "subprocess", "typer")
PROGRAMS = ("tegrastats", "nvpmodel", "trtexec", "uname", "gcc")


def set_traps(folder, *, package=True):
    """Fill a folder; gives a function that names what was run from it so far."""
    marks = folder / "marks"
    marks.mkdir(parents=True)
    names = [f"{name}.py" for name in MODULES]
    if package:
        (folder / "cnnx").mkdir()
        names += ["cnnx/__init__.py", "cnnx/__main__.py"]
    for name in names:
        mark = str(marks / name.replace("/", "."))
        (folder / name).write_text(f"open({mark!r}, 'w').close()\n")
    for name in PROGRAMS:
        (folder / name).write_text(f"#!/bin/sh\n: > '{marks / name}'\n")
        (folder / name).chmod(0o755)
    return lambda: sorted(mark.name for mark in marks.iterdir())


# Each process of ours, started as from a notebook: with the working directory on the import path.
CHILDREN = """
import os, sys
from pathlib import Path
import numpy, onnx, onnxruntime
from cnnx.measure.footprint import measure_footprint
from cnnx.measure.power import SamplerProcess
from cnnx.measure.power.sensors.tegrastats import during
from cnnx.machine.isolated import find_program
from cnnx.runtimes import USUAL

folder, tree, model = sys.argv[1:]
os.chdir(folder)
sys.path[:0] = ["", folder]
os.environ["PATH"] = os.pathsep.join(["", ".", os.environ["PATH"]])
os.environ["LD_LIBRARY_PATH"] = ":/usr/lib"
found = measure_footprint("ort", Path(model), numpy.zeros((1, 1, 32, 32), numpy.float32), USUAL)
assert not found.failed, found
with SamplerProcess("ina", root=Path(tree)) as sampler:
    pass
assert find_program("tegrastats") is None
_, lines = during(lambda: None, program=["tegrastats"])
assert "No such file" in lines.reason, lines
"""
