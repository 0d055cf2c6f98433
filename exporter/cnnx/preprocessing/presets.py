"""Short forms of preprocessing: presets by name, timm's data config, and a crop fraction.

They are resolved when a recipe or an option is read, so a manifest always states every value.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from cnnx.errors import CnnxError
from cnnx.limits import TEXT_BYTES
from cnnx.preprocessing import Color, Preprocessing
from cnnx.schema import from_plain, nearest, read_json
from cnnx.store.reading import read_bytes

# Fractions below this would enlarge an image a hundredfold.
_Fraction = Annotated[float, Meta(ge=0.01, le=1, description="a number in 0.01..1, such as 0.875")]

_IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
_HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
# keras.utils.load_img(file, target_size=...), whose default is Pillow's nearest neighbour.
_KERAS = {"fit": "squash", "interpolation": "nearest"}

PRESETS: Mapping[str, Mapping[str, Any]] = {
    # torchvision.transforms._presets.ImageClassification(crop_size=224), with resize 256
    "torchvision": {"crop_fraction": 0.875, "interpolation": "bilinear", **_IMAGENET},
    # timm.data.create_transform with IMAGENET_DEFAULT_MEAN and DEFAULT_CROP_PCT
    "timm": {"crop_fraction": 0.875, "interpolation": "bicubic", **_IMAGENET},
    # timm.data.create_transform with IMAGENET_INCEPTION_MEAN
    "timm-inception": {"crop_fraction": 0.875, "interpolation": "bicubic", **_HALF},
    # keras.applications.imagenet_utils.preprocess_input with mode "tf", "caffe" and "torch"
    "keras-tf": {**_KERAS, "divisor": 127.5, "mean": (1.0, 1.0, 1.0), "std": (1.0, 1.0, 1.0)},
    "keras-caffe": {
        **_KERAS,
        "color": "bgr",
        "divisor": 1.0,
        "mean": (103.939, 116.779, 123.68),
        "std": (1.0, 1.0, 1.0),
    },
    "keras-torch": {**_KERAS, **_IMAGENET},
    # No library's: the values that cnnx assumes for one channel.
    "gray": {"color": "gray", "crop_fraction": 0.875, "mean": (0.5,), "std": (0.5,)},
}
"""Name -> keys of `PreprocessingTable`; those left out have the defaults."""


@dataclass(frozen=True, slots=True)
class PreprocessingTable(Preprocessing):
    """Preprocessing as a recipe states it: the keys of `Preprocessing`, and short forms of them.

    Attributes:
        preset: starting point for the keys left out: "torchvision", "timm", "timm-inception", "keras-tf",
            "keras-caffe", "keras-torch" or "gray", or a config.json of timm, relative to the recipe.
        crop_fraction: side of the input over `resize`, as timm's crop_pct: `resize` is
            floor(side / crop_fraction).
    """

    preset: str = ""
    crop_fraction: _Fraction | None = None


@dataclass(frozen=True, slots=True)
class _TimmConfig:
    """The keys of timm's data config that describe preprocessing, with timm's defaults."""

    interpolation: str = "bicubic"
    crop_pct: _Fraction = 0.875
    crop_mode: str = "center"
    mean: tuple[float, ...] = _IMAGENET["mean"]
    std: tuple[float, ...] = _IMAGENET["std"]


def resolved(
    table: Mapping[str, Any],
    shape: tuple[int, int, int],
    *,
    where: object,
    folder: Path,
    error: type[CnnxError],
    at: str = "",
) -> dict[str, Any]:
    """The keys of `Preprocessing` that a table of `PreprocessingTable` stands for.

    Args:
        table: plain data.
        shape: channels, height and width of the input.
        where: file or option that holds the table, for messages.
        folder: folder that a config file's name is relative to.
        error: exception class to raise.
        at: path of the key that holds the table.

    Raises:
        error: an unknown key, a value of the wrong type, an unknown preset, or an unreadable config file.
    """
    stated = from_plain(PreprocessingTable, table, where=where, error=error, at=at)
    preset: Mapping[str, Any] = {}
    if "preset" in table:
        preset = _preset(stated.preset, where=where, folder=folder, error=error, at=at)
    if stated.crop_fraction is not None and "resize" in table:
        key = f"{at}.crop_fraction" if at else "crop_fraction"
        hint = "drop one of them"
        raise error("resize and crop_fraction exclude each other", where=f"{where}, key {key}", hint=hint)
    if {"resize", "crop_fraction"} & set(table):
        preset = {key: value for key, value in preset.items() if key not in ("resize", "crop_fraction")}
    keys = {**preset, **table}
    keys.pop("preset", None)
    fraction = keys.pop("crop_fraction", None)
    if "resize" not in keys:
        keys["resize"] = _usual_resize(keys.get("fit", "shorter"), fraction, shape)
    return keys


def _usual_resize(
    fit: str, fraction: float | None, shape: tuple[int, int, int]
) -> int | tuple[int, int] | None:
    """The resize for a crop fraction; without one, the input's own size, or 256 for a shorter side."""
    if fit == "none":
        return None
    if fit == "shorter" and fraction is None:
        return 256
    # timm rounds down: 224 / 0.9 = 248.9 becomes 248.
    height, width = (math.floor(side / (fraction or 1)) for side in shape[1:])
    return height if height == width and fit in ("shorter", "longer") else (height, width)


