"""`cnnx preflight`: planted mismatches are named with both sides and what fixes them; nothing is loaded."""

import dataclasses
import json
import shutil
import struct
import subprocess
import sys
from types import SimpleNamespace

import pytest

import cnnx
from cnnx import runtimes
from cnnx.bundle import Bundle
from cnnx.bundle.plan import PlanHeader, read_plan_header
from cnnx.errors import MissingExtra
from cnnx.machine.environment import Gpu, detect
from cnnx.machine.packages import Package
from cnnx.pipeline.preflight import preflight as module
from cnnx.pipeline.preflight.checks import driver_check, engine_checks
from cnnx.stats import Verdict
from tests.bundle.test_bundle import engine_of
from tests.conftest import invoke

ORIN = "NVIDIA Jetson AGX Orin Developer Kit"
GPU = Gpu("Orin (nvgpu)", 87, "540.4.0", None, "12.6")
HERE = dataclasses.replace(
    detect(), machine="aarch64", gpu=GPU, board=ORIN, l4t="36.4.3", cuda=(), tensorrt=(), packages={}
)


def plan(release, magic=b"ftrt"):
    """The head of a plan of TensorRT, and something behind it."""
    return magic + bytes(4) + struct.pack("<IIII", 2, 0, 999, 0) + bytes((*release, 7)) + bytes(100)


@pytest.fixture
def bundle(tiny_bundle, tmp_path):
    """A bundle with an engine of TensorRT 10.3.0 from this Orin, for DLA core 1."""
    path = shutil.copytree(tiny_bundle, tmp_path / "b")
    shutil.rmtree(path / "engines", ignore_errors=True)
    (tmp_path / "plan").write_bytes(plan((10, 3, 0)))
    opened = Bundle.open(path)
    engine = dataclasses.replace(
        engine_of(opened, tmp_path / "plan"),
        identity="trt-10.3.0-orin",
        runtime="tensorrt",
        runtime_version="10.3.0.30",
        target="sm87",
        reach="gpu",
        dla_core=1,
        environment=json.loads(json.dumps(HERE.as_dict())),
    )
    opened.add_engine(engine, tmp_path / "plan")
    return path


def engine_in(bundle):
    [engine] = Bundle.open(bundle).engines()
    return engine


def differing(bundle, here=HERE, version="10.3.0.30", **changes):
    engine = dataclasses.replace(engine_in(bundle), **changes)
    checks = list(engine_checks(engine, here, version=version, bundle=bundle))
    return {check.name: check for check in checks if check.outcome == "differs"}


def test_an_engine_fits_the_machine_that_built_it(bundle):
    assert differing(bundle) == {}
    assert [
        check.outcome for check in engine_checks(engine_in(bundle), HERE, version="10.3.0.30", bundle=bundle)
    ] == ["fits"] * 8


MISMATCHES = {
    "runtime": ({"version": "10.7.0.23"}, {}, ("10.3.0.30", "10.7.0.23")),
    "no runtime": ({"version": None}, {}, ("10.3.0.30", "not installed")),
    "plan": ({}, {"runtime_version": "10.4.0.26"}, ("tensorrt 10.4.0", "tensorrt 10.3.0 in its header")),
    "architecture": ({"machine": "x86_64"}, {}, ("aarch64", "x86_64")),
    "GPU architecture": ({"gpu": dataclasses.replace(GPU, compute_capability=89)}, {}, ("sm87", "sm89")),
    "GPU too old": (
        {"gpu": dataclasses.replace(GPU, compute_capability=75)},
        {"reach": "ampere_plus"},
        ("sm80 or newer", "sm75"),
    ),
    "GPU model": ({"gpu": dataclasses.replace(GPU, name="NVIDIA A40")}, {}, ("Orin (nvgpu)", "NVIDIA A40")),
    "board": ({"board": "NVIDIA Jetson AGX Xavier"}, {}, (ORIN, "NVIDIA Jetson AGX Xavier")),
    "DLA": ({"board": "NVIDIA Jetson Orin Nano"}, {}, ("core 1", "0 cores")),
    "Jetson Linux": ({"l4t": "38.2.0"}, {}, ("36.4.3", "38.2.0")),
}  # fmt: skip


@pytest.mark.parametrize("planted", MISMATCHES)
def test_a_planted_mismatch_is_named_with_both_sides_and_the_command_that_fixes_it(bundle, planted):
    changed, of_engine, sides = MISMATCHES[planted]
    version = changed.get("version", "10.3.0.30") if "runtime_version" not in of_engine else "10.4.0.26"
    here = dataclasses.replace(HERE, **{key: value for key, value in changed.items() if key != "version"})
    found = differing(bundle, here, version, **of_engine)
    name = {"no runtime": "runtime", "GPU too old": "GPU architecture"}.get(planted, planted)
    check = found[name]
    assert (check.bundle, check.machine) == tuple(
        f"tensorrt {side}" if name == "runtime" else side for side in sides
    )
    assert check.fix == f"build it on this machine: cnnx build {bundle} --target tensorrt"
    assert set(found) <= {name, *({"board", "DLA"} if name in ("board", "DLA") else ())}


def test_version_compatible_engines_go_to_newer_releases_and_others_to_none(bundle):
    for version, fits in (
        ("10.3.0.30", True),
        ("10.9.1", True),
        ("10.2.9", False),
        ("nonsense", False),
        (None, False),
    ):
        assert ("runtime" not in differing(bundle, version=version, version_compatible=True)) == fits
    assert "runtime" in differing(bundle, version="10.9.1")


