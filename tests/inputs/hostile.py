"""What tests of hostile twins share."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
from safetensors import safe_open

from cnnx import models, weights
from cnnx.graph import edit
from cnnx.graph.passes.channels import channels_of
from cnnx.recipe import read_recipe
from tools.train import hostile


def made_of(name: str) -> Any:
    """What a twin's maker did, as its weights say."""
    file = weights.locate(read_recipe(name), "pretrained", progress=lambda *_: None).file
    assert file is not None
    with safe_open(file, "pt") as content:
        return json.loads(content.metadata()["made"])


def shifted_layers(name: str) -> set[str]:
    """Layers that a twin's maker shifted constants into, or out of."""
    norms = {layer for place in made_of(name)["shifted"] for layer in place["layers"]}
    return {f"{each.removesuffix('.bn')}.linear" for each in norms}


def scaled_layers(name: str) -> set[str]:
    """Layers that a twin's maker scaled: they make the scaled channels, or read them."""
    recipe = read_recipe(name)
    scaled = {layer for place in made_of(name)["rescaled"] for layer in place["layers"]}
    spec = recipe.model
    network = models.build(spec.definition, classes=spec.classes, arguments=spec.arguments)
    graph = hostile.graph_of(network, recipe.input.shape)
    groups, constants = channels_of(graph).groups, edit.initializers(graph.graph)
    layers = {n.input[1].rpartition(".")[0]: n for n in graph.graph.node if len(n.input) > 1}
    made = np.concatenate([groups[layers[layer].output[0]] for layer in scaled])
    quantized = {each: node for each, node in layers.items() if edit.weight_axis(node, constants) is not None}
    readers = {each for each, node in quantized.items() if np.isin(groups[node.input[0]], made).any()}
    # Where a BatchNorm was scaled, it is folded into the layer before it.
    scaled_values = {layers[each].input[0] for each in scaled} | {layers[each].output[0] for each in scaled}
    return readers | {each for each, node in quantized.items() if node.output[0] in scaled_values}


class Counting:
    """Calls a function and counts."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function, self.calls = function, 0

    def __call__(self, *positional: Any, **named: Any) -> Any:
        self.calls += 1
        return self.function(*positional, **named)
