"""Values that are hard to quantize, each with its defined result (docs/decisions.md)."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from PIL import Image

import cnnx
from cnnx.errors import InputRefused
from cnnx.pipeline.export.calibrate import CalibrateResult
from cnnx.pipeline.export.result import ExportResult
from cnnx.quant.calibration import Calibration
from cnnx.quant.methods import METHODS
from tests.inputs import edge_graphs

Export = Callable[..., ExportResult]


@pytest.fixture
def export(tmp_path: Path) -> Export:
    def run(kind: str, value: float = 1.0, **options: Any) -> ExportResult:
        onnx.save(edge_graphs.network(kind, value), tmp_path / "odd.onnx")
        sets = {"calibration_data": "digits", "calibration_images": 8, "validation_data": "digits"}
        return cnnx.export(
            str(tmp_path / "odd.onnx"),
            precision="int8",
            target="ort",
            validation_images=16,
            out=tmp_path / "bundle",
            **{**sets, **options},
        )

    return run


def calibrate(tmp_path: Path, kind: str, value: float = 1.0, **options: Any) -> CalibrateResult:
    onnx.save(edge_graphs.network(kind, value), tmp_path / "odd.onnx")
    return cnnx.calibrate(
        str(tmp_path / "odd.onnx"), calibration_data="digits", calibration_images=8, **options
    )


def layers(result: ExportResult) -> dict[str, dict[str, Any]]:
    return {layer["node"]: layer for layer in result.bundle.manifest.layers}


def agrees(result: ExportResult, decibels: float) -> bool:
    """The bundle's graph, which export has linted, gives the original's logits."""
    found = result.validation
    return found.nonfinite == 0 and (found.logit_sqnr_db is None or found.logit_sqnr_db > decibels)


@pytest.mark.parametrize("equalize", [True, False])
def test_dead_channels_stay_dead_and_harm_nothing(export: Export, equalize: bool) -> None:
    result = export("dead-channels", equalize=equalize)
    assert agrees(result, 25) and layers(result)["conv2"]["precision"] == "int8"


def test_a_dead_tensor_keeps_its_readers_out_of_int8(export: Export) -> None:
    result = export("dead-tensor")
    assert agrees(result, 25) and layers(result)["conv2"]["precision"] == "fp16"
    assert "relu1 was zero on every calibration image" in layers(result)["conv2"]["reason"]


@pytest.mark.parametrize("method", METHODS)
def test_a_constant_tensor_gets_its_value_for_a_range(tmp_path: Path, method: str) -> None:
    result = calibrate(tmp_path, "constant", 3.0, equalize=False, method=method)
    [relu] = [tensor for tensor in result.tensors if tensor.tensor == "relu1"]
    assert relu.methods[method].amax == pytest.approx(3, rel=2**-10) and relu.zeros_share == 0


def test_infinities_become_an_fp32_island(export: Export) -> None:
    result = export("infinite", 1e38)
    assert agrees(result, 25)
    assert [layers(result)[name]["precision"] for name in ("conv1", "relu1", "conv2")] == [
        "fp32", "fp32", "int8",
    ]  # fmt: skip
    assert "inf" in layers(result)["relu1"]["reason"]
    kept = Calibration.from_json((result.bundle.path / "calibration.json").read_text())
    assert "conv1" in kept.nonfinite and "conv1" not in kept.ranges and math.isfinite(kept.maxima["conv1"])


def test_an_original_with_nonfinite_logits_is_refused(export: Export, tmp_path: Path) -> None:
    for attempt in (lambda: export("nan"), lambda: calibrate(tmp_path, "nan", equalize=False, folds=2)):
        with pytest.raises(InputRefused, match="logits are not finite for"):
            attempt()


def test_one_giant_outlier_is_taken_in_by_max_and_clipped_by_entropy(tmp_path: Path) -> None:
    result = calibrate(tmp_path, "outlier", equalize=False)
    [relu] = [tensor for tensor in result.tensors if tensor.tensor == "relu1"]
    amax = {method: found.amax for method, found in relu.methods.items()}
    assert amax["max"] == relu.maximum > 500
    assert all(0 < each <= relu.maximum for each in amax.values())
    assert amax["entropy"] < 100 and amax["percentile-99.9"] < 3  # all else lies below 2.4
    assert amax["percentile-99.9"] <= amax["percentile-99.99"] <= amax["percentile-99.999"] <= amax["max"]


def test_black_images_alone_leave_their_readers_in_fp16(export: Export, tmp_path: Path) -> None:
    black = tmp_path / "black"
    black.mkdir()
    for number in range(3):
        Image.new("L", (16, 16), 0).save(black / f"{number}.png")
    result = export("from-black", calibration_data=str(black))
    assert result.validation.nonfinite == 0
    assert layers(result)["conv1"]["precision"] == "fp16"
    assert "shifted was zero on every calibration image" in layers(result)["conv1"]["reason"]


@pytest.mark.parametrize(("value", "precision"), [(1e-9, "fp32"), (1e-5, "fp16"), (1.0, "int8")])
@pytest.mark.parametrize("scales", ["fp16", "fp32"])
def test_what_an_fp16_scale_cannot_hold_is_not_flattened(
    export: Export, value: float, precision: str, scales: Any
) -> None:
    """Activations of 2.4 times this value: their scale would have been raised to 2**-20, all of them to 0."""
    result = export("scaled", value, equalize=False, scales=scales)
    assert agrees(result, 25)
    found = layers(result)["conv2"]
    assert found["precision"] == ("int8" if scales == "fp32" else precision), found["reason"]
