"""Read NVIDIA's examples of engines with cnnx's readers, and explain their speed.

python -m tools.check.engine_explorer FOLDER

FOLDER is tools/experimental/trt-engine-explorer of github.com/NVIDIA/TensorRT, up to release 10.13: ResNet
on A100 and RTX 3090, and MobileNet. They are of TensorRT 8, in the form that 10 still has. Exits with 1 if

- a layer that multiplies has no type, or a type other than that of its weights;
- a profiled layer is of another kind than the inspector says;
- the MACs of an engine are not those of its network;
- a layer is much faster than the roofline, so that a peak, a type or a size must be wrong;
- the main cause of an engine's time is not the one below, or what NVIDIA's next example removes is not among
  the causes: `qat` becomes `qat-residual` by Q/DQ on shortcuts, and so does MobileNet; `qat-residual` becomes
  `qat-residual-qgap` by Q/DQ on the last sum.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnnx.device import Device
from cnnx.measure.roofline.explanation import Explanation, Profiled, explain
from cnnx.measure.roofline.peaks import peaks_of
from cnnx.runtimes.kernels import FUSED, Kernel, types_of
from cnnx.runtimes.layer_times import LayerTime, kind_of_name
from cnnx.runtimes.trt.inspector import parse_kernels

# Layers of these types have weights; a ConvActPool does not report them.
_MULTIPLIES = re.compile("conv", re.IGNORECASE)
_ENDING = ".graph.json"
# A layer whose data is in the L2 cache is faster than its memory's bandwidth allows.
_FASTEST = 1.3


@dataclass(frozen=True)
class Expected:
    """What is known of an example: MACs of its network, and words of the main cause and of another."""

    macs: int
    cause: str
    also: str = ""


_RESNET18, _RESNET50, _MOBILENET = 1_814_073_344, 3_857_973_248, 300_774_272
_CONV1 = 118_013_952  # of a ConvActPool, whose weights are not reported
EXPECTED = {
    "A100/fp16": Expected(_RESNET18, "INT8 has a lower limit"),
    "A100/fp32": Expected(_RESNET18, "FP16 has a lower limit"),
    "A100/qat": Expected(_RESNET18, "keep their Add in INT8"),
    "A100/qat-residual": Expected(_RESNET18 - _CONV1, "layer4.1.conv2"),
    "A100/qat-residual-qgap": Expected(_RESNET18 - _CONV1, "let the engine take pixels"),
    "RTX-3090/fp16": Expected(_RESNET50, "INT8 has a lower limit"),
    "RTX-3090/fp32": Expected(_RESNET50, "FP16 has a lower limit"),
    "RTX-3090/qat": Expected(_RESNET50, "it has 3: keep it in FP16"),
    "mobilenet.qat": Expected(_MOBILENET, "run more images at once", "keep their Add in INT8"),
    "mobilenet_v2_residuals.qat": Expected(_MOBILENET, "run more images at once"),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    files = sorted(parser.parse_args().folder.rglob(f"*{_ENDING}"))
    faults = [f"{file.name}: {fault}" for file in files for fault in _check(file)]
    missing = EXPECTED.keys() - {_name(file) for file in files}
    faults += [f"{name}: not found" for name in sorted(missing)]
    print("\n".join(faults) or "no faults")
    return 1 if faults else 0


def _name(file: Path) -> str:
    example = "/".join(file.parts[-3:-1])
    return example if example in EXPECTED else file.name.partition(".onnx")[0]


def _check(file: Path) -> Iterator[str]:
    text = file.read_text(encoding="utf-8")
    kernels, layers = parse_kernels(text), json.loads(text)["Layers"]
    multiplying = [kernel for kernel in kernels if _MULTIPLIES.search(kernel.kind)]
    found = types_of(kernels)
    types = Counter(found.get(kernel.name.split(FUSED)[0], "no type") for kernel in multiplying)
    print(f"{_name(file)}: {len(layers)} layers, products {dict(types)}")
    for kernel in multiplying:
        yield from _wrong_types(kernel, found)
    profile = [entry for entry in _beside(file, ".profile.json") if "name" in entry]
    yield from _wrong_kinds(profile, layers)
    yield from _wrong_limits(file, kernels, profile)


def _beside(file: Path, ending: str) -> Any:
    return json.loads(file.with_name(file.name.removesuffix(_ENDING) + ending).read_text(encoding="utf-8"))


def _wrong_types(kernel: Kernel, found: dict[str, str]) -> Iterator[str]:
    for node in kernel.name.split(FUSED):
        if node not in found:
            yield f"{node}: no type"
        elif kernel.weight and found[node] != kernel.weight:
            yield f"{node}: {found[node]}, with weights in {kernel.weight}"


def _wrong_kinds(profile: list[dict[str, Any]], layers: list[dict[str, Any]]) -> Iterator[str]:
    """Layers of the profile that are not in the engine, or whose kind is not that of the inspector."""
    by_name = {layer["Name"]: layer for layer in layers}
    for name in (entry["name"] for entry in profile):
        layer, kind = by_name.get(name), kind_of_name(name)
        if layer is None:
            yield f"{name}: profiled, and not in the engine"
        elif layer["LayerType"] == "Reformat" and kind == "compute":
            yield f"{name}: a Reformat, and of the kind {kind}"
        elif "Weights" in layer and kind != "compute":
            yield f"{name}: has weights, and is of the kind {kind}"


def _wrong_limits(file: Path, kernels: tuple[Kernel, ...], profile: list[dict[str, Any]]) -> Iterator[str]:
    expected, batch = EXPECTED[_name(file)], kernels[0].reads[0].shape[0]
    found = _explain(file, kernels, profile, batch)
    print(f"  {found.sentence}\n  attained: {found.attained}, {found.shares}")
    macs = sum(layer.macs or 0 for layer in found.layers)
    if macs != expected.macs * batch:
        yield f"{macs} MACs for {batch} images, and not {expected.macs} each"
    if expected.cause not in found.sentence:
        yield f"the main cause does not say {expected.cause!r}: {found.sentence}"
    if not any(expected.also in str(cause) for cause in found.causes):
        yield f"no cause says {expected.also!r}"
    for layer in found.layers:
        if (layer.attained or 0.0) > _FASTEST:
            yield f"{layer.name}: {layer.attained:.0%} of its limit"


def _explain(
    file: Path, kernels: tuple[Kernel, ...], profile: list[dict[str, Any]], batch: int
) -> Explanation:
    times = [
        LayerTime(entry["name"], "", kind_of_name(entry["name"]), entry["medianMs"] * 1e6)
        for entry in profile
    ]
    name = _beside(file, ".profile.metadata.json")["device_information"]["Selected Device"]
    return explain(Profiled(times, kernels, batch=batch), peaks_of(Device("gpu", name)))


if __name__ == "__main__":
    sys.exit(main())
