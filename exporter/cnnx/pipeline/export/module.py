"""Writes a PyTorch module as an ONNX file, which `export` then takes like any other file."""

from __future__ import annotations

import copy
import hashlib
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnnx.errors import BuildFailed, MissingExtra, UsageError
from cnnx.machine.environment import installed_version
from cnnx.options import Batch
from cnnx.pipeline.steps.inference import EXPORT_TOLERANCE, open_here, relative_error
from cnnx.store.cache import Store
from cnnx.store.own_code import own_code


def module_file(module: Any, example: Any, batch: Batch) -> Path:
    """Write a module as an ONNX file in the cache. The module is copied and stays as it is.

    Args:
        module: a `torch.nn.Module` that maps float32 (N, C, H, W) to logits (N, classes).
        example: a tensor or array (N, C, H, W), for the image size and to compare the outputs.
        batch: smallest and largest batch.

    Raises:
        TypeError: the module is no `torch.nn.Module`, or the example no tensor or array.
        UsageError: the example does not have the shape (N, C, H, W), or is missing.
        MissingExtra: a package that the export needs is missing.
        GraphError: PyTorch cannot export the module.
        BuildFailed: the file and the module give different logits for the example.
    """
    if not (callable(module) and hasattr(module, "state_dict") and hasattr(module, "eval")):
        raise TypeError(f"model must be str, Path or torch.nn.Module, not {type(module).__name__}")
    images = _images(example)
    if installed_version("onnxscript") is None:
        raise MissingExtra("onnxscript", "export", purpose="exporting to ONNX")
    from cnnx.graph.export import export_model
    from cnnx.graph.load import save_model

    still = copy.deepcopy(module).cpu().eval()
    _, *shape = images.shape
    model = export_model(still, shape=(shape[0], shape[1], shape[2]), batch=batch)
    name = re.sub(r"[^a-z0-9]+", "-", type(module).__name__.lower()).strip("-") or "model"
    inputs = {
        "onnx": hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest(),
        "name": name,
        "code": own_code(__name__),
    }

    def fill(folder: Path) -> None:
        save_model(model, folder / f"{name}.onnx")
        _compare(still, folder / f"{name}.onnx", images, batch[0])

    return Store().make("module", inputs, fill).folder / f"{name}.onnx"


def _images(example: Any) -> NDArray[np.float32]:
    if example is None:
        hint = "pass a batch as the network takes it, such as example=torch.zeros(1, 3, 224, 224)"
        raise UsageError("a module needs an example of its input", hint=hint)
    if hasattr(example, "detach"):
        example = example.detach().cpu().numpy()
    if not isinstance(example, np.ndarray):
        raise TypeError(f"example must be a tensor or an array, not {type(example).__name__}")
    if example.ndim != 4 or 0 in example.shape:
        raise UsageError(
            f"the example has the shape {example.shape}, not (N, C, H, W)",
            hint="add the batch axis, as in example[None]",
        )
    return np.ascontiguousarray(example, np.float32)


def _compare(module: Any, file: Path, images: NDArray[np.float32], smallest: int) -> None:
    """Raise if the file and the module give different logits for the first image."""
    from cnnx.runtimes.eager import EagerSession

    theirs, ours = EagerSession(module), open_here(file)
    found = ours.run(np.repeat(images[:1], smallest, axis=0))[ours.output_names[0]][:1]
    expected = theirs.run(images[:1])[theirs.output_names[0]]
    ours.close()
    apart = relative_error(expected, found)
    if not apart <= EXPORT_TOLERANCE:
        raise BuildFailed(
            f"the exported graph and the module give different logits: max|a-b|/max|b| is {apart:.2g}, "
            f"the limit is {EXPORT_TOLERANCE:g}",
            where=type(module).__name__,
            hint="export it to ONNX yourself and compare; nothing made from this graph can be trusted",
        )
