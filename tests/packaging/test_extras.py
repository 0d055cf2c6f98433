"""No extra that is meant for a Jetson may replace what JetPack ships."""

import json
import zipfile
from email.parser import Parser

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement

from tests.inputs.programs import pip

JETPACK6 = {
    **default_environment(),
    "platform_machine": "aarch64",
    "python_version": "3.10",
    "python_full_version": "3.10.12",
}
FOR_JETSON = ("", "report", "sign", "fleet")
X86_ONLY = ("gpu", "tensorrt", "tensorrt-cu12", "pycuda", "rtx", "rtx-cu12", "opencv")
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
    assert extras == {*X86_ONLY, "export", "cpu", "report", "sign", "fleet", "dev"}
    for extra in FOR_JETSON:
        for requirement in required(metadata, extra):
            assert not requirement.name.startswith(SHIPPED_BY_JETPACK), (extra, requirement.name)
            if requirement.name == "numpy":
                assert "1.26.4" in requirement.specifier and "2.0.0" not in requirement.specifier
    for extra in X86_ONLY:
        assert required(metadata, extra) == [], extra


@pytest.mark.slow
def test_pip_resolves_for_jetpack_6_without_them(wheel, venv310, tmp_path):
    """pip itself, dry, for 64-bit Arm and Python 3.10: all extras at once, so each alone, too.

    It evaluates markers on the machine that it runs on: what x86-64 alone gets is judged by the test above.
    """
    platforms = [f"manylinux_2_{n}_aarch64" for n in (17, 26, 27, 28, 31, 34, 35)]
    options = ["--dry-run", "--ignore-installed", "--only-binary=:all:", "--report=-"]
    options += [f"--platform={each}" for each in (*platforms, "manylinux2014_aarch64")]
    pip(venv310, "--upgrade", "pip")  # the one that came with it knows no --report
    extras = ",".join(filter(None, FOR_JETSON))
    plan = json.loads(pip(venv310, *options, f"--target={tmp_path}", f"{wheel}[{extras}]"))
    names = {each["metadata"]["name"].lower(): each["metadata"]["version"] for each in plan["install"]}
    assert {"cnnx", "onnx", "numpy", "typer"} <= set(names)
    assert [name for name in names if name.startswith(SHIPPED_BY_JETPACK)] == []
    assert names["numpy"].startswith("1.26")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("extra", "installed", "becomes"), [("", "1.21.6", "1.26"), ("[export,cpu,report]", "1.26.0", None)]
)
def test_on_python_310_numpy_stays_below_2(wheel, venv310, extra, installed, becomes):
    pip(venv310, "--upgrade", "pip")
    pip(venv310, f"numpy=={installed}")
    plan = json.loads(pip(venv310, "--dry-run", "--report", "-", f"{wheel}{extra}"))
    names = {each["metadata"]["name"]: each["metadata"]["version"] for each in plan["install"]}
    assert {"cnnx", "onnx"} <= set(names)
    found = names.get("numpy")
    assert found is None if becomes is None else found.startswith(becomes)
