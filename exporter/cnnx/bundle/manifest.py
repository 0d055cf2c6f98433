"""What a bundle says of itself."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, TypedDict

from msgspec import Meta

from cnnx.bundle.sealed import MEND, SCHEMA
from cnnx.errors import BundleError, RecipeError
from cnnx.options import Precision, Scales
from cnnx.recipe import Classes, Recipe, recipe_from_dict
from cnnx.schema import Count, Digest, FileName, Positive, from_plain

MODEL, CALIBRATION, REFERENCE, LABELS = "model.onnx", "calibration.json", "reference.npz", "labels.txt"
PortableFile = Annotated[
    str,
    Meta(
        pattern=r"^(model\.onnx|calibration\.json|reference\.npz|labels\.txt)(?![\s\S])",
        description="a portable file of a bundle: model.onnx, calibration.json, reference.npz or labels.txt",
    ),
]
_Batch = Annotated[int, Meta(ge=1, le=2**20, description="a batch size from 1 to 1,048,576")]


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A graph input or output: name, element type, shape (None for a batch that varies), layout."""

    name: str
    type: str
    shape: tuple[Positive | None, ...]
    layout: str


@dataclass(frozen=True, slots=True)
class ImageList:
    """Which pictures a step saw: where from, how many, and the SHA-256 of their list."""

    name: str
    source: str
    images: Count
    digest: Digest
    synthetic: bool = False
    skipped: tuple[str, ...] = ()


class WeightsUsed(TypedDict):
    """Where the weights came from, and the SHA-256 of their file."""

    kind: Literal["pretrained", "standin", "file"]
    origin: str
    digest: Digest


class LayerPrecision(TypedDict):
    """Precision of a layer, and why."""

    node: str
    op: str
    precision: Precision
    reason: str
    rule: str


class LintWarning(TypedDict):
    """A remark of the linter."""

    rule: str
    severity: str
    node: str
    message: str
    mend: str


Tensors = Annotated[tuple[TensorInfo, ...], Meta(min_length=1, description="a list of at least one tensor")]


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a bundle says of itself.

    Attributes:
        fingerprint: digest of everything that went into it; equal fingerprints are equal bundles.
        recipe: the recipe as plain data.
        weights: kind ("pretrained", "standin" or "file"), origin and digest.
        batch: smallest and largest.
        layers: name, op, precision, rule and reason of each layer.
        warnings: what the linter remarked.
        versions: of cnnx and of the tools that made it.
        files: SHA-256 of each portable file.
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

    @property
    def cannot_judge(self) -> tuple[str, ...]:
        """Reasons why agreement of this bundle proves nothing; empty when it does."""
        return self.cannot_judge_on(synthetic=self.images["validation"].synthetic)

    def cannot_judge_on(self, *, synthetic: bool) -> tuple[str, ...]:
        """The same for other validation images, synthetic or not."""
        reasons = []
        if self.weights["kind"] == "standin":
            reasons.append("the weights are stand-ins: nothing was learned that could be lost")
        elif synthetic:
            reasons.append("the validation pictures are synthetic, the weights were trained on photographs")
        return tuple(reasons)

    def as_dict(self) -> dict[str, Any]:
        """Plain data without the manifest's own digest."""
        data: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return data


def manifest_from_dict(data: dict[str, Any], *, where: Path) -> Manifest:
    """A manifest of plain data, read from `where`.

    Raises:
        BundleError: a key is unknown or missing, a value has another type or range, or a file that every
            bundle has is not listed: it would be read without a check of its hash.
    """
    manifest = from_plain(Manifest, data, where=where, error=BundleError, mend=MEND)
    try:
        recipe = recipe_from_dict(manifest.recipe, where=where, at="recipe")
    except RecipeError as error:
        raise BundleError(error.what, where=error.where, mend=MEND) from None

    def refuse(what: str) -> NoReturn:
        raise BundleError(what, where=where, mend=MEND)

    for name in (MODEL, REFERENCE, *([CALIBRATION] if manifest.precision == "int8" else [])):
        if name not in manifest.files:
            refuse(f"the key 'files[{name!r}]' is missing: the file would be read unchecked")
    for role in ("validation", *(["calibration"] if manifest.precision == "int8" else [])):
        if role not in manifest.images:
            refuse(f"the key 'images.{role}' is missing")
    if manifest.batch[0] > manifest.batch[1]:
        refuse(f"batch is {list(manifest.batch)}, the smallest first")
    shape = manifest.inputs[0].shape
    if len(shape) != 4 or None in shape[1:]:
        refuse(f"inputs[0].shape is {list(shape)}, and should be batch, channels, height and width")
    if manifest.classes != recipe.model.classes:
        refuse(f"classes is {manifest.classes}, recipe.model.classes {recipe.model.classes}")
    return manifest


def recipe_of(manifest: Manifest) -> Recipe:
    """The recipe that a bundle was made with."""
    return recipe_from_dict(manifest.recipe, where=Path("manifest.json"))
