import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.inputs.programs import run
from tools import ROOT


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    """The wheel, built from this checkout by the build backend that the environment has."""
    pytest.importorskip("hatchling", reason="the build backend is not installed")
    out = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, ROOT)
    [built] = out.glob("*.whl")
    return built


def python310():
    """JetPack 6's Python, where there is one: on the path, or among pyenv's."""
    if found := shutil.which("python3.10"):
        works = subprocess.run([found, "-c", "import venv, ensurepip"], capture_output=True)
        if works.returncode == 0:
            return found
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    found = sorted(root.glob("versions/3.10.*/bin/python3.10"))
    return str(found[-1]) if found else None


@pytest.fixture
def venv310(tmp_path):
    """A virtual environment of Python 3.10 with nothing in it; gives its folder of programs."""
    interpreter = python310()
    if interpreter is None:
        pytest.skip("there is no Python 3.10 here")
    run(interpreter, "-m", "venv", tmp_path / "venv310")
    return tmp_path / "venv310" / "bin"