def test_what_is_not_known_refuses_nothing(bundle):
    here = dataclasses.replace(HERE, gpu=None, board="NVIDIA Jetson of tomorrow", l4t=None)
    engine = dataclasses.replace(engine_in(bundle), environment={}, reach="compute_capability", target="")
    found = {
        each.name: each.outcome for each in engine_checks(engine, here, version="10.3.0.30", bundle=bundle)
    }
    assert found == {
        "runtime": "fits",
        "plan": "fits",
        "architecture": "unknown",
        "GPU architecture": "unknown",
        "DLA": "unknown",
    }


def test_a_driver_older_than_the_installed_cuda_is_named():
    cuda = (Package("nvidia-cuda-runtime", "13.0.48", "wheel"),)
    old = driver_check(dataclasses.replace(HERE, cuda=cuda))
    assert old.outcome == "differs" and (old.bundle, old.machine) == (
        "CUDA 13",
        "driver 540.4.0, for CUDA up to 12.6",
    )
    assert "cnnx doctor" in old.fix
    new = dataclasses.replace(GPU, cuda="13.1")
    assert driver_check(dataclasses.replace(HERE, cuda=cuda, gpu=new)).outcome == "fits"
    assert driver_check(HERE).outcome == "unknown"
    assert driver_check(dataclasses.replace(HERE, gpu=None)) is None


def test_damage_memory_packages_and_a_missing_gpu_are_found_by_the_command(bundle, monkeypatch):
    monkeypatch.setattr(module, "free_memory_bytes", lambda: 1024)
    monkeypatch.setattr(module, "detect", lambda: dataclasses.replace(HERE, gpu=None, l4t=None, board=None))
    plan_file = bundle / "engines" / engine_in(bundle).identity / engine_in(bundle).file
    plan_file.write_bytes(plan((10, 3, 0)) + b"damage")
    (bundle / "model.onnx").write_bytes((bundle / "model.onnx").read_bytes() + b"\n")
    found = {check.name: check for check in cnnx.preflight(bundle).checks if check.outcome == "differs"}
    assert {"files", "engine file", "GPU"} <= set(found)
    assert "model.onnx" in found["files"].machine and found["GPU"].fix.startswith("copy the bundle")
    done = invoke("preflight", bundle)
    assert done.exit_code == 3 and "differs" in done.stdout and "cnnx build" in done.stdout


def test_memory_and_packages_that_are_missing_here_are_found(bundle, monkeypatch):
    monkeypatch.setattr(module, "free_memory_bytes", lambda: 1024)
    monkeypatch.setattr(
        module, "missing", lambda _preprocessing: MissingExtra("opencv", "opencv", purpose="it")
    )
    found = {check.name: check for check in cnnx.preflight(bundle).checks if check.outcome == "differs"}
    assert found["memory"].machine == "0 MiB free" and "smaller --batch" in found["memory"].fix
    assert found["preprocessing"].machine == "not installed" and found["preprocessing"].fix
    assert invoke("preflight", bundle).exit_code == 4


@pytest.mark.parametrize("verdict", [Verdict.PASSED, Verdict.FAILED])
def test_a_rebuilt_engine_counts_only_if_it_passes_the_self_test(bundle, monkeypatch, verdict):
    """The engine is of another machine; what would build and test it here is replaced."""
    engine = engine_in(bundle)
    asked = []

    def build(path, *, target, listener):
        asked.append(target)
        return SimpleNamespace(engines=[engine])

    monkeypatch.setattr("cnnx.pipeline.build.build", build)
    tested = SimpleNamespace(verdict=verdict)
    monkeypatch.setattr("cnnx.pipeline.validate.validate", lambda *_, **__: tested)
    result = cnnx.preflight(bundle, rebuild=True)
    assert asked == ["tensorrt"] and result.exit_code == 4
    passed = verdict is Verdict.PASSED
    assert result.rebuilt == ((engine.identity,) if passed else ())
    [check] = [each for each in result.checks if each.name == "self-test"]
    assert check.outcome == ("fits" if passed else "differs") and bool(check.fix) != passed


def test_a_bundle_without_engines_runs_anywhere(tiny_bundle):
    assert Bundle.open(tiny_bundle).engines() == ()
    done = invoke("preflight", tiny_bundle, "--json")
    result = json.loads(done.stdout)["result"]
    assert done.exit_code == 0 and result["ready"] == [] and result["checks"][0]["outcome"] == "fits"
    assert "cnnx build makes one" in invoke("preflight", tiny_bundle, "--rebuild").stdout


def test_headers_of_plans_are_read_and_nothing_else_is_taken_for_one(tmp_path):
    file = tmp_path / "plan"
    for content, expected in (
        (plan((10, 3, 0)), PlanHeader("tensorrt", "10.3.0")),
        (plan((1, 7, 1), b"vtrt"), PlanHeader("rtx", "1.7.1")),
        (plan((10, 3, 0))[:27], None),
        (plan((10, 3, 0), b"PK\x03\x04"), None),
        (b"ftrt\x01\x00\x00\x00" + plan((10, 3, 0))[8:], None),
        (b"", None),
    ):
        file.write_bytes(content)
        assert read_plan_header(file) == expected


def test_a_plan_of_rtx_has_the_header_that_is_read(tmp_path):
    if reason := runtimes.get("rtx").missing():
        pytest.skip(str(reason))
    result = cnnx.export("lenet5", precision="fp16", out=tmp_path / "net", target="rtx", sm=(86,))
    [engine] = result.engines
    header = read_plan_header(tmp_path / "net" / "engines" / engine.identity / engine.file)
    assert header == PlanHeader("rtx", ".".join(engine.runtime_version.split(".")[:3]))


def test_a_preflight_loads_no_runtime(bundle):
    code = (
        "import sys, cnnx; cnnx.preflight(sys.argv[1]);"
        "print([name for name in ('torch', 'tensorrt', 'onnxruntime') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, bundle], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
