"""Finds the weights of a network and loads them into it.

`locate` does not need PyTorch; `load_into` does.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cnnx import models
from cnnx.errors import EnvironmentLacks, MissingExtra, RecipeError, WeightsError
from cnnx.recipe import Recipe, read_recipe, recipe_names
from cnnx.resources import shared_folder
from cnnx.store.cache import cache_folder, caches
from cnnx.store.digests import digest_of, digest_of_file
from cnnx.weights.download import fetch, require_safe

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

_STANDIN_SEED = 0
_STANDIN_VERSION = 3  # part of the digest; increment when `cnnx.weights.standin` draws other weights


@dataclass(frozen=True, slots=True)
class Weights:
    """Weights that were found; published ones have been checked against the hash in their name.

    Attributes:
        kind: "pretrained" (published or shipped with the recipe), "standin" (random) or "file" (the user's).
        origin: description for manifests and reports.
        digest: SHA-256 of the file, or of the inputs of stand-in weights.
        file: checkpoint; None for stand-in weights.
    """

    kind: Literal["pretrained", "standin", "file"]
    origin: str
    digest: str
    file: Path | None


def locate(recipe: Recipe, choice: str, *, progress: Callable[[int, int | None], None]) -> Weights:
    """Find the weights selected by `--weights`, and download published ones if they are not on this machine.

    Published weights are searched in this order: the folder weights/ next to the recipe, the shipped weights,
    the cache of cnnx, PyTorch's hub cache (`TORCH_HOME`, or torch in `XDG_CACHE_HOME` or ~/.cache, then
    hub/checkpoints), and the recipe's URL.

    Args:
        recipe: recipe that names the published weights.
        choice: "pretrained", "standin", or the path of a checkpoint.
        progress: called during a download with the bytes received and the total, None if unknown.

    Raises:
        WeightsError: the recipe has no published weights, or the file is missing or has the wrong hash.
        RecipeError: the recipe's file name or URL cannot be used.
        Unreachable: the download failed; the next run resumes it.
        WriteFailed: the download cannot be stored.
    """
    if choice == "standin":
        spec = recipe.model
        model = {"definition": spec.definition, "classes": spec.classes, "arguments": dict(spec.arguments)}
        drawn_from = {"seed": _STANDIN_SEED, "version": _STANDIN_VERSION, "model": model}
        origin = f"stand-in: random (He normal, seed {_STANDIN_SEED}), never trained"
        return Weights("standin", origin, digest_of(drawn_from), None)
    if choice == "pretrained":
        file, digest = _published(recipe, progress)
        _refuse_sibling(recipe, file, digest)
        source = recipe.weights.source or recipe.weights.url or "shipped with the recipe"
        return Weights("pretrained", f"{file.name}: {source}", digest, file)
    file = _given(choice)
    digest = digest_of_file(file)
    _refuse_sibling(recipe, file, digest)
    return Weights("file", f"the user's {file.name}", digest, file)


def find(recipe: Recipe, choice: str) -> Path | None:
    """Return the path of the checkpoint selected by `--weights`, without reading the file.

    Returns:
        The path, or None for stand-in weights and for published weights that `locate` will download.

    Raises:
        WeightsError: the recipe has no published weights, or the file is missing and has no URL.
        RecipeError: the recipe's file name or URL cannot be used.
    """
    if choice == "standin":
        return None
    if choice != "pretrained":
        return _given(choice)
    if not recipe.weights.file:
        raise WeightsError(
            f"no weights are published for {recipe.name}",
            where=recipe.name,
            hint="use --weights standin (random weights: measurements, but no verdict) or --weights FILE",
        )
    _hash_in_name(recipe)
    for path in _all_paths(recipe):
        if path.is_file():
            return path
    if not recipe.weights.url:
        raise _not_at_hand(recipe)
    require_safe(recipe.weights.url)
    return None


def _given(choice: str) -> Path:
    """Return the path of the user's checkpoint."""
    file = Path(choice)
    if not file.is_file():
        what = "is a folder" if file.is_dir() else "does not exist"
        hint = "use --weights pretrained, standin, or the path of a .safetensors, .pth or .pt file"
        raise WeightsError(f"the checkpoint {what}", where=file, hint=hint)
    with file.open("rb"):  # raises if the file is not readable
        return file


def _not_at_hand(recipe: Recipe) -> WeightsError:
    return WeightsError(
        f"the weights {recipe.weights.file} are not on this machine, and the recipe has no URL",
        where=recipe.name,
        hint=f"put the file at {_own_paths(recipe)[-1]}, or use --weights standin or --weights FILE",
    )


def _refuse_sibling(recipe: Recipe, file: Path, digest: str) -> None:
    """Refuse a file that is published for the same definition with different arguments.

    Networks can have the same tensors but different arithmetic, such as the position of the strides in a
    ResNet. Only the hash of the file identifies the network it was trained for.
    """
    texts = {name: (shared_folder("recipes") / f"{name}.toml").read_text("utf-8") for name in recipe_names()}
    named = [read_recipe(name) for name, text in texts.items() if f"-{digest[:8]}" in text]
    owners = [
        other
        for other in named
        if other.weights.file
        and other.model.definition == recipe.model.definition
        and digest.startswith(_hash_in_name(other))
    ]
    if not owners or any(other.model.arguments == recipe.model.arguments for other in owners):
        return
    definition, arguments = recipe.model.definition, recipe.model.arguments
    meant = models.with_defaults(definition, arguments)
    if not any(models.with_defaults(definition, other.model.arguments) == meant for other in owners):
        raise WeightsError(
            f"the weights are published for {owners[0].name}, not for {recipe.name}",
            where=file,
            hint=f"export {owners[0].name}, or give weights trained for {recipe.name}",
        )


