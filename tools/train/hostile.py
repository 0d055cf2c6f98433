"""Make hostile twins of trained networks: the same function in FP32, hard to quantize to INT8 or FP16.

`python -m tools.train.hostile` (or some of the twins' names) writes recipes/weights/<name>-<start of its
SHA-256>.safetensors and prints the lines to set in the recipes. Half a minute each; equal inputs give equal
bytes.

Two methods multiply channels where they are produced and divide them where they are read
(`cnnx.graph.passes.channels`):

- channels: in a third of the tensors, scale every channel by a separate factor, log-uniform over ten octaves,
  and two channels by another 64. One range per tensor then rounds the smallest channels to zero. In "wide"
  twins, one tensor is scaled until it exceeds the range of FP16.
- parts: scale each layer that feeds a concatenation by one factor, log-uniform over twelve octaves. The parts
  of a concatenation then have very different ranges, the channels of a part do not.

A third method shifts channels:

- branches: in each block of LeViT, whose sums have no ReLU after them, the first branch adds a constant to
  every channel, up to 8 times as large as its values; the second branch subtracts it. The two sides of a sum
  have very different ranges, and scaling channels cannot align them.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import warnings
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto
from torch import Tensor, nn

from cnnx import models, weights
from cnnx.data.builtin.shapes100 import draw_batch
from cnnx.data.normalize import normalize
from cnnx.graph import edit
from cnnx.graph.passes.channels import Groups, channels_of, scale_channels
from cnnx.graph.passes.observe import MAXIMA, observed_model
from cnnx.graph.simplify import foldable_layer, simplify
from cnnx.models.levit import Block, LeViT
from cnnx.recipe import Recipe, read_recipe
from cnnx.resources import shared_folder
from tools.train.shipping import ship

Kind = Literal["channels", "parts", "branches"]
Maxima = Mapping[str, NDArray[np.float64]]
"""Activation -> largest absolute value of each channel."""

TOLERANCE = 1e-4  # of the largest logit
IMAGES = 256
BEYOND_FP16 = 2e5
BRANCH_SHIFT = 8.0


@dataclass(frozen=True, slots=True)
class Twin:
    """The original network of a twin, and the method."""

    of: str
    kind: Kind = "channels"
    wide: bool = False


TWINS = {
    "resnet20-hostile": Twin("resnet20", wide=True),
    "plain20-hostile": Twin("plain20"),
    "densenet22-12-hostile": Twin("densenet22-12"),
    "small-vgg-bn-hostile": Twin("small-vgg-bn", wide=True),
    "small-googlenet-bn-hostile": Twin("small-googlenet-bn"),
    "small-mobilenet-hostile": Twin("small-mobilenet", wide=True),
    "small-levit-hostile": Twin("small-levit"),
    "densenet22-12-parts": Twin("densenet22-12", "parts"),
    "small-levit-branches": Twin("small-levit", "branches"),
}


@dataclass(frozen=True, slots=True)
class Place:
    """Layers whose outputs are tied by sums, and their channel groups."""

    makers: tuple[NodeProto, ...]
    groups: Groups

    @property
    def layers(self) -> list[str]:
        """Names of the layers: names of their weights up to the last dot."""
        return [node.input[1].rpartition(".")[0] for node in self.makers]


def graph_of(network: nn.Module, shape: tuple[int, ...]) -> ModelProto:
    """The network with BatchNorms as layers, and constants named as in its state dict."""
    logging.disable(logging.WARNING)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network, (torch.zeros(1, *shape),), dynamo=True, opset_version=20, optimize=False, verbose=False
        )
    assert program is not None
    model: ModelProto = program.model_proto
    made_by = edit.wiring(model.graph).producers
    for node in model.graph.node:
        # For a convolution without bias, PyTorch writes nodes that expand a zero.
        if node.op_type == "Conv" and len(node.input) > 2 and node.input[2] in made_by:
            assert made_by[node.input[2]].op_type == "Expand"
            del node.input[2]
    simplify(model, leave_out=["fold_batch_norms"])
    return model


def places_of(model: ModelProto, groups: Mapping[str, Groups]) -> list[Place]:
    """Where scaling channels has an effect: not before a BatchNorm that folds into its layer."""
    graph = edit.wiring(model.graph)
    found: list[Place] = []
    for node in model.graph.node:
        weighted = (
            node.op_type == "BatchNormalization" or edit.weight_axis(node, graph.initializers) is not None
        )
        reader = graph.only_consumer(node.output[0])
        layer = foldable_layer(reader, graph) if reader is not None else None
        folds = layer is not None and layer.output[0] == node.output[0]
        if not weighted or folds or not groups[node.output[0]].all():
            continue
        mine = groups[node.output[0]]
        tied = [place for place in found if np.intersect1d(place.groups, mine).size]
        for place in tied:
            found.remove(place)
        makers = (*(maker for place in tied for maker in place.makers), node)
        found.append(Place(makers, np.unique(np.concatenate([mine, *(place.groups for place in tied)]))))
    return found


def maxima_of(model: ModelProto, recipe: Recipe) -> Maxima:
    """Largest absolute value of each channel over a few calibration images."""
    observed = observed_model(model)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        observed.model.SerializeToString(), options, ["CPUExecutionProvider"]
    )
    images = inputs_of(recipe, "calibration", 32)
    runs = [session.run([MAXIMA], {session.get_inputs()[0].name: each[None]})[0] for each in images]
    largest = np.max(runs, axis=0).astype(np.float64)
    return {name: largest[place] for name, place in observed.channels.items()}


def inputs_of(recipe: Recipe, split: Literal["calibration", "validation"], count: int) -> NDArray[np.float32]:
    """(count, 3, H, W)."""
    pixels, _ = draw_batch(split, range(count), size=recipe.input.shape[1], color="rgb")
    return normalize(pixels, recipe.preprocessing)


def scaled_channels(
    places: list[Place], factors: NDArray[np.float64], maxima: Maxima, twin: Twin, rng: np.random.Generator
) -> list[Place]:
    """Scale a third of the places, with a separate factor for each channel."""
    chosen = [places[i] for i in sorted(rng.permutation(len(places))[: max(2, round(len(places) / 3))])]
    for number, place in enumerate(chosen):
        own = np.exp2(rng.uniform(-5, 5, len(place.groups)))
        own[rng.permutation(len(own))[:2]] *= 64
        if twin.wide and number == 0:
            own *= BEYOND_FP16 / np.max(own) / max(maxima[node.output[0]].max() for node in place.makers)
        factors[place.groups] = own
    return chosen


def scaled_parts(
    model: ModelProto, places: list[Place], factors: NDArray[np.float64], rng: np.random.Generator
) -> list[Place]:
    """Scale each layer that feeds a concatenation by one factor."""
    parts = {name for node in model.graph.node if node.op_type == "Concat" for name in node.input}
    chosen = [place for place in places if parts.intersection(place.makers[0].output)]
    for place in chosen:
        factors[place.groups] = np.exp2(rng.uniform(-6, 6))
    return chosen


def shift_branches(network: LeViT, inputs: Tensor, rng: np.random.Generator) -> dict[str, Any]:
    """Add a constant in the first branch of each block and subtract it in the second. Edits in place."""
    # Input of each block's MLP: x + attention.
    sums: dict[str, Tensor] = {}
    blocks = {name: module for name, module in network.named_modules() if isinstance(module, Block)}
    hooks = [
        block.mlp.register_forward_pre_hook(lambda _, seen, name=name: sums.update({name: seen[0]}))
        for name, block in blocks.items()
    ]
    with torch.no_grad():
        network(inputs)
    for hook in hooks:
        hook.remove()
    shifted = []
    for name, block in blocks.items():
        channels = sums[name].shape[1]
        largest = float(sums[name].abs().max())
        signs = torch.from_numpy(rng.choice([-1.0, 1.0], channels))
        shift = (BRANCH_SHIFT * largest * signs * torch.from_numpy(rng.uniform(0.5, 1, channels))).float()
        adds, reads, takes = block.attn.proj.ln.bn, block.mlp.ln1, block.mlp.ln2.bn
        adds.bias.data += shift
        # A 1x1 convolution without padding maps a constant to a constant.
        reads.bn.running_mean += reads.linear.weight.data[:, :, 0, 0] @ shift
        takes.bias.data -= shift
        layers = [f"{name}.attn.proj.ln.bn", f"{name}.mlp.ln1.bn", f"{name}.mlp.ln2.bn"]
        shifted.append({"layers": layers, "largest": round(float(shift.abs().max()), 4)})
    return {"shifted": shifted}


def scale(network: nn.Module, recipe: Recipe, twin: Twin, rng: np.random.Generator) -> dict[str, Any]:
    """Scale channels in place; returns what was done."""
    model = graph_of(network, recipe.input.shape)
    channels, maxima = channels_of(model), maxima_of(model, recipe)
    places = places_of(model, channels.groups)
    factors = np.ones(channels.count)
    if twin.kind == "channels":
        chosen = scaled_channels(places, factors, maxima, twin, rng)
    else:
        chosen = scaled_parts(model, places, factors, rng)
    scale_channels(model, channels, factors)
    state = network.state_dict()
    for tensor in model.graph.initializer:
        if tensor.name in state:
            state[tensor.name] = torch.from_numpy(edit.array(tensor).copy())
    network.load_state_dict(state)
    rescaled = [
        {"layers": place.layers, "smallest": low, "largest": high}
        for place in chosen
        for low, high in [np.round([factors[place.groups].min(), factors[place.groups].max()], 4).tolist()]
    ]
    return {"rescaled": rescaled}


def make(name: str, twin: Twin) -> None:
    """Make a twin, check it, write it, and print the lines for its recipe."""
    recipe = read_recipe(twin.of)
    found = weights.locate(recipe, "pretrained", progress=lambda *_: None)
    network = models.build(
        recipe.model.definition, classes=recipe.model.classes, arguments=recipe.model.arguments
    )
    weights.load_into(network, found, recipe, batches_for_statistics=())
    images = torch.from_numpy(inputs_of(recipe, "validation", IMAGES))
    with torch.no_grad():
        original = network(images)
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if twin.kind == "branches":
        inputs = torch.from_numpy(inputs_of(recipe, "calibration", 32))
        changed = shift_branches(network, inputs, rng)
    else:
        changed = scale(network, recipe, twin, rng)
    with torch.no_grad():
        difference = float((network(images) - original).abs().max() / original.abs().max())
    if not difference <= TOLERANCE:
        raise SystemExit(f"{name}: the logits differ by {difference:.1e} of the largest")
    print(f"{name}: {', '.join(changed)}; logits differ by {difference:.1e}")
    made = {"by": f"cnnx, tools/train/hostile.py {name}", "from": found.origin.partition(":")[0], **changed}
    file = ship(name, network.state_dict(), made, folder=shared_folder("recipes") / "weights")
    print(f'in {name}.toml:\n[weights]\nfile = "{file.name}"\n', flush=True)


def main() -> None:
    """Make the named twins, or all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", help=f"of {', '.join(TWINS)}")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(TWINS):
        parser.error(f"no twins: {', '.join(sorted(unknown))}; known: {', '.join(TWINS)}")
    for name in arguments.names or TWINS:
        make(name, TWINS[name])


if __name__ == "__main__":
    main()
