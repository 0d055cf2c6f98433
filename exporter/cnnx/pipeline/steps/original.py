"""The original: the network as its author defined it, which judges everything made from it."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cnnx import runtimes
from cnnx.environment import installed_version
from cnnx.errors import GraphError, RecipeError, UsageError
from cnnx.recipe import InputSpec, ModelSpec, Preprocessing, Recipe, read_recipe
from cnnx.store import code_digest, digest_of_file
from cnnx.weights import Weights, locate

if TYPE_CHECKING:
    from torch import nn

Batch = tuple[int, int]
# In batches, for BatchNorm over a single value a channel has no variance to take.
_STANDIN_IMAGES, _STANDIN_BATCH = 16, 8


class Original(Protocol):
    """A definition with its weights: exported once, run to judge.

    `notes` is what loading the weights had to say, once they were loaded.
    """

    weights: Weights
    notes: tuple[str, ...]

    def key(self) -> dict[str, Any]:
        """Everything the exported graph depends on but the batch, as plain data."""
        ...

    def batch(self, asked: Batch) -> Batch:
        """The batch it is exported with when this one was asked for."""
        ...

    def export(self, path: Path, batch: Batch) -> None:
        """Write its simplified FP32 graph."""
        ...

    def session(self) -> runtimes.Session:
        """Something that runs it."""
        ...

    def release(self) -> None:
        """Give its memory back; it is built again when needed."""
        ...


def resolve(model: str, *, trust_recipe: bool) -> Recipe:
    """The recipe for what the user named: a recipe's name, a recipe file, or an ONNX file.

    Raises:
        RecipeError: there is none, or it would run code and was not trusted.
        GraphError: the ONNX file is not a classifier of pictures.
    """
    recipe = _recipe_for_onnx(Path(model)) if model.endswith(".onnx") else read_recipe(model)
    refuse_untrusted(recipe, trust_recipe=trust_recipe)
    return recipe


def refuse_untrusted(recipe: Recipe, *, trust_recipe: bool) -> None:
    """Refuse a recipe that would run code and was not trusted.

    Raises:
        RecipeError: it would.
    """
    if recipe.runs_user_code and not trust_recipe:
        raise RecipeError(
            f"this recipe runs Python code: {recipe.model.definition}",
            where=recipe.folder / recipe.model.definition.split(":")[0],
            mend="read that file; if you trust it, add --trust-recipe",
        )


def _recipe_for_onnx(path: Path) -> Recipe:
    """A recipe for a bare graph: its own sizes, and the usual preprocessing for its channels."""
    from cnnx.graph.edit import data_inputs, value_types
    from cnnx.graph.load import input_shape, load_model, logits_name

    graph = load_model(path)
    _, channels, height, width = input_shape(graph)
    logits = value_types(graph)[logits_name(graph)].shape
    classes = logits[1] if logits else None
    if not isinstance(classes, int):
        raise GraphError(
            "the number of classes is not fixed in the graph", where=path, mend="export it again"
        )
    if channels not in (1, 3):
        raise RecipeError(
            f"the graph takes {channels} channels, pictures have 1 or 3",
            where=path,
            mend="write a recipe for it",
        )
    resize = max(round(max(height, width) * 256 / 224), max(height, width))
    gray = Preprocessing(color="gray", resize=resize, mean=(0.5,), std=(0.5,))
    return Recipe(
        name=re.sub(r"[^a-z0-9_.-]", "-", path.stem.lower()).lstrip("-_.") or "model",
        model=ModelSpec(definition=path.name, classes=classes),
        title=path.name,
        summary="A graph of the user's own, with the preprocessing usual for its channels.",
        input=InputSpec(shape=(channels, height, width), name=data_inputs(graph.graph)[0].name),
        preprocessing=gray if channels == 1 else Preprocessing(resize=resize),
        folder=path.parent,
    )


def open_original(
    recipe: Recipe, choice: str, *, trust_recipe: bool, progress: Callable[[int, int], None]
) -> Original:
    """The original with its weights found and verified, not built yet.

    Args:
        recipe: what it is.
        choice: "pretrained", "standin" or a checkpoint's path.
        trust_recipe: whether the recipe's own Python code may run.
        progress: told (bytes done, bytes in all) while weights are downloaded.
    """
    if recipe.is_onnx:
        if choice != "pretrained":
            raise UsageError("an ONNX file brings its own weights", mend="drop --weights")
        return OnnxOriginal(recipe)
    weights = locate(recipe, choice, progress=lambda done, total: progress(done, total or 0))
    return TorchOriginal(recipe, weights, trust_recipe=trust_recipe)


class OnnxOriginal:
    """A user's ONNX graph; judged by ONNX Runtime as it came."""

    def __init__(self, recipe: Recipe) -> None:
        from cnnx.graph.load import input_shape, load_model

        self.notes: tuple[str, ...] = ()
        self._file = recipe.folder / recipe.model.definition
        model = load_model(self._file)
        self._own_batch = input_shape(model)[0]
        # Hashed once loaded, so that external weights count.
        digest = hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()
        self.weights = Weights(kind="file", origin=self._file.name, digest=digest, file=self._file)

    def key(self) -> dict[str, Any]:
        """The graph's content, wherever it keeps its weights, and our simplifications of it."""
        return {"onnx": self.weights.digest, "code": code_digest("cnnx.graph.simplify", "cnnx.graph.load")}

    def batch(self, asked: Batch) -> Batch:
        """The graph's own batch where that is fixed, else what was asked.

        Raises:
            UsageError: the graph's batch is fixed, and another was asked for.
        """
        own = self._own_batch
        if not isinstance(own, int):
            return asked
        if asked not in ((1, 1), (own, own)):
            raise UsageError(
                f"the graph's batch is fixed at {own}",
                where=self._file,
                mend="export it again with a free batch",
            )
        return own, own

    def export(self, path: Path, batch: Batch) -> None:
        """Write the simplified graph, its batch fixed where one size was asked for."""
        from cnnx.graph.load import fix_batch, load_model, save_model
        from cnnx.graph.simplify import simplify

        model = load_model(self._file)
        if batch[0] == batch[1]:
            fix_batch(model, batch[0])
        simplify(model)
        save_model(model, path)

    def session(self) -> runtimes.Session:
        """ONNX Runtime on the file as it came."""
        return open_here("ort", self._file)

    def release(self) -> None:
        """Nothing is held."""