def _published(recipe: Recipe, progress: Callable[[int, int | None], None]) -> tuple[Path, str]:
    find(recipe, "pretrained")
    expected = _hash_in_name(recipe)
    for path in _own_paths(recipe):
        if path.is_file():
            return path, _checked(path, expected)
    hub = _all_paths(recipe)[-1]
    # The hub cache belongs to PyTorch: skip a damaged file instead of reporting it.
    if hub.is_file() and (digest := digest_of_file(hub)).startswith(expected):
        return hub, digest
    cached = _own_paths(recipe)[-1]
    if not recipe.weights.url:
        raise _not_at_hand(recipe)
    fetch(recipe.weights.url, cached, digest=expected, progress=progress)
    return cached, _checked(cached, expected)


def at_hand(recipe: Recipe) -> bool:
    """Return whether the published weights are on this machine, without checking their hash."""
    return any(path.is_file() for path in _all_paths(recipe))


def _all_paths(recipe: Recipe) -> tuple[Path, ...]:
    """Return the paths of `_own_paths`, then the one in PyTorch's hub cache."""
    return (*_own_paths(recipe), _hub_folder() / recipe.weights.file)


def _own_paths(recipe: Recipe) -> tuple[Path, ...]:
    """Return the paths where published weights are searched, in order; downloads go to the last."""
    name = recipe.weights.file
    # A copy of a shipped recipe finds the shipped weights too, because the file name contains their hash.
    shipped = shared_folder("recipes") / "weights" / name
    return recipe.folder / "weights" / name, shipped, cache_folder() / "weights" / name


def _hash_in_name(recipe: Recipe) -> str:
    name = recipe.weights.file
    match = re.fullmatch(r"[^/\\]+-([0-9a-f]{8,64})\.[a-z]+", name)
    if match is None:
        hint = "end it with -<first 8 or more hex digits of the SHA-256>.<suffix>, without folders"
        raise RecipeError(
            f"invalid weights.file {name!r}: the name does not contain its hash",
            where="weights.file",
            hint=hint,
        )
    return match[1]


def _checked(path: Path, expected: str) -> str:
    digest = digest_of_file(path)
    if not digest.startswith(expected):
        raise WeightsError(
            f"the checkpoint is damaged: its SHA-256 starts with {digest[: len(expected)]}, not {expected}",
            where=path,
            hint=f"run `rm '{path}'`, then run again",
        )
    return digest


def _hub_folder() -> Path:
    """Return the folder of torch.hub's downloads, without importing torch."""
    home = os.environ.get("TORCH_HOME")
    try:
        folder = Path(home).expanduser() if home else caches() / "torch"
    except (RuntimeError, EnvironmentLacks):  # without a home folder, there are none
        folder = cache_folder()
    return folder / "hub" / "checkpoints"


def classes_in(file: Path, recipe: Recipe, model: nn.Module | None) -> int:
    """Return the number of classes of the user's checkpoint.

    Args:
        file: the checkpoint.
        recipe: recipe of the network, with the renamed and training-only tensors of its checkpoint.
        model: the network, if the user's own code defines it.

    Returns:
        The length of the checkpoint's classifier if that is all that differs from the network, else the
        recipe's number of classes.

    Raises:
        WeightsError: the checkpoint is damaged or unsafe, or contains no tensors.
        RecipeError: the definition is unknown.
    """
    from cnnx.weights import checkpoint, fit

    wanted = fit.on_meta(recipe, recipe.model.classes) if model is None else model.state_dict()
    return checkpoint.classes_in(file, wanted, recipe)


def load_into(
    model: nn.Module,
    weights: Weights,
    recipe: Recipe,
    *,
    batches_for_statistics: Iterable[NDArray[np.float32]],
) -> tuple[str, ...]:
    """Load weights into a model, in place.

    Args:
        model: network in evaluation mode, on the CPU.
        weights: result of `locate`.
        recipe: recipe of the model, with the renamed and training-only tensors of its checkpoint.
        batches_for_statistics: normalized images (N, C, H, W) for the mean and variance of BatchNorm layers;
            read only for stand-in weights of a network with such layers.

    Returns:
        Messages for the user, such as a conversion from FP16.

    Raises:
        WeightsError: the checkpoint is damaged, unsafe, belongs to another network, or was changed since
            `locate`.
        MissingExtra: PyTorch is not installed.
    """
    try:
        from cnnx.weights import checkpoint, fit, standin
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise MissingExtra("torch", "export", purpose="loading weights into the model") from None
    if weights.file is None:
        standin.initialise(model, _STANDIN_SEED, batches=batches_for_statistics)
        return ()
    notes = checkpoint.load(model, weights.file, recipe)
    if digest_of_file(weights.file) != weights.digest:
        raise WeightsError(
            "the checkpoint was changed while it was read",
            where=weights.file,
            hint="run again when nothing writes to it",
        )
    return notes if weights.kind == "pretrained" else (*notes, *fit.siblings(model.state_dict(), recipe))
