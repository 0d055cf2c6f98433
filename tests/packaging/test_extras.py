"""No extra that is meant for a Jetson may replace what JetPack ships."""

import json
import subprocess
import sys
import zipfile
from email.parser import Parser

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement

JETPACK6 = {
    **default_environment(),
    "platform_machine": "aarch64",
    "python_version": "3.10",
    "python_full_version": "3.10.12",
}
FOR_JETSON = ("", "report")
X86_ONLY = ("gpu", "tensorrt", "pycuda", "rtx")
SHIPPED_BY_JETPACK = ("torch", "tensorrt", "onnxruntime", "pycuda", "nvidia-cuda")


@pytest.fixture(scope="module")
def metadata(wheel):
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return Parser().parsestr(archive.read(name).decode())


def required(metadata, extra):
    """What an extra (or the core, "") asks for on a Jetson with JetPack 6."""
    found = []
    for text in metadata.get_all("Requires-Dist"):
        requirement = Requirement(text)
        wanted = requirement.marker is None or requirement.marker.evaluate({**JETPACK6, "extra": extra})
        if wanted and (extra == "" or "extra ==" in text):
            found.append(requirement)
    return found


@pytest.mark.slow
def test_extras_for_a_jetson_name_nothing_that_jetpack_ships(metadata):
    extras = set(metadata.get_all("Provides-Extra"))
    assert extras == {"export", "cpu", "gpu", "tensorrt", "pycuda", "rtx", "report", "dev"}
    for extra in FOR_JETSON:
        for requirement in required(metadata, extra):
            assert not requirement.name.startswith(SHIPPED_BY_JETPACK), (extra, requirement.name)
            if requirement.name == "numpy":
                assert "1.26.4" in requirement.specifier
    for extra in X86_ONLY:
        assert required(metadata, extra) == [], extra


@pytest.mark.slow
@pytest.mark.parametrize("extra", FOR_JETSON)
def test_pip_resolves_for_jetpack_6_without_them(wheel, tmp_path, extra):
    """pip itself, dry, for 64-bit Arm and Python 3.10. It evaluates markers on the machine it runs on, so
    what x86-64 alone gets is judged by the test above."""
    platforms = [f"--platform=manylinux_2_{n}_aarch64" for n in (17, 26, 27, 28, 31, 34, 35)]
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--ignore-installed"]
    command += ["--report", "-", "--target", str(tmp_path), "--only-binary=:all:", "--python-version=3.10"]
    command += [
        *platforms,
        "--platform=manylinux2014_aarch64",
        "numpy<2",
        f"{wheel}[{extra}]".replace("[]", ""),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if done.returncode and ("connection" in done.stderr.lower() or "network" in done.stderr.lower()):
        pytest.skip("no package index can be reached")
    assert done.returncode == 0, done.stderr
    installed = [item["metadata"] for item in json.loads(done.stdout)["install"]]
    names = {item["name"].lower(): item["version"] for item in installed}
    assert {"cnnx", "onnx", "numpy", "typer"} <= set(names)
    assert [name for name in names if name.startswith(SHIPPED_BY_JETPACK)] == []
    assert names["numpy"].startswith("1.")