class TorchOriginal:
    """A PyTorch definition."""

    def __init__(self, recipe: Recipe, weights: Weights, *, trust_recipe: bool) -> None:
        self._recipe = recipe
        self._trusted = trust_recipe
        self._model: nn.Module | None = None
        self.notes: tuple[str, ...] = ()
        self.weights = weights

    def key(self) -> dict[str, Any]:
        """Definition, weights, exporter and the versions of what exports."""
        spec, fit = self._recipe.model, self._recipe.weights
        user = self._recipe.folder / spec.definition.split(":")[0]
        return {
            "definition": spec.definition,
            "user_code": digest_of_file(user) if self._recipe.runs_user_code else None,
            "arguments": dict(spec.arguments),
            "classes": spec.classes,
            "counts": (spec.parameters, spec.multiply_adds),
            "input": dataclasses.asdict(self._recipe.input),
            "weights": self.weights.digest,
            "fitted": (fit.training_only, dict(fit.rename), fit.background_classes),
            "statistics": self._statistics_key() if self.weights.kind == "standin" else None,
            "code": code_digest("cnnx.models", "cnnx.weights", "cnnx.graph.export", "cnnx.graph.simplify"),
            "torch": installed_version("torch"),
            "onnxscript": installed_version("onnxscript"),
        }

    def batch(self, asked: Batch) -> Batch:
        """A definition can be exported for any."""
        return asked

    def export(self, path: Path, batch: Batch) -> None:
        """Trace the model and write its simplified graph."""
        module = self._built()  # first: without PyTorch it says which extra brings it
        from cnnx.graph.export import export_model
        from cnnx.graph.load import save_model
        from cnnx.graph.simplify import simplify

        spec = self._recipe.input
        model = export_model(module, shape=spec.shape, batch=batch, input_name=spec.name)
        simplify(model)
        save_model(model, path)

    def session(self) -> runtimes.Session:
        """PyTorch itself."""
        module = self._built()
        from cnnx.runtimes.eager import EagerSession

        return EagerSession(module)

    def release(self) -> None:
        """Let go of the module."""
        self._model = None

    def _built(self) -> nn.Module:
        if self._model is None:
            module = build_torch(self._recipe, trusted=self._trusted)
            check_model(module, self._recipe)
            from cnnx.weights import load_into

            batches = self._statistics_batches()
            self.notes = load_into(module, self.weights, self._recipe, batches_for_statistics=batches)
            self._model = module
        return self._model

    def _statistics_key(self) -> dict[str, Any]:
        """What the pictures behind a stand-in's BatchNorm statistics depend on."""
        return {
            "preprocessing": dataclasses.asdict(self._recipe.preprocessing),
            "images": (_STANDIN_IMAGES, _STANDIN_BATCH),
            "code": code_digest("cnnx.data"),
        }

    def _statistics_batches(self) -> Iterator[NDArray[np.float32]]:
        """Pictures for the BatchNorm statistics of stand-ins: always the same, so that the weights do
        not change with the user's calibration set."""
        from cnnx.data.geometry import crop
        from cnnx.data.normalize import normalize
        from cnnx.data.sets import open_images

        preprocessing, shape = self._recipe.preprocessing, self._recipe.input.shape
        images = open_images(
            "deadleaves", size=preprocessing.resize, color=preprocessing.color, split="calibration"
        )
        for start in range(0, _STANDIN_IMAGES, _STANDIN_BATCH):
            batch = [crop(images[start + i].load(), preprocessing, shape) for i in range(_STANDIN_BATCH)]
            yield normalize(np.stack(batch), preprocessing)


