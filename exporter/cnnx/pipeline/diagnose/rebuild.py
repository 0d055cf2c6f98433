"""Rebuilds what an INT8 bundle was made from: the FP32 graph and its calibration statistics.

A Q/DQ graph no longer contains its FP32 weights. They are read from the bundle, if it was exported with
`--with-source`, or the steps of the export rebuild them, reusing cached results. The graph typed from them is
then compared with the bundle's.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnnx.bundle import LABELS, MANIFEST, MODEL, Bundle
from cnnx.bundle.manifest import Manifest, recipe_of
from cnnx.data.crops import Crops
from cnnx.data.resampling import opencv_version
from cnnx.errors import BundleError, RecipeError, UsageError, WeightsError
from cnnx.machine.environment import installed_version
from cnnx.options import Precision
from cnnx.options.shared import SourceOptions
from cnnx.pipeline.preconditions.refusals import open_checked
from cnnx.pipeline.preconditions.request import Request
from cnnx.pipeline.progress import Steps
from cnnx.pipeline.quantizer import Quantizer
from cnnx.pipeline.search.repair import unsearched
from cnnx.pipeline.source import Source, read_calibration, read_source
from cnnx.pipeline.steps.artefacts import LAYERS, Fp32Graph
from cnnx.pipeline.steps.definition import refuse_untrusted
from cnnx.pipeline.steps.fp32_graph import export_step
from cnnx.pipeline.steps.images import ImagesByRole, images_by_role
from cnnx.pipeline.steps.original import Original
from cnnx.quant.calibration import Calibration
from cnnx.recipe import Recipe, recipe_from_dict, recipe_names
from cnnx.resources import shared_folder
from cnnx.store.digests import digest_of_file
from cnnx.store.files import scratch_folder

_AGAIN = "copy the bundle again from where it was made, or export it again"


@dataclass(frozen=True, slots=True)
class BundleSources:
    """What an INT8 bundle was made from.

    Attributes:
        quantizer: quantizer by the bundle's recipe, with the layers that repair put back.
        calibration: calibration of the bundle.
        images: the images of the export.
        exported: the FP32 graph without equalization; None if the bundle holds only the equalized one.
    """

    quantizer: Quantizer
    calibration: Calibration
    images: ImagesByRole
    exported: Fp32Graph | None


def rebuild_sources(
    bundle: Bundle, sources: SourceOptions, steps: Steps, *, calibration_data: str | Path | None = None
) -> BundleSources:
    """Rebuild what an INT8 bundle was made from.

    Args:
        bundle: the bundle.
        sources: where its sources are now; None: as recorded in the bundle.
        steps: runs what is not cached.
        calibration_data: where the calibration images are now; None: as recorded in the bundle.

    Raises:
        UsageError: one of the sources must be given.
        WeightsError: the weights are not the bundle's.
        BundleError: the images are not the bundle's, or the rebuilt graph differs from the bundle's.
    """
    manifest = bundle.manifest
    stored = manifest.has_source and sources.model is None and sources.weights is None
    if stored:
        recipe = recipe_here(bundle, sources, calibration_data=calibration_data)
    else:
        recipe = recipe_of_sources(bundle, sources, calibration_data=calibration_data)
    # The steps before typing ran before repair changed the recipe.
    unrepaired = unsearched(recipe)
    selection = manifest.images.get("selection")
    selects = selection.images if selection else 0
    exported = None if stored else _exported(bundle, unrepaired, sources, steps, "int8", selects=selects)
    images = images_by_role(steps, unrepaired, validates=True, calibrates=True, selects=selects)
    assert images.calibration is not None
    _check_images(bundle, images.calibration, unrepaired)
    if exported is None:
        source = dataclasses.replace(read_source(bundle), recipe=recipe)
    else:
        seen = Quantizer.observe(steps, exported, images.calibration, unrepaired, scales=manifest.scales)
        source = Source(bundle, recipe, seen.graph, seen.statistics, read_calibration(bundle))
        source.check_tensors()
    assert source.calibration is not None
    steps.run("rebuild of the bundle's graph", lambda _: _check_graph(source))
    if exported is None and not recipe.precision.equalize:
        exported = source.graph
    return BundleSources(source.quantizer(steps), source.calibration, images, exported)


def exported_graph(bundle: Bundle, sources: SourceOptions, steps: Steps) -> Fp32Graph:
    """The FP32 graph of a bundle that is not in INT8, exported again from its weights.

    Raises:
        UsageError: one of the sources must be given.
        WeightsError: the weights are not the bundle's.
    """
    recipe = recipe_of_sources(bundle, sources)
    return _exported(bundle, recipe, sources, steps, bundle.manifest.precision)


def _exported(
    bundle: Bundle,
    recipe: Recipe,
    sources: SourceOptions,
    steps: Steps,
    precision: Precision,
    *,
    selects: int = 0,
) -> Fp32Graph:
    """The FP32 graph, exported again from the bundle's weights."""
    batch = bundle.manifest.batch
    weights = weights_of(bundle, recipe, sources)
    request = Request(recipe, weights, precision=precision, batch=batch, selects=selects)
    original = open_checked(request, steps, trust_recipe=sources.trust_recipe)
    check_weights(bundle, original)
    exported = export_step(steps, original, batch=batch)
    original.release()
    return exported


def _check_images(bundle: Bundle, calibration: Crops, recipe: Recipe) -> None:
    """Raise if these are not the images that the bundle was calibrated on."""
    calibrated = bundle.manifest.images["calibration"]
    if calibration.list_digest != calibrated.digest:
        raise BundleError(
            f"these are not the {calibrated.images} images of {calibrated.name} that the bundle was "
            f"calibrated on ({len(calibration)} found)",
            where=recipe.calibration.data,
            hint="give their folder with --calibration-data, and --validation-data if those images moved; "
            "or export again",
        )


