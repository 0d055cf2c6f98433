"""Finds the tensors of a network in the content of a checkpoint, whatever the training code wrapped them in.

No list of frameworks: a set of tensors is the network's if its names below one common prefix are those that
the network has. That covers DataParallel, torch.compile, Lightning, timm and averaged copies of the weights.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cnnx.errors import WeightsError
from cnnx.recipe import WeightsSpec
from cnnx.weights.fit import Tensors, adapted, listed, mismatch

RESAVE = "save it again in its training code: torch.save(model.state_dict(), 'weights.pth')"
_DEPTH = 4  # of dictionaries within dictionaries, and of names within a prefix
_AVERAGED = re.compile(r"(?<![a-z])(ema|swa)(?![a-z])", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Found:
    """A set of tensors in a checkpoint.

    Attributes:
        path: the keys and the prefix that lead to it.
        tensors: the tensors, with the network's names as far as they are known.
        notes: what was left out.
        hits: number of names that the network has.
        misses: number of differences from the network; see `mismatch`.
    """

    path: str
    tensors: dict[str, torch.Tensor]
    notes: tuple[str, ...]
    hits: int
    misses: int

    @property
    def averaged(self) -> bool:
        return bool(_AVERAGED.search(self.path))


def unwrapped(
    content: Any, wanted: Tensors, spec: WeightsSpec, file: Path
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Return the tensors of the network with its names, and messages for the user.

    If none of the sets in the checkpoint fits, the nearest is returned, so that the caller can name the
    differences. Averaged weights (EMA, SWA) are used only if there are no others.

    Raises:
        WeightsError: the checkpoint contains no tensors or other objects among them, or several sets that
            fit.
    """
    found = [each for path, names in _dictionaries(content) for each in _below(path, names, wanted, spec)]
    if not found:
        raise _nothing(content, file)
    fits = [each for each in found if not each.misses]
    chosen, notes = _chosen(fits, file) if fits else (max(found, key=lambda each: each.hits), [])
    _refuse_others(chosen, file)
    return chosen.tensors, [*chosen.notes, *notes]


def _chosen(fits: Sequence[_Found], file: Path) -> tuple[_Found, list[str]]:
    """Return the set of weights to use of those that fit, and messages about the others."""
    plain, averaged = ([each for each in fits if each.averaged is kind] for kind in (False, True))
    first, *rest = plain or averaged
    if others := [each.path for each in rest if not _same(each, first)]:
        raise WeightsError(
            f"the checkpoint contains several sets of weights that fit: {listed([first.path, *others])}",
            where=file,
            hint="save the one to use alone: torch.save(checkpoint['NAME'], 'weights.pth')",
        )
    if not plain:
        return first, [f"averaged weights were used, as there are no others: {first.path}"]
    if not averaged:
        return first, []
    names = listed([each.path for each in averaged])
    return first, [f"averaged weights of the checkpoint were not used: {names}; to use them, save them alone"]


def _dictionaries(
    content: Any, path: str = "", depth: int = _DEPTH, seen: set[int] | None = None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the dictionaries that hold tensors, with the keys that lead to them, each once."""
    seen = set() if seen is None else seen
    if not isinstance(content, Mapping) or id(content) in seen:
        return
    seen.add(id(content))
    named = {key: value for key, value in content.items() if isinstance(key, str)}
    if any(isinstance(value, torch.Tensor) for value in named.values()):
        yield path, named
    elif depth:
        for key, value in named.items():
            yield from _dictionaries(value, f"{path}.{key}" if path else key, depth - 1, seen)


def _below(path: str, names: Mapping[str, Any], wanted: Tensors, spec: WeightsSpec) -> Iterator[_Found]:
    """Yield the tensors below each prefix that could be the network's, without that prefix."""
    counts = Counter(
        prefix
        for name in names
        for prefix in {".".join(name.split(".")[:length]) for length in range(1, _DEPTH + 1)}
        if name.startswith(f"{prefix}.")
    )
    least = min(len(wanted), len(names)) / 2
    for prefix in ("", *(f"{prefix}." for prefix, count in counts.items() if count >= least)):
        inside = {name.removeprefix(prefix): t for name, t in names.items() if name.startswith(prefix)}
        outside = len(names) - len(inside)
        tensors, notes = adapted(inside, wanted, spec)
        if outside:
            notes.append(f"entries of the checkpoint outside {prefix}* were dropped: {outside}")
        where = f"{path}.{prefix}" if path and prefix else path or prefix
        hits = len(wanted.keys() & tensors.keys())
        yield _Found(where.rstrip("."), tensors, tuple(notes), hits, mismatch(wanted, tensors))


def _same(one: _Found, other: _Found) -> bool:
    """Whether two sets that fit hold the same values."""
    return all(torch.equal(tensor, other.tensors[name]) for name, tensor in one.tensors.items())


def _nothing(content: Any, file: Path) -> WeightsError:
    kind = type(content).__name__
    if isinstance(content, Mapping):
        kind = f"no tensors, only {listed([str(key) for key in content])}" if content else "nothing"
    return WeightsError(f"the checkpoint contains {kind}, not a state dict", where=file, hint=RESAVE)


def _refuse_others(found: _Found, file: Path) -> None:
    """Raise if the dictionary holds anything but plain tensors."""
    others = [name for name, value in found.tensors.items() if not _is_plain(value)]
    if others:
        raise WeightsError(
            f"the checkpoint contains entries that are not tensors: {listed(others)}",
            where=file,
            hint=RESAVE,
        )


def _is_plain(value: object) -> bool:
    if not isinstance(value, torch.Tensor):
        return False
    return value.layout == torch.strided and not value.is_quantized and not value.is_meta
