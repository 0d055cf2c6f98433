"""`cnnx.validate`: planted faults in real bundles, and validation on different images."""

import dataclasses
import json
import shutil

import numpy as np
import onnx
import pytest
from PIL import Image

import cnnx
from cnnx.bundle import Bundle
from cnnx.bundle.writing import new_bundle, seal
from cnnx.errors import BundleError, MissingExtra, UsageError, WeightsError
from cnnx.gates import DEFAULTS
from cnnx.pipeline.judge.images import images_needed
from cnnx.pipeline.target import OpenSubject
from cnnx.stats import Verdict, wilson
from tools.bench import planted

pytest.importorskip("torch", reason="exports need PyTorch")


@pytest.fixture(scope="module", params=["lenet5", "resnet20"])
def bundle(request, tmp_path_factory):
    """INT8 bundles for gray digits and for drawn color images."""
    place = tmp_path_factory.mktemp("out") / "b"
    few = {} if request.param == "lenet5" else {"calibration_images": 64, "validation_images": 200}
    return cnnx.export(request.param, precision="int8", target="ort", out=place, **few).bundle


def with_graph(bundle, folder, graph):
    """The bundle with a different graph, sealed again, which computes what a wrong engine would."""
    with new_bundle(folder) as draft:
        for name in bundle.manifest.files:
            shutil.copyfile(bundle.path / name, draft / name)
        onnx.save(graph, draft / "model.onnx")
        seal(draft, bundle.manifest)
    return folder


@pytest.fixture
def running(monkeypatch):
    """Runs a different graph, or on different images, instead of the bundle's."""

    def wrap(before=lambda images: images, after=lambda logits: logits, session=None):
        open_it = OpenSubject.open

        class Wrapped:
            def __init__(self, inner):
                self.inner, self.output_names = inner, inner.output_names

            def run(self, images):
                name = self.output_names[0]
                return {name: after(self.inner.run(before(images))[name])}

            def close(self):
                pass

        monkeypatch.setattr(OpenSubject, "open", lambda self: Wrapped(session or open_it(self)))

    return wrap


CAUGHT = (
    "wrong scale: first tensor x0.5",
    "wrong scale: middle tensor x16",
    "damaged weight: a channel zero, last layer",
    "damaged weight: channels permuted, first layer",
    "damaged weight: channels permuted, middle layer",
)


@pytest.mark.parametrize("fault", CAUGHT)
def test_a_fault_in_the_graph_is_caught(bundle, tmp_path, fault):
    graph = dict(planted.graph_faults(onnx.load(bundle.model)))[fault]
    tested = cnnx.validate(with_graph(bundle, tmp_path / "b", graph))
    assert tested.verdict is Verdict.FAILED and tested.self_test.worst_images


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_an_engine_of_a_different_precision_is_caught(bundle, tmp_path, precision):
    name = bundle.manifest.recipe["name"]
    few = {"calibration_images": 64, "validation_images": 200} if name == "resnet20" else {}
    other = cnnx.export(name, precision=precision, target="ort", out=tmp_path / "other", **few).bundle
    assert cnnx.validate(other.path).verdict is Verdict.PASSED
    graph = onnx.load(other.model)
    tested = cnnx.validate(with_graph(bundle, tmp_path / "b", graph)).self_test
    assert tested.verdict is Verdict.FAILED
    assert "distance from the original, over the graph's, at least" in {
        c.name for c in tested.checks if c.margin < 0
    }
    wrong = with_graph(other, tmp_path / "int8", onnx.load(bundle.model))
    assert cnnx.validate(wrong).verdict is Verdict.FAILED


def test_an_engine_with_different_weights_is_caught(bundle, tmp_path):
    name = bundle.manifest.recipe["name"]
    options = {"weights": "standin", "calibration_images": 16, "validation_images": 16, "target": "ort"}
    other = cnnx.export(name, precision="int8", out=tmp_path / "other", **options).bundle
    assert cnnx.validate(with_graph(bundle, tmp_path / "b", onnx.load(other.model))).verdict is Verdict.FAILED


@pytest.mark.parametrize(
    "fault",
    [
        lambda images: np.ascontiguousarray(images.transpose(0, 1, 3, 2)),
        lambda images: images * 255,
        lambda images: images - 0.5,
        lambda images: images[::-1],
    ],
    ids=["layout", "no division", "another mean", "order"],
)
def test_a_fault_in_preprocessing_is_caught(bundle, running, fault):
    running(before=fault)
    assert cnnx.validate(bundle.path).verdict is Verdict.FAILED


