"""Changes at export are kept only for a gain that was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cnnx
from cnnx.pipeline.search import changes
from cnnx.pipeline.search.repair import KEPT

pytest.importorskip("torch", reason="exports need PyTorch")


def test_no_layer_leaves_int8_where_logits_are_not_finite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No infinite divergence is a gain. In attention, layers are tried one by one."""
    real, runs = changes.graph_logits, []

    def logits(*arguments: Any, **options: Any) -> Any:
        found = real(*arguments, **options)
        runs.append(arguments)
        # The first run is that of the FP32 graph.
        return found if len(runs) == 1 else np.full_like(found, np.nan)

    monkeypatch.setenv("CNNX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(changes, "graph_logits", logits)
    few = {"calibration_images": 32, "validation_images": 16}
    result = cnnx.export("small-levit-branches", precision="int8", target="ort", out=tmp_path / "b", **few)
    assert len(runs) > 2
    assert not any("Export changed" in note for note in result.notes)
    assert not any(
        each["reason"].startswith(KEPT) for each in result.bundle.manifest.recipe["precision"]["overrides"]
    )
