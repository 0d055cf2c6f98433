"""Preprocessing as the user states it with options, and the note where nobody stated it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cnnx.errors import UsageError
from cnnx.options.shared import PreprocessingOptions
from cnnx.preprocessing import Preprocessing, contradiction
from cnnx.preprocessing.input_format import PATTERN, format_contradiction, input_format
from cnnx.preprocessing.presets import resolved
from cnnx.preprocessing.words import described
from cnnx.recipe import Recipe
from cnnx.schema import from_plain

_WHERE = "the options for preprocessing"
_SIDE = re.compile(r"(?:(shorter|longer):)?([0-9]{1,6})")
_BOX = re.compile(r"([0-9]{1,6})x([0-9]{1,6})")


def with_preprocessing(recipe: Recipe, options: PreprocessingOptions) -> Recipe:
    """The recipe with the preprocessing that the options state; unchanged if they state none.

    Raises:
        UsageError: an option is invalid, or contradicts another one or the network's input.
    """
    stated = {f.name: getattr(options, f.name) for f in dataclasses.fields(PreprocessingOptions)}
    if all(value is None for value in stated.values()):
        return recipe
    shape = recipe.input.shape
    table = _table(recipe, options)
    keys = resolved(table, shape, where=_WHERE, folder=Path(), error=UsageError)
    preprocessing = from_plain(Preprocessing, keys, where=_WHERE, error=UsageError)
    if found := contradiction(preprocessing, shape):
        where, hint = _option_at_fault(found.key, options), found.hint
        if found.key == "input.shape":
            hint = "give --preprocessing gray" if shape[0] == 1 else "give --color rgb, or --color bgr"
        raise UsageError(found.what, where=where, hint=hint)
    if options.mean is not None:
        _refuse_other_unit(preprocessing)
    return dataclasses.replace(recipe, preprocessing=preprocessing)


def with_explicit_format(recipe: Recipe) -> Recipe:
    """The recipe with every part of the format of its input stated, as a bundle needs it.

    Raises:
        UsageError: --input is not a format, or contradicts the preprocessing.
    """
    given = recipe.input.format
    if not re.match(PATTERN, given):
        hint = "give uint8-nhwc or uint8-nchw, with -bgr, -rgb or -gray, and :1080x1920 to resize"
        raise UsageError(f"invalid --input {given!r}", hint=hint)
    form = input_format(given, recipe.preprocessing)
    if found := format_contradiction(form, recipe.preprocessing):
        raise UsageError(found.what, where=f"--input {given}", hint=found.hint)
    return dataclasses.replace(recipe, input=dataclasses.replace(recipe.input, format=str(form)))


def assumption(recipe: Recipe) -> tuple[str, ...]:
    """A note if the recipe's preprocessing is assumed; else empty."""
    if not recipe.preprocessing.assumed:
        return ()
    words = described(recipe.preprocessing, recipe.input.shape)
    how = "state it with --preprocessing, or write a recipe with cnnx init"
    return (f"Preprocessing is assumed: {words}. If that is wrong, {how}.",)


def _table(recipe: Recipe, options: PreprocessingOptions) -> dict[str, Any]:
    """The recipe's preprocessing, or the preset, with the options in front."""
    if options.preprocessing is None:
        table = recipe.preprocessing.as_key()
    else:
        table = {"preset": str(options.preprocessing)}
    channels = recipe.input.shape[0]
    for key in ("mean", "std"):
        if (value := getattr(options, key)) is not None:
            table[key] = _values(f"--{key}", value, channels)
    if options.color is not None:
        table["color"] = options.color
    if options.resize is not None and options.crop is not None:
        hint = "drop one of them: --crop 0.875 resizes to the input's side / 0.875"
        raise UsageError("--resize and --crop exclude each other", hint=hint)
    if options.resize is not None:
        table.pop("resize", None)
        table |= _resize(str(options.resize))
    if options.crop is not None:
        table.pop("resize", None)
        table["crop_fraction"] = _fraction(options.crop, recipe)
        if table.get("fit") == "none":
            table["fit"] = "shorter"
    return table


def _values(flag: str, value: str | Sequence[float], channels: int) -> list[float]:
    """One value per channel; a single value is that of every channel."""
    try:
        values = [float(each) for each in (value.split(",") if isinstance(value, str) else value)]
    except (TypeError, ValueError):
        hint = f"give one number per channel, such as {flag} 0.5,0.5,0.5"
        raise UsageError(f"invalid {flag} {value!r}: expected numbers", hint=hint) from None
    return values * channels if len(values) == 1 else values


def _resize(text: str) -> dict[str, Any]:
    """The keys for a value of --resize."""
    if found := _SIDE.fullmatch(text):
        return {"fit": found[1] or "shorter", "resize": int(found[2])}
    if found := _BOX.fullmatch(text):
        return {"fit": "squash", "resize": [int(found[1]), int(found[2])]}
    if text == "letterbox":
        return {"fit": text, "crop_fraction": 1.0}  # the whole image, whatever a preset crops
    if text == "none":
        return {"fit": text}
    raise UsageError(
        f"invalid --resize {text!r}",
        hint="give 256 for the shorter side, 224x224 to squash, longer:224, letterbox or none",
    )


def _fraction(crop: float, recipe: Recipe) -> float:
    if not 0.01 <= crop <= 1:
        _, height, width = recipe.input.shape
        raise UsageError(
            f"invalid --crop {crop:g}: expected a share of the resized image in 0.01..1",
            hint=f"the crop's size is that of the input, {height} x {width}; "
            "give --crop 0.875, or the size before the crop with --resize",
        )
    return crop


def _refuse_other_unit(preprocessing: Preprocessing) -> None:
    """Raise for a mean that no pixel can have after the division, such as one for pixels in 0..255."""
    most = 255 / preprocessing.divisor
    if odd := [value for value in preprocessing.mean if not 0 <= value <= most]:
        raise UsageError(
            f"--mean {odd[0]:g} is outside 0..{most:g}, the range of pixels / {preprocessing.divisor:g}",
            hint="divide mean and std by 255, or write a recipe with divisor = 1 (cnnx init)",
        )


def _option_at_fault(key: str, options: PreprocessingOptions) -> str:
    """The option that gave the value of a recipe's key: its own, or else the preset."""
    name = "color" if key == "input.shape" else key.split(".")[-1]
    own = getattr(options, name, None) is not None or options.preprocessing is None
    return f"--{name}" if own else f"--preprocessing {options.preprocessing}"