def test_swapped_channels_and_layout_are_caught(bundle, running):
    if bundle.manifest.inputs[0].shape[1] != 3:
        pytest.skip("gray")
    running(before=lambda images: images[:, ::-1])
    assert cnnx.validate(bundle.path).verdict is Verdict.FAILED
    running(before=lambda images: images.transpose(0, 2, 3, 1).reshape(images.shape))
    assert cnnx.validate(bundle.path).verdict is Verdict.FAILED


def test_nonfinite_logits_fail_and_the_export_verdict_stays(bundle, running):
    before = cnnx.inspect(bundle.path).verdict
    running(after=lambda logits: np.where(logits == logits.max(), np.inf, logits))
    tested = cnnx.validate(bundle.path)
    assert (
        tested.verdict is Verdict.FAILED and tested.self_test.nonfinite and tested.record.kind == "selftest"
    )
    inspected = cnnx.inspect(bundle.path)
    assert inspected.verdict == before
    [told] = inspected.self_tests
    assert told.startswith("failed") and tested.self_test.subject.device in told


@pytest.mark.slow
@pytest.mark.parametrize("times", [1, 4])
def test_sound_engines_pass_every_time(bundle, running, tmp_path, times):
    """Noise as large as between two runtimes, and four times that."""
    noisy = planted.with_noise(onnx.load(bundle.model), times * planted.FP16_STEP)
    onnx.save(noisy, tmp_path / "noisy.onnx")
    running(session=cnnx.runtimes.get("ort").open(tmp_path / "noisy.onnx"))
    folder = shutil.copytree(bundle.path, tmp_path / "b")
    repeats = 25 if bundle.manifest.recipe["name"] == "lenet5" else 3
    assert {cnnx.validate(folder).verdict for _ in range(repeats)} == {Verdict.PASSED}


def test_both_verdicts_are_in_every_report(bundle, tmp_path):
    cnnx.validate(bundle.path)
    for name, told in (("r.md", "self-test: "), ("r.xml", "self-test of "), ("r.json", '"selftest"')):
        cnnx.write_report(bundle.path, tmp_path / name)
        text = (tmp_path / name).read_text()
        assert told in text and "top1_agreement" in text.replace("top-1 agreement", "top1_agreement")
    rows = json.loads((tmp_path / "r.json").read_text())["rows"]
    assert {row["kind"] for row in rows} >= {"validation", "selftest"}


def test_the_gates_can_pass_only_with_enough_images():
    for thresholds, needed in ((DEFAULTS["fp16"], 765), (DEFAULTS["int8"], 381)):
        assert images_needed(thresholds) == needed
        hardest = max(thresholds.top1_agreement, thresholds.top1_in_top5)
        assert wilson(1.0, needed).low >= hardest > wilson(1.0, needed - 1).low
    assert images_needed(dataclasses.replace(DEFAULTS["fp16"], top1_in_top5=1.0)) is None


def test_a_validation_of_the_same_images_agrees_with_export(bundle):
    if bundle.manifest.recipe["name"] != "lenet5":
        pytest.skip("one is enough")
    notes = []
    anew = cnnx.validate(bundle.path, validation_data="digits", listener=notes.append)
    assert anew.self_test is None and anew.validation.images == 800 and anew.verdict is Verdict.PASSED
    assert anew.record.kind == "judgement" and not [event for event in notes if event.note]
    floor, right = anew.validation.floor, anew.validation.right
    assert floor.flips == 0 and floor.divergence_nats < 1e-9 and floor.runtime.startswith("ort ")
    assert right.n == 800 and right.both == 796
    few = cnnx.validate(
        bundle.path, validation_data="digits", validation_images=40, listener=notes.append
    ).validation
    assert few.verdict is Verdict.INCONCLUSIVE and few.verdict.exit_code == 6
    assert any("381 are needed even if every image agrees" in event.step for event in notes)


def test_a_new_validation_never_replaces_the_export_verdict(bundle, tmp_path):
    """Few or different images may give a different verdict than export did; both are shown."""
    if bundle.manifest.recipe["name"] != "lenet5":
        pytest.skip("one is enough")
    folder = shutil.copytree(bundle.path, tmp_path / "b")
    before = cnnx.inspect(folder)
    anew = cnnx.validate(folder, validation_data="digits", validation_images=40)
    assert anew.verdict is Verdict.INCONCLUSIVE
    after = cnnx.inspect(folder)
    assert after.verdict == before.verdict and after.verdict.startswith("passed")
    assert any(told.startswith("inconclusive on 40 images of digits (") for told in after.judgements)
    again = cnnx.export("lenet5", precision="int8", target="ort", out=folder)
    assert again.unchanged and again.validation.verdict is Verdict.PASSED
    for name in ("r.md", "r.xml", "r.html"):
        cnnx.write_report(folder, tmp_path / name)
        text = (tmp_path / name).read_text()
        assert "validated again" in text and "inconclusive" in text.replace("skipped", "inconclusive")


