"""One network of each family is exported to an INT8 engine; `make matrix` does so with all networks."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

import cnnx
from cnnx.graph.inspect import int8_share
from cnnx.models import FAMILIES
from cnnx.runtimes import get

pytest.importorskip("torch", reason="exports need PyTorch")

# Network -> operators of its graph and their numbers, and the reason if less than 95 % is in INT8.
NETWORKS: dict[str, tuple[dict[str, int], str]] = {
    "alexnet-no-fc6-fc7": ({"LRN": 2, "MaxPool": 3, "Conv": 5}, ""),
    "cifar-densenet40-12": ({"Concat": 36, "BatchNormalization": 39, "GlobalAveragePool": 1}, "too small"),
    # Its asymmetric padding folds into the convolutions.
    "efficientnet-lite0": (
        {"Conv": 49, "Pad": 0, "Clip": 33, "Add": 9},
        "not a multiple of 4",
    ),
    "googlenet": ({"LRN": 2, "Conv": 57, "Concat": 9, "MaxPool": 13, "GlobalAveragePool": 1}, ""),
    "lenet5-1998": ({"Conv": 3, "AveragePool": 2, "Tanh": 6}, "too small"),
    "nin": ({"Conv": 12, "Gemm": 0, "GlobalAveragePool": 1}, ""),
    "resnet18": ({"Conv": 20, "Add": 8, "BatchNormalization": 0, "GlobalAveragePool": 1}, ""),
    "resnext50-32x4d": ({"Conv": 53, "Add": 16, "BatchNormalization": 0}, ""),
    "small-mobilenet": (
        {"Conv": 13, "BatchNormalization": 0},
        "not a multiple of 4",
    ),
    "small-levit": (
        {"Conv": 25, "MatMul": 10, "Softmax": 5, "HardSwish": 13, "GlobalAveragePool": 1},
        "weights",
    ),
    "squeezenet1.1": ({"Conv": 26, "Concat": 8, "MaxPool": 3, "GlobalAveragePool": 1}, ""),
}


def test_every_family_is_covered() -> None:
    families = {network.family for network in cnnx.list_networks() if network.name in NETWORKS}
    # VGG has a test of its own. ZFNet is like AlexNet, Inception-v3 like GoogLeNet and SqueezeNet together.
    # The two others are ResNets of another width, and of an order whose BatchNorms stay, as DenseNet's do.
    others = {"vgg", "zfnet", "inception", "wide-resnet", "preact-resnet"}
    assert families == set(FAMILIES) - others


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_of_each_family_is_exported(name: str, tmp_path: Any, monkeypatch: Any) -> None:
    """Export itself compares the FP32 graph with PyTorch within 1e-4, and checks each built layer's type."""
    monkeypatch.setenv("CNNX_CACHE", str(tmp_path / "cache"))  # up to a gigabyte that no other test needs
    build: dict[str, Any] = {"target": "ort"} if get("rtx").missing() else {"target": "rtx", "sm": [86]}
    result = cnnx.export(
        name,
        precision="int8",
        weights="standin",
        calibration_images=2,
        validation_images=2,
        out=tmp_path / name,
        **build,
    )
    operators, reason = NETWORKS[name]
    layers = cnnx.inspect(result.bundle.path).layers
    counts = Counter(layer.op for layer in layers)
    assert {op: counts[op] for op in operators} == operators
    assert {layer.data_type for layer in layers if layer.op == "LRN"} <= {"fp32"}
    rules = {warning["rule"] for warning in result.bundle.manifest.warnings}
    assert not rules & {"batch-norm", "no-op-pool"}
    assert result.int8_share == int8_share(layers)
    notes = [note for note in result.notes if "of the MACs are in INT8" in note]
    if reason:
        assert int8_share(layers) < 0.95 and reason in notes[0]
    else:
        assert int8_share(layers) >= 0.95 and not notes
    plan = {layer["node"]: layer for layer in result.bundle.manifest.layers}
    for engine in result.engines:
        planned = Counter(
            layer["precision"] for layer in plan.values() if layer["node"] in engine.layer_types
        )
        assert Counter(engine.layer_types.values()) == planned
    recipe = result.bundle.manifest.recipe
    assert sum(layer.multiply_adds for layer in layers) == recipe["model"]["multiply_adds"]
    reference = result.bundle.reference()
    assert np.isfinite(reference.original).all() and np.isfinite(reference.graph).all()
