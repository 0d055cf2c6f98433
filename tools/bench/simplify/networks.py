"""The files to compare tools on: networks of timm and torchvision, from both exporters.

Needs the [export] extra and `pip install --no-deps timm torchvision`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tools.networks import export, network

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
                side = SIDES.get(name, 64)
                export(network(name, side), path, side=side, exporter=exporter, opset=opset)
        except Exception as error:
            path.unlink(missing_ok=True)
            print(f"{path.stem}: PyTorch export failed: {str(error).splitlines()[0][:90]}", flush=True)
