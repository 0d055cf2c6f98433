"""Ranges without an export, and whether there are enough calibration images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

import cnnx
from cnnx.errors import RecipeError, UsageError
from cnnx.pipeline.export.calibrate import CalibrateResult
from cnnx.pipeline.progress import Listener
from cnnx.pipeline.steps import observation
from cnnx.quant.calibration import Calibration
from cnnx.quant.methods import METHODS
from cnnx.resources import shared_folder
from tests.inputs.graphs import GRAPHS

pytest.importorskip("torch", reason="exports need PyTorch")

PASS = "calibration images through the graph"


def reused(result: CalibrateResult) -> set[str]:
    return {step.step for step in result.steps if step.reused}


def test_ranges_are_those_of_an_export_which_reuses_the_pass(tmp_path: Path) -> None:
    shown = cnnx.calibrate("lenet5", calibration_images=40)
    assert shown.images == 40 and shown.folds is None and shown.selection_images == 0
    assert [tensor.tensor for tensor in shown.tensors] == ["input", "pool1", "flatten", "relu3", "relu4"]
    assert all(list(tensor.methods) == list(METHODS) for tensor in shown.tensors)
    for method in ("entropy", "mse"):
        result = cnnx.export(
            "lenet5", precision="int8", method=method, calibration_images=40, out=tmp_path / "b"
        )
        assert {PASS, f"ranges ({method})"} <= {step.step for step in result.steps if step.reused}
        kept = Calibration.from_json((result.bundle.path / "calibration.json").read_text())
        for tensor in shown.tensors:
            exported, ours = kept.ranges[tensor.tensor], tensor.methods[method]
            assert (ours.amax, ours.saturated_share) == (exported.amax, exported.saturated_share)
            assert tensor.maximum == exported.maximum == tensor.methods["max"].amax


@pytest.mark.parametrize("batch", [1, 4])
def test_folds_and_the_whole_set_need_one_pass(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    onnx.save(GRAPHS["plain"](batch=batch), tmp_path / "plain.onnx")

    def run(cache: str, **options: Any) -> CalibrateResult:
        monkeypatch.setenv("CNNX_CACHE", str(tmp_path / cache))
        return cnnx.calibrate(
            str(tmp_path / "plain.onnx"), calibration_data=str(images), method="max", **options
        )

    folded = run("a", folds=3)
    found = folded.folds
    assert found is not None and found.method == "max" and folded.images == found.whole.images == 18
    assert [fold.images for fold in found.folds] == {1: [6, 6, 6], 4: [8, 6, 4]}[batch]
    for spread in found.spreads:
        assert max(spread.folds) == spread.amax  # the largest of all is the largest of some fold
        assert spread.ratio == max(spread.folds) / min(spread.folds) <= found.spreads[0].ratio
    once = run("b", folds=2)
    assert once.tensors == folded.tensors and once.folds != found
    assert PASS in reused(run("b", folds=3))


@pytest.mark.parametrize(("images", "settled"), [(10, False), (256, True)])
def test_few_images_are_too_few_and_many_are_not(images: int, settled: bool) -> None:
    result = cnnx.calibrate("lenet5", calibration_images=images, folds=5)
    assert result.folds is not None and result.folds.settled is settled
    assert any("too small" in note for note in result.notes) is not settled
    worst = max(fold.likeness.divergence for fold in result.folds.folds)
    assert result.folds.still_moves < worst < (1e-4 if settled else 1)


def test_a_stopped_fold_resumes_and_finished_ones_are_kept(
    monkeypatch: pytest.MonkeyPatch, stop_at: Callable[[str, int, list[int]], Listener]
) -> None:
    monkeypatch.setattr(observation, "_SAVE_SECONDS", 0.0)
    seen: list[int] = []
    options = {"calibration_images": 37, "folds": 3, "method": "max"}
    title = "fold 2 of 3 through the graph"
    with pytest.raises(KeyboardInterrupt):
        cnnx.calibrate("lenet5", listener=stop_at(title, 5, seen), **options)
    again: list[int] = []
    result = cnnx.calibrate("lenet5", listener=stop_at(title, -1, again), **options)
    assert seen == [1, 2, 3, 4, 5] and again[0] in (5, 6) and again[-1] == 12
    assert "fold 1 of 3 through the graph" in reused(result)
    assert result.folds is not None and result.folds.whole.images == 37


def test_auto_shows_the_choice_on_held_out_images() -> None:
    result = cnnx.calibrate("lenet5", calibration_images=40, method="auto")
    assert result.selection_images == 128
    assert [list(tensor.methods) for tensor in result.tensors] == [[result.candidates[0].method]] * 5


def test_impossible_folds_are_refused() -> None:
    with pytest.raises(UsageError, match="invalid --folds 1: expected at least 2"):
        cnnx.calibrate("lenet5", folds=1)
    with pytest.raises(UsageError, match="4 calibration images do not fill 5 folds"):
        cnnx.calibrate("lenet5", calibration_images=4, folds=5)


def with_override(folder: Path, match: str, method: str) -> str:
    recipe = (shared_folder("recipes") / "lenet5.toml").read_text()
    lines = f"match = {match!r}\nmethod = {method!r}\nreason = 'a test'"
    (folder / "lenet5.toml").write_text(f"{recipe}\n[[calibration.overrides]]\n{lines}\n")
    return str(folder / "lenet5.toml")


def test_what_a_layer_reads_can_have_a_range_of_its_own(tmp_path: Path) -> None:
    few = {"precision": "int8", "calibration_images": 40, "validation_images": 16}
    ranges = {}
    for name in ("lenet5", with_override(tmp_path, "conv[12]", "max")):
        bundle = cnnx.export(name, out=tmp_path / "b", force=True, **few).bundle
        ranges[name] = Calibration.from_json((bundle.path / "calibration.json").read_text()).ranges
    usual, own = ranges.values()
    changed = {tensor for tensor in usual if usual[tensor] != own[tensor]}
    assert changed == {"input", "pool1"} and {own[tensor].method for tensor in changed} == {"max"}
    assert own["pool1"].amax == own["pool1"].maximum > usual["pool1"].amax


@pytest.mark.parametrize(
    ("match", "method", "message"),
    [("conv9", "max", "'conv9' matches no layer"), ("conv1", "maxi", "unknown calibration method 'maxi'")],
)
def test_an_override_of_a_range_that_does_nothing_is_refused(
    match: str, method: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=message) as refusal:
        cnnx.export(
            with_override(tmp_path, match, method),
            precision="int8",
            calibration_images=16,
            validation_images=16,
            out=tmp_path / "b",
        )
    assert refusal.value.where == "calibration.overrides"
