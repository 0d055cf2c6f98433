"""Options, each stated once: name, type, default and help reach the command line, Python and the docs.

A verb's options are a frozen dataclass whose fields are made by `option`. `cnnx.cli.options` makes a
command's parameters of them, `takes` a Python function's, and an option that overrides a recipe names the
key that it overrides. Nothing is imported here that `cnnx --help` would wait for.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from cnnx.errors import UsageError

Precision = Literal["fp32", "fp16", "int8"]
Scales = Literal["fp16", "fp32"]
"""The floating-point type that scales are written in, and what is not INT8 runs in."""
Batch = tuple[int, int]
"""Smallest and largest."""

R = TypeVar("R")


def option(
    default: Any,
    help: str,  # noqa: A002 - what Typer and argparse call it
    *,
    recipe: str = "",
    flags: Mapping[str, str] | None = None,
    read: Callable[[str], Any] | None = None,
    text: str = "",
) -> Any:
    """A field of a verb's options.

    Args:
        default: what holds where nothing is given.
        help: one sentence in the imperative.
        recipe: key of the recipe that a value other than None overrides, such as "calibration.data".
        flags: where every choice is a flag of its own on the command line: choice -> help.
        read: makes a value of the text that the command line gives.
        text: the default as such a text.
    """
    return dataclasses.field(
        default=default, metadata={"help": help, "recipe": recipe, "flags": flags, "read": read, "text": text}
    )


def read_batch(text: str) -> Batch:
    """Smallest and largest of "4" or "1..8".

    Raises:
        UsageError: it is neither.
    """
    low, _, high = text.partition("..")
    try:
        return int(low), int(high or low)
    except ValueError:
        raise UsageError(f"invalid --batch {text!r}: expected 4 or 1..8") from None


def overrides(options: Any) -> dict[str, Any]:
    """Key of the recipe -> the value given for it, such as "calibration.data" -> "photos/"."""
    given = {f.metadata["recipe"]: getattr(options, f.name) for f in dataclasses.fields(options)}
    return {key: value for key, value in given.items() if key and value is not None}


def takes(kind: type[Any]) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Let a function whose second parameter is `options` take each of them by keyword, too.

    `f(model, options, *, listener)` becomes `f(model, options=None, *, listener, **changes)`: keywords
    override the object. Its signature and docstring list the options.
    """

    def decorated(function: Callable[..., R]) -> Callable[..., R]:
        own = inspect.signature(function).parameters
        known = {f.name: f for f in dataclasses.fields(kind)}

        @functools.wraps(function)
        def call(first: Any, options: Any = None, **keywords: Any) -> R:
            if options is not None and not isinstance(options, kind):
                raise TypeError(f"options must be {kind.__name__}, not {type(options).__name__}")
            changes = {name: keywords.pop(name) for name in list(keywords) if name in known}
            if odd := [name for name in keywords if name not in own]:
                near = difflib.get_close_matches(odd[0], [*known, *own], n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise TypeError(f"{function.__name__}() has no option {odd[0]!r}{hint}")
            options = kind(**changes) if options is None else dataclasses.replace(options, **changes)
            return function(first, options, **keywords)

        first, second, *rest = own.values()
        second = second.replace(default=None)
        listed = [
            inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=f.type)
            for f in known.values()
        ]
        call.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [first, second, *listed, *rest], return_annotation=inspect.signature(function).return_annotation
        )
        lines = [f"    {f.name}: {f.metadata['help']}" for f in known.values()]
        call.__doc__ = "\n".join([inspect.cleandoc(function.__doc__ or ""), "", "Options:", *lines])
        return call

    return decorated


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NetworkOptions:
    """What every verb takes that starts from a network."""

    weights: str = option("pretrained", "pretrained, standin (seeded random values), or a checkpoint file.")
    calibration_data: str | Path | None = option(
        None,
        "Calibration images: digits, deadleaves, shapes100, a folder, or a list of file names.",
        recipe="calibration.data",
    )
    calibration_images: int | None = option(
        None, "Maximum number of calibration images.", recipe="calibration.images"
    )
    method: str | None = option(
        None,
        "How ranges are chosen: entropy, max, mse, percentile-99.9, -99.99, -99.999, or auto.",
    )
    equalize: bool | None = option(
        None,
        "Scale channels first so that one range serves all of a tensor (INT8; default).",
        recipe="precision.equalize",
    )
    trust_recipe: bool = option(False, "Let the recipe's own Python code run.")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CalibrateOptions(NetworkOptions):
    """Options of `calibrate`."""

    folds: int | None = option(
        None, "Split the images into this number of sets, and report how far ranges and error move."
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions(NetworkOptions):
    """Options of `export`."""

    precision: Precision | None = option(
        None,
        "Precision of the graph; the recipe's default otherwise.",
        flags={
            "fp32": "Keep single precision.",
            "fp16": "Type the graph FP16 (default of most recipes).",
            "int8": "Quantize to INT8, with FP16 elsewhere.",
        },
    )
    target: str = option("auto", "auto, tensorrt, rtx (TensorRT for RTX) or ort (ONNX Runtime).")
    sm: tuple[int, ...] = option((), "GPU architecture to build for, such as 86; may be given several times.")
    out: str | Path | None = option(None, "Folder of the bundle; <name>-<precision> by default.")
    validation_data: str | Path | None = option(
        None,
        "Validation images: a built-in set, a folder, or a list of file names.",
        recipe="validation.data",
    )
    validation_images: int | None = option(
        None, "Maximum number of validation images.", recipe="validation.images"
    )
    labels: str | Path | None = option(
        None, "Label file of a flat validation folder: one `name label` per line (class index or WordNet ID)."
    )
    repair: bool = option(False, "Put INT8 layers back into FP16 until the gates of agreement would pass.")
    repair_trials: int | None = option(None, "Maximum number of networks that --repair tries (200).")
    scales: Scales = option("fp16", "Type of the scales; fp32 keeps everything but INT8 in FP32.")
    batch: Batch = option((1, 1), "Batch size, or a range such as 1..8.", read=read_batch, text="1")
    force: bool = option(False, "Write into a folder that holds other files; none of them is lost.")
