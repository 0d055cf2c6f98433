"""The original: the network as its author defined it. Everything made from it is compared with it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cnnx import runtimes
from cnnx.errors import RecipeError, UsageError
from cnnx.graph.scales import FileScales
from cnnx.machine.environment import installed_version
from cnnx.options import Batch
from cnnx.pipeline.progress import Progress
from cnnx.pipeline.steps.definition import build_torch, check_model
from cnnx.pipeline.steps.inference import RUNNER, logits_of, open_here, refuse_nonfinite
from cnnx.pipeline.steps.network import canonical_graph
from cnnx.recipe import Recipe
from cnnx.store.digests import digest_of_file
from cnnx.weights import Weights, locate

if TYPE_CHECKING:
    from torch import nn

# In batches, as BatchNorm over a single value per channel has no variance.
_STANDIN_IMAGES, _STANDIN_BATCH = 16, 8


class Original(Protocol):
    """A definition with its weights: exported once, and run for its reference logits.

    `notes` holds the notes of loading the weights, once they are loaded.
    """

    weights: Weights
    notes: tuple[str, ...]

    @property
    def scales(self) -> FileScales | None:
        """The scales of the Q/DQ that an ONNX file had; None if it had none."""
        ...

    @property
    def modules(self) -> tuple[str, ...]:
        """The cnnx modules that it loads by name; see `own_code`."""
        ...

    def key(self) -> dict[str, Any]:
        """Everything the exported graph depends on except code and batch, as plain data."""
        ...

    def batch(self, asked: Batch) -> Batch:
        """The batch to export with when `asked` was requested."""
        ...

    def export(self, path: Path, batch: Batch) -> None:
        """Write its simplified FP32 graph."""
        ...

    def session(self, *, threads: int | None = None) -> runtimes.Session:
        """Open a session that runs it; `threads`: CPU threads, None: as many as the runtime takes."""
        ...

    def release(self) -> None:
        """Free its memory; it is built again when needed."""
        ...


def original_logits(
    original: Original, pixels: NDArray[np.uint8], recipe: Recipe, *, progress: Progress
) -> NDArray[np.float32]:
    """Run an original on crops (N, H, W, C), and free its memory: (N, classes).

    Raises:
        InputRefused: a logit is not finite.
    """
    session = original.session()
    logits = logits_of(session, pixels, recipe.preprocessing, progress=progress)
    session.close()
    original.release()
    refuse_nonfinite(logits, recipe)
    return logits


def open_original(
    recipe: Recipe, choice: str, *, trust_recipe: bool, progress: Callable[[int, int], None]
) -> Original:
    """Find and verify the original's weights, without building it yet.

    Args:
        recipe: its recipe.
        choice: "pretrained", "standin" or the path of a checkpoint.
        trust_recipe: whether the recipe's own Python code may run.
        progress: called with (bytes done, bytes in all) while weights are downloaded.

    Raises:
        UsageError: weights given for an ONNX file.
        CnnxError: see `cnnx.weights.locate`.
    """
    if recipe.is_onnx:
        if choice != "pretrained":
            raise UsageError(
                "an ONNX file contains its own weights",
                where=recipe.folder / recipe.model.definition,
                hint="drop --weights",
            )
        return open_onnx(recipe)
    weights = locate(recipe, choice, progress=lambda done, total: progress(done, total or 0))
    return TorchOriginal(recipe, weights, trust_recipe=trust_recipe)


def open_onnx(recipe: Recipe) -> OnnxOriginal:
    """The ONNX file of a recipe, without its Q/DQ.

    Raises:
        GraphError: it is missing, damaged or not a classifier with the recipe's classes.
    """
    file = recipe.folder / recipe.model.definition
    return OnnxOriginal(file, logits=recipe.model.logits, classes=recipe.model.classes)


def open_reference(recipe: Recipe) -> OnnxOriginal | None:
    """The network whose logits replace the original's in the verdict, with its Q/DQ; None without one.

    Raises:
        RecipeError: the file does not exist, or takes images of another size.
        GraphError: it is not a classifier with the recipe's classes.
    """
    if not recipe.model.reference:
        return None
    file = recipe.folder / recipe.model.reference
    if not file.is_file():
        raise RecipeError(
            "the reference does not exist", where=file, hint="give the path of an ONNX file with --reference"
        )
    reference = OnnxOriginal(file, classes=recipe.model.classes, keep_qdq=True)
    if reference.shape != recipe.input.shape:
        raise RecipeError(
            f"the reference takes images of {_sides(reference.shape)}, the network of "
            f"{_sides(recipe.input.shape)}",
            where=file,
            hint="give a reference with the same input",
        )
    return reference


def _sides(shape: tuple[int, int, int]) -> str:
    return " x ".join(map(str, shape))


class OnnxOriginal:
    """A user's ONNX graph in canonical form, which has been compared with the file; ONNX Runtime runs it.

    Args:
        file: the ONNX file.
        logits: name of the output to judge by; "": chosen.
        classes: number of logits.
        keep_qdq: run the Q/DQ of a quantized file instead of removing them.
    """

    def __init__(self, file: Path, *, logits: str = "", classes: int, keep_qdq: bool = False) -> None:
        from cnnx.graph.entry import read_network

        self._file = file
        network = read_network(file, logits=logits, classes=classes, keep_qdq=keep_qdq)
        self._own_batch, *shape = network.input_shape
        self.shape = (shape[0], shape[1], shape[2])
        self.graph = canonical_graph(self._file, network)
        self.notes = self.graph.notes
        self.weights = Weights(kind="file", origin=self._file.name, digest=network.digest, file=self._file)

    @property
    def scales(self) -> FileScales | None:
        """The scales of the file's Q/DQ."""
        return self.graph.scales

    @property
    def modules(self) -> tuple[str, ...]:
        """The module of ONNX Runtime."""
        return (RUNNER,)

    def key(self) -> dict[str, Any]:
        """Digest of the canonical form's inputs."""
        return {"onnx": self.graph.key}

    def batch(self, asked: Batch) -> Batch:
        """The graph's own batch if that is fixed, else the requested one.

        Raises:
            UsageError: the graph's batch is fixed and differs from the requested one.
        """
        own = self._own_batch
        if not isinstance(own, int):
            return asked
        if asked not in ((1, 1), (own, own)):
            raise UsageError(
                f"the graph's batch is fixed at {own}",
                where=self._file,
                hint=f"give --batch {own}, or export the ONNX file again with a dynamic batch dimension",
            )
        return own, own

    def export(self, path: Path, batch: Batch) -> None:
        """Write the simplified graph, with a fixed batch if a single size was requested."""
        from cnnx.graph.entry.shapes import fold_known
        from cnnx.graph.load import fix_batch, load_model, save_model
        from cnnx.graph.simplify import simplify

        model = load_model(self.graph.model)
        if batch[0] == batch[1]:
            fix_batch(model, batch[0])
            fold_known(model)
        simplify(model)
        save_model(model, path)

    def session(self, *, threads: int | None = None) -> runtimes.Session:
        """Open the canonical form with ONNX Runtime."""
        return open_here(self.graph.model, threads=threads)

    def release(self) -> None:
        """Do nothing, as no memory is held."""


