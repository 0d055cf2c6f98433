"""Networks that carry Q/DQ go the whole way with their own scales, or as the network without these."""

from __future__ import annotations

import json
import shutil

import numpy as np
import onnx
import pytest

import cnnx
from cnnx.errors import CnnxError, RecipeError, UsageError, WeightsError
from cnnx.graph.policy.rules import RULES
from cnnx.quant.methods import METHODS
from cnnx.runtimes import get
from cnnx.stats import Verdict
from tests.inputs.graphs import Sketch, images, maxima_of, residual, run
from tests.inputs.quantized import grids, shortcut_scales, with_qdq

SETS = {"calibration_data": "digits", "validation_data": "digits"}
FEW = {**SETS, "calibration_images": 16, "validation_images": 16}
RGB = {"color": "rgb", **FEW}


def logits(model, x):
    """Logits of single images, as bundles have a batch of 1."""
    return np.concatenate([run(model, image[None])["logits"] for image in x])


def trained_network():
    """A residual network whose graph is judged on digits, with learned scales that clip."""
    model = residual()
    return model, with_qdq(model, maxima_of(model, images(16)), clip=0.9, skipped=["b.conv1"])


@pytest.fixture(scope="module")
def trained(tmp_path_factory, cache):
    """The file, the FP32 model before training, and the bundle by the scales in the file."""
    folder = tmp_path_factory.mktemp("trained")
    model, quantized = trained_network()
    onnx.save(model, folder / "fp32.onnx")
    onnx.save(quantized, folder / "trained.onnx")
    rtx = {} if get("rtx").missing() else {"target": "rtx", "sm": [86]}
    result = cnnx.export(
        str(folder / "trained.onnx"), precision="int8", out=folder / "int8", scales="fp32", **RGB, **rtx
    )
    return folder, quantized, result


def test_integers_and_scales_are_those_of_the_file(trained):
    _, quantized, result = trained
    found = onnx.load(result.bundle.model)
    expected = grids(quantized)
    assert set(expected) == set(grids(found)) == {"stem", "a.conv1", "a.conv2", "b.down", "b.conv2", "fc"}
    for layer, grid in grids(found).items():
        assert np.array_equal(grid.integers, expected[layer].integers)
        assert np.array_equal(grid.scales, expected[layer].scales) and grid.data == expected[layer].data
    kept = {add: scales for add, scales in shortcut_scales(found).items() if scales}
    assert kept and all(set(scales) <= set(shortcut_scales(quantized)[add]) for add, scales in kept.items())
    before, after = (logits(each, images(8)) for each in (quantized, found))
    assert np.abs(before - after).max() < 0.05 * np.abs(before).max()


def test_what_became_of_the_scales_is_recorded(trained):
    _, quantized, result = trained
    manifest = result.bundle.manifest
    calibration = json.loads((result.bundle.path / "calibration.json").read_text())
    assert calibration["method"] == "file" and calibration["means"] == {}
    assert calibration["ranges"]["input"]["amax"] == pytest.approx(127 * grids(quantized)["stem"].data)
    assert manifest.recipe["precision"]["equalize"] is False and manifest.reference is None
    left = {layer["node"]: layer for layer in manifest.layers}["b.conv1"]
    assert (left["precision"], left["rule"]) == ("fp32", "no-scale") and "for its input" not in left["reason"]
    assert left["reason"] == "the file gives no scale for its weight"
    assert any("keeps the scales in the file" in note for note in result.notes)
    assert 0.5 < result.int8_share < 1 and result.validation.logit_sqnr_db > 10
    if result.engines:
        types = result.engines[0].layer_types
        assert types["b.conv1"] == "fp32" and types["b.conv2"] == types["fc"] == "int8"
    assert "no-scale" in {rule.name for rule in RULES}


def test_the_bundle_is_inspected_diagnosed_and_validated(trained, cnnx_command):
    folder, _, result = trained
    assert cnnx.inspect(result.bundle.path).verdict
    found = cnnx.diagnose(result.bundle.path, model=folder / "trained.onnx", images=16).findings
    assert {layer.layer for layer in found.layers} == set(grids(onnx.load(result.bundle.model)))
    assert not any("--no-equalize" in each or "--method auto" in each for each in found.reading)
    assert cnnx.validate(result.bundle.path).self_test.verdict is Verdict.PASSED
    again = cnnx.validate(
        result.bundle.path, validation_data="digits", validation_images=16, model=folder / "trained.onnx"
    )
    assert again.validation.logit_sqnr_db == pytest.approx(result.validation.logit_sqnr_db, abs=1)
    assert cnnx.show(folder / "trained.onnx").parameters == cnnx.show(folder / "fp32.onnx").parameters


