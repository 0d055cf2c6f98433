"""Reads a checkpoint without executing code from it, and loads it into a model."""

from __future__ import annotations

import argparse
import math
import pathlib
import pickle
import re
import struct
import types
import warnings
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any, NoReturn

import safetensors
import safetensors.torch
import torch
from torch import nn

from cnnx.errors import WeightsError
from cnnx.recipe import Recipe
from cnnx.weights.archive import check_archive
from cnnx.weights.fit import Tensors, classes_of, compare, listed, word
from cnnx.weights.unwrap import RESAVE, unwrapped

_AGAIN = "copy or download it again"

# Plain containers in which training code keeps its options; reading them runs nothing of the checkpoint's.
_CONTAINERS = (argparse.Namespace, types.SimpleNamespace, pathlib.PosixPath)

# What the readers of PyTorch and safetensors raise for damaged files, except pickle.UnpicklingError.
_DAMAGED = (
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    safetensors.SafetensorError,
    struct.error,
    zipfile.BadZipFile,
)


def load(model: nn.Module, file: Path, recipe: Recipe) -> tuple[str, ...]:
    """Load the tensors of a checkpoint into a model; nothing changes unless all of them fit.

    The model's parameters become the checkpoint's tensors, memory-mapped if the format allows it. The
    recipe's [weights] options (renamed, training-only and background tensors) are applied first.

    Returns:
        Messages for the user.

    Raises:
        WeightsError: the checkpoint is damaged or unsafe, contains other objects than tensors or values that
            are not finite, or belongs to a different network.
    """
    wanted = model.state_dict()
    state, notes = unwrapped(_read(file), wanted, recipe.weights, file)
    compare(wanted, state, file, recipe)
    fitted = {name: t.to(wanted[name].dtype) for name, t in state.items()}
    if broken := [name for name, tensor in fitted.items() if not _is_finite(tensor)]:
        raise WeightsError(
            f"some weights are NaN or infinite: {listed(broken)}",
            where=file,
            hint="use an earlier checkpoint of the training run, from before it diverged",
        )
    # Not strict, because checkpoints from before PyTorch 0.4.1 have no num_batches_tracked.
    model.load_state_dict(fitted, strict=False, assign=True)
    changed = Counter(
        f"from {word(tensor.dtype)} to {word(fitted[name].dtype)}"
        for name, tensor in state.items()
        if tensor.dtype != fitted[name].dtype
    )
    notes += [f"{count} tensors of the checkpoint were converted {how}" for how, count in changed.items()]
    return tuple(notes)


def classes_in(file: Path, wanted: Tensors, recipe: Recipe) -> int:
    """Return the number of classes of a checkpoint: the recipe's unless only its classifier differs.

    Raises:
        WeightsError: the checkpoint is damaged or unsafe, or contains no tensors.
    """
    state, _ = unwrapped(_read(file), wanted, recipe.weights, file)
    return classes_of(wanted, state, recipe.model.classes) or recipe.model.classes


def _read(file: Path) -> Any:
    """Return the content of the file. Its format is detected from the content, not from the suffix."""
    with file.open("rb") as stream:
        head = stream.read(9)
    is_zip = zipfile.is_zipfile(file)
    if not head:
        raise WeightsError("the checkpoint is empty", where=file, hint=_AGAIN)
    if head.startswith(b"PK") and not is_zip:
        raise WeightsError("the checkpoint is truncated", where=file, hint=_AGAIN)
    try:
        if is_zip:
            check_archive(file)
        if head[8:] == b"{":
            return safetensors.torch.load_file(file)
        with warnings.catch_warnings(), torch.serialization.safe_globals(list(_CONTAINERS)):
            warnings.simplefilter("ignore")
            return torch.load(file, map_location="cpu", weights_only=True, mmap=is_zip)
    except pickle.UnpicklingError as error:
        _refuse_pickle(str(error), file)
    except (MemoryError, OverflowError):
        raise WeightsError(
            "the checkpoint is damaged: it states a size that does not fit in memory", where=file, hint=_AGAIN
        ) from None
    except _DAMAGED as error:
        if "TorchScript" in str(error):
            raise WeightsError(
                "the checkpoint is a TorchScript archive, which contains code",
                where=file,
                hint=RESAVE,
            ) from None
        first = (str(error) or type(error).__name__).splitlines()[0].split(". ")[0]
        raise WeightsError(
            f"the checkpoint is damaged or truncated: {first}", where=file, hint=_AGAIN
        ) from None


def _refuse_pickle(message: str, file: Path) -> NoReturn:
    """Refuse a pickle that would run code, or a file that is not a checkpoint."""
    if match := re.search(r"GLOBAL (\S+)", message):
        raise WeightsError(
            f"the checkpoint would run {match[1]} when read; only tensors are accepted",
            where=file,
            hint=RESAVE,
        ) from None
    raise WeightsError(
        "the file is not a checkpoint that can be read safely",
        where=file,
        hint="give a .safetensors file, or a .pth or .pt written by torch.save(model.state_dict(), ...)",
    ) from None


def _is_finite(tensor: torch.Tensor) -> bool:
    """Return whether all values are finite, from the extremes: torch.isfinite would need a full copy."""
    return tensor.numel() == 0 or all(math.isfinite(extreme) for extreme in torch.aminmax(tensor))
