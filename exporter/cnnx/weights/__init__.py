"""Which weights a network gets, where they lie, and putting them into it.

`locate` needs no PyTorch; `load_into` does.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cnnx import models
from cnnx.errors import MissingExtra, RecipeError, WeightsError
from cnnx.recipe import Recipe, read_recipe, recipe_names
from cnnx.resources import shared_folder
from cnnx.store.cache import cache_folder
from cnnx.store.digests import digest_of, digest_of_file
from cnnx.weights.download import fetch, require_safe

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

_STANDIN_SEED = 0
_STANDIN_VERSION = 3  # raise it when what `cnnx.weights.standin` draws changes: it is part of the digest


@dataclass(frozen=True, slots=True)
class Weights:
    """Weights that were found, and checked against the hash in their name where they are published.

    Attributes:
        kind: "pretrained" (published or shipped with the recipe), "standin" (random) or "file" (the user's).
        origin: in words, for manifests and reports.
        digest: SHA-256 of the file, or of what a stand-in is drawn from.
        file: the checkpoint; None for a stand-in.
    """

    kind: Literal["pretrained", "standin", "file"]
    origin: str
    digest: str
    file: Path | None


def locate(recipe: Recipe, choice: str, *, progress: Callable[[int, int | None], None]) -> Weights:
    """Find the weights that `--weights` asks for, downloading published ones where they are not at hand.

    Published weights are looked for in weights/ beside the recipe and among those that ship, in the cache,
    in PyTorch's hub cache (`TORCH_HOME`, `XDG_CACHE_HOME` or ~/.cache, then torch/hub/checkpoints), then
    at the recipe's URL.

    Args:
        recipe: names the published weights.
        choice: "pretrained", "standin", or the path of a checkpoint.
        progress: called while downloading with bytes so far and bytes in all, None where not known.

    Raises:
        WeightsError: the recipe has no published weights, the file is absent, or its hash is wrong.
        RecipeError: the recipe's file name or URL cannot be used.
        Unreachable: the download failed; what came is kept and continued next time.
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
    """The checkpoint that `--weights` asks for, where it lies on this machine; its content is not looked at.

    Returns:
        None for a stand-in, and for published weights that `locate` will download.

    Raises:
        WeightsError: the recipe has no published weights, or the file is absent and has no URL.
        RecipeError: the recipe's file name or URL cannot be used.
    """
    if choice == "standin":
        return None
    if choice != "pretrained":
        return _given(choice)
    if not recipe.weights.file:
        raise WeightsError(
            f"no weights are published for {recipe.name}",
            mend="--weights standin (random: figures, but no verdict), or --weights FILE with your own",
        )
    _hash_in_name(recipe)
    for place in _everywhere(recipe):
        if place.is_file():
            return place
    if not recipe.weights.url:
        raise _not_at_hand(recipe)
    require_safe(recipe.weights.url)
    return None


def _given(choice: str) -> Path:
    """The user's own checkpoint."""
    file = Path(choice)
    if not file.is_file():
        what = "is a folder" if file.is_dir() else "does not exist"
        mend = "--weights takes pretrained, standin, or a .safetensors, .pth or .pt file"
        raise WeightsError(f"the checkpoint {what}", where=file, mend=mend)
    with file.open("rb"):  # it may not be readable
        return file


def _not_at_hand(recipe: Recipe) -> WeightsError:
    return WeightsError(
        f"the weights {recipe.weights.file} are not at hand, and no URL is given",
        where=recipe.name,
        mend=f"put it at {_places(recipe)[-1]}, or take --weights standin or --weights FILE",
    )


def _refuse_sibling(recipe: Recipe, file: Path, digest: str) -> None:
    """Refuse a file known to be published for the same definition with other arguments.

    Networks may have the same tensors and other arithmetic (where a ResNet takes its strides): only the
    file's hash says for which it was trained.
    """
    owners = [
        other
        for other in map(read_recipe, recipe_names())
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
            f"these weights are published for {owners[0].name}, another network than {recipe.name}",
            where=file,
            mend=f"export {owners[0].name}, or give weights trained for {recipe.name}",
        )


def _published(recipe: Recipe, progress: Callable[[int, int | None], None]) -> tuple[Path, str]:
    find(recipe, "pretrained")
    expected = _hash_in_name(recipe)
    for place in _places(recipe):
        if place.is_file():
            return place, _checked(place, expected)
    hub = _everywhere(recipe)[-1]
    # A damaged file there is another tool's to mend: pass over it.
    if hub.is_file() and (digest := digest_of_file(hub)).startswith(expected):
        return hub, digest
    cached = _places(recipe)[-1]
    if not recipe.weights.url:
        raise _not_at_hand(recipe)
    fetch(recipe.weights.url, cached, digest=expected, progress=progress)
    return cached, _checked(cached, expected)


def at_hand(recipe: Recipe) -> bool:
    """Whether the published weights lie somewhere on this machine; their hash is not looked at."""
    return any(place.is_file() for place in _everywhere(recipe))


def _everywhere(recipe: Recipe) -> tuple[Path, ...]:
    """Our own places, and last PyTorch's."""
    return (*_places(recipe), _hub_folder() / recipe.weights.file)


def _places(recipe: Recipe) -> tuple[Path, ...]:
    """Where published weights are looked for, in order; the last is where a download goes."""
    name = recipe.weights.file
    # A recipe copied from a shipped one finds the weights that ship, too: the name carries their hash.
    shipped = shared_folder("recipes") / "weights" / name
    return recipe.folder / "weights" / name, shipped, cache_folder() / "weights" / name


def _hash_in_name(recipe: Recipe) -> str:
    name = recipe.weights.file
    match = re.fullmatch(r"[^/\\]+-([0-9a-f]{8,64})\.[a-z]+", name)
    if match is None:
        mend = "end it with -<first 8 or more hex digits of the SHA-256>.<suffix>, without folders"
        raise RecipeError(f"weights.file {name!r} does not carry its hash", where="weights.file", mend=mend)
    return match[1]


def _checked(place: Path, expected: str) -> str:
    digest = digest_of_file(place)
    if not digest.startswith(expected):
        raise WeightsError(
            f"the checkpoint is damaged: its SHA-256 starts with {digest[: len(expected)]}, not {expected}",
            where=place,
            mend=f"rm '{place}', then run again",
        )
    return digest


def _hub_folder() -> Path:
    """Where torch.hub keeps what it downloads, without importing torch."""
    home = os.environ.get("TORCH_HOME")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return (Path(home).expanduser() if home else cache / "torch") / "hub" / "checkpoints"


def load_into(
    model: nn.Module,
    weights: Weights,
    recipe: Recipe,
    *,
    batches_for_statistics: Iterable[NDArray[np.float32]],
) -> tuple[str, ...]:
    """Give a model its weights, in place.

    Args:
        model: a network in evaluation mode, on the CPU.
        weights: what `locate` found.
        recipe: the model's; says which tensors of a checkpoint only training needs, and what they are called.
        batches_for_statistics: pictures (N, C, H, W), normalised, from which a stand-in's BatchNorm layers
            take their mean and variance; read only for a stand-in with such layers.

    Returns:
        What the user should be told, such as a conversion from FP16.

    Raises:
        WeightsError: the checkpoint is damaged, unsafe, or belongs to another network.
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
    return notes if weights.kind == "pretrained" else (*notes, *fit.siblings(model.state_dict(), recipe))