def build_torch(recipe: Recipe, *, trusted: bool) -> nn.Module:
    """The recipe's definition as a module, weights not loaded.

    Raises:
        MissingExtra: PyTorch is absent.
        RecipeError: the definition is unknown or untrusted.
    """
    from cnnx import models

    if recipe.runs_user_code:
        from cnnx.models.user import load_user_model

        return load_user_model(recipe, trusted=trusted)
    return models.build(
        recipe.model.definition, classes=recipe.model.classes, arguments=recipe.model.arguments
    )


def check_model(model: nn.Module, recipe: Recipe) -> None:
    """Hold a model against what its recipe says of it, before weights are loaded.

    Raises:
        RecipeError: it does not take the recipe's input, gives another number of classes, or has other
            counts than the recipe states.
    """
    spec = recipe.model
    if recipe.runs_user_code and not (spec.parameters or spec.multiply_adds):
        return  # it may hold tensors of its own, which do not follow it to the meta device
    from cnnx.models.count import trace

    rows, logits = trace(model, recipe.input.shape)
    if logits != (spec.classes,):
        raise RecipeError(
            f"the network gives {list(logits)} for a picture, the recipe says {spec.classes} classes",
            where="model.classes",
            mend="let the definition take `classes`, or state the number it has",
        )
    for key in ("parameters", "multiply_adds"):
        stated, found = getattr(spec, key), sum(getattr(row, key) for row in rows)
        if stated not in (0, found):
            raise RecipeError(
                f"the network has {found:,} {key.replace('_', '-')}, the recipe states {stated:,}",
                where=f"model.{key}",
                mend="mend or drop that key, or mend model.arguments or input.shape",
            )


def open_here(name: str, file: Path) -> runtimes.Session:
    """A session on that runtime, or the reason why it cannot run here.

    Raises:
        EnvironmentLacks: the package, driver or GPU it needs is absent.
    """
    runtime = runtimes.get(name)
    if reason := runtime.cannot_run():
        raise reason
    return runtime.open(file)


def ran_by() -> dict[str, str | None]:
    """What results of ONNX graphs depend on besides graph and pictures: a part of their steps' keys."""
    return {
        "onnx": installed_version("onnx"),
        "onnxruntime": installed_version("onnxruntime"),
        "device": runtimes.get("ort").device(),
    }
