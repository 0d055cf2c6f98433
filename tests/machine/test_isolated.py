"""Nothing is run that lies in the working directory."""

from __future__ import annotations

import os
import sys

import onnx
import pytest

from cnnx.machine.isolated import environment, import_path
from tests.doubles import power_trees
from tests.inputs import programs
from tests.inputs.tiny import tiny_graph
from tests.inputs.traps import CHILDREN, set_traps
from tools import ROOT

SOURCES = str(ROOT / "exporter")


def run(*command, cwd, **variables):
    return programs.run(*command, cwd=cwd, env={**os.environ, "PYTHONPATH": SOURCES, **variables})


def test_our_processes_run_nothing_from_the_working_directory(tmp_path):
    sprung = set_traps(tmp_path / "traps")
    power_trees.orin_nx(tmp_path / "tree")
    onnx.save(tiny_graph(), tmp_path / "tiny.onnx")
    (tmp_path / "children.py").write_text(CHILDREN)
    run(
        sys.executable,
        tmp_path / "children.py",
        tmp_path / "traps",
        tmp_path / "tree",
        tmp_path / "tiny.onnx",
        cwd=tmp_path,
    )
    assert sprung() == []
    run(sys.executable, "-c", "import numpy", cwd=tmp_path / "traps")
    assert sprung() == ["numpy.py"]


def test_the_command_runs_nothing_from_the_working_directory(tmp_path):
    # A package cnnx there is what -m means, and what Python itself imports to run it comes before us.
    sprung = set_traps(tmp_path / "traps", package=False)
    (tmp_path / "traps" / "runpy.py").unlink()
    search = os.pathsep.join(["", os.environ["PATH"]])
    for verb in (["list"], ["doctor"]):
        run(sys.executable, "-m", "cnnx", *verb, cwd=tmp_path / "traps", PATH=search)
    assert sprung() == []


@pytest.mark.parametrize(
    ("given", "stays"),
    [("", False), (os.pathsep + "/opt/x", False), (".", False), ("/opt/x", False), ("HERE", True)],
)
def test_the_working_directory_is_imported_from_only_where_pythonpath_names_it(
    tmp_path, monkeypatch, given, stays
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", given.replace("HERE", str(tmp_path)))
    link = tmp_path.parent / f"{tmp_path.name}-link"
    link.symlink_to(tmp_path)
    found = import_path(["", ".", str(tmp_path), str(link), "/opt/x", "inside"])
    ours = [str(tmp_path), str(tmp_path), str(link)] if stays else []
    assert found == [*ours, "/opt/x", str(tmp_path / "inside")]


def test_search_paths_name_absolute_folders_only(monkeypatch):
    monkeypatch.setenv("PATH", "::/usr/bin:.:bin:/bin:")
    monkeypatch.setenv("LD_LIBRARY_PATH", ":")
    monkeypatch.setenv("PYTHONPATH", "")
    cleaned = environment()
    assert cleaned["PATH"] == "/usr/bin:/bin"
    assert "LD_LIBRARY_PATH" not in cleaned and "PYTHONPATH" not in cleaned
