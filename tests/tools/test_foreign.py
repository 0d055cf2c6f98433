"""A network of each family of tools/check/foreign.py goes the whole way, from either exporter of PyTorch."""

from __future__ import annotations

import importlib.util

import pytest

import cnnx
from tools.check.foreign import FAMILIES, SIDES, light_graph
from tools.networks import export, network

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("timm") is None, reason="the networks are timm's and torchvision's"
)

# Family -> its lightest network, exporter, operator set, and whether the batch is free.
SAMPLE = {
    "AlexNet, VGG, SqueezeNet": ("tv:squeezenet1_1", "legacy", 17, True),
    "Inception, GoogLeNet": ("tv:googlenet", "legacy", 11, False),
    "ResNet and kin": ("resnest14d", "legacy", 13, True),
    "RegNet, RepVGG": ("regnety_002", "dynamo", 20, False),
    "MobileNet and kin": ("ghostnet_100", "legacy", 17, False),
    "EfficientNet": ("efficientnet_lite0", "legacy", 13, True),
    "ConvNeXt and kin": ("convnext_atto", "dynamo", None, True),
    "Hybrids": ("mobilevit_xxs", "legacy", 17, True),
    "Transformers": ("deit_tiny_patch16_224", "dynamo", 18, False),
}


def goes_the_whole_way(file, tmp_path, precision):
    few = {"calibration_images": 24, "validation_images": 24}
    result = cnnx.export(file, precision=precision, target="rtx", sm=(86,), out=tmp_path / "b", **few)
    assert cnnx.show(file).parameters > 0
    assert len(cnnx.inspect(tmp_path / "b").bundle.engines()) == 1
    return result


def test_every_family_has_a_sample():
    assert set(SAMPLE) == set(FAMILIES)


@pytest.mark.parametrize("family", SAMPLE)
def test_a_network_of_each_family_becomes_an_int8_engine(family, tmp_path):
    name, exporter, opset, free = SAMPLE[family]
    side, file = SIDES.get(name, 64), tmp_path / "net.onnx"
    export(network(name, side), file, side=side, exporter=exporter, opset=opset, free_batch=free)
    result = goes_the_whole_way(file, tmp_path, "int8")
    assert result.int8_share >= 0.95 or any("The rest: " in note for note in result.notes)


@pytest.mark.parametrize("name", ["light_squeezenet", "light_shufflenet"])
def test_graphs_of_ir_3_become_fp16_engines(name, tmp_path):
    goes_the_whole_way(light_graph(name), tmp_path, "fp16")
