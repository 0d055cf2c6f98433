"""Builds networks defined by the user: a function in a Python file next to the recipe.

Loading such a file runs it, so the caller must state that the recipe is trusted.
"""

from __future__ import annotations

import difflib
import hashlib
import inspect
import sys
import traceback
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from cnnx.errors import RecipeError
from cnnx.limits import TEXT_BYTES
from cnnx.recipe import ModelSpec, Recipe
from cnnx.store.reading import read_bytes


def load_user_model(recipe: Recipe, *, trusted: bool) -> nn.Module:
    """Build the network of a recipe with `definition = "file.py:function"`, in evaluation mode.

    The function is called as `function(classes=..., **model.arguments)`. The file is loaded as a standalone
    module: it cannot import other files in its folder.

    Raises:
        RecipeError: the recipe is not trusted; the file is missing, outside the recipe's folder, or fails; or
            the function is missing or does not return a `torch.nn.Module`.
    """
    file_name, _, function = recipe.model.definition.partition(":")
    file = recipe.folder / file_name
    if not trusted:
        raise RecipeError(
            f"building {recipe.name} runs the Python file {file_name}",
            where=file,
            hint="read the file; if you trust it, add --trust-recipe",
        )
    if not file.resolve().is_relative_to(recipe.folder.resolve()):
        raise RecipeError(
            "the definition is outside the folder of its recipe",
            where=file,
            hint=f"move the file to {recipe.folder}",
        )
    module = _run(file)
    definition = getattr(module, function, None)
    if not callable(definition):
        near = difflib.get_close_matches(function, vars(module), n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"add `def {function}(*, classes)` to the file"
        raise RecipeError(f"{file_name} has no function {function!r}", where=file, hint=hint)
    try:
        model = _call(definition, f"{file_name}:{function}", recipe.model)
    except Exception as error:
        raise _failed(error, file) from error
    if not isinstance(model, nn.Module):
        raise RecipeError(
            f"{function} returns {type(model).__name__}, not a torch.nn.Module",
            where=file,
            hint=f"return the model from {function}",
        )
    return model.eval()


def _call(definition: Callable[..., Any], name: str, spec: ModelSpec) -> Any:
    try:
        inspect.signature(definition).bind(classes=spec.classes, **spec.arguments)
    except TypeError as error:
        raise RecipeError(
            f"{name} cannot be built: {error}",
            where="model.arguments",
            hint=f"let it take these keyword arguments: {', '.join(['classes', *spec.arguments])}",
        ) from None
    return definition(classes=spec.classes, **spec.arguments)


def _run(file: Path) -> types.ModuleType:
    """Run the file as a module with a private name, which shadows no other module and leaves no bytecode."""
    try:
        source = read_bytes(file, most=TEXT_BYTES)
    except OSError as error:
        raise RecipeError(
            f"the definition cannot be read: {error.strerror}",
            where=file,
            hint="correct the file name in model.definition, or make the file readable",
        ) from None
    module = types.ModuleType("_cnnx_user_" + hashlib.sha256(bytes(file.resolve())).hexdigest()[:16])
    module.__file__ = str(file)
    # torch.export and dataclasses look up the module of a class by its name.
    sys.modules[module.__name__] = module
    try:
        exec(compile(source, str(file), "exec"), vars(module))
    except (Exception, SystemExit) as error:
        del sys.modules[module.__name__]
        raise _failed(error, file) from error
    return module


def _failed(error: BaseException, file: Path) -> RecipeError:
    """Return the error of the user's code, with the last line of the user's file in its traceback."""
    if isinstance(error, RecipeError):
        return error
    lines = [
        frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)
    ]
    line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
    where = file if line is None else f"{file}, line {line}"
    return RecipeError(
        f"the definition failed: {type(error).__name__}: {error}",
        where=where,
        hint="correct the file; running it with `python` shows the full traceback",
    )
