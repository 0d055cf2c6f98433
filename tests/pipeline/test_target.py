"""Targets: what "auto" chooses, and a bundle from export to validation with imitated TensorRT bindings."""

from __future__ import annotations

import json
import shutil

import pytest

import cnnx
from cnnx import runtimes
from cnnx.errors import BundleError, EnvironmentLacks, MissingExtra, UsageError
from cnnx.pipeline.steps import engine as engine_steps
from cnnx.pipeline.target import choose_runtime
from cnnx.record import read_record
from cnnx.runtimes.trt import runtime as trt
from cnnx.runtimes.trt.runtime import TrtRuntime
from tests.doubles.imitated_trt import ImitatedBindings, machine

torch = pytest.importorskip("torch")


@pytest.fixture
def tensorrt(monkeypatch):
    """A machine with TensorRT and a GPU."""
    runtime = TrtRuntime(ImitatedBindings("11.4.0.106"))
    monkeypatch.setattr(trt, "RUNTIME", runtime)
    return runtime


@pytest.fixture
def bundle(tmp_path):
    images = {"validation_data": "digits", "validation_images": 8}
    return cnnx.export("lenet5", precision="fp16", out=tmp_path / "b", **images).bundle


def test_auto_uses_tensorrt_if_it_and_a_gpu_are_available(tensorrt, monkeypatch):
    assert choose_runtime("auto", ()) is tensorrt is choose_runtime("tensorrt", ())
    if runtimes.get("rtx").missing() is None:
        assert choose_runtime("auto", (86,)).name == "rtx"
    monkeypatch.setattr(tensorrt._bindings.device, "why_not", lambda: "no CUDA-capable device is detected")
    assert choose_runtime("auto", ()).name != "tensorrt"
    with pytest.raises(EnvironmentLacks, match="no CUDA-capable device"):
        choose_runtime("tensorrt", ())  # before anything is exported, as it builds where it runs


@pytest.mark.skipif(
    runtimes.get("rtx").missing() is not None or runtimes.get("rtx").cannot_run() is None,
    reason="needs TensorRT for RTX and no GPU",
)
def test_a_build_without_any_gpu_is_refused_before_the_export(tmp_path):
    told = []
    with pytest.raises(UsageError, match="no compute capability to build for"):
        cnnx.export("lenet5", target="rtx", out=tmp_path / "b", listener=told.append)
    assert not told and not (tmp_path / "b").exists()


@pytest.mark.skipif(trt.RUNTIME.missing() is None, reason="TensorRT is installed here")
def test_a_named_but_missing_tensorrt_reports_its_extra():
    with pytest.raises(type(trt.RUNTIME.missing())) as caught:
        choose_runtime("tensorrt", ())
    assert caught.value.exit_code == 4
    if isinstance(caught.value, MissingExtra):
        assert ".[tensorrt]" in caught.value.hint


def test_a_bundle_is_built_and_validated(tensorrt, bundle):
    result = cnnx.build(bundle.path, target="tensorrt")
    (engine,) = result.engines
    assert (engine.runtime, engine.runtime_version, engine.reach) == ("tensorrt", "11.4.0.106", "gpu")
    assert len(engine.timing_cache) == 64
    said = json.loads((bundle.path / "engines" / engine.identity / "engine.json").read_text())
    assert (said["timing_cache"], said["remarks"]) == (engine.timing_cache, [])
    validation = cnnx.validate(bundle.path).self_test
    assert (validation.subject.artefact, validation.subject.digest) == ("engine", engine.digest)
    assert validation.subject.runtime == "tensorrt 11.4.0.106"
    # Nothing is built again, although the timing cache has changed.
    assert cnnx.build(bundle.path, target="auto").engines[0].digest == engine.digest


def test_an_engine_whose_smallest_batch_is_large_is_validated_and_measured(tensorrt, tmp_path):
    """Validation runs eight images at a time, `survey --batches 16,32` exports for 16 to 32."""
    images = {"validation_data": "digits", "validation_images": 20}
    made = cnnx.export("lenet5", precision="fp16", out=tmp_path / "b", batch=(16, 32), target="ort", **images)
    cnnx.build(made.bundle.path, target="tensorrt")
    validation = cnnx.validate(made.bundle.path).self_test
    assert validation.subject.artefact == "engine" and validation.images == 20
    [measured] = cnnx.bench(made.bundle.path, batch=16, seconds=0.01, percentile=50).measurements
    assert measured.subject.artefact == "engine" and measured.latency.batch == 16


def test_machines_that_share_a_cache_never_share_an_engine(tensorrt, bundle, monkeypatch):
    """Once, without NVML, as on an older Jetson, a build's key contained neither board nor device."""

    def builds(board, device):
        monkeypatch.setattr(engine_steps, "detect", lambda: machine(board))
        monkeypatch.setattr(tensorrt._bindings.device, "device_name", lambda: device)
        before = len(tensorrt._bindings.loaded.trt.configs)
        cnnx.build(bundle.path, target="tensorrt")
        return len(tensorrt._bindings.loaded.trt.configs) - before

    nx, agx = "NVIDIA Jetson Orin NX", "NVIDIA Jetson AGX Orin"
    assert [builds(nx, "Orin"), builds(nx, "Orin"), builds(agx, "Orin"), builds(agx, "Other")] == [1, 0, 1, 1]


