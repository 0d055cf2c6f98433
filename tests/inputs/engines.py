"""Engines that are not there: what TensorRT 10 would report of them, and the times of their layers.

The form is that of NVIDIA's engine inspector with detailed verbosity, as in the examples of its
trt-engine-explorer.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from cnnx.measure.roofline.explanation import Profiled
from cnnx.runtimes.layer_times import LayerTime, kind_of_name
from cnnx.runtimes.trt.inspector import parse_kernels

FORMATS = {
    "int8": "Thirty-two wide channel vectorized row major Int8 format",
    "fp16": "Channel major FP16 format where channel % 8 == 0",
    "fp32": "Row major linear FP32",
}
COUNTED = {"int8": "Int8", "fp16": "Half", "fp32": "Float"}


@dataclass
class Planted:
    """An engine that is written layer by layer; a tensor is named once with its type and shape."""

    tensors: dict[str, dict] = field(default_factory=dict)
    layers: list[dict] = field(default_factory=list)
    times: list[LayerTime] = field(default_factory=list)

    def tensor(self, name: str, kind: str, *shape: int) -> str:
        self.tensors[name] = {"Name": name, "Dimensions": list(shape), "Format/Datatype": FORMATS[kind]}
        return name

    def layer(self, name: str, us: float, reads: list[str], writes: str, kind: str, **more) -> None:
        self.layers.append(
            {
                "Name": name,
                "LayerType": kind,
                "Inputs": [self.tensors[each] for each in reads],
                "Outputs": [self.tensors[writes]],
                **more,
            }
        )
        self.times.append(LayerTime(name, "", kind_of_name(name), us * 1000))

    def conv(
        self,
        name: str,
        us: float,
        reads: list[str],
        writes: str,
        *,
        weight: str,
        kernel: int = 3,
        groups: int = 1,
    ) -> None:
        """A convolution from the first tensor it reads; any other is added to its result."""
        inputs, outputs = (self.tensors[each]["Dimensions"][1] for each in (reads[0], writes))
        weights = {"Type": COUNTED[weight], "Count": outputs * inputs // groups * kernel**2}
        self.layer(name, us, reads, writes, "CaskConvolution", Weights=weights, Groups=groups)

    def copy(self, name: str, us: float, reads: str, writes: str) -> None:
        self.layer(name, us, [reads], writes, "Reformat")

    @property
    def text(self) -> str:
        """What the inspector prints."""
        return json.dumps({"Layers": self.layers, "Bindings": []})

    def profiled(self, **more) -> Profiled:
        return Profiled(self.times, parse_kernels(self.text), **more)


def chain(engine: Planted, blocks: int, *, us: float = 20.0) -> str:
    """INT8 convolutions of 64 channels on 56 x 56; returns the last tensor."""
    last = engine.tensor("t0", "int8", 1, 64, 56, 56)
    for number in range(1, blocks + 1):
        following = engine.tensor(f"t{number}", "int8", 1, 64, 56, 56)
        engine.conv(f"layer1.{number}.conv", us, [last], following, weight="int8")
        last = following
    return last


def residual(engine: Planted, blocks: int, *, stage: str, sums: str, us: float = 10.0) -> None:
    """Blocks of two INT8 convolutions with a sum, which adds in FP16 where `sums` is "fp16"."""
    shape = (8, 128, 28, 28)
    last = engine.tensor(f"{stage}.in", "int8", *shape)
    for block in range(blocks):
        name = f"/{stage}/{block}"
        middle, out = engine.tensor(f"{name}.m", "int8", *shape), engine.tensor(f"{name}.o", sums, *shape)
        engine.conv(f"{name}/conv1/Conv", us, [last], middle, weight="int8")
        engine.conv(f"{name}/conv2/Conv + {name}/Add", us, [middle, last], out, weight="int8")
        last = engine.tensor(f"{name}.q", "int8", *shape) if sums != "int8" else out
        if sums != "int8":
            engine.copy(f"Reformatting CopyNode for Input Tensor 0 to {name}/next", us / 2, out, last)
    engine.conv(
        f"/{stage}/last/Conv", us, [last], engine.tensor(f"{stage}.out", "int8", *shape), weight="int8"
    )
