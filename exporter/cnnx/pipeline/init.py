"""`init`: writes a commented recipe for an ONNX file, and asks for what the graph does not state."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnnx.data.class_names import read_labels
from cnnx.errors import UsageError
from cnnx.options import takes
from cnnx.options.networks import InitOptions
from cnnx.options.shared import PreprocessingOptions
from cnnx.pipeline.export.preprocessing import with_preprocessing
from cnnx.pipeline.steps.definition import resolve
from cnnx.preprocessing.presets import PRESETS
from cnnx.preprocessing.words import described
from cnnx.recipe import Recipe, parse_recipe
from cnnx.report.result import Result
from cnnx.report.table import Block, Facts, Remark
from cnnx.store.files import atomic_file

Ask = Callable[[str, Callable[[str], object]], str]
"""Asks the user a question and returns the answer, or "" if the user has none.

The second argument raises `CnnxError` for an answer that cannot be used.
"""


def ask_nothing(_question: str, _check: Callable[[str], object]) -> str:
    """Answer no question."""
    return ""


@dataclass(frozen=True, slots=True, repr=False)
class InitResult(Result):
    """A recipe that was written.

    Attributes:
        file: the recipe.
        name: name of the network.
        input_shape: channels, height, width.
        classes: number of classes.
        preprocessing: the preprocessing in words.
        assumed: tables of the recipe that hold assumptions: ("preprocessing",) or empty.
    """

    file: Path
    name: str
    input_shape: tuple[int, int, int]
    classes: int
    preprocessing: str
    assumed: tuple[str, ...]

    def blocks(self, *, verbose: bool = False) -> Iterable[Block]:
        """What the command prints."""
        if self.assumed:
            yield Remark(
                f"Preprocessing is assumed. Check [preprocessing] in {self.file}, then remove the line "
                "`assumed = true`.",
                "note",
                "open",
            )
        recipe = shlex.quote(str(self.file))
        rows = {
            "recipe": str(self.file),
            "network": f"{self.name}, {self.classes} classes",
            "input": " x ".join(map(str, self.input_shape)),
            "preprocessing": self.preprocessing,
            "next": f"cnnx export {recipe} --int8 --calibration-data FOLDER --validation-data FOLDER",
        }
        yield Facts(tuple(rows.items()))


@takes(InitOptions)
def init(model: str | Path, options: InitOptions, *, ask: Ask = ask_nothing) -> InitResult:
    """Write a commented recipe for an ONNX file.

    Input, classes and file come from the graph. Preprocessing comes from the options or the answer; else it
    is assumed, which the recipe marks, and every verdict under it reports.

    Args:
        model: an ONNX file.
        options: options as an object; each can also be given by keyword.
        ask: asks the user for what no option states; by default, nothing is asked.

    Raises:
        UsageError: the model is not an ONNX file, an option is invalid, or the recipe exists.
        GraphError: the ONNX file is not an image classifier.
        RecipeError: the class names do not match the graph.
        WriteFailed: the recipe cannot be written.

    Examples:
        >>> cnnx.init("model.onnx", out="model.toml", preprocessing="torchvision").classes
        2
    """
    path = Path(model)
    if path.suffix.lower() != ".onnx":
        hint = "give a file that ends in .onnx; cnnx list shows the networks that have a recipe"
        raise UsageError("cnnx init writes a recipe for an ONNX file", where=path, hint=hint)
    file = Path(options.out) if options.out else path.with_suffix(".toml")
    _refuse_file(file, force=options.force)
    recipe = _stated(resolve(str(path), trust_recipe=False, logits=options.logits), options, ask)
    recipe = _with_files(recipe, path, file, options.class_names, ask)
    text = recipe_text(recipe)
    parse_recipe(text, where=file)
    with atomic_file(file) as draft:
        draft.write_text(text, encoding="utf-8")
    preprocessing, shape = recipe.preprocessing, recipe.input.shape
    return InitResult(
        file=file,
        name=recipe.name,
        input_shape=shape,
        classes=recipe.model.classes,
        preprocessing=described(preprocessing, shape),
        assumed=("preprocessing",) if preprocessing.assumed else (),
    )


def _refuse_file(file: Path, *, force: bool) -> None:
    if file.suffix != ".toml":
        raise UsageError(f"a recipe's name ends in .toml, not {file.suffix!r}", where=file, hint="rename it")
    if file.is_dir():
        raise UsageError("this is a folder", where=file, hint="give the name of a file with --out")
    if os.path.lexists(file) and not force:
        hint = "choose another file with --out, or overwrite this one with --force"
        raise UsageError("the recipe exists already", where=file, hint=hint)


def _stated(recipe: Recipe, options: InitOptions, ask: Ask) -> Recipe:
    """The recipe with the preprocessing of the options, or of the answer."""
    stated = with_preprocessing(recipe, options)
    if not stated.preprocessing.assumed:
        return stated

    def with_preset(answer: str) -> Recipe:
        return with_preprocessing(recipe, PreprocessingOptions(preprocessing=answer))

    question = f"Preprocessing ({', '.join(PRESETS)}, or a timm config.json; empty if you do not know)"
    answer = ask(question, with_preset)
    return with_preset(answer) if answer else recipe


def _with_files(recipe: Recipe, model: Path, file: Path, names: str | Path | None, ask: Ask) -> Recipe:
    """The recipe with its files as seen from the folder of the recipe."""
    classes = recipe.model.classes
    if names is None:
        question = f"File with the names of the {classes} classes, one per line (empty for none)"
        names = ask(question, lambda answer: read_labels(Path(answer), classes)) or None
    labels = ""
    if names is not None:
        read_labels(Path(names), classes)
        labels = _from(file, Path(names))
    spec = dataclasses.replace(recipe.model, definition=_from(file, model), labels=labels)
    return dataclasses.replace(recipe, model=spec)


def _from(file: Path, other: Path) -> str:
    """Another file's path, relative to the folder of `file`."""
    return os.path.relpath(other.resolve(), file.resolve().parent)


