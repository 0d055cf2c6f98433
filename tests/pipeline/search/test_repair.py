"""Hostile twins fail when quantized; repair finds the layers that were scaled, and then they pass."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

import cnnx
from cnnx.agreement import Likeness
from cnnx.errors import UsageError
from cnnx.gates import DEFAULTS
from cnnx.pipeline import quantizer
from cnnx.pipeline.search.repair import would_pass
from cnnx.resources import shared_folder
from cnnx.stats import Verdict
from cnnx.store.cache import Partial

pytest.importorskip("torch", reason="exports need PyTorch")

from tests.inputs.hostile import Counting, scaled_layers, shifted_layers


def export(name: str, out: Path, *, equalize: bool = False, images: int = 512, **options: Any) -> Any:
    return cnnx.export(
        name,
        precision="int8",
        equalize=equalize,
        target="ort",
        calibration_images=128,
        validation_images=images,
        out=out,
        **options,
    )


@pytest.mark.slow
def test_a_hostile_twin_is_repaired_at_the_layers_that_were_scaled(tmp_path: Path) -> None:
    name = "small-mobilenet-hostile"
    before = export(name, tmp_path / "before")
    assert before.validation.verdict is Verdict.FAILED
    assert any("drop --no-equalize" in note and "--repair" in note for note in before.notes)
    result = export(name, tmp_path / "after", repair=True)
    assert result.validation.verdict is not Verdict.FAILED
    repair = result.repair
    assert repair is not None and repair.after.passes and not repair.before.passes
    culprits = {each.layer for each in repair.put_back}
    spared = repair.before.distance - repair.after.distance
    # The gate is a rate, and a layer at its edge may be kept for next to nothing.
    matter = {each.layer for each in repair.put_back if each.spared > 0.01 * spared}
    assert matter and matter <= scaled_layers(name)
    reasons = {layer["node"]: layer["reason"] for layer in result.bundle.manifest.layers}
    assert all("put back by repair" in reasons[layer] for layer in culprits)
    assert 0 < result.int8_share < before.int8_share
    found = cnnx.diagnose(result.bundle.path, images=8)
    assert culprits <= {each.layer for each in found.findings.others}
    # Repair does not make the calibration images run again.
    assert {each.step: each.reused for each in found.steps}["calibration images through the graph"]


@pytest.mark.slow
def test_sums_of_very_different_ranges_are_repaired_where_constants_were_shifted(tmp_path: Path) -> None:
    """No scaling undoes the shifts: INT8 fails although channels are equalized, as by default.

    Export by itself finds that shortcuts do most of the damage, and which layers do the rest.
    """
    name = "small-levit-branches"
    kept = export(name, tmp_path / "kept", equalize=True, images=1024)
    recipe = (shared_folder("recipes") / f"{name}.toml").read_text()
    assert "[precision]" not in recipe
    (tmp_path / "own.toml").write_text(f"{recipe}\n[precision]\nremedies = false\n")
    before = export(str(tmp_path / "own.toml"), tmp_path / "before", equalize=True, images=1024)
    assert 0.85 <= kept.int8_share <= before.int8_share
    assert kept.validation.divergence and before.validation.divergence
    assert kept.validation.divergence.mean < 0.4 * before.validation.divergence.mean
    assert any("all shortcuts in FP16" in note and "remedies = false" in note for note in kept.notes)
    assert before.validation.verdict is Verdict.FAILED
    result = export(str(tmp_path / "own.toml"), tmp_path / "after", equalize=True, images=1024, repair=True)
    assert any("put back by repair" in note for note in result.notes) or result.int8_share >= 0.95
    assert result.validation.verdict is not Verdict.FAILED and result.repair.after.passes
    put_back = {each.layer for each in result.repair.put_back}
    assert put_back and put_back <= shifted_layers(name) and len(put_back) <= 0.5 * len(shifted_layers(name))
    assert result.int8_share > 0.8 * before.int8_share


def test_nothing_is_put_back_if_the_gates_would_pass(tmp_path: Path) -> None:
    result = cnnx.export("lenet5", precision="int8", repair=True, out=tmp_path / "b")
    assert result.repair.put_back == () and result.repair.before.passes and result.repair.tried == 1
    assert result.validation.verdict is Verdict.PASSED and result.int8_share == 1


def test_what_was_tried_is_not_tried_again_whatever_the_limit(
    tmp_path: Path, monkeypatch: Any, stop_at: Any
) -> None:
    """Neither after a stop, nor with another number of trials, other gates or other validation images."""
    monkeypatch.setenv("CNNX_CACHE", str(tmp_path / "cache"))
    trials: list[int] = []
    options = {"repair": True, "listener": stop_at("repair", 4, trials)}
    with pytest.raises(KeyboardInterrupt):
        export("resnet20-hostile", tmp_path / "b", repair_trials=6, **options)
    (journal,) = (tmp_path / "cache" / "repair").glob(".*.partial")
    assert len(json.loads(Partial(journal).load() or "")) == 4
    monkeypatch.setattr(quantizer, "type_graph", count := Counting(quantizer.type_graph))
    options["listener"] = stop_at("repair", 0, trials)
    first = export("resnet20-hostile", tmp_path / "b", repair_trials=5, **options).repair
    assert first.exhausted and count.calls == first.tried - 4 == 1
    longer = export("resnet20-hostile", tmp_path / "b", repair_trials=12, force=True, **options).repair
    assert count.calls == longer.tried - 4 > 1
    fewer = export("resnet20-hostile", tmp_path / "b", images=500, repair_trials=12, force=True, **options)
    assert count.calls == longer.tried - 4 and fewer.repair == longer


@pytest.mark.parametrize("gate", ["top1_agreement", "top1_in_top5", "top5_agreement"])
def test_a_trial_passes_if_every_agreement_gate_would(gate: str) -> None:
    """At a rate of 1 a gate of 0.995 is decided by 765 images, one of 0.99 by 381."""
    alike = Likeness(0.0, top1_agreement=1, top1_in_top5=1, top5_agreement=1, logit_sqnr_db=None)
    assert would_pass(alike, DEFAULTS["int8"], images=512)
    assert not would_pass(dataclasses.replace(alike, **{gate: 0.89}), DEFAULTS["int8"], images=100_000)
    strict = dataclasses.replace(DEFAULTS["int8"], **{gate: 0.995})
    assert not would_pass(alike, strict, images=764) and would_pass(alike, strict, images=765)


@pytest.mark.parametrize(
    ("threshold", "images", "passes"), [(0.99, 16, True), (0.995, 16, False), (0.995, 800, True)]
)
def test_a_trial_is_judged_on_as_many_images_as_validate_but_not_on_few(
    threshold: float, images: int, passes: bool, tmp_path: Path
) -> None:
    recipe = (shared_folder("recipes") / "lenet5.toml").read_text()
    (tmp_path / "lenet5.toml").write_text(
        f"{recipe}\n[gates.int8]\ntop1_in_top5 = {threshold}\nreason = 'a test'\n"
    )
    few = {"validation_images": images, "repair": True, "repair_trials": 3}
    result = cnnx.export(str(tmp_path / "lenet5.toml"), precision="int8", out=tmp_path / "b", **few)
    assert result.repair.before.passes == passes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"repair": True, "repair_trials": 0}, "invalid --repair-trials 0"),
        ({"repair_trials": 9}, "add --repair"),
        ({"precision": "fp16", "repair": True}, "--repair applies only to INT8"),
        ({"precision": "fp16", "method": "auto"}, "--method applies only to INT8"),
        ({"precision": "fp32", "equalize": False}, "--equalize/--no-equalize applies only to INT8"),
    ],
)
def test_options_without_effect_are_refused(options: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as refusal:
        cnnx.export("lenet5", out=tmp_path / "b", **{"precision": "int8", **options})
    assert message in str(refusal.value)
