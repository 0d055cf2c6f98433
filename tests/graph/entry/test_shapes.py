"""Shapes and weights that the graph computes count as if they were written."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import cnnx
from cnnx.errors import GraphError
from cnnx.graph import infer
from cnnx.graph.entry import read_network
from cnnx.graph.infer import types_at
from cnnx.graph.inspect import layers
from cnnx.graph.simplify import simplify

SIDE, CHANNELS, CLASSES = 8, 4, 10

# Operator with a computed shape -> height and width of what it makes of 8 x 8.
AFTER = {
    "Expand": (9, 8), "Tile": (9, 8), "ConstantOfShape": (9, 8), "Range": (9, 8), "Split": (4, 16),
    "Reshape": (4, 16), "Transpose": (8, 8), "Slice": (4, 8), "Resize": (16, 24), "Pad": (10, 14),
    "MaxPool": (8, 8),
}  # fmt: skip
# Those whose shape has the batch in it other than in the target of a Reshape.
OF_BATCH = {"Expand", "Tile", "ConstantOfShape", "Range", "Resize"}


@dataclass(frozen=True)
class Way:
    """One way in which an exporter may compute the shape that an operator takes, and weights."""

    op: str
    opset: int = 17
    batch: object = "batch"
    lengths: str = "gathered"
    masked: bool = False
    weights: str = "stored"


WAYS = st.builds(
    Way,
    op=st.sampled_from(sorted(AFTER)),
    opset=st.integers(11, 20),
    batch=st.sampled_from(["batch", 1, 3]),
    lengths=st.sampled_from(["gathered", "sliced", "written"]),
    masked=st.booleans(),
    weights=st.sampled_from(["stored", "shared", "standardized", "normalized", "self-normalized"]),
)


class Writer:
    """Conv - an operator whose shape is computed - 1x1 Conv - pool - Gemm."""

    def __init__(self, way: Way) -> None:
        self.way, self.nodes, self.constants = way, [], []
        self.random = np.random.default_rng(0)

    def constant(self, values):
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def node(self, op, *inputs, outputs=1, **attributes):
        names = [f"t{len(self.nodes)}.{index}" for index in range(outputs)]
        self.nodes.append(helper.make_node(op, inputs, names, f"{op}_{len(self.nodes)}", **attributes))
        return names[0] if outputs == 1 else names

    def axes(self, op, x, axes, **attributes):
        """An operator whose axes became an input in opset 13, or in 18."""
        if self.way.opset >= (18 if op == "ReduceMean" else 13):
            return self.node(op, x, self.constant(np.array(axes)), **attributes)
        return self.node(op, x, axes=axes, **attributes)

    def split(self, x, parts):
        if self.way.opset >= 13:
            return self.node("Split", x, self.constant(np.array(parts)), outputs=len(parts), axis=0)
        return self.node("Split", x, outputs=len(parts), axis=0, split=parts)

    def length(self, x, axis):
        """One length of a tensor, as a vector."""
        way = self.way
        if way.lengths == "written" and (axis or isinstance(way.batch, int)):
            return self.constant(np.array([(way.batch, CHANNELS, SIDE, SIDE)[axis]]))
        if way.lengths == "sliced" and way.opset >= 15:
            return self.node("Shape", x, start=axis, end=axis + 1)
        length = self.node("Gather", self.node("Shape", x), self.constant(np.array(axis)), axis=0)
        return self.axes("Unsqueeze", length, [0])

    def vector(self, *parts):
        """Lengths put together; masked: as Tensor.expand writes them, where -1 keeps a length."""
        made = self.node("Concat", *parts, axis=0)
        if not self.way.masked:
            return made
        one = numpy_helper.from_array(np.array([1]))
        ones = self.node("ConstantOfShape", self.constant(np.array([len(parts)])), value=one)
        kept = self.node("Equal", made, self.node("Mul", ones, self.constant(np.array(-1))))
        return self.node("Where", kept, ones, made)

    def times(self, length, factor):
        """A length times a fraction, as floats."""
        product = self.node(
            "Mul", self.node("Cast", length, to=TensorProto.FLOAT), self.constant(np.float32(factor))
        )
        return self.node("Cast", self.node("Floor", product), to=TensorProto.INT64)

    def middle(self, x):
        """The operator whose shape is computed."""
        n, c, h, w = (self.length(x, axis) for axis in range(4))
        zero, one, two = (self.constant(np.array([value])) for value in range(3))
        match self.way.op:
            case "Expand" | "Tile" as op:
                token = self.constant(self.random.normal(size=(1, CHANNELS, 1, SIDE)).astype(np.float32))
                target = self.vector(n, c, one, w) if op == "Expand" else self.vector(n, one, one, one)
                return self.node("Concat", self.node(op, token, target), x, axis=2)
            case "ConstantOfShape":
                zeros = self.node("ConstantOfShape", self.vector(n, c, one, w))
                return self.node("Concat", zeros, x, axis=2)
            case "Range":
                start, end, step = self.constant(0), self.axes("Squeeze", w, [0]), self.constant(1)
                row = self.reshape(self.node("Range", start, end, step), self.vector(one, one, one, w))
                row = self.node("Expand", row, self.vector(n, c, one, w))
                return self.node("Concat", self.node("Cast", row, to=TensorProto.FLOAT), x, axis=2)
            case "Reshape":
                return self.reshape(x, self.vector(n, c, self.times(h, 0.5), self.times(w, 2)))
            case (
                "Transpose"
            ):  # channels before the batch, and as many as images: neither may pass for the other
                x = self.reshape(x, self.vector(n, two, two, h, w))
                x = self.reshape(self.node("Transpose", x, perm=[1, 0, 2, 3, 4]), self.vector(n, c, h, w))
                return x
            case "Split":  # of the lengths themselves
                first, rest = self.split(self.vector(n, c, h, w), [2, 2])
                h, w = self.split(rest, [1, 1])
                rest = self.node("Concat", self.times(h, 0.5), self.times(w, 2), axis=0)
                return self.reshape(x, self.node("Concat", first, rest, axis=0))
            case "Slice":
                ends = self.node("Concat", self.times(h, 0.5), axis=0)
                return self.node("Slice", x, zero, ends, two)
            case "Resize":
                sizes = self.vector(n, c, self.times(h, 2), self.times(w, 3))
                empty = self.constant(np.zeros(0, np.float32))
                return self.node("Resize", x, empty, empty, sizes, mode="nearest")
            case "Pad":
                return self.node("Pad", x, self.pads(x, 2, 4, 1, 1), self.constant(np.float32(0)))
            case "MaxPool":
                x = self.node("Pad", x, self.pads(x, 1, 1, 1, 1), self.constant(np.float32(-np.inf)))
                return self.node("MaxPool", x, kernel_shape=[3, 3])

    def reshape(self, x, target):
        """As PyTorch's new exporter writes it, with allowzero, where the operator set has it."""
        exact = {"allowzero": 1} if self.way.lengths == "sliced" and self.way.opset >= 15 else {}
        return self.node("Reshape", x, target, **exact)

    def pads(self, x, *sides):
        """As PyTorch's old exporter makes (..., top, left, ..., bottom, right) of four sides."""
        rank = self.node("Size", self.node("Shape", x)) if self.way.lengths != "written" else None
        rank = self.axes("Unsqueeze", rank, [0]) if rank else self.constant(np.array([4]))
        twice = self.node("Mul", rank, self.constant(np.array(2)))
        missing = self.node("Sub", twice, self.constant(np.array(len(sides))))
        zeros = self.node("ConstantOfShape", missing, value=numpy_helper.from_array(np.array([0])))
        pads = self.node("Concat", self.constant(np.array(sides)), zeros, axis=0)
        pairs = self.node("Reshape", pads, self.constant(np.array([-1, 2])))
        bounds = [self.constant(np.array([value])) for value in (-1, np.iinfo(np.int64).min, 0, -1)]
        turned = self.node("Transpose", self.node("Slice", pairs, *bounds), perm=[1, 0])
        flat = self.node("Reshape", turned, self.constant(np.array([-1])))
        return self.node("Cast", flat, to=TensorProto.INT64)

    def weight(self, *shape):
        """A weight, as it is or as the exporter computes it from one."""
        weight = self.constant(self.random.normal(size=shape).astype(np.float32))
        filters, kind = shape[0], self.way.weights
        if kind == "shared":
            return self.node("Identity", weight)
        if kind == "standardized":
            mean = self.axes("ReduceMean", weight, [1, 2, 3], keepdims=1)
            gain = self.constant(np.ones((filters, 1, 1, 1), np.float32))
            return self.node("Mul", self.node("Sub", weight, mean), gain)
        if kind.endswith("normalized"):  # as F.batch_norm of one image, whose channels are the filters
            lengths = (self.constant([n]) for n in (1, filters, math.prod(shape[1:])))
            flat = self.node("Reshape", weight, self.vector(*lengths))
            rows = [self.constant(np.ones(filters, np.float32))] * 4
            own = kind == "self-normalized" and self.way.opset >= 15
            trains = {"training_mode": 1, "momentum": 1.0, "outputs": 3} if own else {}
            normed = self.node("BatchNormalization", flat, *rows, **trains)
            return self.node("Reshape", normed[0] if own else normed, self.node("Shape", weight))
        return weight

    def conv(self, x, outputs, inputs, kernel):
        weight = self.weight(outputs, inputs, kernel, kernel)
        bias = self.constant(np.zeros(outputs, np.float32))
        return self.node("Conv", x, weight, bias, kernel_shape=[kernel] * 2, pads=[kernel // 2] * 4)

    def write(self):
        x = self.middle(self.conv("image", CHANNELS, 3, 3))
        x = self.node("GlobalAveragePool", self.conv(x, CHANNELS, CHANNELS, 1))
        flat = self.node("Reshape", x, self.node("Concat", self.length(x, 0), self.constant([-1]), axis=0))
        head = self.constant(self.random.normal(size=(CHANNELS, CLASSES)).astype(np.float32))
        return self.model(self.node("MatMul", flat, head))

    def model(self, logits):
        kinds = TensorProto.FLOAT, [self.way.batch, 3, SIDE, SIDE], [self.way.batch, CLASSES]
        image = helper.make_tensor_value_info("image", kinds[0], kinds[1])
        output = helper.make_tensor_value_info(logits, kinds[0], kinds[2])
        graph = helper.make_graph(self.nodes, "net", [image], [output], self.constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.way.opset)], ir_version=8)


