"""Exported graphs stay the same, byte for byte, across refactorings."""

import json

import pytest

from tools.check.golden_graphs import NETWORKS, PRECISIONS, RECORDED, differences, digests

pytest.importorskip("torch", reason="exports need PyTorch")


# VGG-16 takes a minute a graph: `python -m tools.check.golden_graphs` compares it, test_vgg16 exports it.
@pytest.mark.parametrize("network", [name for name in NETWORKS if name != "vgg16"])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_graph_is_the_recorded_one(network, precision, tmp_path):
    recorded = json.loads(RECORDED.read_text(encoding="utf-8"))
    assert not differences(recorded, {f"{network} {precision}": digests(network, precision, tmp_path)})