def test_calibrate_shows_the_scales_in_the_file_beside_the_methods(trained):
    folder, quantized, _ = trained
    few = {"calibration_data": "digits", "calibration_images": 16, "color": "rgb"}
    shown = cnnx.calibrate(folder / "trained.onnx", **few)
    assert not shown.equalized
    assert all(list(tensor.methods) == ["file", *METHODS] for tensor in shown.tensors)
    ranges = {tensor.tensor: tensor.methods["file"].amax for tensor in shown.tensors}
    assert ranges["input"] == pytest.approx(127 * grids(quantized)["stem"].data)
    other = cnnx.calibrate(folder / "trained.onnx", method="max", **few)
    assert other.equalized and list(other.tensors[0].methods) == ["max"]
    folds = cnnx.calibrate(folder / "trained.onnx", method="file", folds=2, **few).folds
    assert folds.method == "file" and {spread.ratio for spread in folds.spreads} == {1.0}


def test_another_method_drops_the_scales(trained, tmp_path):
    folder, _, _ = trained
    file = str(folder / "trained.onnx")
    result = cnnx.export(file, precision="int8", method="max", out=tmp_path / "max", **RGB)
    layers = {layer["node"]: layer["precision"] for layer in result.bundle.manifest.layers}
    assert layers["b.conv1"] == "int8" and any("--method file keeps them" in note for note in result.notes)
    assert result.bundle.manifest.recipe["precision"]["equalize"] is True
    assert cnnx.diagnose(result.bundle.path, model=file, images=8).findings.layers
    auto = cnnx.export(file, precision="int8", method="auto", out=tmp_path / "auto", **RGB)
    assert "file" not in {candidate.method for candidate in auto.candidates}


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_without_int8_the_bundle_has_the_network_without_qdq(trained, tmp_path, precision):
    folder, _, _ = trained
    result = cnnx.export(str(folder / "trained.onnx"), precision=precision, out=tmp_path / "b", **RGB)
    found = logits(onnx.load(result.bundle.model), images(4))
    expected = logits(onnx.load(folder / "fp32.onnx"), images(4))
    np.testing.assert_allclose(found, expected, rtol=0.02, atol=0.02)
    assert any("without them" in note for note in result.notes)


def test_repair_puts_layers_back_and_keeps_the_scales_of_the_others(trained, tmp_path):
    folder, quantized, _ = trained
    recipe = tmp_path / "strict.toml"
    shutil.copyfile(folder / "trained.onnx", tmp_path / "trained.onnx")
    cnnx.init(tmp_path / "trained.onnx", out=recipe, color="rgb")
    gates = "top1_agreement = 0.99\ntop1_in_top5 = 0.99\ntop5_agreement = 0.985\nreason = 'a test'\n"
    recipe.write_text(f"{recipe.read_text()}\n[acceptance.int8]\n{gates}")
    result = cnnx.export(
        str(recipe), precision="int8", repair=True, scales="fp32", out=tmp_path / "b", **FEW, repair_trials=20
    )
    assert result.repair.put_back
    left = grids(onnx.load(result.bundle.model))
    assert all(np.array_equal(grid.integers, grids(quantized)[name].integers) for name, grid in left.items())


def test_options_that_contradict_the_file_are_refused(trained, tmp_path):
    folder, _, _ = trained
    for name, options, match in (
        ("fp32.onnx", {"method": "file"}, "needs a network with Q/DQ"),
        ("trained.onnx", {"equalize": True}, "--equalize would change"),
    ):
        for verb in (cnnx.export, cnnx.calibrate):
            given = {"precision": "int8", "out": tmp_path / "b"} if verb is cnnx.export else {}
            with pytest.raises(UsageError, match=match):
                verb(str(folder / name), **options, **given)


def test_the_graph_of_a_bundle_can_be_exported_again(trained, tmp_path):
    """INT8 weights with FP16 scales, typed layers and Casts: what cnnx writes, it reads."""
    folder, _, _ = trained
    first = cnnx.export(str(folder / "fp32.onnx"), precision="int8", out=tmp_path / "first", **RGB)
    second = cnnx.export(str(first.bundle.model), precision="int8", out=tmp_path / "second", **RGB)
    before, after = (grids(onnx.load(each.bundle.model)) for each in (first, second))
    assert before.keys() == after.keys()
    for name, grid in before.items():
        assert np.array_equal(grid.integers, after[name].integers) and grid.data == after[name].data


