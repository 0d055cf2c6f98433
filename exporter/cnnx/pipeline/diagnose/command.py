"""Writes the export command that gives a bundle again, with changes to its recipe."""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cnnx.bundle import Bundle
from cnnx.errors import UsageError
from cnnx.options.networks import SHIPPED_NAMES, NetworkOptions
from cnnx.options.shared import SourceOptions
from cnnx.pipeline.export.preprocessing import with_preprocessing
from cnnx.preprocessing import Preprocessing
from cnnx.preprocessing.presets import PRESETS, assumed
from cnnx.quant.methods import FILE
from cnnx.recipe import InputSpec, Recipe, read_recipe, recipe_names

_OWN = "the user's "


def export_command(
    bundle: Bundle, changed: Recipe, options: SourceOptions, *, method: str, by_recipe: bool
) -> str:
    """The export with the changes, and with what else the bundle has that its network's recipe does not.

    Args:
        bundle: the bundle.
        changed: its recipe with the changes.
        options: where its sources are.
        method: its range method.
        by_recipe: whether lines must be added to the recipe.
    """
    network, usual = _network(changed, options)
    words = ["cnnx", "export", "RECIPE.toml" if by_recipe else network, "--int8"]
    words += ["--trust-recipe"] if changed.runs_user_code else []
    if method != FILE:
        words += ["--method", method] if method != usual.calibration.method else []
        if changed.precision.equalize != usual.precision.equalize:
            words.append("--equalize" if changed.precision.equalize else "--no-equalize")
    for role in ("calibration", "validation"):
        spec, before = getattr(changed, role), getattr(usual, role)
        words += [f"--{role}-data", spec.data] if spec.data != before.data else []
        words += [f"--{role}-images", str(spec.images)] if spec.images != before.images else []
    words += _weights(bundle, changed, options)
    words += _of_the_network(changed, usual)
    words += _preprocessing(changed, usual)
    words += _of_the_bundle(bundle)
    return shlex.join(words)


def _network(changed: Recipe, options: SourceOptions) -> tuple[str, Recipe]:
    """What to export, and the recipe that it has without options."""
    name, given = changed.name, None if options.model is None else str(options.model)
    if given is not None and Path(given).suffix == ".toml":
        return given, read_recipe(given)
    if changed.is_onnx:
        bare = dataclasses.replace(changed.model, labels="", logits="", reference="")
        shape = changed.input.shape
        usual = Recipe(name, bare, input=InputSpec(shape=shape), preprocessing=assumed(shape))
        return given or changed.model.definition, usual
    if name in recipe_names():
        return name, read_recipe(name)
    # A recipe that is not here: what its tables for INT8 state is not known.
    usual = Recipe(name, changed.model, input=changed.input, preprocessing=changed.preprocessing)
    return f"{name}.toml", usual


def _weights(bundle: Bundle, changed: Recipe, options: SourceOptions) -> Iterator[str]:
    weights = bundle.manifest.weights
    if changed.is_onnx or weights["kind"] == "pretrained":
        return
    own = weights["origin"].removeprefix(_OWN)
    yield from ("--weights", options.weights or ("standin" if weights["kind"] == "standin" else own))


def _of_the_network(changed: Recipe, usual: Recipe) -> Iterator[str]:
    """The options on the input, the names of classes, and what judges."""
    if changed.input_format != usual.input_format:
        yield from ("--input", str(changed.input_format))
    if changed.model.logits != usual.model.logits:
        yield from ("--logits", changed.model.logits)
    if (reference := changed.model.reference) != usual.model.reference:
        # A manifest has its name alone; it may be beside the network.
        beside = changed.folder / reference
        yield from ("--reference", str(beside) if beside.is_file() else reference)
    file, shipped = changed.labels_file, {f"labels/{name}.csv": name for name in SHIPPED_NAMES}
    if file is not None and file.is_file() and changed.model.labels != usual.model.labels:
        yield from ("--class-names", shipped.get(changed.model.labels, str(file)))


def _of_the_bundle(bundle: Bundle) -> Iterator[str]:
    manifest = bundle.manifest
    low, high = manifest.batch
    if (low, high) != (1, 1):
        yield from ("--batch", str(low) if low == high else f"{low}..{high}")
    if manifest.scales != "fp16":
        yield from ("--scales", manifest.scales)
    if manifest.has_source:
        yield "--with-source"


def _preprocessing(changed: Recipe, usual: Recipe) -> list[str]:
    """The options that turn the usual preprocessing into the bundle's: a preset alone, if one does."""
    wanted, before = (dataclasses.replace(each.preprocessing, assumed=False) for each in (changed, usual))
    if changed.preprocessing.assumed or wanted == before:
        return []
    every = _stated(wanted)
    some = {key: value for key, value in every.items() if _stated(before)[key] != value} or every
    tries: list[dict[str, Any]] = [{"preprocessing": name} for name in PRESETS]
    tries = [some, *tries, *({**each, **every} for each in tries)]
    for stated in tries:
        with contextlib.suppress(UsageError):  # a preset for other channels
            found = with_preprocessing(usual, NetworkOptions(**stated)).preprocessing
            if dataclasses.replace(found, assumed=False) == wanted:
                return [word for key, value in stated.items() for word in (f"--{key}", value)]
    return []


def _stated(preprocessing: Preprocessing) -> dict[str, str]:
    """Each option with the value that states this."""
    box, fit = preprocessing.box, preprocessing.fit
    resize = {"letterbox": "letterbox", "none": "none"}.get(fit, "")
    if not resize and box is not None:
        resize = "{}x{}".format(*box) if fit == "squash" else f"{fit}:{box[0]}"
    mean, std = (",".join(map(repr, each)) for each in (preprocessing.mean, preprocessing.std))
    return {"mean": mean, "std": std, "resize": resize, "color": preprocessing.color}
