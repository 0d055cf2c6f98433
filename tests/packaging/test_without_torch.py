"""A finished bundle on a machine without PyTorch, as a Jetson is."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import run

BLOCKED = """
import sys
class NoTorch:
    def find_spec(self, name, *_):
        if name.split(".")[0] == "torch":
            raise ModuleNotFoundError("No module named 'torch'", name="torch")
sys.meta_path.insert(0, NoTorch())
from cnnx.cli import main
main()
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    pytest.importorskip("torch", reason="the bundle is exported from PyTorch")
    import cnnx

    return cnnx.export("lenet5", precision="int8", out=tmp_path_factory.mktemp("b") / "bundle").bundle.path


def python310():
    """JetPack 6's Python, where there is one: on the path, or among pyenv's."""
    if found := shutil.which("python3.10"):
        works = subprocess.run([found, "-c", "import venv, ensurepip"], capture_output=True)
        if works.returncode == 0:
            return found
    roots = [Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))]
    found = sorted(path for root in roots for path in root.glob("versions/3.10.*/bin/python3.10"))
    return str(found[-1]) if found else None


def use(command, bundle):
    """Every verb on a finished bundle; each must succeed and print its one object."""
    for verb, *options in (["inspect"], ["validate"], ["bench", "--seconds", "0.2"]):
        done = command(verb, bundle, *options, "--json")
        assert done.returncode == 0, (verb, done.stdout, done.stderr)
        assert json.loads(done.stdout)["command"] == verb
        if verb == "validate":
            assert json.loads(done.stdout)["result"]["validation"]["verdict"] == "passed"


def test_no_verb_on_a_bundle_imports_torch(bundle, tmp_path):
    def command(*arguments):
        return subprocess.run(
            [sys.executable, "-c", BLOCKED, *map(str, arguments)],
            capture_output=True,
            text=True,
            cwd=tmp_path,
        )

    use(command, bundle)
    built = command("build", bundle, "--target", "rtx", "--sm", "86", "--json")
    assert built.returncode == 0 or "cnnx[rtx]" in built.stdout
    exported = command("export", "lenet5", "--scales", "fp32", "--batch", "1..3")
    assert exported.returncode == 4 and "cnnx[export]" in exported.stderr, exported.stderr


@pytest.mark.slow
def test_a_bundle_works_on_python_310_without_torch(bundle, wheel, tmp_path):
    interpreter = python310()
    if interpreter is None:
        pytest.skip("there is no Python 3.10 here")
    run(interpreter, "-m", "venv", tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    installed = subprocess.run(
        [python, "-m", "pip", "install", "--quiet", f"{wheel}[cpu]", "numpy<2"],
        capture_output=True,
        text=True,
    )
    if installed.returncode:
        pytest.skip(f"no package index can be reached: {installed.stderr.splitlines()[-1]}")
    taken = tmp_path / "taken-along"
    shutil.copytree(bundle, taken)

    def command(*arguments):
        program = tmp_path / "venv" / "bin" / "cnnx"
        return subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, cwd=tmp_path)

    assert subprocess.run([python, "-c", "import torch"], capture_output=True).returncode == 1
    use(command, taken)
    built = command("build", taken, "--target", "rtx", "--sm", "86")
    assert built.returncode == 4 and "cnnx[rtx]" in built.stderr
