"""What the user asked for, laid over the recipe and checked before any work."""

from __future__ import annotations

import dataclasses

from cnnx import runtimes
from cnnx.errors import UsageError
from cnnx.options import Precision, overrides
from cnnx.options.networks import ExportOptions, NetworkOptions
from cnnx.pipeline.search.method import AUTO
from cnnx.quant.methods import check_method
from cnnx.recipe import Recipe


def with_options(recipe: Recipe, options: NetworkOptions) -> Recipe:
    """The recipe with what the user asked for in place of its own.

    Raises:
        UsageError: less than one image was asked for.
    """
    for key, value in overrides(options).items():
        table, name = key.split(".")
        if name == "images" and value < 1:
            raise UsageError(f"--{table}-images is {value}", hint="give at least 1; 512 is usual")
        changed = str(value) if name == "data" else value
        part = dataclasses.replace(getattr(recipe, table), **{name: changed})
        recipe = dataclasses.replace(recipe, **{table: part})
    return recipe


def check_calibrator(method: str) -> None:
    """Before any work: the method is known, and what observes activations and judges graphs is here.

    Raises:
        UsageError: an unknown method.
        MissingExtra: ONNX Runtime is absent.
    """
    if method != AUTO:
        check_method(method)
    if reason := runtimes.get(runtimes.GRAPHS).missing():
        raise reason


def check_options(options: ExportOptions, precision: Precision) -> None:
    """Refuse options of an export in this precision that contradict one another or would do nothing.

    Raises:
        UsageError: they do.
    """
    for_int8 = {
        "--method": options.method,
        "--equalize/--no-equalize": options.equalize,
        "--repair": options.repair or None,
    }
    idle = [option for option, value in for_int8.items() if value is not None]
    if idle and precision != "int8":
        raise UsageError(f"{idle[0]} is for INT8, this export is in {precision}", hint="give --int8, too")
    trials = options.repair_trials
    if not options.repair and trials is not None:
        raise UsageError("--repair-trials says how long --repair searches", hint="give --repair, too")
    if trials is not None and trials < 1:
        raise UsageError(f"a search in {trials} trials finds nothing", hint="--repair-trials 200")
    if options.scales not in ("fp16", "fp32"):
        raise UsageError(f"scales are written in fp16 or fp32, not {options.scales!r}", hint="--scales fp16")
    low, high = options.batch
    if not 1 <= low <= high:
        raise UsageError(f"a batch of {low} to {high} makes no sense", hint="--batch 4, or --batch 1..8")
