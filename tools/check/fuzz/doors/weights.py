"""Checkpoints: PyTorch's archives and old streams, and safetensors."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any

from tools.check.fuzz.door import Door, Files
from tools.check.fuzz.mutators import archives, octets, pickles

_RECIPE = """
name = "mine"
model = { definition = "lenet5", classes = 10 }
input = { shape = [1, 32, 32] }
preprocessing = { color = "gray", resize = 32, mean = [0.5], std = [0.5] }
"""


class CheckpointDoor(Door):
    """A checkpoint for LeNet-5, in any format."""

    _file = "w.pth"

    def prepare(self) -> None:
        import torch

        import cnnx.pipeline.export.export
        import cnnx.weights.checkpoint  # noqa: F401
        from cnnx.recipe import read_recipe, recipe_names
        from cnnx.weights.fit import on_meta

        torch.set_num_threads(1)
        for recipe in map(read_recipe, recipe_names()):
            # Refused checkpoints are compared with every network; forked processes find them made.
            on_meta(recipe, recipe.model.classes)

    def read(self, folder: Path) -> Any:
        """The weights of a network after they were loaded into it."""
        from cnnx import models
        from cnnx.recipe import parse_recipe
        from cnnx.weights import checkpoint

        net = models.build("lenet5", classes=10, arguments={})
        checkpoint.load(net, folder / self._file, parse_recipe(_RECIPE, where=folder / "r.toml"))
        return {name: _digest(tensor) for name, tensor in net.state_dict().items()}

    def legitimate(self, before: Any, after: Any, folder: Path) -> str:
        """Other values, which the file has as another reader reads it, and no checksum contradicts."""
        file = folder / self._file
        content = file.read_bytes()
        if zipfile.is_zipfile(file) and not _checksums_fit(content):
            return ""
        stated = _values(_plainly(file, content))
        if before.keys() != after.keys() or any(
            stated.get(name, digest) != digest for name, digest in after.items()
        ):
            return ""
        return "other weights, as the file has them"

    def command(self, folder: Path) -> list[str]:
        few = ["--validation-images", "8", "--fp32", "--out", "out"]
        return ["export", "lenet5", "--weights", str(folder / self._file), *few]


class SafetensorsDoor(CheckpointDoor):
    """A checkpoint in safetensors."""

    name, reads = "safetensors", "a checkpoint, safetensors"
    _file = "w.safetensors"

    def seeds(self, scratch: Path) -> dict[str, Files]:
        import safetensors.torch

        return {
            name: {self._file: safetensors.torch.save(state, {"format": "pt"})}
            for name, state in (("float32", _state()), ("float16", _state("half")))
        }

    def mutate(self, dice: Random, files: Files) -> tuple[Files, str]:
        changed, how = archives.safetensors(dice, _content(files))
        return {self._file: changed}, how


class ArchiveDoor(CheckpointDoor):
    """A checkpoint as torch.save writes it today: a ZIP."""

    name, reads = "pth", "a checkpoint, torch.save (.pth)"

    def seeds(self, scratch: Path) -> dict[str, Files]:
        import argparse

        whole = {"epoch": 3, "state_dict": {f"module.{name}": each for name, each in _state().items()}}
        whole["args"] = argparse.Namespace(lr=0.1)
        return {name: {self._file: _saved(data)} for name, data in (("state", _state()), ("training", whole))}

    def mutate(self, dice: Random, files: Files) -> tuple[Files, str]:
        changed, how = archives.zip_edit(dice, _content(files), pickles.edit)
        return {self._file: changed}, how


class StreamDoor(CheckpointDoor):
    """A checkpoint as torch.save wrote it before PyTorch 1.6: pickles in a row, without checksums."""

    name, reads = "old pth", "a checkpoint, torch.save before 1.6"

    def seeds(self, scratch: Path) -> dict[str, Files]:
        return {"state": {self._file: _saved(_state(), old=True)}}

    def mutate(self, dice: Random, files: Files) -> tuple[Files, str]:
        content = _content(files)
        damage = octets.damage if dice.random() < 0.4 else pickles.stream
        # The pickles take the first part; the rest are values.
        end = content.rfind(b"conv1") + 400
        if dice.random() < 0.7:
            head, how = damage(dice, content[:end])
            return {self._file: head + content[end:]}, how
        changed, how = damage(dice, content)
        return {self._file: changed}, how


def _state(kind: str = "float") -> dict[str, Any]:
    import torch

    from cnnx import models

    net = models.build("lenet5", classes=10, arguments={})
    return {
        name: getattr(torch.arange(each.numel()) % 13 / 16, kind)().reshape(each.shape)
        for name, each in net.state_dict().items()
    }


def _saved(data: Any, *, old: bool = False) -> bytes:
    import torch

    out = io.BytesIO()
    torch.save(data, out, _use_new_zipfile_serialization=not old)
    return out.getvalue()


def _content(files: Files) -> bytes:
    [content] = files.values()
    assert isinstance(content, bytes)
    return content


def _digest(tensor: Any) -> str:
    return hashlib.sha256(tensor.detach().float().numpy().tobytes()).hexdigest()[:16]


def _checksums_fit(content: bytes) -> bool:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return archive.testzip() is None


def _plainly(file: Path, content: bytes) -> Any:
    """What the format's own reader reads."""
    import safetensors.torch
    import torch

    if content[8:9] == b"{":
        return safetensors.torch.load(content)
    from cnnx.weights.checkpoint import _CONTAINERS

    with torch.serialization.safe_globals(list(_CONTAINERS)):
        return torch.load(file, map_location="cpu", weights_only=True)


def _values(data: Any) -> dict[str, str]:
    """The digests of all tensors, by the last two parts of their names."""
    found: dict[str, str] = {}
    for name, value in data.items() if isinstance(data, Mapping) else ():
        if isinstance(value, Mapping):
            found |= _values(value)
        elif hasattr(value, "detach") and value.layout is not None:
            found[".".join(str(name).split(".")[-2:])] = _digest(value)
    return found


DOORS = (SafetensorsDoor(), ArchiveDoor(), StreamDoor())
