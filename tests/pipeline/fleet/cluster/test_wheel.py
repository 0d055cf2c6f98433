"""The wheel that cnnx makes of itself, without a build tool."""

import os
import subprocess
import sys
import zipfile

import pytest

from cnnx.errors import InputRefused
from cnnx.pipeline.fleet.cluster.wheel import own_wheel, wheel_of_file, wheels_in
from tests.inputs.programs import run
from tools import ROOT


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    made = own_wheel()
    file = tmp_path_factory.mktemp("own") / made.name
    file.write_bytes(made.read())
    return file


def test_it_is_the_same_each_time_and_is_not_uploaded_twice(own):
    assert own_wheel().sha256 == wheel_of_file(own).sha256


@pytest.mark.slow
def test_it_has_the_files_that_a_build_has(own, tmp_path):
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, ROOT)
    built = zipfile.ZipFile(next(tmp_path.glob("*.whl")))
    made = zipfile.ZipFile(own)

    def content(archive):
        return {name: archive.read(name) for name in archive.namelist() if "__pycache__" not in name}

    theirs, ours = content(built), content(made)
    assert ours.keys() == theirs.keys()
    changed = {name for name in theirs if ours[name] != theirs[name]}
    # The metadata is that of the installation, which may be older than pyproject.toml.
    assert {name.rpartition("/")[2] for name in changed} <= {
        "RECORD",
        "WHEEL",
        "METADATA",
        "entry_points.txt",
    }


def test_pip_installs_it_and_it_runs(own, tmp_path):
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target"]
    run(*pip, tmp_path / "site", own)
    program = (
        "import cnnx, cnnx.resources as r; print(cnnx.__file__, r.shared_folder('recipes'), cnnx.__version__)"
    )
    elsewhere = {**os.environ, "PYTHONPATH": str(tmp_path / "site"), "PYTHONSAFEPATH": "1"}
    said = subprocess.check_output(
        [sys.executable, "-c", program], text=True, env=elsewhere, cwd=tmp_path
    ).split()
    assert [path.startswith(str(tmp_path / "site")) for path in said[:2]] == [True, True]
    assert own.name == f"cnnx-{said[2]}-py3-none-any.whl"


@pytest.mark.parametrize("name", ["-x.whl", "wheel.zip", "a b.whl", "a;b.whl"])
def test_what_is_not_a_wheel_is_refused(tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(InputRefused, match="not a wheel"):
        wheel_of_file(tmp_path / name)
    with pytest.raises(InputRefused):
        wheels_in(tmp_path)
