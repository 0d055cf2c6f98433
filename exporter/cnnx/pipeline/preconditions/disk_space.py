"""Whether the disks have room for what a verb is about to keep."""

from __future__ import annotations

import dataclasses
import math
import shutil
from pathlib import Path

from cnnx.bundle import is_bundle
from cnnx.bundle.reference import REFERENCE_BYTES
from cnnx.errors import WriteFailed
from cnnx.pipeline.preconditions.request import ImageCounts, Request
from cnnx.store.cache import Store, cache_folder

_FLOAT = 4


def refuse_full_disks(request: Request, counts: ImageCounts, checkpoint: Path | None) -> None:
    """Refuse where graphs, images and weights need more than is free.

    What an earlier run left in the cache, or at `out`, may be all that is needed, so its size counts as free.
    Nothing was made yet from weights that are still to be downloaded: then images alone count, and what
    came of the weights.

    Raises:
        WriteFailed: free space does not suffice.
    """
    cache, bundle = _bytes_needed(request, counts, checkpoint)
    needed = {"the cache": (cache_folder(), cache)}
    if request.out is not None:
        needed["the bundle"] = (request.out, bundle)
    for device in {_device(place) for place, _ in needed.values()}:
        here = {name: each for name, each in needed.items() if _device(each[0]) == device}
        place = next(iter(here.values()))[0]
        free = shutil.disk_usage(_standing(place)).free
        wanted = sum(size for _, size in here.values())
        if wanted > free and wanted > free + _made_before(request, list(here), checkpoint):
            raise WriteFailed(
                f"about {wanted / 1e6:,.0f} MB are needed for {' and '.join(here)}, {free / 1e6:,.0f} MB are "
                "free",
                where=place,
                hint="free some space, or choose other folders: --out for bundles, CNNX_CACHE for the cache",
            )


def _bytes_needed(request: Request, counts: ImageCounts, checkpoint: Path | None) -> tuple[int, int]:
    """What the steps keep in the cache, and what the bundle holds, about."""
    recipe = request.recipe
    graph = _FLOAT * recipe.model.parameters or (checkpoint.stat().st_size if checkpoint else 0)
    typed = {None: 0, "fp32": graph, "fp16": graph // 2, "int8": graph // 4}[request.precision]
    equalizes = request.precision in (None, "int8") and recipe.precision.equalize
    graphs = (1 + equalizes + _downloads(request, checkpoint)) * graph + typed
    image = math.prod(recipe.input.shape)
    crops = sum(dataclasses.astuple(counts)) * image
    return graphs + crops, typed + min(counts.validation * image, REFERENCE_BYTES)


def _downloads(request: Request, checkpoint: Path | None) -> bool:
    return request.weights == "pretrained" and checkpoint is None


def _made_before(request: Request, names: list[str], checkpoint: Path | None) -> int:
    """Bytes of an earlier run that may be used again."""
    size = 0
    if "the cache" in names:
        kept = Store().sizes()
        if _downloads(request, checkpoint):
            part = cache_folder() / "weights" / f"{request.recipe.weights.file}.part"
            size += kept.get("crops", 0) + (part.stat().st_size if part.is_file() else 0)
        else:
            size += sum(kept.values())
    if "the bundle" in names and request.out and is_bundle(request.out):
        size += sum(file.stat().st_size for file in request.out.rglob("*") if file.is_file())
    return size


def _device(place: Path) -> int:
    return _standing(place).stat().st_dev


def _standing(place: Path) -> Path:
    """The path itself, or the nearest folder above it that exists."""
    return next(folder for folder in (place.absolute(), *place.absolute().parents) if folder.exists())