def test_without_the_original_only_accuracy_is_judged(bundle, monkeypatch, tmp_path):
    if bundle.manifest.recipe["name"] != "lenet5":
        pytest.skip("one is enough")
    importable = "cnnx.pipeline.preconditions.refusals._importable"
    monkeypatch.setattr(importable, lambda package: package != "torch")
    first = cnnx.validate(bundle.path, validation_data="digits").validation
    assert first.verdict is Verdict.NOT_JUDGED
    assert [gate.name for gate in first.gates] == ["accuracy / original's", "graph size"]
    assert first.gates[0].verdict is Verdict.PASSED or first.gates[0].verdict is Verdict.INCONCLUSIVE
    second = cnnx.validate(bundle.path, validation_data="digits").validation
    assert second.gates == first.gates, "still compared with export's record"
    assert "agreement" in first.reasons[0] and any(".[export]" in reason for reason in first.reasons)
    with pytest.raises(MissingExtra):
        cnnx.validate(bundle.path, validation_data=str(folder_of_images(tmp_path / "x", 3)))


def test_with_stand_in_weights_not_even_accuracy_is_judged(monkeypatch, tmp_path):
    few = {"validation_images": 8, "target": "ort", "precision": "fp32"}
    made = cnnx.export("lenet5", weights="standin", out=tmp_path / "b", **few)
    importable = "cnnx.pipeline.preconditions.refusals._importable"
    monkeypatch.setattr(importable, lambda package: package != "torch")
    found = cnnx.validate(made.bundle.path, validation_data="digits", validation_images=8).validation
    assert found.verdict is Verdict.NOT_JUDGED and [gate.name for gate in found.gates] == ["graph size"]
    assert any("stand-ins" in reason for reason in found.reasons)


def folder_of_images(folder, n, seed=0):
    folder.mkdir()
    random = np.random.default_rng(seed)
    for i in range(n):
        Image.fromarray(random.integers(0, 255, (32, 32), dtype=np.uint8)).save(folder / f"{seed}-{i}.png")
    return folder


@pytest.fixture
def tiny(tmp_path):
    """A user's ONNX file."""
    made = cnnx.export("lenet5", precision="fp32", target="ort", out=tmp_path / "fp32", validation_images=16)
    return shutil.copyfile(made.bundle.model, tmp_path / "tiny.onnx")


def test_calibration_images_do_not_judge_and_a_users_graph_is_named(tmp_path, tiny):
    seen = folder_of_images(tmp_path / "seen", 20)
    images = {"calibration_data": str(seen), "validation_data": "digits", "validation_images": 16}
    made = cnnx.export(str(tiny), precision="int8", target="ort", out=tmp_path / "b", **images).bundle
    mixed = folder_of_images(tmp_path / "mixed", 10, seed=1)
    for file in seen.iterdir():
        shutil.copy(file, mixed)
    with pytest.raises(UsageError, match="does not ship with cnnx"):
        cnnx.validate(made.path, validation_data=str(mixed))
    other = tmp_path / "other.onnx"
    graph = onnx.load(tiny)
    graph.graph.initializer[0].raw_data = bytes(len(graph.graph.initializer[0].raw_data))
    onnx.save(graph, other)
    with pytest.raises(WeightsError):
        cnnx.validate(made.path, validation_data=str(mixed), model=other)
    notes = []
    anew = cnnx.validate(made.path, validation_data=str(mixed), model=tiny, listener=notes.append).validation
    assert anew.images == 10 and anew.image_set != "digits"
    assert any(event.step.startswith("20 of these images were excluded") for event in notes)


def test_options_without_effect_are_refused(bundle):
    for options in ({"labels": "x"}, {"validation_images": 5}, {"weights": "x"}, {"model": "x"}):
        with pytest.raises(UsageError, match="has no effect on the self-test"):
            cnnx.validate(bundle.path, **options)
    with pytest.raises(UsageError, match="invalid --validation-images 0"):
        cnnx.validate(bundle.path, validation_data="digits", validation_images=0)


def test_a_graph_with_nonfinite_logits_cannot_be_compared_with(bundle, tmp_path):
    reference = bundle.reference()
    graph = reference.graph.copy()
    graph[0, 0] = np.nan
    with new_bundle(tmp_path / "b") as draft:
        for name in bundle.manifest.files:
            shutil.copyfile(bundle.path / name, draft / name)
        type(reference)(
            reference.crops, reference.original, graph, reference.labels, reference.ids, reference.used
        ).save(draft / "reference.npz")
        seal(draft, bundle.manifest)
    with pytest.raises(BundleError, match="not finite at export"):
        cnnx.validate(tmp_path / "b")
    assert Bundle.open(tmp_path / "b").reference().crops.shape == reference.crops.shape
