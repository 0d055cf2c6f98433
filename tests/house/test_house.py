"""The shape of a change is the test of the house: what CONTRIBUTING promises, done to a copy and used."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from tools import ROOT

pytest.importorskip("torch", reason="exports need PyTorch")

MODEL = '''"""A toy."""

from torch import Tensor, nn


def toy(classes: int = 10) -> nn.Module:
    """One convolution and one linear layer."""
    features = nn.Conv2d(1, 8, 5), nn.ReLU(), nn.MaxPool2d(4)
    return nn.Sequential(*features, nn.Flatten(), nn.Linear(392, classes))
'''
RECIPE = """name = "toy-net"

[model]
definition = "toy"
classes = 10

[input]
shape = [1, 32, 32]

[preprocessing]
color = "gray"
resize = 32
mean = [0.5]
std = [0.5]

[calibration]
data = "digits"

[validation]
data = "digits"
"""
RUNTIME = '''"""A toy: its engine is the graph itself, run by ONNX Runtime on a device of its own."""

import os

from cnnx.device import Device
from cnnx.runtimes import USUAL, BuiltEngine, get


class Toy:
    name, engine_suffix, builds_without_gpu = "toy", ".toy", True

    def version(self):
        return "1.0"

    def missing(self):
        return None

    cannot_run = load = missing

    def device(self):
        return Device(os.environ["TOY_KIND"], "Toy 1")

    def check_capabilities(self, capabilities):
        pass

    def build(self, onnx_file, request):
        types = dict(request.expected)
        return [BuiltEngine("toy-1", "model.toy", onnx_file.read_bytes(), "toy", "1.0", "", types)]

    def open(self, file, options=USUAL):
        session = get("ort").open(file)
        session.runtime, session.runtime_version, session.device = "toy", "1.0", self.device()
        return session

    def layer_times(self, file, images, *, runs=50, options=USUAL):
        return ()


RUNTIME = Toy()
'''
CHANGES = {
    "a model": {
        "exporter/cnnx/models/toy.py": MODEL,
        "recipes/toy-net.toml": RECIPE,
        "exporter/cnnx/models/__init__.py": ("DEFINITIONS = {", '    "toy": "cnnx.models.toy:toy",'),
    },
    "a method": {
        "exporter/cnnx/quant/methods.py": (
            "METHODS: dict[",
            '    "toy-max": lambda seen, levels: 2 * maximum(seen, levels),',
        )
    },
    "a lint rule": {
        "exporter/cnnx/graph/lint/__init__.py": (
            "RULES = (",
            '    LintRule("toy-rule", "warning", lambda view: [("graph", "a toy saw it", "let it be")]),',
        )
    },
    "a runtime": {
        "exporter/cnnx/runtimes/toy/__init__.py": '"""A toy."""\n',
        "exporter/cnnx/runtimes/toy/runtime.py": RUNTIME,
        "exporter/cnnx/runtimes/__init__.py": ("NAMES = {", '    "toy": "cnnx.runtimes.toy.runtime",'),
    },
    "a report format": {
        "exporter/cnnx/report/files.py": (
            "FORMATS: dict[",
            '    ".toy": lambda document: f"{len(document.blocks)} blocks",',
        )
    },
    "an option": {
        "exporter/cnnx/options/networks.py": (
            "class ExportOptions(",
            '    toy_word: str = option("", "A word that changes nothing.")',
        )
    },
    "an option of another verb": {
        "exporter/cnnx/options/bundles.py": (
            "class BenchOptions(",
            '    toy_number: int = option(3, "A number that changes nothing.")',
        )
    },
}
PROMISED = {
    "a model": 3,
    "a method": 1,
    "a lint rule": 1,
    "a runtime": 3,
    "a report format": 1,
    "an option": 1,
    "an option of another verb": 1,
}


def apply(house, file, change):
    """Write a new file, or put a line in front of the first entry of a registry."""
    path = house / file
    if isinstance(change, str):
        path.parent.mkdir(exist_ok=True)
        path.write_text(change)
        return
    head, line = change
    lines = path.read_text().splitlines()
    at = next(i for i, text in enumerate(lines) if text.startswith(head)) + 1
    at += 2 if head.startswith("class") else 0  # past the docstring
    path.write_text("\n".join([*lines[:at], line, *lines[at:]]) + "\n")


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    copy = tmp_path_factory.mktemp("house")
    shutil.copytree(ROOT / "exporter", copy / "exporter", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "recipes", copy / "recipes")
    (copy / "calibration").symlink_to(ROOT / "calibration")
    shutil.copy(ROOT / "pyproject.toml", copy)
    for files in CHANGES.values():
        for file, change in files.items():
            apply(copy, file, change)
    return copy


def test_each_change_takes_as_few_files_as_are_promised():
    assert {what: len(files) for what, files in CHANGES.items()} == PROMISED


def cnnx(house, folder, *arguments, kind="gpu"):
    """Run a command of the copy, the toy runtime being on a device of that kind; its exit code and result."""
    code = "from cnnx.cli import main; main()"
    places = {"PYTHONPATH": str(house / "exporter"), "CNNX_CACHE": str(folder / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments, "--json"],
        cwd=folder,
        env={**os.environ, **places, "TOY_KIND": kind},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout).get("result", done.stdout)


def test_all_of_them_are_used(house, tmp_path):
    few = ["--calibration-images", "8", "--validation-images", "8", "--weights", "standin"]
    toys = ["--method", "toy-max", "--target", "toy", "--toy-word", "hello", "--report", "r.toy"]
    code, result = cnnx(house, tmp_path, "export", "toy-net", "--int8", *few, *toys, "--out", "b")
    assert code == 0, result
    assert [engine["runtime"] for engine in result["engines"]] == ["toy"]
    graph, engine = tmp_path / "b" / "model.onnx", tmp_path / "b" / "engines" / "toy-1" / "model.toy"
    assert engine.read_bytes() == graph.read_bytes()
    assert "toy-rule" in [warning["rule"] for warning in result["bundle"]["manifest"]["warnings"]]
    assert json.loads((tmp_path / "b" / "calibration.json").read_text())["method"] == "toy-max"
    assert (tmp_path / "r.toy").read_text().endswith(" blocks")
    for kind, shown in (("gpu", "Toy 1"), ("cpu", "CPU: Toy 1")):
        measured = ["bench", "b", "--target", "toy", "--toy-number", "4", "--seconds", "0.05"]
        code, result = cnnx(house, tmp_path, *measured, kind=kind)
        assert code in (0, 6), result  # a GPU's clocks, which nobody can tell here, may make it invalid
        subject = result["measurements"][0]["subject"]
        assert (subject["runtime"], subject["engine"]) == ("toy 1.0", "toy-1")
        assert (subject["device"], subject["device_kind"]) == (shown, kind)
