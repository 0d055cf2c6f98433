"""`list` and `show`: the networks that ship with cnnx, and the layers of a network."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from cnnx.errors import UsageError
from cnnx.models import FAMILIES, family
from cnnx.options import takes
from cnnx.options.networks import ListOptions, ShowOptions
from cnnx.pipeline.plain import plain
from cnnx.recipe import PublishedAccuracy, Recipe, plain_spelling, read_recipe, recipe_names
from cnnx.record import LayerRow
from cnnx.report.result import Result
from cnnx.report.table import Block, Said
from cnnx.weights import at_hand


@dataclass(frozen=True, slots=True)
class Network:
    """A shipped recipe, as `cnnx list` shows it.

    Attributes:
        name: name in commands.
        title: display name.
        summary: one sentence.
        family: family of its definition.
        input_shape: channels, height, width.
        classes: number of classes.
        parameters: number of trainable parameters, without parts used only in training.
        multiply_adds: MACs for one image, without biases.
        accuracy: accuracy of the published weights, else the first published figure, if any.
        weights: "ships" with cnnx, "at hand" on this machine, "download", or "none".
    """

    name: str
    title: str
    summary: str
    family: str
    input_shape: tuple[int, int, int]
    classes: int
    parameters: int
    multiply_adds: int
    accuracy: PublishedAccuracy | None
    weights: Literal["ships", "at hand", "download", "none"]


@dataclass(frozen=True, slots=True, repr=False)
class Architecture(Result):
    """The layers of a network; the first row is the input image."""

    name: str
    title: str
    layers: tuple[LayerRow, ...]

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Channels, height, width."""
        return self.layers[0].output_shape

    @property
    def parameters(self) -> int:
        """Total number of trainable parameters."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def multiply_adds(self) -> int:
        """MACs for one image, without biases."""
        return sum(layer.multiply_adds for layer in self.layers)

    @property
    def activation_bytes(self) -> int:
        """Total size of all activations for one image, including the image; a runtime may reuse memory."""
        return sum(layer.activation_bytes for layer in self.layers)

    def blocks(self, *, verbose: bool = False) -> list[Said]:
        """What the command prints."""
        from cnnx.report.tables.networks import architecture_blocks

        return architecture_blocks(self.as_dict())

    def as_dict(self) -> dict[str, Any]:
        """Plain data, including totals."""
        totals = ("parameters", "multiply_adds", "activation_bytes")
        return {**dataclasses.asdict(self), "totals": {key: getattr(self, key) for key in totals}}


class Networks(Result, tuple[Network, ...]):
    """The networks that a search found."""

    __slots__ = ()

    def blocks(self, *, verbose: bool = False) -> Iterable[Block]:
        """What the command prints."""
        from cnnx.report.tables.networks import network_blocks

        return network_blocks(plain(tuple(self)), whole=verbose)


@takes(ListOptions)
def list_networks(pattern: str = "*", *, options: ListOptions) -> Networks:
    """The networks that ship with cnnx, sorted by family and name.

    Limits of parameters and MACs are plain numbers here; only the command line takes millions and GMACs.

    Args:
        pattern: part of a name in any spelling, or a shell pattern for the whole name.
        options: options as an object; each can also be given by keyword.

    Raises:
        UsageError: the family does not exist.

    Examples:
        >>> [network.name for network in cnnx.list_networks("lenet*")]
        ['lenet5', 'lenet5-1998']
    """
    family = None if options.family is None else options.family.lower().replace("_", "-")
    if family is not None and family not in FAMILIES:
        near = difflib.get_close_matches(family, FAMILIES, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(FAMILIES)}"
        raise UsageError(f"unknown --family {family!r}", hint=hint)
    most_parameters, most_multiply_adds = options.max_parameters, options.max_multiply_adds
    least = options.min_top1
    shell = any(sign in pattern for sign in "*?[")
    part = plain_spelling(pattern)
    found = (
        network
        for network in map(_network, map(read_recipe, recipe_names()))
        if (fnmatchcase(network.name, pattern.lower()) if shell else part in plain_spelling(network.name))
        and family in (None, network.family)
        and options.side in (None, network.input_shape[2])
        and (most_parameters is None or network.parameters <= most_parameters)
        and (most_multiply_adds is None or network.multiply_adds <= most_multiply_adds)
        and (least is None or (network.accuracy is not None and network.accuracy.top1 >= least))
        and (network.weights != "none" or not options.with_weights)
    )
    return Networks(sorted(found, key=lambda network: (network.family, _counting(network.name))))


def _counting(name: str) -> list[tuple[int, str]]:
    """A sort key that puts resnet18 before resnet101."""
    parts = re.findall(r"\d+|\D+", name)
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


def _network(recipe: Recipe) -> Network:
    weights = recipe.weights
    origin: Literal["ships", "at hand", "download", "none"] = "none"
    if weights.file:
        origin = "ships" if not weights.url else "at hand" if at_hand(recipe) else "download"
    own = (PublishedAccuracy(weights.source, weights.protocol, weights.top1, weights.top5),)
    figures = own if weights.top1 else recipe.published
    return Network(
        name=recipe.name,
        title=recipe.title,
        summary=recipe.summary,
        family=family(recipe.model.definition),
        input_shape=recipe.input.shape,
        classes=recipe.model.classes,
        parameters=recipe.model.parameters,
        multiply_adds=recipe.model.multiply_adds,
        accuracy=figures[0] if figures else None,
        weights=origin,
    )


@takes(ShowOptions)
def show(model: str | Path, options: ShowOptions) -> Architecture:
    """The layers of a recipe's network, or of an ONNX file.

    Args:
        model: a recipe's name, a recipe file, or an ONNX file.
        options: options as an object; each can also be given by keyword.

    Raises:
        RecipeError: the recipe does not exist, or it runs code and is not trusted.
        MissingExtra: the network is a PyTorch definition, and PyTorch is not installed.

    Examples:
        >>> cnnx.show("lenet5").parameters
        61706
    """
    from cnnx.pipeline.steps.definition import build_torch, resolve

    recipe = resolve(str(model), trust_recipe=options.trust_recipe, logits=options.logits)
    if recipe.is_onnx:
        from cnnx.graph.entry import read_network
        from cnnx.graph.inspect import layers

        file = recipe.folder / recipe.model.definition
        rows: tuple[LayerRow, ...] = layers(read_network(file, logits=recipe.model.logits).model)
    else:
        module = build_torch(recipe, trusted=options.trust_recipe)
        from cnnx.models.count import layer_rows

        rows = layer_rows(module, recipe.input.shape)
    return Architecture(recipe.name, recipe.title or recipe.name, (_input_row(recipe), *rows))


def _input_row(recipe: Recipe) -> LayerRow:
    channels, height, width = recipe.input.shape
    values = channels * height * width
    return LayerRow(recipe.input.name, "Input", recipe.input.shape, 0, 0, activation_bytes=4 * values)
