"""Diagnose finds layers that are hard to quantize, clears a sound network, and asks for moved sources."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cnnx
from cnnx.bundle.sealed import read_sealed, write_sealed
from cnnx.data.crops import Crops
from cnnx.errors import BundleError, UsageError, WeightsError
from cnnx.pipeline import quantizer
from cnnx.pipeline.diagnose import diagnose as diagnosing
from cnnx.pipeline.plain import plain
from cnnx.report.terminal import as_text
from cnnx.resources import shared_folder
from cnnx.store.cache import Partial
from cnnx.store.digests import digest_of_file

pytest.importorskip("torch", reason="exports need PyTorch")

from tests.inputs.hostile import Counting, scaled_layers

STEP = "each layer alone in INT8"


def export(name: str, out: Path, **options: Any) -> Path:
    few = {"calibration_images": 64, "validation_images": 64, "target": "ort", **options}
    return cnnx.export(name, precision="int8", out=out, **few).bundle.path


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export("resnet20-hostile", tmp_path_factory.mktemp("twin") / "b", equalize=False)


def test_the_layers_that_were_scaled_do_the_damage(twin: Path, cache: Path) -> None:
    result = cnnx.diagnose(twin, images=48)
    found = result.findings
    assert found.images == 48 and found.whole.top1_agreement < 0.5 < found.floor.top1_agreement
    culprits = [each for each in found.layers if each.share > 0.01]
    assert culprits and {each.layer for each in culprits} <= scaled_layers("resnet20-hostile")
    assert sum(each.share for each in culprits) > 0.95 and found.layers[: len(culprits)] == tuple(culprits)
    # The figures show the cause: these layers lose many input channels and weights, others do not.
    read = {each.tensor: each for each in found.tensors}
    lost = {each.layer: (read[each.tensor].dead_share, each.weights_lost) for each in found.layers}
    sound = [lost[each.layer] for each in found.layers if each not in culprits]
    assert min(min(lost[each.layer]) for each in culprits) > 0.2 and np.max(sound) < 0.1
    reading = " ".join(found.reading)
    assert f"{culprits[0].layer} has too little resolution" in reading
    # Equalization is the remedy, and costs nothing.
    assert found.advice is not None and found.advice.reaches and not found.advice.recipe
    advised, before = found.remedies[found.advice.place], found.remedies[0]
    assert advised.cost == 0 and advised.what == "equalization on" in reading
    assert advised.likeness.divergence < 0.01 * before.likeness.divergence
    assert before.likeness == found.whole and found.advice.command in shown(result)
    assert "--no-equalize" not in found.advice.command and "--calibration-images 64" in found.advice.command
    # Every layer with MACs has its index, in INT8 or not.
    assert sorted(each.place for each in (*found.layers, *found.others)) == list(range(20))
    # The classes after a flip are those that the bundle gives for these images.
    session, recipe = cnnx.load(twin, target="ort"), result.bundle.manifest.recipe["preprocessing"]

    def classes_of(crops: Crops, image: str) -> list[int]:
        pixels = crops.pixels[crops.ids.index(image)].transpose(2, 0, 1)[None] / 255
        mean, std = (np.reshape(recipe[key], (1, 3, 1, 1)) for key in ("mean", "std"))
        logits = session.run(((pixels - mean) / std).astype(np.float32))[session.output_names[0]][0]
        return list(np.argsort(-logits, kind="stable")[:5])

    flips = found.flips[:3]
    stored = map(Crops.open, (cache / "crops").iterdir())
    assert any(
        all(classes_of(crops, flip.image) == [each.index for each in flip.int8] for flip in flips)
        for crops in stored
        if crops.pixels.shape == (48, 32, 32, 3) and {flip.image for flip in flips} <= set(crops.ids)
    )
    surest = [flip.original[0].probability for flip in found.flips]
    assert len(surest) == round((1 - found.whole.top1_agreement) * 48) and surest == sorted(surest)[::-1]
    assert result.bundle.records()[-1].kind == "diagnosis"
    assert json.dumps(plain(result.findings)) == json.dumps(result.record.result)


def shown(result: Any) -> str:
    return as_text(result.blocks(verbose=True), width=200)


@pytest.mark.slow
def test_the_advice_gives_the_network_that_was_tried(tmp_path: Path, monkeypatch: Any) -> None:
    """Constants were shifted between the inputs of sums: shortcuts without Q/DQ undo most of the damage."""
    name, few = "small-levit-branches", {"calibration_images": 512, "validation_images": 64}
    result = cnnx.diagnose(export(name, tmp_path / "b", **few), images=64)
    found = result.findings
    assert found.advice is not None and found.advice.recipe
    advised, before = found.remedies[found.advice.place], found.remedies[0]
    assert advised.likeness.divergence < 0.6 * before.likeness.divergence
    assert all(line in shown(result) for line in found.advice.recipe)
    recipe = (shared_folder("recipes") / f"{name}.toml").read_text()
    # Tables of an array may follow any other table.
    (tmp_path / "RECIPE.toml").write_text(f"{recipe}\n" + "\n".join(found.advice.recipe))
    command = shlex.split(found.advice.command)
    assert command[:4] == ["cnnx", "export", "RECIPE.toml", "--int8"]
    again = export(str(tmp_path / "RECIPE.toml"), tmp_path / "again", **few)
    monkeypatch.setattr(diagnosing, "_with_advice", lambda findings, *_: findings)
    tried = cnnx.diagnose(again, model=tmp_path / "RECIPE.toml", images=64).findings
    assert tried.whole == advised.likeness
    share = sum(each.multiply_adds for each in tried.layers) - sum(
        each.multiply_adds for each in found.layers
    )
    assert share == -advised.cost


def test_remedies_that_were_tried_are_not_tried_again(
    twin: Path, monkeypatch: Any, stop_at: Any, cache: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        cnnx.diagnose(twin, images=11, listener=stop_at("remedies", 5, []))
    (journal,) = (cache / "remedies").glob(".*.partial")
    known = len(json.loads(Partial(journal).load() or ""))
    assert known == 5
    monkeypatch.setattr(quantizer, "type_graph", count := Counting(quantizer.type_graph))
    found = cnnx.diagnose(twin, images=11).findings
    assert count.calls == len(found.remedies) - known and not journal.exists()


def test_a_sound_network_is_left_alone(tmp_path: Path) -> None:
    bundle = export("resnet20", tmp_path / "b")
    found = cnnx.diagnose(bundle, images=64).findings
    assert sum(each.share for each in found.layers) == pytest.approx(1)
    assert any("would pass the gates" in each for each in found.reading)
    assert found.advice is None or found.remedies[found.advice.place].better
    assert not any("too little" in each for each in found.reading)


def test_a_stopped_diagnosis_resumes(twin: Path, monkeypatch: Any, stop_at: Any, cache: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        cnnx.diagnose(twin, images=9, listener=stop_at(STEP, 10, []))
    (journal,) = (cache / "damage").glob(".*.partial")
    monkeypatch.setattr(quantizer, "type_graph", count := Counting(quantizer.type_graph))
    found = cnnx.diagnose(twin, images=9).findings
    # None in INT8 and seven layers were known; all in INT8 is written for its logits.
    assert count.calls - len(found.remedies) == len(found.layers) - 7 + 1 and not journal.exists()


def test_an_fp16_bundle_has_nothing_quantized(twin: Path, tmp_path: Path) -> None:
    out = cnnx.export("lenet5", precision="fp16", target="ort", validation_images=16, out=tmp_path / "b")
    with pytest.raises(UsageError, match="no layer is quantized"):
        cnnx.diagnose(out.bundle.path)
    with pytest.raises(UsageError, match="invalid --images 0"):
        cnnx.diagnose(twin, images=0)


def test_images_that_moved_must_be_given_and_changed_ones_are_refused(images: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    shutil.copytree(images, own)
    bundle = export("lenet5", tmp_path / "b", calibration_data=str(own))
    found = cnnx.diagnose(bundle).findings
    # All 24 calibrate, so the validation images are used, with a note.
    assert found.images == 64 and "No image is held out" in found.notes[0]
    moved = own.rename(tmp_path / "moved")
    assert cnnx.diagnose(bundle, calibration_data=str(moved)).findings == found
    next(moved.glob("*.png")).unlink()
    with pytest.raises(BundleError, match="these are not the 24 images") as refusal:
        cnnx.diagnose(bundle, calibration_data=str(moved))
    assert "--calibration-data" in str(refusal.value)


def test_the_users_own_weights_must_be_given(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    from cnnx import weights
    from cnnx.recipe import read_recipe

    shipped = weights.locate(read_recipe("lenet5"), "pretrained", progress=lambda *_: None).file
    tensors = load_file(shipped)
    save_file(
        {name: each * np.float32(1.01) for name, each in tensors.items()}, tmp_path / "mine.safetensors"
    )
    bundle = export("lenet5", tmp_path / "b", weights=str(tmp_path / "mine.safetensors"))
    with pytest.raises(UsageError, match=r"mine\.safetensors") as refusal:
        cnnx.diagnose(bundle)
    assert "--weights FILE" in str(refusal.value)
    with pytest.raises(WeightsError, match="not the bundle's weights"):
        cnnx.diagnose(bundle, weights=str(shipped))
    assert cnnx.diagnose(bundle, weights=str(tmp_path / "mine.safetensors"), images=8).findings.images == 8


def without_a_range(bundle: Path) -> None:
    calibration = json.loads((bundle / "calibration.json").read_text())
    del calibration["ranges"][next(iter(calibration["ranges"]))]
    (bundle / "calibration.json").write_text(json.dumps(calibration))


def without_a_layer(manifest: dict[str, Any]) -> None:
    del manifest["layers"][0]


def of_another_precision(manifest: dict[str, Any]) -> None:
    manifest["layers"][0]["precision"] = "fp16"


@pytest.mark.parametrize("change", [without_a_range, without_a_layer, of_another_precision])
def test_a_resealed_bundle_with_mismatched_parts_is_refused(change: Any, tmp_path: Path) -> None:
    bundle = export("lenet5", tmp_path / "b")
    manifest = read_sealed(bundle / "manifest.json", bundle=bundle)
    change(bundle if change is without_a_range else manifest)
    manifest["files"]["calibration.json"] = digest_of_file(bundle / "calibration.json")
    write_sealed(bundle / "manifest.json", manifest)
    with pytest.raises(BundleError) as caught:
        cnnx.diagnose(bundle, images=8)
    assert Path(str(caught.value.where)).name in ("calibration.json", "manifest.json")