def save(model, folder):
    path = folder / "net.onnx"
    onnx.save(model, path)
    return path


def run(model, batch):
    """All tensors that a graph computes."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    known = {value.name for value in model.graph.output}
    names = [name for node in model.graph.node for name in node.output if name and name not in known]
    model.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    images = np.random.default_rng(1).normal(size=(batch, 3, SIDE, SIDE)).astype(np.float32)
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, {"image": images}), strict=True))


@settings(max_examples=60)
@given(way=WAYS)
@example(way=Way("Reshape", lengths="sliced"))  # with allowzero
@example(way=Way("Slice", weights="self-normalized"))
def test_computed_shapes_and_weights_count_as_written_ones(way, tmp_path_factory):
    path = save(Writer(way).write(), tmp_path_factory.mktemp("net"))
    network = read_network(path)

    # Counted by hand: 4 filters of 3 x 3 x 3, 4 of 4, and 10 classes.
    shown = cnnx.show(path)
    assert shown.multiply_adds == 64 * 4 * 27 + math.prod(AFTER[way.op]) * 4 * 4 + 4 * CLASSES
    weighted = [row.parameters for row in shown.layers if row.op in ("Conv", "MatMul")]
    assert weighted == [4 * 27 + 4, 4 * 4 + 4, 4 * CLASSES]
    assert shown.layers[1:] == layers(network.model)

    # Every shape is the one that ONNX Runtime finds, and the values are the file's.
    batch = way.batch if isinstance(way.batch, int) else 1
    ran, types = run(network.model, batch), types_at(network.model, 1)
    assert {name: types[name].shape for name in ran} == {name: found.shape for name, found in ran.items()}
    for count in (batch,) if isinstance(way.batch, int) else (1, 2, 5):
        expected, found = (run(model, count)[network.logits] for model in (onnx.load(path), network.model))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)

    # Only what depends on the batch is left to compute.
    changing = {"image"}
    for node in network.model.graph.node:
        assert not changing.isdisjoint(node.input), node
        changing.update(node.output)
    kinds = {node.op_type for node in network.model.graph.node}
    assert not kinds & {"Shape", "Size"} or (way.op in OF_BATCH and way.batch == "batch")
    assert "Pad" not in kinds or way.op == "Pad"  # the padding of -inf is the pool's
    assert {name for node in network.model.graph.node for name in node.input} >= {
        tensor.name for tensor in network.model.graph.initializer
    }

    # What is exported is counted alike.
    simplify(network.model)
    assert sum(row.multiply_adds for row in layers(network.model)) == shown.multiply_adds


def finish(writer, x, folder):
    """A classifier that adds a tensor to its first feature map."""
    pooled = writer.node("GlobalAveragePool", writer.node("Add", writer.conv("image", CHANNELS, 3, 3), x))
    head = writer.constant(np.ones((CHANNELS, CLASSES), np.float32))
    logits = writer.node("MatMul", writer.node("Flatten", pooled, axis=1), head)
    return save(writer.model(logits), folder)


def test_a_shape_that_depends_on_pixels_is_refused_with_a_hint_that_helps(tmp_path):
    writer = Writer(Way("Slice"))
    where = writer.node("NonZero", writer.node("Greater", "image", writer.constant(np.float32(0))))
    furthest = writer.node("ReduceMax", writer.node("Cast", where, to=TensorProto.FLOAT), keepdims=0)
    with pytest.raises(GraphError, match="not fully known") as refusal:
        cnnx.show(finish(writer, furthest, tmp_path))
    assert "NonZero" in refusal.value.where and "values of the image" in refusal.value.hint


def test_nothing_vast_is_computed_to_learn_its_shape(monkeypatch, tmp_path):
    evaluate, computed = infer.evaluate, []

    def watched(node, *rest):
        computed.append(node.op_type)
        return evaluate(node, *rest)

    monkeypatch.setattr(infer, "evaluate", watched)
    writer = Writer(Way("Slice"))
    shape = writer.node("Concat", *(writer.constant([n]) for n in (1, CHANNELS, 1 << 12, 1 << 12)), axis=0)
    vast = writer.node("ReduceMean", writer.node("ConstantOfShape", shape), keepdims=0)
    rows = cnnx.show(finish(writer, vast, tmp_path)).layers
    assert "Concat" in computed and "ConstantOfShape" not in computed
    assert [row.output_shape for row in rows if row.op == "ConstantOfShape"] == [(CHANNELS, 1 << 12, 1 << 12)]
