"""Recipes, files of gates, and timm's data configs."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from random import Random
from typing import Any

from tools import ROOT
from tools.check.fuzz.door import Door, Files
from tools.check.fuzz.mutators import plain, toml
from tools.check.fuzz.states import states

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_GATES = """
top1_agreement = 0.95
latency_p50_ms = 5
graph_mib = 0.25
reason = "a test"
[int8]
top5_agreement = 0.9
divergence_nats = 0.02
[fp16]
clear_margin = 0.2
batch = 4
"""
_TIMM = {
    "architecture": "resnet18",
    "num_classes": 1000,
    "pretrained_cfg": {
        "interpolation": "bicubic", "crop_pct": 0.95, "crop_mode": "center", "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225], "input_size": [3, 224, 224], "tag": "a1_in1k",
    },
}  # fmt: skip


class RecipeDoor(Door):
    """A recipe in TOML."""

    name, reads = "recipe", "a recipe (TOML)"

    def prepare(self) -> None:
        import torch  # noqa: F401

        import cnnx.pipeline.networks  # noqa: F401

    def seeds(self, scratch: Path) -> dict[str, Files]:
        # One with every gate, one with presets and overrides, one with renamed tensors.
        names = ("lenet5", "vgg16", "efficientnet-lite0", "densenet121")
        return {name: {"r.toml": (ROOT / "recipes" / f"{name}.toml").read_bytes()} for name in names}

    def mutate(self, dice: Random, files: Files) -> tuple[Files, str]:
        changed, how = toml.edit(dice, text_of(files, "r.toml"))
        return {"r.toml": changed}, how

    def read(self, folder: Path) -> Any:
        from cnnx.recipe import read_recipe

        recipe = read_recipe(str(folder / "r.toml"))
        return {**recipe.as_dict(), "aliases": recipe.aliases}

    def legitimate(self, before: Any, after: Any, folder: Path) -> str:
        document = tomllib.loads((folder / "r.toml").read_text(encoding="utf-8"))
        table = document.get("preprocessing", {})
        # Short forms of other keys.
        for key in ("preset", "crop_fraction"):
            table.pop(key, None)
        return "another recipe, as it states" if states(after, document) else ""

    def command(self, folder: Path) -> list[str]:
        return ["show", str(folder / "r.toml")]


class GatesDoor(Door):
    """A file of gates in TOML."""

    name, reads = "gates", "a file of gates (TOML)"

    def prepare(self) -> None:
        import cnnx.gates
        import cnnx.pipeline.compare.compare  # noqa: F401

    def seeds(self, scratch: Path) -> dict[str, Files]:
        return {
            "gates": {"g.toml": _GATES.encode()},
            "table": {"g.toml": f"[gates]\n{_GATES.split('[')[0]}".encode()},
        }

    def mutate(self, dice: Random, files: Files) -> tuple[Files, str]:
        changed, how = toml.edit(dice, text_of(files, "g.toml"))
        return {"g.toml": changed}, how

    def read(self, folder: Path) -> Any:
        from cnnx.gates import read_gates

        return dataclasses.asdict(read_gates(folder / "g.toml"))

    def legitimate(self, before: Any, after: Any, folder: Path) -> str:
        document = tomllib.loads((folder / "g.toml").read_text(encoding="utf-8"))
        if document.keys() == {"gates"}:
            document = document["gates"]
        return "other gates, as the file states" if states(after, document) else ""

    def command(self, folder: Path) -> list[str]:
        return ["compare", str(folder), str(folder), "--gates", str(folder / "g.toml")]


class TimmDoor(Door):
    """The data config of a timm model."""

    name, reads = "data config", "timm's config.json, in a recipe"

    def prepare(self) -> None:
        import torch  # noqa: F401

        import cnnx.pipeline.networks  # noqa: F401

    def seeds(self, scratch: Path) -> dict[str, Files]:
        recipe = b'name = "mine"\nmodel = { definition = "lenet5", classes = 10 }\n'
        recipe += b'preprocessing = { preset = "c.json" }\n'
        bare = _TIMM["pretrained_cfg"]
        return {
            name: {"r.toml": recipe, "c.json": json.dumps(data, indent=1).encode()}
            for name, data in (("model", _TIMM), ("pretrained_cfg", bare))
        }

    def mutate(self, dice: Random, files: Files) -> tuple[Files, str]:
        changed, how = plain.json_text(dice, json.loads(text_of(files, "c.json")))
        return {**files, "c.json": changed}, how

    def read(self, folder: Path) -> Any:
        from cnnx.recipe import read_recipe

        return read_recipe(str(folder / "r.toml")).preprocessing

    def legitimate(self, before: Any, after: Any, folder: Path) -> str:
        document = json.loads((folder / "c.json").read_text(encoding="utf-8"))
        stated = document.get("pretrained_cfg", document)
        same = states([after.mean, after.std], [stated["mean"], stated["std"]])
        side = stated.get("crop_pct", 0.875)
        cropped = after.resize in (None, int(224 / side), (int(224 / side),) * 2)
        return "other preprocessing, as it states" if same and cropped else ""

    def command(self, folder: Path) -> list[str]:
        return ["show", str(folder / "r.toml")]


def text_of(files: Files, name: str) -> str:
    """The text of a file."""
    content = files[name]
    assert isinstance(content, bytes)
    return content.decode()


DOORS = (RecipeDoor(), GatesDoor(), TimmDoor())
