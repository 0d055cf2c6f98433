"""Applies the user's options to the recipe, and checks them before any work."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from cnnx import runtimes
from cnnx.errors import RecipeError, UsageError
from cnnx.options import Precision, overrides
from cnnx.options.networks import SHIPPED_NAMES, ExportOptions, NetworkOptions
from cnnx.pipeline.export.preprocessing import with_preprocessing
from cnnx.pipeline.search.method import AUTO
from cnnx.pipeline.steps.original import Original
from cnnx.quant.methods import FILE, METHODS, check_method
from cnnx.recipe import CalibrationSpec, Recipe


def with_options(recipe: Recipe, options: NetworkOptions) -> Recipe:
    """The recipe with the user's options applied.

    Raises:
        UsageError: fewer than one image was requested, or the preprocessing is invalid.
    """
    for key, value in overrides(options).items():
        table, name = key.split(".")
        if name == "images" and value < 1:
            raise UsageError(
                f"invalid --{table}-images {value}: expected at least 1",
                hint=f"give --{table}-images 512, for example",
            )
        changed = _as_in_recipe(name, value)
        part = dataclasses.replace(getattr(recipe, table), **{name: changed})
        recipe = dataclasses.replace(recipe, **{table: part})
    return with_preprocessing(recipe, options)


def with_method(recipe: Recipe, options: NetworkOptions, original: Original) -> tuple[Recipe, str]:
    """The recipe as INT8 needs it, and the range method: the scales in the file unless another is named.

    Equalization and the correction of biases would change what was trained with these scales.

    Raises:
        UsageError: the scales in the file were requested, and there are none; or equalization with them.
        RecipeError: the recipe has overrides of ranges, which the scales in the file leave no room for.
    """
    method, scales = options.method or recipe.calibration.method, original.scales
    if scales is not None and options.method is None and method == CalibrationSpec().method:
        method = FILE
    if method != FILE:
        return recipe, method
    if recipe.calibration.overrides:
        raise RecipeError(
            "the scales in the file leave no ranges to choose",
            where="calibration.overrides",
            hint="calibrate with --method mse, or drop the overrides",
        )
    if scales is None:
        raise UsageError(
            "--method file needs a network with Q/DQ, and this one has none",
            where=recipe.name,
            hint="drop --method to calibrate it",
        )
    if options.equalize:
        raise UsageError(
            "--equalize would change the layers that the scales in the file were made for",
            hint="drop --equalize, or calibrate with --method mse",
        )
    policy = dataclasses.replace(recipe.precision, equalize=False)
    return dataclasses.replace(recipe, precision=policy), method


def _as_in_recipe(key: str, value: Any) -> Any:
    """The value of an option as a recipe would state it, wherever the recipe lies."""
    if key == "labels":
        return _file_of_names(str(value))
    if key == "reference":
        return str(Path(value).absolute())
    return str(value) if key == "data" else value


def _file_of_names(given: str) -> str:
    """The class names file as a recipe would name it, wherever the recipe lies."""
    return f"labels/{given}.csv" if given in SHIPPED_NAMES else str(Path(given).absolute())


def check_calibrator(method: str, recipe: Recipe) -> None:
    """Raise if a range method is unknown, or ONNX Runtime, which runs calibration, is missing.

    Raises:
        UsageError: the method is unknown.
        RecipeError: an override's method is unknown.
        MissingExtra: ONNX Runtime is not installed.
    """
    if method != AUTO:
        check_method(method)
    for each in recipe.calibration.overrides:
        if each.method not in METHODS:
            raise RecipeError(
                f"unknown calibration method {each.method!r}",
                where="calibration.overrides",
                hint=f"choose one of: {', '.join(METHODS)}",
            )
    if reason := runtimes.get(runtimes.GRAPHS).missing():
        raise reason


def check_options(options: ExportOptions, precision: Precision) -> None:
    """Raise for invalid options, and for options that have no effect on an export in this precision.

    Raises:
        UsageError: an option is invalid or has no effect.
    """
    for_int8 = {
        "--method": options.method,
        "--equalize/--no-equalize": options.equalize,
        "--repair": options.repair or None,
    }
    idle = [option for option, value in for_int8.items() if value is not None]
    if idle and precision != "int8":
        raise UsageError(
            f"{idle[0]} applies only to INT8, and this export is in {precision}",
            hint=f"add --int8, or drop {idle[0]}",
        )
    trials = options.repair_trials
    if not options.repair and trials is not None:
        raise UsageError("--repair-trials has no effect without --repair", hint="add --repair")
    if trials is not None and trials < 1:
        raise UsageError(
            f"invalid --repair-trials {trials}: expected at least 1",
            hint="give --repair-trials 200, for example",
        )
    if options.scales not in ("fp16", "fp32"):
        raise UsageError(
            f"invalid --scales {options.scales!r}: expected fp16 or fp32", hint="give --scales fp16"
        )
    low, high = options.batch
    if not 1 <= low <= high:
        batch = low if low == high else f"{low}..{high}"
        raise UsageError(
            f"invalid --batch {batch}: expected 4 or 1..8", hint="give --batch 4, or --batch 1..8 for a range"
        )