def test_an_engine_of_a_different_release_is_refused_naming_both(tensorrt, bundle, monkeypatch):
    cnnx.build(bundle.path, target="tensorrt")
    monkeypatch.setattr(trt, "RUNTIME", TrtRuntime(ImitatedBindings("10.3.0")))
    with pytest.raises(
        BundleError, match=r"11\.4\.0\.106 \(runtime\), but this machine has tensorrt 10\.3\.0"
    ):
        cnnx.validate(bundle.path)
    # An engine built here is found next to it.
    cnnx.build(bundle.path, target="tensorrt")
    assert cnnx.validate(bundle.path).self_test.subject.runtime == "tensorrt 10.3.0"


def test_builder_options_reach_the_engine(tensorrt, bundle, cnnx_command):
    options = ["--workspace", "64", "--optimization-level", "2", "--version-compatible", "--json"]
    code, out, _ = cnnx_command("build", bundle.path, "--target", "tensorrt", *options)
    assert code == 0
    (engine,) = json.loads(out)["result"]["engines"]
    assert engine["identity"].endswith("-version-compatible") and engine["version_compatible"]
    made, config = tensorrt._bindings.loaded.trt, tensorrt._bindings.config
    assert config.limits == {made.MemoryPoolType.WORKSPACE: 64 << 20}
    assert config.builder_optimization_level == 2
    for other in bundle.path.glob("engines/*"):
        if other.name != engine["identity"]:
            shutil.rmtree(other)
    # Like TensorRT, the imitation refuses such an engine unless its host code may run.
    assert cnnx.validate(bundle.path).self_test.subject.digest == engine["digest"]
    measured = cnnx.bench(bundle.path, seconds=0.01, percentile=50, layers=True).measurements[0]
    assert measured.subject.digest == engine["digest"] and measured.layers is not None


def test_one_of_several_engines_is_chosen_by_name(tensorrt, bundle):
    usual = cnnx.build(bundle.path, target="tensorrt").engines[0].identity
    options = cnnx.BuildOptions(hardware_compatibility="ampere_plus")
    other = cnnx.build(bundle.path, target="tensorrt", options=options).engines[0].identity
    assert sorted((usual, other)) == sorted(one.name for one in (bundle.path / "engines").iterdir())
    options = cnnx.BuildOptions(version_compatible=True)
    third = cnnx.build(bundle.path, target="tensorrt", options=options).engines[0].identity

    told = []
    judged = cnnx.validate(bundle.path, listener=told.append)
    assert judged.self_test.subject.engine == usual
    (remark,) = [event.step for event in told if event.note]
    assert other in remark and third in remark and "--engine" in remark
    told.clear()
    judged = cnnx.validate(bundle.path, engine=other, listener=told.append)
    assert judged.self_test.subject.engine == other and not [event for event in told if event.note]
    assert read_record(next(iter(sorted(bundle.path.glob("runs/*"), reverse=True)))).subject.engine == other
    [measured] = cnnx.bench(bundle.path, engine=third, seconds=0.01, percentile=50).measurements
    assert (
        measured.subject.engine == third and third in str(measured.subject) and usual not in measured.remark
    )
    [measured] = cnnx.bench(bundle.path, seconds=0.01, percentile=50).measurements
    assert measured.subject.engine == usual and third in measured.remark
    cnnx.load(bundle.path, engine=other).close()


def test_an_engine_that_is_not_in_the_bundle(tensorrt, bundle, monkeypatch, cnnx_command):
    shutil.rmtree(bundle.path / "engines")
    code, _, said = cnnx_command("validate", bundle.path, "--engine", "nope")
    assert code == 2 and "cnnx build" in " ".join(said.split())
    identity = cnnx.build(bundle.path, target="tensorrt").engines[0].identity
    code, _, said = cnnx_command("bench", bundle.path, "--engine", "nope")
    assert code == 2 and f"choose one of: {identity}" in " ".join(said.split())
    with pytest.raises(UsageError, match="is for tensorrt, not for ort"):
        cnnx.validate(bundle.path, target="ort", engine=identity)
    monkeypatch.setattr(tensorrt._bindings.device, "why_not", lambda: "no CUDA-capable device is detected")
    with pytest.raises(EnvironmentLacks, match="no CUDA-capable device"):
        cnnx.validate(bundle.path, engine=identity)


def test_options_of_tensorrt_are_refused_by_others(bundle, cnnx_command):
    for target, says in (("rtx", "does not support TensorRT's build options"), ("ort", "builds no engines")):
        if runtimes.get(target).missing() is not None:
            continue
        gpu = ["--sm", "86"] if target == "rtx" else []
        code, _, said = cnnx_command("build", bundle.path, "--target", target, "--dla", "0", *gpu)
        assert code == 2 and says in " ".join(said.split())


def test_remarks_of_a_build_are_shown(bundle, monkeypatch, cnnx_command):
    says = [("WARNING", "Skipping tactic 3 due to insufficient memory on requested size of 448 detected.")]
    monkeypatch.setattr(trt, "RUNTIME", TrtRuntime(ImitatedBindings("10.3.2", says=says)))
    code, out, _ = cnnx_command("build", bundle.path, "--target", "tensorrt")
    assert code == 0 and "1 tactic was skipped for lack of memory" in out


def test_doctor_reports_that_tensorrt_builds_only_where_it_runs():
    abilities = {ability.what: ability for ability in cnnx.doctor().abilities}
    build, run = abilities["build engines with tensorrt"], abilities["run and validate with tensorrt"]
    assert (build.able, build.reason) == (run.able, run.reason)
