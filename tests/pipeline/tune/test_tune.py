"""`tune` on ONNX Runtime's integer kernels and on an imitation of TensorRT."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import cnnx
from cnnx.bundle import Bundle
from cnnx.errors import BuildFailed, BundleError, CnnxError, EnvironmentLacks, UsageError
from cnnx.measure.samples import Latency
from cnnx.pipeline.progress import Steps
from cnnx.pipeline.source import read_source
from cnnx.pipeline.tune import device
from cnnx.pipeline.tune import tune as verb
from cnnx.runtimes.trt import runtime as trt
from cnnx.runtimes.trt.runtime import TrtRuntime
from cnnx.stats import Verdict
from cnnx.store.cache import Store
from cnnx.store.digests import digest_of_file
from tests.conftest import invoke
from tests.doubles.imitated_trt import ImitatedBindings
from tests.inputs.graphs import residual

FEW = {"color": "rgb", "calibration_data": "digits", "validation_data": "digits", "calibration_images": 16}
SHORT = {"target": "ort", "budget": 0.1, "images": 16, "batch": 1}


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> dict[str, Path]:
    """A residual network, by precision, with its source; and one without."""
    folder, made = tmp_path_factory.mktemp("tuned"), {}
    file = folder / "net.onnx"
    onnx.save(residual(), file)
    more = {**FEW, "validation_images": 16, "target": "ort", "batch": (1, 2)}
    for name, options in {
        "int8": {"precision": "int8", "scales": "fp32", "with_source": True, "input": "uint8-nhwc"},
        "fp16scales": {"precision": "int8", "with_source": True},
        "fp16": {"precision": "fp16", "with_source": True},
        "bare": {"precision": "int8"},
    }.items():
        made[name] = cnnx.export(str(file), out=folder / name, **more, **options).bundle.path
    return made


@pytest.fixture(autouse=True)
def few_builds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verb, "BUILDS", 6)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times that are drawn instead of measured: the more engines are compared, the faster the last."""

    def measured(sessions: Any, _images: Any, *, batch: int, **_limits: Any) -> dict[str, Latency]:
        draw = np.random.default_rng(len(sessions))
        found = {}
        for place, name in enumerate(sessions):
            times = 1e6 * (1 - 0.03 * place) * (1 + 0.01 * draw.standard_normal(200))
            found[name] = Latency(tuple(map(int, times)), batch, 0, "steady", complete=True)
        return found

    monkeypatch.setattr(device, "measure_side_by_side", measured)


@pytest.fixture
def tensorrt(monkeypatch: pytest.MonkeyPatch) -> Any:
    def install(runtime: TrtRuntime | None = None, **behaviour: Any) -> None:
        found = runtime or TrtRuntime(ImitatedBindings("11.4.0.106", **behaviour))
        monkeypatch.setattr(trt, "RUNTIME", found)

    return install


def contents(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): digest_of_file(file) for file in folder.rglob("*") if file.is_file()
    }