def assumed(shape: tuple[int, int, int], *, pixels: bool = False) -> Preprocessing:
    """Preprocessing of a network that comes without any: torchvision's, or the usual one for gray images.

    Args:
        shape: channels, height and width of the input.
        pixels: whether the network takes 8-bit pixels, and normalizes them itself.
    """
    # Not by the crop fraction: 256 / 224 of the input's size, rounded, as cnnx always has.
    resize = round(max(shape[1:]) * 256 / 224)
    if pixels:
        zeros, ones = (0.0,) * shape[0], (1.0,) * shape[0]
        color: Color = "gray" if shape[0] == 1 else "rgb"
        return Preprocessing(color=color, resize=resize, mean=zeros, std=ones, divisor=1.0, assumed=True)
    if shape[0] == 1:
        return Preprocessing(color="gray", resize=resize, mean=(0.5,), std=(0.5,), assumed=True)
    return Preprocessing(resize=resize, assumed=True)


def _preset(name: str, *, where: object, folder: Path, error: type[CnnxError], at: str) -> Mapping[str, Any]:
    if name.endswith(".json"):
        return _from_timm(folder / name, error=error)
    if name not in PRESETS:
        key = f"{at}.preset" if at else "preset"
        hint = nearest(name, PRESETS).replace("known keys", "known presets")
        raise error(f"unknown preset {name!r}", where=f"{where}, key {key}", hint=f"{hint}, or a config.json")
    return PRESETS[name]


def _from_timm(file: Path, *, error: type[CnnxError]) -> Mapping[str, Any]:
    """Preprocessing by timm's data config: a model's config.json, or its `pretrained_cfg` alone."""
    hint = "give the config.json of a timm model, which has a table pretrained_cfg"
    try:
        text = read_bytes(file, most=TEXT_BYTES)
    except (OSError, ValueError) as fault:  # ValueError: a name that no file can have
        reason = fault.strerror if isinstance(fault, OSError) else fault
        raise error(f"the config cannot be read: {reason}", where=file, hint=hint) from None
    data = read_json(text, where=file, error=error, hint=hint)
    if isinstance(data, Mapping):
        data = data.get("pretrained_cfg", data)
    if not isinstance(data, Mapping) or not {"mean", "std"} <= set(data):
        raise error("this is not a data config of timm: it has no mean and std", where=file, hint=hint)
    known = {f.name for f in dataclasses.fields(_TimmConfig)}
    read = {key: value for key, value in data.items() if key in known}
    config = from_plain(_TimmConfig, read, where=file, error=error)
    # timm draws training interpolations at random, and uses bilinear for evaluation then.
    interpolation = "bilinear" if config.interpolation == "random" else config.interpolation
    fits = {"center": "shorter", "squash": "squash", "border": "longer"}
    if config.crop_mode not in fits:
        what = f"unknown crop_mode {config.crop_mode!r}: expected one of {', '.join(fits)}"
        raise error(what, where=file, hint="state the preprocessing key by key instead")
    found = {
        "fit": fits[config.crop_mode],
        "interpolation": interpolation,
        "crop_fraction": config.crop_pct,
        "mean": config.mean,
        "std": config.std,
    }
    if config.crop_mode == "border":
        found["fill"] = tuple(min(255, max(0, round(255 * value))) for value in config.mean)
    return found
