"""The original: the network as its author defined it, which judges everything made from it."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cnnx import runtimes
from cnnx.errors import UsageError
from cnnx.machine.environment import installed_version
from cnnx.options import Batch
from cnnx.pipeline.steps.definition import build_torch, check_model
from cnnx.pipeline.steps.inference import RUNNER, open_here
from cnnx.recipe import Recipe
from cnnx.store.digests import digest_of_file
from cnnx.weights import Weights, locate

if TYPE_CHECKING:
    from torch import nn

# In batches, for BatchNorm over a single value a channel has no variance to take.
_STANDIN_IMAGES, _STANDIN_BATCH = 16, 8


class Original(Protocol):
    """A definition with its weights: exported once, run to judge.

    `notes` is what loading the weights had to say, once they were loaded.
    """

    weights: Weights
    notes: tuple[str, ...]

    @property
    def modules(self) -> tuple[str, ...]:
        """cnnx modules that it loads by name; see `own_code`."""
        ...

    def key(self) -> dict[str, Any]:
        """Everything the exported graph depends on but code and batch, as plain data."""
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
            raise UsageError("an ONNX file brings its own weights", hint="drop --weights")
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

    @property
    def modules(self) -> tuple[str, ...]:
        """What judges it."""
        return (RUNNER,)

    def key(self) -> dict[str, Any]:
        """The graph's content, wherever it keeps its weights."""
        return {"onnx": self.weights.digest}

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
                hint="export it again with a free batch",
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
        return open_here(self._file)

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

    @property
    def modules(self) -> tuple[str, ...]:
        """Definitions, and the images behind the statistics of stand-ins."""
        return ("cnnx.models", "cnnx.data") if self.weights.kind == "standin" else ("cnnx.models",)

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