@pytest.fixture
def journals(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Function that lists the journals in a cache of the test's own."""
    monkeypatch.setenv("CNNX_CACHE", str(tmp_path / "own-cache"))
    return lambda: [*Store().root.glob("tune*/.*.partial")]


def test_a_new_bundle_has_the_graph_that_was_measured_and_the_old_one_stays(
    bundles: dict[str, Path], journals: Any, tmp_path: Path
) -> None:
    before = contents(bundles["int8"])
    done = invoke("tune", bundles["int8"], *_flags(SHORT), "--out", tmp_path / "b", "--json")
    assert done.exit_code in (0, 6), done.output
    assert contents(bundles["int8"]) == before
    result = json.loads(done.stdout)["result"]
    tuning, new = result["tuning"], Bundle.open(tmp_path / "b")
    # Its own source and recipe give its graph: every node of it was measured.
    again = read_source(new).write_typed(_folder(tmp_path / "again"))
    assert digest_of_file(again) == new.manifest.files["model.onnx"]
    chosen = next(each for each in tuning["placements"] if "chosen" in each["roles"])
    sites = {each["name"]: each for each in tuning["sites"]}
    quantized = {layer["node"] for layer in new.manifest.layers if layer["precision"] == "int8"}
    assert quantized == {name for name, each in sites.items() if each["chosen"] and not each["shortcut"]}
    assert chosen["layers"] == len(quantized) and chosen["passes"] and chosen["raced"]
    base = next(each for each in tuning["placements"] if "fp16" in each["roles"])
    assert base["ratio"] == 1 and chosen["interval"]["low"] <= 1  # never slower beyond the interval
    assert 2 <= len(tuning["placements"]) <= 6 and tuning["base"] == "fp32"
    kinds = [record.kind for record in new.records()]
    assert sorted(kinds) == ["tuning", "validation"] and not journals()
    self_tested = cnnx.validate(new.path, target="ort")
    assert self_tested.verdict is Verdict.PASSED
    assert cnnx.diagnose(new.path, images=8).findings.layers is not None
    for suffix, says in {"html": "Placement of Q/DQ", "md": "All placements"}.items():
        cnnx.write_report(new.path, tmp_path / f"r.{suffix}")
        assert says in (tmp_path / f"r.{suffix}").read_text()


def _flags(options: dict[str, Any]) -> list[str]:
    return [text for key, value in options.items() for text in (f"--{key.replace('_', '-')}", str(value))]


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


def test_a_tuned_bundle_can_be_tuned_again_from_all_sites(
    bundles: dict[str, Path], quick: None, tmp_path: Path
) -> None:
    first = cnnx.tune(bundles["int8"], out=tmp_path / "a", **SHORT)
    again = cnnx.tune(tmp_path / "a", **SHORT)
    assert again.bundle is not None and again.bundle.path == tmp_path / "a-tuned"
    assert [site.name for site in again.tuning.sites] == [site.name for site in first.tuning.sites]
    assert [site.given for site in again.tuning.sites] == [site.chosen for site in first.tuning.sites]
    text = repr(again)
    assert "Pareto front" in text and "the bundle's" in text and "cnnx bench" in text


def test_the_engine_in_the_bundle_is_the_one_that_was_measured(
    bundles: dict[str, Path], tensorrt: Any, quick: None, tmp_path: Path
) -> None:
    plans: list[bytes] = []

    class Remembering(TrtRuntime):
        def build(self, onnx_file: Path, request: Any) -> Any:
            built = super().build(onnx_file, request)
            plans.extend(each.plan for each in built)
            return built

    tensorrt(Remembering(ImitatedBindings("11.4.0.106")))
    options = {**SHORT, "target": "tensorrt", "batch": 2}
    result = cnnx.tune(bundles["fp16scales"], out=tmp_path / "b", **options)
    assert result.bundle is not None and len(result.engines) == 1
    [engine] = result.bundle.engines()
    assert result.bundle.engine_file(engine).read_bytes() in plans
    assert tuple(engine.batch) == (1, 2, 2) and engine.runtime == "tensorrt"
    assert result.validation is not None and result.validation.subject.engine == engine.identity
    assert result.tuning.engine is not None and result.tuning.base == "fp16"
    assert cnnx.validate(tmp_path / "b", target="tensorrt").verdict is not Verdict.FAILED


def test_placements_that_the_builder_refuses_are_left_out(
    bundles: dict[str, Path], tensorrt: Any, quick: None, tmp_path: Path
) -> None:
    class Refusing(TrtRuntime):
        def build(self, onnx_file: Path, request: Any) -> Any:
            ops = [node.op_type for node in onnx.load(onnx_file).graph.node]
            if ops.count("QuantizeLinear") >= most:
                raise BuildFailed("no kernel for this")
            return super().build(onnx_file, request)

    tensorrt(Refusing(ImitatedBindings("11.4.0.106")))
    most, options = 5, {**SHORT, "target": "tensorrt"}
    result = cnnx.tune(bundles["fp16scales"], out=tmp_path / "b", **options)
    given = result.tuning.in_role("given")
    assert given is not None and given.refused == "no kernel for this" and given.ratio is None
    assert result.tuning.against_given is None and "no kernel for this" in repr(result)
    most = 0
    with pytest.raises(BuildFailed, match="cannot be built without Q/DQ: no kernel"):
        cnnx.tune(bundles["fp16scales"], out=tmp_path / "c", **{**options, "images": 31})
    assert not (tmp_path / "c").exists()


def test_a_search_that_was_stopped_resumes(
    bundles: dict[str, Path], journals: Any, quick: None, tmp_path: Path
) -> None:
    said: list[str] = []

    def stop(event: cnnx.ProgressEvent) -> None:
        if event.note:
            said.append(event.step)
        elif event.step == "search" and event.done >= 50:
            raise KeyboardInterrupt

    options = {**SHORT, "budget": 5.0, "out": tmp_path / "b", "images": 30}
    with pytest.raises(KeyboardInterrupt):
        cnnx.tune(bundles["int8"], listener=stop, **options)
    assert said == ["Stopped. The same command resumes the search."] and not (tmp_path / "b").exists()
    assert len(journals()) == 2
    said.clear()

    def listen(event: cnnx.ProgressEvent) -> None:
        said.extend([event.step] if event.note else [])

    result = cnnx.tune(bundles["int8"], listener=listen, **options)
    assert said == ["Resuming a search that built 3 engines."]
    assert result.bundle is not None and not journals()


def test_gates_that_cannot_be_reached_fail_with_the_best_that_was_found(
    bundles: dict[str, Path], tmp_path: Path
) -> None:
    gates = tmp_path / "gates.toml"
    gates.write_text("top1_agreement = 1.0\n")
    done = invoke("tune", bundles["int8"], *_flags(SHORT), "--gates", gates, "--out", tmp_path / "b")
    assert done.exit_code == 1 and not (tmp_path / "b").exists()
    assert "the gates cannot be reached" in done.output and "closest placement has 0 layers" in done.output
    report = tmp_path / "r.md"
    again = invoke(
        "tune", bundles["int8"], *_flags(SHORT), "--gates", gates, "--out", tmp_path / "b", "--report", report
    )
    assert again.exit_code == 1 and not report.exists()


def test_a_budget_that_is_too_small_decides_nothing_and_keeps_what_was_measured(
    bundles: dict[str, Path], journals: Any, quick: None, tmp_path: Path
) -> None:
    options = {**SHORT, "budget": 1e-6, "images": 29}
    done = invoke("tune", bundles["int8"], *_flags(options), "--out", tmp_path / "b")
    assert done.exit_code == 6 and not (tmp_path / "b").exists()
    assert "larger --budget" in done.output
    kept = journals()
    assert kept
    longer = cnnx.tune(bundles["int8"], out=tmp_path / "b", **{**options, "budget": 0.05})
    assert longer.bundle is not None and not journals()


@pytest.mark.parametrize(
    ("name", "options", "kind", "code", "says"),
    [
        ("bare", {}, BundleError, 3, "--int8 --with-source"),
        ("fp16", {}, UsageError, 2, "in fp16, so no layer is quantized"),
        ("int8", {"budget": 0.0}, UsageError, 2, "--budget 0"),
        ("int8", {"budget": float("nan")}, UsageError, 2, "--budget nan"),
        ("int8", {"batch": 3}, UsageError, 2, "batches from 1 to 2"),
        ("int8", {"images": 0}, UsageError, 2, "--images 0"),
        ("int8", {"target": "auto"}, EnvironmentLacks, 4, "--target ort"),
        ("int8", {"target": "tensorrt"}, EnvironmentLacks, 4, "ensorrt"),
        ("int8", {"target": "abc"}, UsageError, 2, "choose one of"),
        ("int8", {"calibration_data": "nowhere/"}, CnnxError, 3, "nowhere"),
    ],
)
def test_what_cannot_be_tuned_is_refused_with_a_hint(
    bundles: dict[str, Path],
    tmp_path: Path,
    name: str,
    options: dict[str, Any],
    kind: type,
    code: int,
    says: str,
) -> None:
    with pytest.raises(kind) as caught:
        cnnx.tune(bundles[name], out=tmp_path / "b", **{**SHORT, **options})
    assert caught.value.exit_code == code and caught.value.hint
    assert says.lower() in str(caught.value).lower()
    assert not (tmp_path / "b").exists()


def test_nothing_is_overwritten_that_cnnx_did_not_write(bundles: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--out is the bundle itself"):
        cnnx.tune(bundles["int8"], out=bundles["int8"], **SHORT)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("kept")
    with pytest.raises(BundleError, match="not a cnnx bundle"):
        cnnx.tune(bundles["int8"], out=tmp_path / "mine", **SHORT)
    assert (tmp_path / "mine" / "notes.txt").read_text() == "kept"


def test_a_source_that_is_not_the_originals_is_refused(bundles: dict[str, Path], tmp_path: Path) -> None:
    """The verdict is by the FP32 graph, so it must give the original's logits on the self-test."""
    path = shutil.copytree(bundles["int8"], tmp_path / "b")
    bundle = Bundle.open(path)
    kept = bundle.reference()
    dataclasses.replace(kept, original=(1.01 * kept.original).astype(np.float32)).save(path / "reference.npz")
    _sealed_again(bundle)
    with pytest.raises(BundleError, match="other logits here than the original"):
        cnnx.tune(path, out=tmp_path / "c", **SHORT)


def _sealed_again(bundle: Bundle) -> None:
    from cnnx.bundle.sealed import read_sealed, write_sealed

    manifest = bundle.path / "manifest.json"
    data = read_sealed(manifest, bundle=bundle.path)
    data["files"]["reference.npz"] = digest_of_file(bundle.path / "reference.npz")
    write_sealed(manifest, data)


def test_a_shortcut_carries_q_dq_only_with_its_convolution(bundles: dict[str, Path]) -> None:
    from cnnx.pipeline.tune.network import TunedNetwork

    network = TunedNetwork(read_source(Bundle.open(bundles["int8"])), Steps())
    names = frozenset(network.problem.names)
    assert network.canonical(names) == network.given == names
    assert network.canonical(frozenset({"a.add"})) == frozenset()
    assert network.canonical(names - {"a.conv2"}) == names - {"a.conv2", "a.add"}
    assert network.share(names) == pytest.approx(1.0, abs=0.02) and network.share(frozenset()) == 0
