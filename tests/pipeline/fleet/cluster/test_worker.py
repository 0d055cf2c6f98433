"""The Python that measures: it must be new enough, and have this cnnx."""

import json
import sys
from importlib import metadata
from pathlib import Path

import pytest

from cnnx.errors import CnnxError, EnvironmentLacks, UsageError
from cnnx.pipeline.fleet.cluster.worker import worker_of


def program(tmp_path, text):
    """A program in place of a Python."""
    file = tmp_path / "python"
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)
    return file


def answering(tmp_path, **changed):
    answer = {"python": "3.10.12", "cnnx": metadata.version("cnnx"), "pytorch": "", "tensorrt": "10.3.0",
              "onnxruntime": "", "machine": "aarch64", **changed}  # fmt: skip
    return program(tmp_path, f"cat << 'E'\n{json.dumps(answer)}\nE")


def test_this_python_is_asked_by_default_and_finds_what_is_installed():
    worker = worker_of(None)
    assert worker.python == ".".join(map(str, sys.version_info[:3]))
    assert worker.cnnx == metadata.version("cnnx") and worker == worker_of(Path(sys.executable))


def test_another_python_may_differ_in_all_but_cnnx(tmp_path):
    worker = worker_of(answering(tmp_path))
    assert (worker.python, worker.tensorrt, worker.machine) == ("3.10.12", "10.3.0", "aarch64")


@pytest.mark.parametrize(
    ("changed", "says", "hint"),
    [
        ({"python": "3.9.18"}, "is 3.9.18; cnnx needs 3.10 or newer", "another Python"),
        ({"cnnx": "0.0.9"}, "has cnnx 0.0.9, and this one has", "-m pip install WHEEL"),
        ({"cnnx": ""}, "does not have cnnx", "-m pip install WHEEL"),
    ],
)
def test_one_that_does_not_fit_is_refused(tmp_path, changed, says, hint):
    with pytest.raises(EnvironmentLacks, match=says) as refused:
        worker_of(answering(tmp_path, **changed))
    assert hint in refused.value.hint and refused.value.where == str(tmp_path / "python")


@pytest.mark.parametrize(
    "text", ["exit 1", "echo oh >&2; exit 1", "echo no JSON", "echo '[]'", "echo '{}'", "kill -9 $$", ":"]
)
def test_a_program_that_is_not_python_is_refused(tmp_path, text):
    with pytest.raises(CnnxError) as refused:
        worker_of(program(tmp_path, text))
    assert refused.value.exit_code in (3, 4) and refused.value.hint


@pytest.mark.parametrize("path", ["python3", "/no/such/python", "/"])
def test_what_is_not_a_program_is_refused(path):
    with pytest.raises(UsageError, match="there is no program"):
        worker_of(Path(path))
    with pytest.raises(EnvironmentLacks, match="cannot be run"):
        worker_of(Path("/etc/hostname"))


def test_nothing_is_imported_from_the_working_folder(tmp_path, monkeypatch):
    (tmp_path / "json.py").write_text("raise SystemExit('ran')")
    monkeypatch.chdir(tmp_path)
    assert worker_of(Path(sys.executable)).cnnx
