"""Other inputs and outputs for a finished graph: pixels, or what a consumer makes of them; probabilities.

The graph between is not changed. TensorRT takes uint8 only at an input that a Cast reads.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper

from cnnx.graph import edit
from cnnx.preprocessing import CHANNELS, Preprocessing
from cnnx.preprocessing.geometry import offset, resized
from cnnx.preprocessing.input_format import InputFormat

_MODES = {"bilinear": "linear", "bicubic": "cubic", "nearest": "nearest"}
_SIDES = np.array([2, 3], np.int64)
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow converts RGB to gray
_CUBIC = {"pillow": -0.5, "opencv": -0.75}


def with_raw_input(
    model: ModelProto,
    form: InputFormat,
    preprocessing: Preprocessing,
    *,
    shape: tuple[int, int, int],
    undo: Preprocessing | None = None,
) -> ModelProto:
    """A new graph that takes pixels and gives what `model` gives for the normalized images.

    Division, mean and deviation are applied as `cnnx.data.normalize` does, one rounding each, so that the
    network's values are the same to the last bit unless the graph resizes.

    Args:
        model: graph with one float32 input (N, C, H, W); it is not changed.
        form: what the new graph takes: pixels, as uint8 or float32 in 0..255. Its color may be RGB or BGR for
            a network that takes gray images.
        preprocessing: the network's.
        shape: channels, height and width of the network's input.
        undo: a normalization that the consumer applies to the pixels, in its own order of channels.
    """
    raw = ModelProto()
    raw.CopyFrom(model)
    front = _Front(raw, edit.data_inputs(raw.graph)[0].name)
    if form.is_raw:
        front.add("Cast", to=TensorProto.FLOAT)
    if form.layout == "NHWC":
        front.add("Transpose", perm=(0, 3, 1, 2))
    if undo is not None:
        front.per_channel("Mul", "scale", [each * undo.divisor for each in undo.std], idle=1.0)
        front.per_channel("Add", "offset", [each * undo.divisor for each in undo.mean], idle=0.0)
    if preprocessing.color == "gray" != form.color:
        luma = _LUMA if form.color == "rgb" else _LUMA[::-1]
        front.add("Conv", front.constant("luma", np.array(luma, np.float32).reshape(1, 3, 1, 1)))
        front.add("Round")  # as Pillow's 8-bit gray
    elif form.color != preprocessing.color:
        front.add("Gather", front.constant("order", np.array([2, 1, 0], np.int64)), axis=1)
    if form.frame is not None:
        _resize(front, form.frame, preprocessing, shape)
    front.normalize(preprocessing)
    front.connect(form, shape)
    edit.check(raw)
    return raw


def with_softmax(model: ModelProto) -> ModelProto:
    """A new graph with one output, the softmax of the logits; `model` is not changed."""
    whole = ModelProto()
    whole.CopyFrom(model)
    graph = whole.graph
    logits = graph.output[0]
    name = edit.Names(graph).fresh("probabilities")
    graph.node.append(helper.make_node("Softmax", [logits.name], [name], name=name, axis=1))
    probabilities = onnx.ValueInfoProto()
    probabilities.CopyFrom(logits)
    probabilities.name = name
    del graph.output[:]
    graph.output.append(probabilities)
    edit.check(whole)
    return whole


def resize_alone(
    form: InputFormat, preprocessing: Preprocessing, *, shape: tuple[int, int, int]
) -> ModelProto:
    """A graph that takes images of this format and gives the crops as floats, (N, C, H, W)."""
    image = helper.make_tensor_value_info("frames", TensorProto.FLOAT, ("N", *shape))
    crops = helper.make_tensor_value_info("crops", TensorProto.FLOAT, ("N", *shape))
    graph = helper.make_graph(
        [helper.make_node("Identity", ["frames"], ["crops"], name="crops")], "resize", [image], [crops]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    plain = dataclasses.replace(preprocessing, divisor=1.0, mean=(0.0,) * shape[0], std=(1.0,) * shape[0])
    return with_raw_input(model, form, plain, shape=shape)


class _Front:
    """The nodes before a graph, each of which reads the one before."""

    def __init__(self, model: ModelProto, name: str) -> None:
        self._graph = model.graph
        self._names = edit.Names(model.graph)
        self._input = name
        self._last = name
        self._nodes: list[NodeProto] = []

    def add(self, op: str, *constants: str, **attributes: Any) -> None:
        """Append a node that reads the last one and these constants."""
        name = self._names.fresh(f"{self._input}/{op}")
        output = self._names.fresh(f"{name}_output")
        self._nodes.append(helper.make_node(op, [self._last, *constants], [output], name=name, **attributes))
        self._last = output

    def constant(self, stem: str, values: NDArray[Any] | np.float32) -> str:
        """Add a constant; returns its name."""
        name = self._names.fresh(f"{self._input}/{stem}")
        self._graph.initializer.append(edit.tensor_from_array(name, np.asarray(values)))
        return name

    def per_channel(self, op: str, stem: str, values: Sequence[float], *, idle: float) -> None:
        """Append arithmetic with one value per channel, unless it would change nothing."""
        if any(value != idle for value in values):
            column = np.asarray(values, np.float32).reshape(1, -1, 1, 1)
            self.add(op, self.constant(stem, column))

    def normalize(self, preprocessing: Preprocessing) -> None:
        """Append (x / divisor - mean) / std."""
        self.per_channel("Div", "divisor", [preprocessing.divisor], idle=1.0)
        self.per_channel("Sub", "mean", preprocessing.mean, idle=0.0)
        self.per_channel("Div", "std", preprocessing.std, idle=1.0)

    def connect(self, form: InputFormat, shape: tuple[int, int, int]) -> None:
        """Put the nodes before the graph, whose input becomes one of this format."""
        edit.rename_input(self._graph.node, self._input, self._last)
        nodes = [*self._nodes, *self._graph.node]
        edit.replace_nodes(self._graph, nodes)
        kind = next(value for value in self._graph.input if value.name == self._input).type.tensor_type
        kind.elem_type = TensorProto.UINT8 if form.is_raw else TensorProto.FLOAT
        image = form.shape((CHANNELS[form.color], *shape[1:]))
        for dimension, length in zip(kind.shape.dim[1:], image, strict=False):
            dimension.dim_value = length


def _resize(
    front: _Front, frame: tuple[int, int], preprocessing: Preprocessing, shape: tuple[int, int, int]
) -> None:
    """Resize frames and cut out the center, or pad. Without antialiasing, which TensorRT does not have."""
    wide, high = resized(frame[1], frame[0], preprocessing)
    _, height, width = shape
    if (high, wide) != frame:
        front.add(
            "Resize",
            "",  # no region of interest
            "",  # no scales
            front.constant("size", np.array([high, wide], np.int64)),
            axes=(2, 3),
            mode=_MODES[preprocessing.interpolation],
            coordinate_transformation_mode="half_pixel",
            nearest_mode="round_prefer_ceil",  # as Pillow
            cubic_coeff_a=_CUBIC[preprocessing.resampling],
        )
        front.add("Round")  # the network was trained on 8-bit pixels
    if preprocessing.interpolation == "bicubic":
        front.add("Clip", front.constant("black", np.float32(0)), front.constant("white", np.float32(255)))
    top, left = offset(high, height), offset(wide, width)
    if high > height or wide > width:
        starts, ends = np.maximum((top, left), 0), np.minimum((top + height, left + width), (high, wide))
        start, end = front.constant("start", starts), front.constant("end", ends)
        front.add("Slice", start, end, front.constant("axes", _SIDES))
    if high < height or wide < width:
        above, before = max(-top, 0), max(-left, 0)
        below, after = max(height - high, 0) - above, max(width - wide, 0) - before
        pads = np.array([0, 0, above, before, 0, 0, below, after], np.int64)
        fill = front.constant("fill", np.float32(preprocessing.fill[0]))
        front.add("Pad", front.constant("pads", pads), fill)
