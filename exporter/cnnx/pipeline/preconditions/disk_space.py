"""Checks that the disks have room for the cache and the bundle."""

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
    """Raise if graphs, images and weights need more space than is free.

    Files of an earlier run in the cache, or at `out`, may be reused, so their size counts as free. If the
    weights are still to be downloaded, nothing was made from them yet. Then only cached images and a partial
    download count.

    Raises:
        WriteFailed: too little free space.
    """
    cache, bundle = _bytes_needed(request, counts, checkpoint)
    needed = {"the cache": (cache_folder(), cache)}
    if request.out is not None:
        needed["the bundle"] = (request.out, bundle)
    for device in {_device(path) for path, _ in needed.values()}:
        here = {name: each for name, each in needed.items() if _device(each[0]) == device}
        path = next(iter(here.values()))[0]
        free = shutil.disk_usage(_nearest_existing(path)).free
        wanted = sum(size for _, size in here.values())
        if wanted > free and wanted > free + _made_before(request, list(here), checkpoint):
            raise WriteFailed(
                f"not enough free space for {' and '.join(here)}: about {wanted / 1e6:,.0f} MB needed, "
                f"{free / 1e6:,.0f} MB free",
                where=path,
                hint="free some space, or choose other folders: --out for bundles, CNNX_CACHE for the cache",
            )


def _bytes_needed(request: Request, counts: ImageCounts, checkpoint: Path | None) -> tuple[int, int]:
    """Estimated size of what the steps keep in the cache, and of the bundle."""
    recipe = request.recipe
    graph = _FLOAT * recipe.model.parameters or (checkpoint.stat().st_size if checkpoint else 0)
    typed = {None: 0, "fp32": graph, "fp16": graph // 2, "int8": graph // 4}[request.precision]
    equalizes = request.precision in (None, "int8") and recipe.precision.equalize
    graphs = (1 + equalizes + _downloads(request, checkpoint)) * graph + typed
    image = math.prod(recipe.input.shape)
    crops = sum(dataclasses.astuple(counts)) * image
    source = graph if request.with_source else 0
    return graphs + crops, typed + source + min(counts.validation * image, REFERENCE_BYTES)


def _downloads(request: Request, checkpoint: Path | None) -> bool:
    return request.weights == "pretrained" and checkpoint is None


def _made_before(request: Request, names: list[str], checkpoint: Path | None) -> int:
    """Size of the files of an earlier run that may be reused."""
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


def _device(path: Path) -> int:
    return _nearest_existing(path).stat().st_dev


def _nearest_existing(path: Path) -> Path:
    """The path itself, or its nearest parent that exists."""
    return next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
