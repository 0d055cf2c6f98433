"""From a finished INT8 bundle back to what it was made from: the FP32 graph, and what pictures showed of it.

A Q/DQ graph has lost its FP32 weights. The steps of the export make them again, from the cache where it still
has them; what comes out is held to the bundle's graph.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnnx.bundle import CALIBRATION, MANIFEST, MODEL, Bundle
from cnnx.bundle.manifest import Manifest
from cnnx.errors import BundleError, RecipeError, UsageError, WeightsError
from cnnx.machine.environment import installed_version
from cnnx.options.shared import SourceOptions
from cnnx.pipeline.preconditions.refusals import open_checked
from cnnx.pipeline.preconditions.request import Request
from cnnx.pipeline.progress import Steps
from cnnx.pipeline.quantizer import Quantizer
from cnnx.pipeline.search.repair import without_repair
from cnnx.pipeline.steps.artefacts import LAYERS
from cnnx.pipeline.steps.definition import refuse_untrusted
from cnnx.pipeline.steps.fp32_graph import export_step
from cnnx.pipeline.steps.images import PictureSets, picture_sets
from cnnx.pipeline.steps.original import Original
from cnnx.quant.calibration import Calibration
from cnnx.recipe import Recipe, recipe_from_dict, recipe_names
from cnnx.resources import shared_folder
from cnnx.store.digests import digest_of_file

_AGAIN = "copy the bundle again from where it was made, or export it again"


@dataclass(frozen=True, slots=True)
class Remade:
    """What an INT8 bundle was made from.

    Attributes:
        quantizer: by the bundle's recipe, with the layers that repair put back.
        calibration: the bundle's own.
    """

    quantizer: Quantizer
    calibration: Calibration
    pictures: PictureSets


def remake(
    bundle: Bundle, sources: SourceOptions, steps: Steps, *, calibration_data: str | Path | None = None
) -> Remade:
    """Make again what an INT8 bundle was made from.

    Args:
        bundle: the bundle.
        sources: where that is, if the bundle does not say; None: as it says.
        steps: run what is not cached.
        calibration_data: where the calibration images are now, likewise.

    Raises:
        UsageError: something that it was made from has to be named.
        WeightsError: these are other weights.
        BundleError: these are other pictures, or what comes out is another graph.
    """
    manifest = bundle.manifest
    recipe = recipe_of_sources(bundle, sources, calibration_data=calibration_data)
    # The steps before the graph was typed knew nothing of what repair found.
    asked = without_repair(recipe)
    chose = manifest.images.get("selection")
    selects = chose.images if chose else 0
    weights = weights_of(bundle, asked, sources)
    request = Request(asked, weights, precision="int8", batch=manifest.batch, selects=selects)
    original = open_checked(request, steps, trust_recipe=sources.trust_recipe)
    check_weights(bundle, original)
    exported = export_step(steps, original, batch=manifest.batch)
    original.release()
    pictures = picture_sets(steps, asked, validates=True, calibrates=True, selects=selects)
    assert pictures.calibration is not None
    calibrated = manifest.images["calibration"]
    if pictures.calibration.list_digest != calibrated.digest:
        raise BundleError(
            f"these are not the {calibrated.images} pictures of {calibrated.name} that the bundle was "
            f"calibrated on ({len(pictures.calibration)} now)",
            where=asked.calibration.data,
            hint="say where they are with --calibration-data, and with --validation-data where those moved; "
            "or export again",
        )
    quantizer = Quantizer.observe(steps, exported, pictures.calibration, asked, scales=manifest.scales)
    place = bundle.path / CALIBRATION
    calibration = Calibration.from_json(place.read_text(encoding="utf-8"), where=place)
    _check_ranges(bundle, calibration, quantizer)
    remade = Remade(dataclasses.replace(quantizer, recipe=recipe), calibration, pictures)
    steps.run("the bundle's graph again", lambda _: _check_graph(bundle, remade))
    return remade


def recipe_of_sources(
    bundle: Bundle, sources: SourceOptions, *, calibration_data: str | Path | None = None
) -> Recipe:
    """The bundle's recipe, as if it lay where its files are.

    Raises:
        UsageError: its file, or the ONNX file, has to be named.
        RecipeError: there is no such file, or it would run code and was not trusted.
    """
    name, file = bundle.manifest.recipe["name"], None if sources.model is None else Path(sources.model)
    if file is not None and not file.is_file():
        raise RecipeError("there is no such file", where=file, hint="--model takes a recipe or an ONNX file")
    recipe = recipe_from_dict(bundle.manifest.recipe, where=file or shared_folder("recipes") / f"{name}.toml")
    labels = recipe.labels_file
    beside = recipe.is_onnx or recipe.runs_user_code or (labels is not None and not labels.is_file())
    if file is None and (beside or name not in recipe_names()):
        what = f"{recipe.model.definition}" if recipe.is_onnx else f"the recipe {name}"
        raise UsageError(
            f"the bundle was made from {what}, which does not ship with cnnx",
            where=bundle.path,
            hint="say where it is with --model FILE",
        )
    refuse_untrusted(recipe, trust_recipe=sources.trust_recipe)
    if recipe.is_onnx and file is not None:
        recipe = dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, definition=file.name))
    data = {"calibration": calibration_data, "validation": sources.validation_data}
    moved = {
        role: dataclasses.replace(getattr(recipe, role), data=str(place))
        for role, place in data.items()
        if place
    }
    return dataclasses.replace(recipe, **moved)


def weights_of(bundle: Bundle, recipe: Recipe, sources: SourceOptions) -> str:
    """What `--weights` would have to be to make the bundle again.

    Raises:
        UsageError: the checkpoint has to be named.
    """
    weights = bundle.manifest.weights
    if weights["kind"] == "file" and not recipe.is_onnx and sources.weights is None:
        raise UsageError(
            f"the bundle was made with {weights['origin']}",
            where=bundle.path,
            hint="say where that is with --weights FILE",
        )
    kind: str = "pretrained" if recipe.is_onnx else weights["kind"]
    return sources.weights or kind


def check_weights(bundle: Bundle, original: Original) -> None:
    """Hold the original's weights to the digest in the manifest.

    Raises:
        WeightsError: these are other weights.
    """
    weights = bundle.manifest.weights
    if original.weights.digest != weights["digest"]:
        raise WeightsError(
            f"these are not the bundle's weights ({weights['origin']}): their SHA-256 is "
            f"{original.weights.digest[:12]}, not {weights['digest'][:12]}",
            where=original.weights.file,
            hint="name those with --model, for an ONNX file, or --weights; or export again",
        )


def _check_ranges(bundle: Bundle, calibration: Calibration, quantizer: Quantizer) -> None:
    """Refuse a calibration that lacks a tensor which the graph's policy may quantize."""
    missing = sorted(set(quantizer.statistics.read().sampled) - set(calibration.ranges))
    if missing:
        raise BundleError(
            f"{CALIBRATION} has no range for {missing[0]}",
            where=bundle.path / CALIBRATION,
            hint=_AGAIN,
        )


