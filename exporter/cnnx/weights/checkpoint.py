"""Reading a checkpoint without running anything in it, and holding it against the model."""

from __future__ import annotations

import math
import pickle
import re
import warnings
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import safetensors
import safetensors.torch
import torch
from torch import nn

from cnnx import models
from cnnx.errors import WeightsError

_WRAPPERS = ("state_dict", "model_state_dict", "model")  # around the tensors in training checkpoints
_PREFIXES = ("module.", "_orig_mod.")  # put before every name by DataParallel and by torch.compile
_SHOWN = 8
_RESAVE = "save it anew where it came from: torch.save(model.state_dict(), 'weights.pth')"


def load(model: nn.Module, file: Path) -> tuple[str, ...]:
    """Give a model the tensors of a checkpoint; nothing is changed unless all of them fit.

    The model's parameters become the checkpoint's own tensors, memory-mapped where its format allows that.

    Returns:
        What the user should be told.

    Raises:
        WeightsError: damaged, unsafe, holding other things than tensors, not finite, or of another network.
    """
    state = _tensors(_read(file), file)
    wanted = model.state_dict()
    _compare(wanted, state, file)
    fitted = {name: t.to(wanted[name].dtype) for name, t in state.items()}
    if broken := [name for name, tensor in fitted.items() if not _is_finite(tensor)]:
        raise WeightsError(f"not every weight is a finite number: {_listed(broken)}", where=file)
    # Not strict only for num_batches_tracked, which checkpoints before PyTorch 0.4.1 lack.
    model.load_state_dict(fitted, strict=False, assign=True)
    changed = Counter(
        f"from {_word(tensor.dtype)} to {_word(fitted[name].dtype)}"
        for name, tensor in state.items()
        if tensor.dtype != fitted[name].dtype
    )
    return tuple(f"{count} tensors of the checkpoint were converted {how}" for how, count in changed.items())


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
            f"the checkpoint holds other things than tensors: {_listed(others)}", where=file, mend=_RESAVE
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


def _compare(wanted: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor], file: Path) -> None:
    missing = [n for n in wanted if n not in state and not n.endswith("num_batches_tracked")]
    unexpected = [n for n in state if n not in wanted]
    shared = [n for n in wanted if n in state]
    shapes = [
        f"{n}: {list(state[n].shape)} where the model has {list(wanted[n].shape)}"
        for n in shared
        if state[n].shape != wanted[n].shape
    ]
    types = [
        f"{n}: {_word(state[n].dtype)}"
        for n in shared
        if state[n].is_floating_point() != wanted[n].is_floating_point()
    ]
    kinds = {
        "missing": missing,
        "unexpected": unexpected,
        "of another shape": shapes,
        "of another type": types,
    }
    faults = [f"{len(names)} {kind} ({_listed(names)})" for kind, names in kinds.items() if names]
    if not faults:
        return
    if 2 * len(shared) < len(wanted):
        network = _recognised(state) or "another network"
        raise WeightsError(
            f"this is a checkpoint of {network}: {'; '.join(faults)}",
            where=file,
            mend="give the checkpoint of this network, or name the other one's recipe",
        )
    raise WeightsError(
        f"the checkpoint does not fit the model: {'; '.join(faults)}",
        where=file,
        mend="set model.classes and model.arguments in the recipe to what it was trained with",
    )


def _recognised(state: Mapping[str, torch.Tensor]) -> str | None:
    """The known network whose parameter names these are."""
    for name in models.DEFINITIONS:
        with torch.device("meta"):
            known = models.build(name, classes=2, arguments={}).state_dict()
        if known.keys() == state.keys():
            return name
    return None


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"


def _word(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