class TorchOriginal:
    """A PyTorch definition.

    Attributes:
        recipe: its recipe.
        trusted: whether the recipe's own Python code may run.
    """

    def __init__(self, recipe: Recipe, weights: Weights, *, trust_recipe: bool) -> None:
        self.recipe = recipe
        self.trusted = trust_recipe
        self._model: nn.Module | None = None
        self.notes: tuple[str, ...] = ()
        self.weights = weights

    @property
    def scales(self) -> None:
        """None: a definition has no Q/DQ."""
        return

    @property
    def modules(self) -> tuple[str, ...]:
        """Model definitions, and the images for the BatchNorm statistics of stand-in weights."""
        return ("cnnx.models", "cnnx.data") if self.weights.kind == "standin" else ("cnnx.models",)

    def key(self) -> dict[str, Any]:
        """Definition, weights and versions of the exporter's packages."""
        spec, fit = self.recipe.model, self.recipe.weights
        user = self.recipe.folder / spec.definition.split(":")[0]
        return {
            "definition": spec.definition,
            "user_code": digest_of_file(user) if self.recipe.runs_user_code else None,
            "arguments": dict(spec.arguments),
            "classes": spec.classes,
            "counts": (spec.parameters, spec.multiply_adds),
            "input": dataclasses.asdict(self.recipe.input),
            "weights": self.weights.digest,
            "fitted": (fit.training_only, dict(fit.rename), fit.background_classes),
            "statistics": self._statistics_key() if self.weights.kind == "standin" else None,
            "torch": installed_version("torch"),
            "onnxscript": installed_version("onnxscript"),
        }

    def batch(self, asked: Batch) -> Batch:
        """The requested batch, as a definition can be exported with any."""
        return asked

    def export(self, path: Path, batch: Batch) -> None:
        """Trace the model and write its simplified graph."""
        module = self._built()  # first, as it reports which extra is missing without PyTorch
        from cnnx.graph.export import export_model
        from cnnx.graph.load import save_model
        from cnnx.graph.simplify import simplify

        spec = self.recipe.input
        model = export_model(module, shape=spec.shape, batch=batch, input_name=spec.name)
        simplify(model)
        save_model(model, path)

    def session(self, *, threads: int | None = None) -> runtimes.Session:
        """Open a session that runs the module in PyTorch."""
        module = self._built()
        from cnnx.runtimes.eager import EagerSession

        return EagerSession(module, threads=threads)

    def release(self) -> None:
        """Drop the module."""
        self._model = None

    def _built(self) -> nn.Module:
        if self._model is None:
            module = build_torch(self.recipe, trusted=self.trusted)
            check_model(module, self.recipe)
            from cnnx.weights import load_into

            batches = self._statistics_batches()
            self.notes = load_into(module, self.weights, self.recipe, batches_for_statistics=batches)
            self._model = module
        return self._model

    def _statistics_key(self) -> dict[str, Any]:
        """What the images for the BatchNorm statistics of stand-in weights depend on."""
        return {
            "preprocessing": self.recipe.preprocessing.as_key(),
            "images": (_STANDIN_IMAGES, _STANDIN_BATCH),
        }

    def _statistics_batches(self) -> Iterator[NDArray[np.float32]]:
        """Images for the BatchNorm statistics of stand-in weights.

        Always the same, so that the weights do not depend on the user's calibration set.
        """
        from cnnx.data.geometry import crop
        from cnnx.data.normalize import normalize
        from cnnx.data.sets import open_images

        preprocessing, shape = self.recipe.preprocessing, self.recipe.input.shape
        images = open_images(
            "deadleaves", size=preprocessing.side(shape), color=preprocessing.drawn_in, split="calibration"
        )
        for start in range(0, _STANDIN_IMAGES, _STANDIN_BATCH):
            batch = [crop(images[start + i].load(), preprocessing, shape) for i in range(_STANDIN_BATCH)]
            yield normalize(np.stack(batch), preprocessing)
