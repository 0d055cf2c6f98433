import json

import pytest

import cnnx
from cnnx.runtimes import get
from cnnx.stats import Verdict
from tools.check.golden_graphs import RECORDED, structure

pytest.importorskip("torch", reason="exports need PyTorch")


@pytest.mark.slow
def test_vgg16_is_exported_with_standin_weights(tmp_path, monkeypatch):
    """With two images per role; this tests only that a large network passes through all steps."""
    monkeypatch.setenv("CNNX_CACHE", str(tmp_path / "cache"))  # 0.9 GB that no other test needs
    build = {} if get("rtx").missing() else {"target": "rtx", "sm": [86]}
    result = cnnx.export(
        "vgg16",
        precision="int8",
        weights="standin",
        calibration_images=2,
        validation_images=2,
        out=tmp_path / "vgg16-int8",
        **build,
    )
    assert result.validation.verdict is Verdict.NOT_JUDGED and result.exit_code == 0
    assert result.bundle.model.stat().st_size < 140 * 2**20
    weighted = [layer for layer in cnnx.inspect(result.bundle.path).layers if layer.multiply_adds]
    assert len(weighted) == 16 and {layer.data_type for layer in weighted} == {"int8"}
    assert sum(layer.multiply_adds for layer in weighted) == 15_470_264_320
    assert sum(layer.parameters for layer in weighted) == 138_357_544
    for engine in result.engines:
        assert len(engine.layer_types) == 16 and set(engine.layer_types.values()) == {"int8"}
    recorded = json.loads(RECORDED.read_text(encoding="utf-8"))
    assert structure(result.bundle.model) == recorded["graphs"]["vgg16 int8"]["structure"]
