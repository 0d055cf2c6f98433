"""Networks of timm and torchvision with random weights, exported to ONNX as their users do it.

Needs the [export] extra and `pip install --no-deps timm torchvision`.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from pathlib import Path
from typing import Any

_BATCHES, _BATCH = 4, 8
_KEPT_ALIVE: list[Any] = []


def network(name: str, side: int) -> Any:
    """A network of timm, or of torchvision if its name starts with "tv:", in evaluation mode.

    Random weights let activations grow or vanish from layer to layer, so that BatchNorm's statistics are
    those of random images, and its factors differ as in trained networks.
    """
    import torch

    torch.manual_seed(0)
    model = _torchvision(name[3:]) if name.startswith("tv:") else _timm(name, side)
    norms = [m for m in model.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    with torch.no_grad():
        for norm in norms:
            # Libraries initialize the last norm of a block to zero, unlike in trained networks.
            if norm.affine:
                norm.weight.uniform_(0.5, 1.5)
                norm.bias.normal_(0, 0.1)
            norm.reset_running_stats()
            norm.momentum = None  # an average over all batches
        for _ in range(_BATCHES if norms else 0):
            model.train()(torch.randn(_BATCH, 3, side, side))
    return model.eval()


def _torchvision(name: str) -> Any:
    import torch

    if not hasattr(torch.ops.torchvision, "nms"):  # torchvision's own operators, which no classifier uses
        library = torch.library.Library("torchvision", "FRAGMENT")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _KEPT_ALIVE.append(library)
    import torchvision

    # GoogLeNet and Inception draw their initial weights from scipy, for minutes.
    slow = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    return torchvision.models.get_model(name, weights=None, **slow)


def _timm(name: str, side: int) -> Any:
    import inspect

    _torchvision("squeezenet1_1")  # declares the operators that timm's import of torchvision needs
    import timm

    takes_size = "img_size" in inspect.signature(timm.model_entrypoint(name)).parameters
    sized = {"img_size": side} if takes_size or name.startswith(_SIZED) else {}
    return timm.create_model(name, num_classes=100, **sized)


# Transformers and hybrids, whose positions depend on the size of the image.
_SIZED = ("vit_", "deit", "swin", "levit", "coatnet", "maxvit", "mixer")


def export(
    model: Any, path: Path, *, side: int, exporter: str, opset: int | None = None, free_batch: bool = True
) -> None:
    """Write a network as ONNX with PyTorch's "legacy" or "dynamo" exporter; opset None: the default."""
    import torch

    image = torch.randn(2 if free_batch else 1, 3, side, side)
    options: dict[str, Any] = {"input_names": ["input"], "output_names": ["logits"]}
    if opset is not None:
        options["opset_version"] = opset
    if exporter == "legacy":
        options["dynamo"] = False
        if free_batch:
            options["dynamic_axes"] = {"input": {0: "batch"}, "logits": {0: "batch"}}
    else:
        options |= {"dynamo": True, "external_data": False}
        if free_batch:
            options["dynamic_shapes"] = ({0: torch.export.Dim("batch", max=64)},)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (image,), path, **options)
