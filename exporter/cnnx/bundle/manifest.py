"""What a bundle says of itself."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cnnx.bundle.sealed import SCHEMA, dataclass_from_dict
from cnnx.errors import BundleError
from cnnx.recipe import Precision, Scales


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A graph input or output: name, element type, shape (None for a batch that varies), layout."""

    name: str
    type: str
    shape: tuple[int | None, ...]
    layout: str


@dataclass(frozen=True, slots=True)
class ImageList:
    """Which pictures a step saw: where from, how many, and the SHA-256 of their list."""

    name: str
    source: str
    images: int
    digest: str
    synthetic: bool = False
    skipped: tuple[str, ...] = ()


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

    name: str
    precision: Precision
    fingerprint: str
    recipe: Mapping[str, Any]
    weights: Mapping[str, str]
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    batch: tuple[int, int]
    classes: int
    scales: Scales
    images: Mapping[str, ImageList]
    layers: tuple[Mapping[str, Any], ...]
    warnings: tuple[Mapping[str, str], ...]
    versions: Mapping[str, str]
    files: Mapping[str, str] = field(default_factory=dict)
    schema: int = SCHEMA

    @property
    def cannot_judge(self) -> tuple[str, ...]:
        """Reasons why agreement of this bundle proves nothing; empty when it does."""
        reasons = []
        if self.weights["kind"] == "standin":
            reasons.append("the weights are stand-ins: nothing was learned that could be lost")
        elif self.images["validation"].synthetic:
            reasons.append("the validation pictures are synthetic, the weights were trained on photographs")
        return tuple(reasons)

    def as_dict(self) -> dict[str, Any]:
        """Plain data without the manifest's own digest."""
        data: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return data


def manifest_from_dict(data: dict[str, Any], *, where: Path) -> Manifest:
    """A manifest of plain data.

    Raises:
        BundleError: fields are missing, odd or of another form; `where` is named.
    """

    def tensor(info: dict[str, Any]) -> TensorInfo:
        return TensorInfo(**{**info, "shape": tuple(info["shape"])})

    def listed(images: dict[str, Any]) -> ImageList:
        return ImageList(**{**images, "skipped": tuple(images["skipped"])})

    try:
        parsed = {
            **data,
            "inputs": tuple(map(tensor, data["inputs"])),
            "outputs": tuple(map(tensor, data["outputs"])),
            "batch": tuple(data["batch"]),
            "layers": tuple(data["layers"]),
            "warnings": tuple(data["warnings"]),
            "images": {role: listed(images) for role, images in data["images"].items()},
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise BundleError(
            f"{where.name} does not have the fields of schema {SCHEMA}: {error}", where=where
        ) from None
    manifest: Manifest = dataclass_from_dict(Manifest, parsed, where=where)
    return manifest