def recipe_of_sources(
    bundle: Bundle, sources: SourceOptions, *, calibration_data: str | Path | None = None
) -> Recipe:
    """The bundle's recipe, with the paths of its files.

    Raises:
        UsageError: the recipe file or ONNX file must be given.
        RecipeError: the file does not exist, or the recipe runs code and is not trusted.
    """
    name, file = bundle.manifest.recipe["name"], None if sources.model is None else Path(sources.model)
    if file is not None and not file.is_file():
        raise RecipeError(
            "the file given with --model does not exist",
            where=file,
            hint="give the path of a recipe or an ONNX file",
        )
    recipe = recipe_here(bundle, sources, calibration_data=calibration_data)
    if file is None and (recipe.is_onnx or recipe.runs_user_code or name not in recipe_names()):
        what = f"{recipe.model.definition}" if recipe.is_onnx else f"the recipe {name}"
        raise UsageError(
            f"the bundle was made from {what}, which does not ship with cnnx",
            where=bundle.path,
            hint="give its path with --model FILE",
        )
    refuse_untrusted(recipe, trust_recipe=sources.trust_recipe)
    if recipe.is_onnx and file is not None:
        recipe = dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, definition=file.name))
    return recipe


def recipe_here(
    bundle: Bundle, sources: SourceOptions, *, calibration_data: str | Path | None = None
) -> Recipe:
    """The bundle's recipe, with the paths of its images and class names; it may come from another machine."""
    name = bundle.manifest.recipe["name"]
    where = shared_folder("recipes") / f"{name}.toml" if sources.model is None else Path(sources.model)
    recipe = with_own_names(bundle, recipe_from_dict(bundle.manifest.recipe, where=where))
    data = {"calibration": calibration_data, "validation": sources.validation_data}
    moved = {
        role: dataclasses.replace(getattr(recipe, role), data=str(path))
        for role, path in data.items()
        if path
    }
    return dataclasses.replace(recipe, **moved)


def with_own_names(bundle: Bundle, recipe: Recipe) -> Recipe:
    """The recipe with the bundle's own class names, if it names a file that is not here."""
    file = recipe.labels_file
    if file is None or file.is_file():
        return recipe
    own = bundle.path.absolute() / LABELS
    labels = str(own) if own.is_file() else ""
    return dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, labels=labels))


def weights_of(bundle: Bundle, recipe: Recipe, sources: SourceOptions) -> str:
    """The value of `--weights` that rebuilds the bundle.

    Raises:
        UsageError: the checkpoint must be given.
    """
    weights = bundle.manifest.weights
    if weights["kind"] == "file" and not recipe.is_onnx and sources.weights is None:
        raise UsageError(
            f"the bundle was made with the weights {weights['origin']}, which must be given",
            where=bundle.path,
            hint="give their path with --weights FILE",
        )
    kind: str = "pretrained" if recipe.is_onnx else weights["kind"]
    return sources.weights or kind


def check_weights(bundle: Bundle, original: Original) -> None:
    """Compare the original's weights with the digest in the manifest.

    Raises:
        WeightsError: the weights are not the bundle's.
    """
    weights = bundle.manifest.weights
    if original.weights.digest != weights["digest"]:
        raise WeightsError(
            f"these are not the bundle's weights ({weights['origin']}): their SHA-256 is "
            f"{original.weights.digest[:12]}, not {weights['digest'][:12]}",
            where=original.weights.file,
            hint="give the right file with --weights, or --model for an ONNX file; or export again",
        )


def check_reference(bundle: Bundle, reference: Original) -> None:
    """Compare a reference with the digest in the manifest.

    Raises:
        WeightsError: it is not the one that the bundle was judged by.
    """
    used = bundle.manifest.reference
    assert used is not None
    if reference.weights.digest != used["digest"]:
        raise WeightsError(
            f"this is not the bundle's reference ({used['origin']}): its SHA-256 is "
            f"{reference.weights.digest[:12]}, not {used['digest'][:12]}",
            where=reference.weights.file,
            hint="give the right file with --reference, or export again",
        )


def _check_graph(source: Source) -> None:
    """Raise if the rebuilt graph or plan differs from the bundle's."""
    bundle, manifest = source.bundle, source.bundle.manifest
    with scratch_folder() as scratch:
        same = digest_of_file(source.write_typed(scratch)) == manifest.files[MODEL]
        plan = json.loads((scratch / LAYERS).read_text(encoding="utf-8"))["layers"]
    if same and _precisions(plan) != _precisions(manifest.layers):
        raise BundleError(
            "the manifest's list of layers does not match its graph",
            where=bundle.path / MANIFEST,
            hint=_AGAIN,
        )
    if same:
        return
    raise BundleError(
        f"the same weights and images give a different graph here: {_differences(manifest)}",
        where=bundle.path,
        hint="export it again with the packages installed here, and diagnose the new bundle",
    )


def _precisions(layers: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    return {layer["node"]: layer["precision"] for layer in layers}


def _differences(manifest: Manifest) -> str:
    """Packages whose versions differ from those the bundle was made with."""
    here: dict[str, str | None] = {name: installed_version(name) for name in manifest.versions}
    here |= opencv_version(recipe_of(manifest).preprocessing)
    changed = [
        f"{name} {here[name] or 'not installed'} here, {version} at export"
        for name, version in manifest.versions.items()
        if here[name] != version
    ]
    return ", ".join(changed) or "cnnx has changed since, or this processor rounds differently"
