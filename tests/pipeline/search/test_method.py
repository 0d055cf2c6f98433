"""Selection images are neither calibration nor validation images; equalization helps unequal channels."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import cnnx
from cnnx.errors import UsageError
from cnnx.pipeline.search.method import CANDIDATES, SELECTION_IMAGES
from cnnx.stats import Verdict

pytest.importorskip("torch", reason="exports need PyTorch")


def test_auto_uses_and_reports_the_method_of_least_divergence(tmp_path: Path) -> None:
    result = cnnx.export("lenet5", precision="int8", method="auto", out=tmp_path / "b")
    assert {candidate.method for candidate in result.candidates} == set(CANDIDATES)
    divergences = [candidate.likeness.divergence for candidate in result.candidates]
    assert divergences == sorted(divergences) and divergences[0] > 0
    calibration = json.loads((result.bundle.path / "calibration.json").read_text())
    assert calibration["method"] == result.candidates[0].method
    images = result.bundle.manifest.images
    assert images["selection"].images == SELECTION_IMAGES and images["calibration"].images == 256
    assert result.validation.verdict is Verdict.PASSED


def test_a_quarter_of_a_folder_selects_and_the_rest_calibrates(tmp_path: Path, images: Path) -> None:
    result = cnnx.export(
        "lenet5", precision="int8", method="auto", calibration_data=str(images), out=tmp_path / "b"
    )
    used = result.bundle.manifest.images
    assert (used["selection"].images, used["calibration"].images) == (6, 18)
    excluded = "6 calibration images were excluded, as they are also validation or selection images"
    assert any(excluded in note for note in result.notes)


def test_a_folder_also_used_for_validation_leaves_calibration_images(tmp_path: Path, images: Path) -> None:
    options = {"calibration_data": str(images), "validation_data": str(images), "method": "auto"}
    result = cnnx.export("lenet5", precision="int8", validation_images=16, out=tmp_path / "b", **options)
    used = result.bundle.manifest.images
    assert [used[role].images for role in ("validation", "selection", "calibration")] == [16, 2, 6]
    with pytest.raises(UsageError, match="left for calibration and selection: 1, at least 2"):
        cnnx.export("lenet5", precision="int8", validation_images=23, out=tmp_path / "c", **options)


def test_equalization_restores_the_agreement_of_a_hostile_twin(tmp_path: Path) -> None:
    def export(name: str, *, equalize: bool) -> cnnx.pipeline.results.ExportResult:
        return cnnx.export(
            name,
            precision="int8",
            equalize=equalize,
            target="ort",
            calibration_images=64,
            validation_images=256,
            out=tmp_path / f"{name}-{equalize}",
        )

    original, equalized, as_it_is = (
        export(name, equalize=equalize)
        for name, equalize in (("resnet20", True), ("resnet20-hostile", True), ("resnet20-hostile", False))
    )
    assert as_it_is.validation.verdict is Verdict.FAILED
    assert equalized.validation.verdict is not Verdict.FAILED
    assert equalized.validation.logit_sqnr_db == pytest.approx(original.validation.logit_sqnr_db, abs=0.3)
    assert as_it_is.validation.logit_sqnr_db < equalized.validation.logit_sqnr_db - 10
    assert not any(layer["precision"] == "fp32" for layer in equalized.bundle.manifest.layers)
