"""The manifest of a bundle."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, TypedDict

from msgspec import Meta

from cnnx.bundle.sealed import HINT, SCHEMA
from cnnx.errors import BundleError, RecipeError
from cnnx.options import Precision, Scales
from cnnx.recipe import Classes, Recipe, recipe_from_dict
from cnnx.schema import Count, Digest, FileName, Positive, from_plain, with_hints

MODEL, CALIBRATION, REFERENCE, LABELS = "model.onnx", "calibration.json", "reference.npz", "labels.txt"
SOURCE, SOURCE_STATISTICS, SOURCE_SCALES = "source.onnx", "source-statistics.npz", "source-scales.json"
PORTABLE = (MODEL, CALIBRATION, REFERENCE, LABELS, SOURCE, SOURCE_STATISTICS, SOURCE_SCALES)
"""Every portable file but the manifest. Those of the source are there after `export --with-source`."""
PortableFile = Annotated[
    str,
    Meta(
        pattern=f"^({'|'.join(PORTABLE)})".replace(".", r"\.") + r"(?![\s\S])",
        description=f"a portable file of a bundle: {', '.join(PORTABLE[:-1])} or {PORTABLE[-1]}",
    ),
]
_Batch = Annotated[int, Meta(ge=1, le=2**20, description="a batch size from 1 to 1,048,576")]


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A graph input or output: name, element type, shape (None for a dynamic batch) and layout."""

    name: str
    type: str
    shape: tuple[Positive | None, ...]
    layout: str


@dataclass(frozen=True, slots=True)
class ImageList:
    """Images used by a step: source, number, and SHA-256 of their list."""

    name: str
    source: str
    images: Count
    digest: Digest
    synthetic: bool = False
    skipped: tuple[str, ...] = ()


class WeightsUsed(TypedDict):
    """Origin of the weights, and SHA-256 of their file."""

    kind: Literal["pretrained", "standin", "file"]
    origin: str
    digest: Digest


class ReferenceUsed(TypedDict):
    """The network that the bundle was judged by, instead of its own."""

    origin: str
    digest: Digest


class LayerPrecision(TypedDict):
    """Precision of a layer, with the reason."""

    node: str
    op: str
    precision: Precision
    reason: str
    rule: str


class LintWarning(TypedDict):
    """A warning of the linter."""

    rule: str
    severity: str
    node: str
    message: str
    hint: str


Tensors = Annotated[tuple[TensorInfo, ...], Meta(min_length=1, description="a list of at least one tensor")]


@dataclass(frozen=True, slots=True)
class Manifest:
    """Description of a bundle and the SHA-256 of its portable files.

    Attributes:
        fingerprint: digest of all inputs; equal fingerprints mean equal bundles.
        recipe: recipe as plain data.
        weights: kind ("pretrained", "standin" or "file"), origin and digest.
        batch: smallest and largest batch.
        layers: name, op, precision, rule and reason of each layer.
        warnings: warnings of the linter.
        versions: versions of cnnx and of the tools used.
        files: SHA-256 of each portable file.
        reference: origin and digest of the network to judge by; None: the bundle's own in FP32.
        notes: what users of the bundle must know, such as how a graph that resizes differs.
    """

    name: FileName
    precision: Precision
    fingerprint: Digest
    recipe: Mapping[str, Any]
    weights: WeightsUsed
    inputs: Tensors
    outputs: Tensors
    batch: tuple[_Batch, _Batch]
    classes: Classes
    scales: Scales
    images: Mapping[str, ImageList]
    layers: tuple[LayerPrecision, ...]
    warnings: tuple[LintWarning, ...]
    versions: Mapping[str, str]
    files: Mapping[PortableFile, Digest] = field(default_factory=dict)
    schema: Literal[1] = SCHEMA
    reference: ReferenceUsed | None = None
    notes: tuple[str, ...] = ()

    @property
    def has_source(self) -> bool:
        """Whether the bundle holds what its graph was made from; see `cnnx.pipeline.source`."""
        return SOURCE in self.files

    @property
    def cannot_judge(self) -> tuple[str, ...]:
        """Reasons why agreement is not meaningful for this bundle; empty if it is."""
        return self.cannot_judge_on(synthetic=self.images["validation"].synthetic)

    def cannot_judge_on(self, *, synthetic: bool) -> tuple[str, ...]:
        """Reasons why agreement is not meaningful on other validation images, synthetic or not."""
        reasons = []
        if self.weights["kind"] == "standin":
            reasons.append("the weights are stand-ins, which have no accuracy to lose")
        elif synthetic:
            reasons.append(
                "the validation images are synthetic, unlike those that the network was trained on"
            )
        return tuple(reasons)

    def as_dict(self) -> dict[str, Any]:
        """The manifest as plain data, without its seal."""
        data: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return data


def manifest_from_dict(data: dict[str, Any], *, where: Path) -> Manifest:
    """Create a manifest from the contents of the file `where`.

    Raises:
        BundleError: a key is unknown or missing, a value has the wrong type or range, or a required file is
            not listed and would be read without a hash check.
    """
    if "warnings" in data:
        data = {**data, "warnings": with_hints(data["warnings"])}
    manifest = from_plain(Manifest, data, where=where, error=BundleError, hint=HINT)
    try:
        recipe = recipe_from_dict(manifest.recipe, where=where, at="recipe")
    except RecipeError as error:
        raise BundleError(error.what, where=error.where, hint=HINT) from None

    def refuse(what: str) -> NoReturn:
        raise BundleError(what, where=where, hint=HINT)

    required = [MODEL, REFERENCE, *([CALIBRATION] if manifest.precision == "int8" else [])]
    if manifest.has_source and manifest.precision != "fp32":
        required += [CALIBRATION, SOURCE_STATISTICS]
    for name in required:
        if name not in manifest.files:
            refuse(f"the key 'files[{name!r}]' is missing, so the file cannot be verified")
    for role in ("validation", *(["calibration"] if manifest.precision == "int8" else [])):
        if role not in manifest.images:
            refuse(f"the key 'images.{role}' is missing")
    if manifest.batch[0] > manifest.batch[1]:
        refuse(f"batch is {list(manifest.batch)}, not [smallest, largest]")
    found, form = manifest.inputs[0], recipe.input_format
    for key, stated in (("type", form.type), ("layout", form.layout)):
        if getattr(found, key) != stated:
            refuse(f"inputs[0].{key} is {getattr(found, key)!r}, but the recipe states {stated!r}")
    if found.shape[1:] != (image := form.shape(recipe.input.shape)):
        refuse(f"inputs[0].shape is {list(found.shape)}, but the recipe states {['batch', *image]}")
    if manifest.classes != recipe.model.classes:
        refuse(f"classes is {manifest.classes}, but recipe.model.classes is {recipe.model.classes}")
    return manifest


def recipe_of(manifest: Manifest) -> Recipe:
    """The recipe of a bundle."""
    return recipe_from_dict(manifest.recipe, where=Path("manifest.json"))
