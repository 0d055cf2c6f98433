"""Exports networks of timm and torchvision: random weights, both exporters, dynamic batch.

Needs the [export] extra and `pip install --no-deps timm torchvision`.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

NETWORKS = (
    *("resnet18", "resnext50_32x4d", "mobilenetv2_100", "mobilenetv3_small_100", "efficientnet_lite0"),
    *("tf_efficientnet_b0", "convnext_atto", "regnety_002", "repvgg_a0", "ghostnet_100", "mnasnet_100"),
    *("densenet121", "vit_tiny_patch16_224", "levit_128s", "mobilevit_xxs", "hrnet_w18_small"),
    *("inception_v3", "edgenext_xx_small", "poolformer_s12", "tv:squeezenet1_1"),
    *("tv:shufflenet_v2_x0_5", "tv:googlenet"),
)
SIDES = {"inception_v3": 96, "levit_128s": 64, "tv:googlenet": 96}
SWEPT = ("mobilenetv3_small_100",)
LEGACY, DYNAMO = (17, 13, 11), (18, 20)
_KEPT_ALIVE: list[Any] = []


def build(folder: Path, *, only: Sequence[str] = ("",), every_opset: bool = False) -> None:
    """Write missing files: every network with both exporters, or two networks in every operator set."""
    folder.mkdir(parents=True, exist_ok=True)
    if every_opset:
        wanted = [(n, "dynamo" if o > 17 else "legacy", o) for n in SWEPT for o in range(7, 24)]
    else:
        both = [((n, "legacy", LEGACY[i % 3]), (n, "dynamo", DYNAMO[i % 2])) for i, n in enumerate(NETWORKS)]
        wanted = [entry for pair in both for entry in pair]
    for name, exporter, opset in wanted:
        path = folder / f"{name.removeprefix('tv:')}-{exporter}{opset}.onnx"
        try:
            if not path.exists() and any(part in path.stem for part in only):
                export(name, path, exporter, opset)
        except Exception as error:
            path.unlink(missing_ok=True)
            print(f"{path.stem}: PyTorch export failed: {str(error).splitlines()[0][:90]}", flush=True)


def network(name: str, side: int) -> Any:
    """A network of timm or torchvision; both need torchvision's operators, which are declared here."""
    import torch

    if not hasattr(torch.ops.torchvision, "nms"):
        library = torch.library.Library("torchvision", "FRAGMENT")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _KEPT_ALIVE.append(library)
    torch.manual_seed(0)
    if name.startswith("tv:"):
        import torchvision

        model = torchvision.models.get_model(name[3:], weights=None)
    else:
        import timm

        sized = {"img_size": side} if name.startswith(("vit", "levit")) else {}
        model = timm.create_model(name, num_classes=100, **sized)
    with torch.no_grad():
        for module in model.modules():
            # Libraries initialize the last norm of a block to zero, unlike in trained networks.
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.1)
        for _ in range(3):
            model.train()(torch.randn(8, 3, side, side))
    return model.eval()


def export(name: str, path: Path, exporter: str, opset: int) -> None:
    import torch

    side = SIDES.get(name, 64)
    model, image = network(name, side), torch.randn(2, 3, side, side)
    names: dict[str, Any] = {"input_names": ["input"], "output_names": ["logits"], "opset_version": opset}
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        if exporter == "legacy":
            axes = {"input": {0: "batch"}, "logits": {0: "batch"}}
            torch.onnx.export(model, (image,), path, dynamo=False, dynamic_axes=axes, **names)
        else:
            shapes = ({0: torch.export.Dim("batch", max=64)},)
            torch.onnx.export(
                model, (image,), path, dynamo=True, dynamic_shapes=shapes, external_data=False, **names
            )