def recipe_text(recipe: Recipe) -> str:
    """The recipe as commented TOML, with the values that a user may want to change."""
    model, preprocessing = recipe.model, recipe.preprocessing
    labels = f"labels = {_toml(model.labels)}" if model.labels else '# labels = "labels.txt"'
    keys = preprocessing.as_key()
    lines = [f"{f'{key} = {_toml(keys[key])}':<36}  # {why}" for key, why in _KEYS if keys[key] is not None]
    mark = [f"{'assumed = true':<36}  # remove this line when you have checked the others"]
    return _TEXT.format(
        file="".join(each if each.isprintable() else "?" for each in recipe.title),
        name=_toml(recipe.name),
        title=_toml(recipe.title),
        definition=_toml(model.definition),
        classes=model.classes,
        labels="\n".join([labels, *([f"logits = {_toml(model.logits)}"] if model.logits else [])]),
        shape=_toml(recipe.input.shape),
        input=_toml(recipe.input.name),
        presets=", ".join(PRESETS),
        check="CHECK THIS. It is assumed: a" if preprocessing.assumed else "As stated to cnnx init: a",
        preprocessing="\n".join([*(mark if preprocessing.assumed else []), *lines]),
        calibration=_toml(recipe.calibration.data),
        validation=_toml(recipe.validation.data),
    )


def _toml(value: Any) -> str:
    """A string, number, boolean or list as TOML, which JSON is but for one control character."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")


_KEYS = (
    ("color", "rgb, bgr or gray: the channels of the input, in order"),
    ("fit", "shorter, longer, letterbox, squash or none"),
    ("resize", "in pixels, or [height, width]; then the center is cropped to the input"),
    ("fill", "padding where the resized image is smaller than the input, 0 to 255"),
    ("interpolation", "bilinear, bicubic, nearest, lanczos or box"),
    ("resampling", "pillow (antialiased) or opencv (not antialiased)"),
    ("exif", "true: turn images upright by their EXIF orientation"),
    ("divisor", "y = (x / divisor - mean) / std, with x in 0..255"),
    ("mean", "one value per channel"),
    ("std", "one value per channel"),
)
_TEXT = """\
# Recipe of {file}, written by `cnnx init`. Name, classes and input were read from the graph.

name = {name}
title = {title}

# Files are relative to this one. Labels: one class name per line, in the order of the logits.
[model]
definition = {definition}
classes = {classes}
{labels}

# Channels, height, width.
[input]
shape = {shape}
name = {input}

# {check} graph does not state how images became its input in training.
# With other values than those of the training, every verdict is about images that the network never saw.
# A preset can replace these keys, as in preset = "timm". There are, besides the config.json of a timm model:
#   {presets}
[preprocessing]
{preprocessing}

# Images like those of the application: a folder, a list file, or a built-in set. Paths are relative to the
# folder that cnnx runs in. The set deadleaves is synthetic, so a verdict on it is "not judged".
[calibration]
data = {calibration}

[validation]
data = {validation}
"""