def _check_graph(bundle: Bundle, remade: Remade) -> None:
    """Refuse what is not what the bundle was made from."""
    manifest = bundle.manifest
    with tempfile.TemporaryDirectory() as scratch:
        model = remade.quantizer.write_typed(Path(scratch), remade.calibration)
        same = digest_of_file(model) == manifest.files[MODEL]
        plan = json.loads((Path(scratch) / LAYERS).read_text(encoding="utf-8"))["layers"]
    if same and _precisions(plan) != _precisions(manifest.layers):
        raise BundleError(
            "the manifest's list of layers is not that of its graph",
            where=bundle.path / MANIFEST,
            hint=_AGAIN,
        )
    if same:
        return
    raise BundleError(
        f"the same weights and pictures give another graph here: {_differences(manifest)}",
        where=bundle.path,
        hint="export it again with what is installed here, and diagnose that",
    )


def _precisions(layers: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    return {layer["node"]: layer["precision"] for layer in layers}


def _differences(manifest: Manifest) -> str:
    """Tools that are not those the bundle was made with."""
    here = {name: installed_version(name) for name in manifest.versions}
    changed = [
        f"{name} {here[name] or 'is absent'}, then {version}"
        for name, version in manifest.versions.items()
        if here[name] != version
    ]
    return ", ".join(changed) or "cnnx was changed since, or the processor rounds otherwise"