@pytest.fixture(scope="module")
def lenet5(tmp_path_factory, cache):
    """The trained LeNet-5 in FP32, as a bundle."""
    pytest.importorskip("torch", reason="lenet5 is a PyTorch definition")
    folder = tmp_path_factory.mktemp("lenet5") / "fp32"
    return cnnx.export("lenet5", precision="fp32", validation_images=8, out=folder).bundle


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"activation_type": "QUInt8", "weight_type": "QInt8", "per_channel": True},
        {"activation_type": "QUInt8", "weight_type": "QUInt8"},
        {"extra_options": {"ActivationSymmetric": True}, "per_channel": True},
    ],
    ids=["default", "u8s8 per channel", "u8u8", "s8s8 symmetric"],
)
def test_files_of_onnx_runtimes_quantizer_pass_against_the_network_before(lenet5, tmp_path, options):
    quantization = pytest.importorskip("onnxruntime.quantization")

    class Reader(quantization.CalibrationDataReader):
        rest = iter([{"input": image[None]} for image in _inputs(lenet5)])

        def get_next(self):
            return next(self.rest, None)

    kinds = {key: getattr(quantization.QuantType, value) for key, value in options.items() if "type" in key}
    quantization.quantize_static(lenet5.model, tmp_path / "q.onnx", Reader(), **{**options, **kinds})
    shutil.copyfile(lenet5.model, tmp_path / "fp32.onnx")
    result = cnnx.export(
        str(tmp_path / "q.onnx"),
        precision="int8",
        reference=tmp_path / "fp32.onnx",
        preprocessing="gray",
        resize=32,
        out=tmp_path / "b",
        calibration_images=16,
        **SETS,
    )
    assert result.validation.verdict is Verdict.PASSED and result.validation.accuracy.original > 0.98
    assert result.validation.logit_sqnr_db > 25 and result.int8_share > 0.7
    found, written = grids(onnx.load(result.bundle.model)), grids(onnx.load(tmp_path / "q.onnx"))
    same = [np.array_equal(found[name].integers, written[name].integers) for name in found]
    assert len(found) == 4 and (not any(same) if options.get("weight_type") == "QUInt8" else all(same))


def _inputs(bundle):
    """64 normalized calibration digits of the network."""
    from cnnx.bundle.manifest import recipe_of
    from cnnx.data.geometry import crop
    from cnnx.data.normalize import normalize
    from cnnx.data.sets import open_images

    recipe = recipe_of(bundle.manifest)
    preprocessing, shape = recipe.preprocessing, recipe.input.shape
    digits = open_images("digits", size=preprocessing.side(shape), color="gray", split="calibration")
    return normalize(
        np.stack([crop(digits[i].load(), preprocessing, shape) for i in range(64)]), preprocessing
    )


def test_fake_quantization_of_pytorch_keeps_its_scales(tmp_path):
    torch = pytest.importorskip("torch", reason="a PyTorch model")

    def fake(x, scale, axis=None):
        if axis is None:
            return torch.fake_quantize_per_tensor_affine(x, scale, 0, -128, 127)
        zeros = torch.zeros(len(scale), dtype=torch.int32)
        return torch.fake_quantize_per_channel_affine(x, scale, zeros, axis, -128, 127)

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 16, 3)
            self.norm = torch.nn.BatchNorm2d(16)
            self.fc = torch.nn.Linear(16, 10)
            self.register_buffer("steps", self.conv.weight.detach().abs().amax((1, 2, 3)) / 100)

        def forward(self, x):
            weight = fake(self.conv.weight, self.steps, 0)
            x = torch.nn.functional.conv2d(fake(x, 1 / 32), weight, self.conv.bias)
            x = torch.relu(self.norm(x)).amax((2, 3))
            return torch.nn.functional.linear(fake(x, 1 / 64), fake(self.fc.weight, 1 / 256), self.fc.bias)

    torch.manual_seed(0)
    net = Net().eval()
    options = {"precision": "int8", "scales": "fp32", "color": "rgb", **FEW}
    result = cnnx.export(net, example=torch.randn(2, 3, 12, 12), out=tmp_path / "b", **options)
    found = sorted(grids(onnx.load(result.bundle.model)).values(), key=lambda grid: grid.integers.size)
    assert [grid.data for grid in found] == [1 / 64, 1 / 32]
    with torch.no_grad():
        expected = torch.clamp(torch.round(net.conv.weight / net.steps[:, None, None, None]), -128, 127)
    assert np.array_equal(found[1].integers, expected.numpy())


