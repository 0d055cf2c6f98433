import shutil

import pytest
from PIL import Image

import cnnx
from cnnx.stats import Verdict
from cnnx.store import own_code

pytest.importorskip("torch", reason="exports need PyTorch")


def export(out, images, **options):
    return cnnx.export("lenet5", precision="int8", calibration_data=str(images), out=out, **options)


def reused(result):
    return {step.step for step in result.steps if step.reused}


CACHED = {
    "validation images",
    "calibration images",
    "ONNX graph",
    "original's logits",
    "equalized channels",
    "calibration images through the graph",
    "ranges (entropy)",
    "int8 graph",
}


def test_a_second_identical_export_repeats_nothing(images, tmp_path):
    first = export(tmp_path / "b", images)
    second = export(tmp_path / "b", images)
    assert not first.unchanged and second.unchanged
    assert reused(second) == CACHED
    assert second.validation == first.validation and second.judged == first.judged
    assert len(second.bundle.records()) == len(first.bundle.records())


def test_an_export_that_was_stopped_after_its_verdict_is_still_measured(images, tmp_path):
    first = export(tmp_path / "b", images)
    *_, own = sorted((tmp_path / "b" / "runs").glob("*-benchmark-*"))
    own.unlink()
    second = export(tmp_path / "b", images)
    assert second.unchanged and second.judged == first.judged and len(second.measurements) == 2
    assert not export(tmp_path / "b", images).measurements


def test_verdicts_are_not_taken_from_the_cache(images, tmp_path):
    first = export(tmp_path / "a", images)
    elsewhere = export(tmp_path / "b", images)
    assert reused(elsewhere) == CACHED | {"noise floor"}
    assert not elsewhere.unchanged and elsewhere.judged > first.judged
    assert elsewhere.validation.gates == first.validation.gates


def test_another_method_needs_no_second_pass_over_the_images(images, tmp_path):
    export(tmp_path / "a", images)
    for method in ("max", "mse", "percentile-99.99"):
        after = export(tmp_path / "b", images, method=method)
        assert CACHED - reused(after) == {"ranges (entropy)", "int8 graph"}


def test_one_changed_image_redoes_only_what_depends_on_it(images, tmp_path):
    changed = tmp_path / "images"
    shutil.copytree(images, changed)
    export(tmp_path / "b", changed)
    Image.open(changed / "07.png").transpose(Image.Transpose.ROTATE_90).save(changed / "07.png")
    after = export(tmp_path / "b", changed)
    assert not after.unchanged
    assert reused(after) == {"validation images", "ONNX graph", "original's logits", "noise floor"}


LOGITS, PASS = "original's logits", "calibration images through the graph"


@pytest.mark.parametrize(
    ("edited", "kept", "redone"),
    [
        # A method only reads the statistics of the images.
        ("quant/methods.py", {"ONNX graph", LOGITS, PASS}, {"ranges (entropy)", "int8 graph"}),
        # Decoded again, to the same pixels in this case.
        ("data/crops.py", {"ONNX graph", LOGITS, PASS, "int8 graph"}, {"validation images"}),
    ],
)
def test_an_edit_to_our_own_code_redoes_what_follows(edited, kept, redone, images, tmp_path, monkeypatch):
    export(tmp_path / "b", images)
    package = tmp_path / "cnnx"
    shutil.copytree(own_code._PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    with (package / edited).open("a") as file:
        file.write("# edited\n")
    monkeypatch.setattr(own_code, "_PACKAGE", package)
    own_code._digest.cache_clear()
    try:
        after = export(tmp_path / "b", images)
    finally:
        own_code._digest.cache_clear()
    assert kept <= reused(after) and reused(after).isdisjoint(redone)
    assert after.validation.verdict is Verdict.PASSED


def test_a_damaged_bundle_is_made_again(images, tmp_path):
    export(tmp_path / "b", images)
    with (tmp_path / "b" / "model.onnx").open("r+b") as file:
        file.write(b"\0")
    again = export(tmp_path / "b", images)
    assert not again.unchanged and cnnx.inspect(tmp_path / "b").verdict.startswith("passed")
