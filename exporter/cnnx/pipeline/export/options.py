"""What the user asked for, laid over the recipe and checked before any work."""

from __future__ import annotations

import dataclasses

from cnnx import runtimes
from cnnx.errors import UsageError
from cnnx.pipeline.search.method import AUTO
from cnnx.quant.methods import check_method
from cnnx.recipe import Recipe


def with_options(
    recipe: Recipe,
    *,
    calibration: tuple[str | None, int | None],
    validation: tuple[str | None, int | None] = (None, None),
    equalize: bool | None = None,
) -> Recipe:
    """The recipe with what the user asked for in place of its own.

    Args:
        recipe: as it was read.
        calibration: picture set, and how many of it at most; None: the recipe's.
        validation: likewise.
        equalize: whether channels are scaled before INT8; None: as the recipe says.

    Raises:
        UsageError: less than one picture was asked for.
    """
    sets = {}
    for role, (data, images) in {"calibration": calibration, "validation": validation}.items():
        if images is not None and images < 1:
            raise UsageError(f"--{role}-images is {images}", mend="give at least 1; 512 is usual")
        changes = {"data": data, "images": images}
        spec = getattr(recipe, role)
        sets[role] = dataclasses.replace(spec, **{k: v for k, v in changes.items() if v is not None})
    if equalize is not None:
        sets["precision"] = dataclasses.replace(recipe.precision, equalize=equalize)
    return dataclasses.replace(recipe, **sets)


def check_calibrator(method: str) -> None:
    """Before any work: the method is known, and what observes activations and judges graphs is here.

    Raises:
        UsageError: an unknown method.
        MissingExtra: ONNX Runtime is absent.
    """
    if method != AUTO:
        check_method(method)
    if reason := runtimes.get("ort").missing():
        raise reason