def test_a_reference_is_judged_by_and_recorded(trained, tmp_path, cnnx_command):
    folder, _, _ = trained
    file = str(folder / "trained.onnx")
    result = cnnx.export(file, precision="int8", reference=folder / "fp32.onnx", out=tmp_path / "b", **RGB)
    bundle = result.bundle
    assert bundle.manifest.reference["origin"] == "fp32.onnx"
    assert bundle.manifest.recipe["model"]["reference"] == "fp32.onnx"
    assert "Judged by the reference fp32.onnx instead of the network itself." in result.notes
    expected = logits(onnx.load(folder / "fp32.onnx"), _normalized(bundle))
    np.testing.assert_allclose(bundle.reference().original, expected, rtol=1e-4, atol=1e-4)
    assert "judged by" in cnnx_command("inspect", bundle.path)[1]
    few = {"validation_data": "digits", "validation_images": 16}
    for place in ({"reference": folder / "fp32.onnx"}, {"model": file}):
        again = cnnx.validate(bundle.path, **few, **place).validation
        assert again.verdict is not Verdict.NOT_JUDGED or again.gates
        assert again.logit_sqnr_db == pytest.approx(result.validation.logit_sqnr_db, abs=1)
    with pytest.raises(WeightsError, match="not the bundle's reference"):
        cnnx.validate(bundle.path, **few, reference=file)
    with pytest.raises(RecipeError, match="does not exist"):
        cnnx.validate(bundle.path, **few, reference=tmp_path / "gone.onnx")
    assert "not available" in cnnx.validate(bundle.path, **few).validation.reasons[0]
    assert cnnx.diagnose(bundle.path, model=file, images=8).findings.layers


def test_the_file_itself_as_reference_runs_with_its_qdq(trained, tmp_path):
    """INT8 is nearer to what was trained than to the network without Q/DQ."""
    folder, quantized, without = trained
    file = str(folder / "trained.onnx")
    result = cnnx.export(file, precision="int8", reference=file, scales="fp32", out=tmp_path / "b", **RGB)
    expected = logits(quantized, _normalized(result.bundle))
    np.testing.assert_allclose(result.bundle.reference().original, expected, rtol=1e-3, atol=1e-3)
    assert result.validation.logit_sqnr_db > without.validation.logit_sqnr_db


def _normalized(bundle):
    from cnnx.bundle.manifest import recipe_of
    from cnnx.data.normalize import normalize

    return normalize(bundle.reference().crops, recipe_of(bundle.manifest).preprocessing)


def test_a_reference_in_a_recipe_is_relative_to_it(trained, tmp_path):
    for name in ("trained.onnx", "fp32.onnx"):
        shutil.copyfile(trained[0] / name, tmp_path / name)
    cnnx.init(tmp_path / "trained.onnx", out=tmp_path / "net.toml", color="rgb")
    text = (tmp_path / "net.toml").read_text().replace("[model]", '[model]\nreference = "fp32.onnx"')
    (tmp_path / "net.toml").write_text(text)
    result = cnnx.export(str(tmp_path / "net.toml"), precision="fp16", out=tmp_path / "b", **FEW)
    assert result.bundle.manifest.reference["origin"] == "fp32.onnx"
    assert result.validation.logit_sqnr_db > 40


def test_a_reference_that_does_not_fit_is_refused_before_any_work(trained, tmp_path):
    other = Sketch(channels=1)
    gray = other.classify(other.node("GlobalAveragePool", [other.conv("input", "c", 1, 8)], "gap"), 8)
    few = Sketch()
    three = few.classify(few.node("GlobalAveragePool", [few.conv("input", "c", 3, 8)], "gap"), 8, classes=3)
    onnx.save(gray, tmp_path / "gray.onnx")
    onnx.save(three, tmp_path / "three.onnx")
    (tmp_path / "text.onnx").write_text("not a graph")
    for name, match in (
        ("gray.onnx", "images of 1 x 12 x 12, the network of 3 x 12 x 12"),
        ("three.onnx", r"\(N, 10\)"),
        ("gone.onnx", "does not exist"),
        ("text.onnx", "not an ONNX file|no ONNX graph"),
    ):
        with pytest.raises(CnnxError, match=match):
            cnnx.export(str(trained[0] / "fp32.onnx"), reference=tmp_path / name, out=tmp_path / "b", **RGB)
    assert not (tmp_path / "b").exists()


def test_a_file_whose_qdq_do_more_than_round_gets_a_warning(tmp_path):
    model = residual()
    clipped = {name: 1e-3 * found for name, found in maxima_of(model, images()).items()}
    broken = with_qdq(model, clipped)
    onnx.save(broken, tmp_path / "broken.onnx")
    result = cnnx.export(str(tmp_path / "broken.onnx"), precision="fp32", out=tmp_path / "b", **RGB)
    assert any("on random images" in note for note in result.notes)
