"""EfficientNet-Lite compared with its authors' configuration and table of parameters."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from cnnx.errors import RecipeError
from cnnx.models.efficientnet_lite import efficientnet_lite, scaled
from cnnx.recipe import read_recipe
from tests.inputs.counting import counts
from tests.inputs.meta import meta, rows_of, totals

# efficientnet_lite_builder.py: repetitions, kernel, stride, expansion, output channels.
BLOCKS = [(1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112),
          (4, 5, 2, 6, 192), (1, 3, 1, 6, 320)]  # fmt: skip
# Channels of each stage, repetitions of each stage, side; parameters and MACs. The authors' page prints
# 4.7, 5.4, 6.1, 8.2 and 13.0 M parameters.
LITE = {
    "lite0": ([16, 24, 40, 80, 112, 192, 320], [1, 2, 2, 3, 3, 4, 1], 224, 4_652_008, 385_187_552),
    "lite1": ([16, 24, 40, 80, 112, 192, 320], [1, 3, 3, 4, 4, 5, 1], 240, 5_416_680, 600_185_232),
    "lite2": ([16, 24, 48, 88, 120, 208, 352], [1, 3, 3, 4, 4, 5, 1], 260, 6_092_072, 859_736_272),
    "lite3": ([24, 32, 48, 96, 136, 232, 384], [1, 3, 3, 5, 5, 6, 1], 280, 8_197_096, 1_383_321_872),
    "lite4": ([24, 32, 56, 112, 160, 272, 448], [1, 4, 4, 6, 6, 8, 1], 300, 13_006_568, 2_553_034_336),
}


@pytest.mark.parametrize("variant", LITE)
def test_a_variant_is_its_configuration(variant: str) -> None:
    widths, repetitions, side, parameters, multiply_adds = LITE[variant]
    side = math.ceil(side / 2)
    layers, channels = [(9 * 3 * 32, 32, side)], 32
    for (_, kernel, stride, expansion, _), outputs, repeats in zip(BLOCKS, widths, repetitions, strict=True):
        for index in range(repeats):
            hidden = expansion * channels
            layers += [(channels * hidden, hidden, side)] if expansion > 1 else []
            side = math.ceil(side / stride) if index == 0 else side
            layers += [(kernel**2 * hidden, hidden, side), (hidden * outputs, outputs, side)]
            channels = outputs
    layers.append((channels * 1280, 1280, side))
    rows = rows_of(meta("efficientnet_lite", variant=variant), LITE[variant][2])
    found = counts(layers, [(1280 * 1000, 1000, 1)])
    assert totals(rows) == found == (parameters, multiply_adds)


def test_channels_are_multiples_of_eight_and_never_far_below() -> None:
    assert [scaled(channels, 1.2) for channels in (16, 24, 40, 320)] == [24, 32, 48, 384]
    assert all(
        scaled(c, f) % 8 == 0 and scaled(c, f) >= 0.9 * c * f for c in (16, 40, 112) for f in (1.1, 1.4)
    )


@pytest.mark.parametrize(("side", "pads"), [(224, (0, 1)), (225, (1, 1)), (33, (1, 1))])
def test_same_padding_is_tensorflows(side: int, pads: tuple[int, int]) -> None:
    """An even side with stride 2 is padded at the right and the bottom only."""
    stem = efficientnet_lite().get_submodule("conv_stem")
    assert isinstance(stem, nn.Conv2d)
    image = torch.randn(1, 3, side, side)
    padded = functional.pad(image, pads * 2)
    expected = functional.conv2d(padded, stem.weight, stride=2)
    assert torch.equal(stem(image), expected)
    assert expected.shape[-1] == math.ceil(side / 2)


def test_padding_tells_the_authors_weights_from_timms() -> None:
    """The tensors are the same, the arithmetic is not, so both are recipes."""
    same, symmetric = (read_recipe(f"efficientnet-lite0{name}") for name in ("", "-ra"))
    assert same.preprocessing != symmetric.preprocessing
    built = [efficientnet_lite(padding=padding) for padding in ("same", "symmetric")]
    assert [model.get_submodule("bn1").eps for model in built] == [1e-3, 1e-5]
    with pytest.raises(RecipeError, match=r"model\.arguments\.padding"):
        efficientnet_lite(padding="valid")


@pytest.mark.parametrize("variant", ["lite0", "lite1", "lite2"])
def test_the_names_of_efficientnet_lite_pytorch_are_understood(variant: str) -> None:
    """Its blocks are numbered through; the first block has no expansion, so its norms count from 1."""
    from cnnx.weights.fit import adapted

    model = meta("efficientnet_lite", variant=variant)
    wanted = model.state_dict()
    theirs: dict[str, torch.Tensor] = {}
    number = -1
    inner = {"conv_pw": "_expand_conv", "conv_dw": "_depthwise_conv", "conv_pwl": "_project_conv"}
    norms = {"bn1": "_bn0", "bn2": "_bn1", "bn3": "_bn2"}
    first = {"conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv", "bn2": "_bn2"}
    outer = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1"}
    outer["classifier"] = "_fc"
    before = ""
    for name, tensor in wanted.items():
        parts = name.split(".")
        if parts[0] != "blocks":
            theirs[".".join([outer[parts[0]], *parts[1:]])] = tensor
            continue
        block = ".".join(parts[:3])
        number, before = (number + (block != before)), block
        names = first if block == "blocks.0.0" else inner | norms
        theirs[f"_blocks.{number}.{names[parts[3]]}.{parts[4]}"] = tensor
    found, notes = adapted(theirs, wanted, read_recipe(f"efficientnet-{variant}").weights)
    assert found.keys() == wanted.keys() and not notes
    assert all(found[name] is wanted[name] for name in wanted)
