"""Reading a checkpoint without running anything in it, and holding it against the model."""

from __future__ import annotations

import math
import pickle
import re
import warnings
import zipfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import safetensors
import safetensors.torch
import torch
from torch import nn

from cnnx.errors import WeightsError
from cnnx.recipe import Recipe
from cnnx.weights.fit import adapted, compare, listed, word

_WRAPPERS = ("state_dict", "model_state_dict", "model")  # around the tensors in training checkpoints
_PREFIXES = ("module.", "_orig_mod.")  # put before every name by DataParallel and by torch.compile
_RESAVE = "save it anew where it came from: torch.save(model.state_dict(), 'weights.pth')"


def load(model: nn.Module, file: Path, recipe: Recipe) -> tuple[str, ...]:
    """Give a model the tensors of a checkpoint; nothing is changed unless all of them fit.

    The model's parameters become the checkpoint's own tensors, memory-mapped where its format allows that.
    What the recipe's [weights] say of renamed, training-only and background tensors is done first.

    Returns:
        What the user should be told.

    Raises:
        WeightsError: damaged, unsafe, holding other things than tensors, not finite, or of another network.
    """
    wanted = model.state_dict()
    state, notes = adapted(_tensors(_read(file), file), wanted, recipe.weights)
    compare(wanted, state, file, recipe)
    fitted = {name: t.to(wanted[name].dtype) for name, t in state.items()}
    if broken := [name for name, tensor in fitted.items() if not _is_finite(tensor)]:
        raise WeightsError(f"not every weight is a finite number: {listed(broken)}", where=file)
    # Not strict only for num_batches_tracked, which checkpoints before PyTorch 0.4.1 lack.
    model.load_state_dict(fitted, strict=False, assign=True)
    changed = Counter(
        f"from {word(tensor.dtype)} to {word(fitted[name].dtype)}"
        for name, tensor in state.items()
        if tensor.dtype != fitted[name].dtype
    )
    notes += [f"{count} tensors of the checkpoint were converted {how}" for how, count in changed.items()]
    return tuple(notes)


def _read(file: Path) -> Any:
    """Whatever the file holds. Its format is told by its content, for suffixes lie."""
    with file.open("rb") as stream:
        head = stream.read(9)
    is_zip = zipfile.is_zipfile(file)
    if not head:
        raise WeightsError("the checkpoint is empty", where=file, mend="copy or download it again")
    if head.startswith(b"PK") and not is_zip:
        raise WeightsError("the checkpoint is cut short", where=file, mend="copy or download it again")
    try:
        if head[8:] == b"{":
            return safetensors.torch.load_file(file)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(file, map_location="cpu", weights_only=True, mmap=is_zip)
    except pickle.UnpicklingError as error:
        _refuse_pickle(str(error), file)
    except (safetensors.SafetensorError, RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        if "TorchScript" in str(error):
            raise WeightsError(
                "a TorchScript archive holds code and is refused", where=file, mend=_RESAVE
            ) from None
        first = (str(error) or type(error).__name__).splitlines()[0].split(". ")[0]
        raise WeightsError(
            f"the checkpoint is damaged or cut short: {first}", where=file, mend="copy or download it again"
        ) from None


def _refuse_pickle(message: str, file: Path) -> NoReturn:
    """Tell a pickle that would run code from one that is none."""
    if match := re.search(r"GLOBAL (\S+)", message):
        raise WeightsError(
            f"the checkpoint would run {match[1]} when read, and is refused: only tensors are taken",
            where=file,
            mend=_RESAVE,
        ) from None
    raise WeightsError(
        "this is not a checkpoint that can be read safely",
        where=file,
        mend="give a .safetensors file, or a .pth or .pt written by torch.save(model.state_dict(), ...)",
    ) from None


def _tensors(content: Any, file: Path) -> dict[str, torch.Tensor]:
    """The state dict itself, out of its wrappers and prefixes."""
    while isinstance(content, Mapping):
        inner = [content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)]
        if not inner:
            break
        content = inner[0]
    if not isinstance(content, Mapping) or not content:
        kind = "nothing" if isinstance(content, Mapping) else type(content).__name__
        raise WeightsError(f"the checkpoint holds {kind}, not tensors by name", where=file, mend=_RESAVE)
    others = [str(name) for name, value in content.items() if not _is_plain(name, value)]
    if others:
        raise WeightsError(
            f"the checkpoint holds other things than tensors: {listed(others)}", where=file, mend=_RESAVE
        )
    state = dict(content)
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state


def _is_plain(name: object, value: object) -> bool:
    if not isinstance(name, str) or not isinstance(value, torch.Tensor):
        return False
    return value.layout == torch.strided and not value.is_quantized


def _is_finite(tensor: torch.Tensor) -> bool:
    """By its extremes, which NaN reaches too: torch.isfinite on the whole would take as much memory again."""
    return tensor.numel() == 0 or all(math.isfinite(extreme) for extreme in torch.aminmax(tensor))
