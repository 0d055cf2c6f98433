"""The canonical form of networks from elsewhere: one property over every way to write the same classifier."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from cnnx.errors import GraphError
from cnnx.graph import edit
from cnnx.graph.entry import read_network
from cnnx.graph.inspect import layers
from cnnx.graph.load import load_model, save_model
from cnnx.graph.simplify import simplify

SIDE, CLASSES = 8, 10


@dataclass(frozen=True)
class Way:
    """One way in which an exporter may write the classifier."""

    opset: int = 17
    ir: int = 8
    batch: object = "batch"
    listed: bool = False
    constant_nodes: bool = False
    half: bool = False
    layout: str = "nchw"
    pixels: bool = False
    pool: str = "plain"
    act: str = "relu"
    flatten: str = "flatten"
    end: str = "logits"
    others: tuple[str, ...] = ()
    names: str = "plain"


WAYS = st.builds(
    Way,
    opset=st.integers(7, onnx.defs.onnx_opset_version()),
    ir=st.integers(4, 12),
    batch=st.sampled_from(["batch", "", "N", 1, 2, 0, -1]),
    listed=st.booleans(),
    constant_nodes=st.booleans(),
    half=st.booleans(),
    layout=st.sampled_from(["nchw", "nhwc"]),
    pixels=st.booleans(),
    pool=st.sampled_from(["plain", "indices", "empty name", "infinite pad"]),
    act=st.sampled_from(["relu", "clip", "infinite clip", "dropout", "mask"]),
    flatten=st.sampled_from(["flatten", "view", "size", "rank 4"]),
    end=st.sampled_from(["logits", "softmax", "log softmax", "sigmoid"]),
    others=st.lists(
        st.sampled_from(["features", "embedding", "aux", "class id"]), unique=True, max_size=3
    ).map(tuple),
    names=st.sampled_from(["plain", "none", "equal", "hostile"]),
)


class Writer:
    """Writes the classifier node by node."""

    def __init__(self, way: Way) -> None:
        self.way, self.nodes, self.constants = way, [], []
        self.random = np.random.default_rng(0)
        self.float = np.float16 if way.half else np.float32

    def constant(self, name, values):
        tensor = numpy_helper.from_array(np.asarray(values), name)
        if self.way.constant_nodes:
            self.nodes.append(helper.make_node("Constant", [], [name], value=tensor))
        else:
            self.constants.append(tensor)
        return name

    def weight(self, name, *shape):
        values = self.random.normal(size=shape) / np.sqrt(np.prod(shape[1:]) or 1)
        return self.constant(name, values.astype(self.float))

    def node(self, op, inputs, *outputs, **attributes):
        number = len(self.nodes)
        name = {"plain": f"{op}_{number}", "none": "", "equal": "same"}.get(
            self.way.names, f"[/red]{op}]\n$x_{number} [ONNX Layer: \x1b[31m\u202e"
        )
        outputs = outputs or (f"t{number}",)
        self.nodes.append(helper.make_node(op, inputs, outputs, name, **attributes))
        return outputs[0]

    def input(self):
        way, x = self.way, "image"
        if way.pixels:
            x = self.node("Cast", [x], to=TensorProto.FLOAT)
            x = self.node("Mul", [x, self.constant("scale", np.float32(1 / 64))])
        if way.half:
            x = self.node("Cast", [x], to=TensorProto.FLOAT16)
        return self.node("Transpose", [x], perm=[0, 3, 1, 2]) if way.layout == "nhwc" else x

    def activation(self, x):
        way = self.way
        if "clip" in way.act and way.opset >= 11:
            high = np.inf if way.act.startswith("inf") else 6
            bounds = [self.constant("low", self.float(0)), self.constant("high", self.float(high))]
            return self.node("Clip", [x, *bounds])
        if way.act in ("dropout", "mask"):
            x = self.node("Dropout", [x], *(("dropped", "mask") if way.act == "mask" else ()))
        return self.node("Relu", [x])

    def pool(self, x):
        way, size = self.way, {"kernel_shape": [3, 3], "strides": [2, 2]}
        if way.pool == "infinite pad" and way.opset >= 11:
            pads = self.constant("pads", np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64))
            x = self.node("Pad", [x, pads, self.constant("low pad", self.float(-np.inf))])
            return self.node("MaxPool", [x], **size)
        outputs = {"indices": ("pooled", "where"), "empty name": ("pooled", "")}.get(way.pool, ())
        return self.node("MaxPool", [x], *(outputs if way.opset >= 8 else ()), pads=[1] * 4, **size)

    def flat(self, x):
        if self.way.flatten == "view":
            shape = self.constant("shape", np.array([0, -1], np.int64))
            return self.node("Reshape", [x, shape])
        if self.way.flatten == "size":
            batch = self.node("Gather", [self.node("Shape", [x]), self.constant("zero", np.int64(0))], axis=0)
            axes = {"axes": [0]} if self.way.opset < 13 else {}
            first = [] if axes else [self.constant("first", np.array([0], np.int64))]
            batch = self.node("Unsqueeze", [batch, *first], **axes)
            rest = self.constant("rest", np.array([-1], np.int64))
            return self.node("Reshape", [x, self.node("Concat", [batch, rest], axis=0)])
        return self.node("Flatten", [x], axis=1)

    def head(self, x):
        if self.way.flatten == "rank 4":
            x = self.node("Conv", [x, self.weight("head.weight", CLASSES, 16, 1, 1)])
            return self.node("GlobalAveragePool", [x])
        bias = self.constant("head.bias", np.zeros(CLASSES, self.float))
        return self.node("Gemm", [self.flat(x), self.weight("head.weight", CLASSES, 16 * 16), bias], transB=1)

    def write(self):
        way = self.way
        x = self.node("Conv", [self.input(), self.weight("stem.weight", 16, 3, 3, 3)], pads=[1] * 4)
        features = x = self.pool(self.activation(x))
        x = self.head(x)
        ops = {"softmax": "Softmax", "log softmax": "LogSoftmax", "sigmoid": "Sigmoid"}
        if way.end in ops:
            axis = {} if way.end == "sigmoid" else {"axis": 1}
            x = self.node(ops[way.end], [x], **axis)
        self.node("Cast", [x], "result", to=TensorProto.FLOAT)
        outputs = [(name, *self.other(name, features)) for name in way.others]
        outputs.append(("result", TensorProto.FLOAT, 4 if way.flatten == "rank 4" else 2))
        return self.model([self.described(*each) for each in outputs])

    def other(self, name, features):
        if name == "features":
            self.node("Cast", [features], name, to=TensorProto.FLOAT)
            return TensorProto.FLOAT, 4
        if name == "class id":
            source = "result" if self.way.flatten != "rank 4" else self.node("Flatten", ["result"], axis=1)
            self.node("ArgMax", [source], name, axis=1, keepdims=0)
            return TensorProto.INT64, 1
        flat = self.node("Flatten", [self.node("GlobalAveragePool", [features])], axis=1)
        width = CLASSES if name == "aux" else 24
        bias = self.constant(f"{name}.bias", np.zeros(width, self.float))
        x = self.node("Gemm", [flat, self.weight(f"{name}.weight", width, 16), bias], transB=1)
        self.node("Cast", [x], name, to=TensorProto.FLOAT)
        return TensorProto.FLOAT, 2

    def described(self, name, kind, rank):
        lengths = [self.way.batch, *[None] * (rank - 1)]
        return helper.make_tensor_value_info(name, kind, [length or None for length in lengths])

    def model(self, outputs):
        way = self.way
        spatial = [SIDE, SIDE, 3] if way.layout == "nhwc" else [3, SIDE, SIDE]
        kind = TensorProto.UINT8 if way.pixels else TensorProto.FLOAT
        image = helper.make_tensor_value_info("image", kind, [None, *spatial])
        if isinstance(way.batch, int):
            image.type.tensor_type.shape.dim[0].dim_value = way.batch
        else:
            image.type.tensor_type.shape.dim[0].dim_param = way.batch
        inputs = [image]
        if way.listed:
            inputs += [helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in self.constants]
        graph = helper.make_graph(self.nodes, "net", inputs, outputs, self.constants)
        return helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", way.opset)], ir_version=3 if way.listed else way.ir
        )


def save(way, folder):
    path = folder / "net.ONNX"
    path.write_bytes(Writer(way).write().SerializeToString())
    return path


def session(model):
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(model, options, ["CPUExecutionProvider"])


def run(model, images):
    opened = session(model)
    names = [value.name for value in opened.get_outputs()]
    return dict(zip(names, opened.run(None, {opened.get_inputs()[0].name: images}), strict=True))


def images_for(way):
    count = way.batch if isinstance(way.batch, int) and way.batch > 0 else 1
    random = np.random.default_rng(1)
    if way.pixels:
        return random.integers(0, 256, (count, 3, SIDE, SIDE)).astype(np.float32)
    return random.normal(size=(count, 3, SIDE, SIDE)).astype(np.float32)


@settings(max_examples=60)
@given(way=WAYS)
def test_any_way_to_write_a_classifier_becomes_the_canonical_form(way, tmp_path_factory):
    path = save(way, tmp_path_factory.mktemp("net"))
    network = read_network(path)
    model = network.model

    # The form that later passes assume.
    assert edit.opset(model) in (19, 20) and model.ir_version <= 10
    (image,) = model.graph.input
    assert image.type.tensor_type.elem_type == TensorProto.FLOAT
    batch = way.batch if isinstance(way.batch, int) and way.batch > 0 else "batch"
    assert edit.value_type(image).shape == (batch, 3, SIDE, SIDE) == network.input_shape
    assert edit.value_type(model.graph.output[0]) == edit.ValueType(TensorProto.FLOAT, (batch, CLASSES))
    assert network.logits == model.graph.output[0].name and network.classes == CLASSES
    assert {"result", *way.others} <= {value.name for value in model.graph.output} | {network.logits}
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names) and all(name.isprintable() for name in names)
    ops = {node.op_type for node in model.graph.node}
    assert not ops & {"Constant", "Shape", "Gather"}
    for tensor in model.graph.initializer:
        assert tensor.data_type in (TensorProto.FLOAT, TensorProto.INT64)
        assert np.isfinite(edit.array(tensor)).all()
    used = {name for node in model.graph.node for name in node.input} | {v.name for v in model.graph.output}
    assert all(
        node.output[0] in used and all(out in used for out in node.output[1:]) for node in model.graph.node
    )
    assert layers(model)  # all shapes are known

    # The same values as the file's, before and after simplification.
    given = images_for(way)
    own = given.transpose(0, 2, 3, 1) if way.layout == "nhwc" else given
    own = np.ascontiguousarray(own.astype(np.uint8) if way.pixels else own)
    reference = onnx.load(path)
    if way.batch in (0, -1):
        reference.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    if way.names == "equal":
        for node in reference.graph.node:
            node.name = ""
    reference.ir_version = min(reference.ir_version, 10)
    reference = onnx.version_converter.convert_version(reference, 22) if way.opset > 22 else reference
    expected = run(reference.SerializeToString(), own)
    for simplified in (False, True):
        if simplified:
            simplify(model)
        found = run(model.SerializeToString(), given)
        for name, values in expected.items():
            if name in found and values.dtype == np.float32:
                np.testing.assert_allclose(
                    found[name], values, rtol=2e-2 if way.half else 1e-4, atol=1e-2 if way.half else 1e-5
                )
        ranked = expected["result"].reshape(len(given), -1)
        logits = found[network.logits]
        if way.end in ("softmax", "log softmax"):
            exponential = np.exp(logits - logits.max(1, keepdims=True))
            probability = exponential / exponential.sum(1, keepdims=True)
            ranked = np.exp(ranked) if way.end == "log softmax" else ranked
            np.testing.assert_allclose(probability, ranked, atol=2e-3 if way.half else 1e-5)


def test_the_canonical_form_is_a_fixed_point(tmp_path):
    network = read_network(save(Way(end="softmax", others=("features",)), tmp_path))
    save_model(network.model, tmp_path / "again.onnx")
    assert read_network(tmp_path / "again.onnx", logits=network.logits).model == network.model
    assert load_model(tmp_path / "again.onnx") == network.model


def test_a_network_with_a_huge_tensor_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("cnnx.graph.entry.shapes.TENSOR_BYTES", 1000)
    with pytest.raises(GraphError, match="for one image") as refusal:
        read_network(save(Way(), tmp_path))
    assert "net.ONNX" in str(refusal.value.where)


def test_the_user_and_the_class_count_choose_among_outputs(tmp_path):
    path = save(Way(others=("embedding", "aux")), tmp_path)
    chosen = read_network(path)
    assert chosen.logits == "result" and "embedding (batch, 24)" in chosen.notes[-1]
    assert read_network(path, logits="aux").logits == "aux"
    assert read_network(path, classes=24).logits == "embedding"
    with pytest.raises(GraphError, match="no output 'nothing'") as refusal:
        read_network(path, logits="nothing")
    assert "--logits embedding" in refusal.value.hint
    with pytest.raises(GraphError, match=r"not logits of shape \(N, 7\)"):
        read_network(path, logits="aux", classes=7)


@pytest.mark.parametrize(
    ("change", "what", "hint"),
    [
        ("training norm", "BatchNormalization is in training mode", "model.eval()"),
        ("training dropout", "Dropout is in training mode", "model.eval()"),
        ("class ids", "no float output", "before ArgMax or TopK"),
        ("feature map", "no float output", "feature map"),
        ("feature map and a number", "no float output", "feature map"),
        ("a number", "no float output", "logits of shape (N, classes)"),
        ("unknown length", "no float output", "a fixed shape (N, classes)"),
        ("opset 6", "opset 6 is older than 7", "opset 19"),
        ("no height", "must be fixed and positive", "fixed image size"),
        ("two inputs", "one input, but this graph has 2", "one float32 input"),
        ("infinite weight", "NaN or infinity", "finite weights"),
    ],
)
def test_what_is_no_classifier_is_refused_with_a_hint_that_helps(change, what, hint, tmp_path):
    model = Writer(Way(opset=17, others=("class id", "features"))).write()
    graph = model.graph
    if change.startswith("training"):
        names = [f"n{index}" for index in range(4)]
        norm = helper.make_node("BatchNormalization", ["t0", *names], ["normed"], "norm", training_mode=1)
        drop = helper.make_node("Dropout", ["t0", "", "on"], ["normed"], "drop")
        graph.node.insert(1, norm if change.endswith("norm") else drop)
        edit.rename_input(graph.node[2:3], "t0", "normed")
        graph.initializer.extend(numpy_helper.from_array(np.ones(16, np.float32), name) for name in names)
        graph.initializer.append(numpy_helper.from_array(np.array(True), "on"))
    elif change in ("feature map and a number", "a number", "unknown length"):
        declared = {value.name: value for value in graph.output}
        if change == "unknown length":
            zero = numpy_helper.from_array(np.zeros(1, np.float32), "zero")
            graph.initializer.append(zero)
            graph.node.append(helper.make_node("ReduceMax", ["result"], ["most"], axes=[0], keepdims=0))
            graph.node.append(helper.make_node("Greater", ["most", "zero"], ["positive"]))
            graph.node.append(helper.make_node("Compress", ["result", "positive"], ["number"], axis=1))
        else:
            graph.node.append(helper.make_node("ReduceMax", ["result"], ["number"], axes=[1]))
        del graph.output[:]
        graph.output.append(helper.make_tensor_value_info("number", TensorProto.FLOAT, [None, None]))
        if change == "feature map and a number":
            graph.output.append(declared["features"])
    elif change in ("class ids", "feature map"):
        kept = "class id" if change == "class ids" else "features"
        outputs = [value for value in graph.output if value.name == kept]
        del graph.output[:]
        graph.output.extend(outputs)
    elif change == "opset 6":
        model.opset_import[0].version = 6
    elif change == "no height":
        graph.input[0].type.tensor_type.shape.dim[2].dim_value = -1
    elif change == "two inputs":
        graph.input.append(helper.make_tensor_value_info("second", TensorProto.FLOAT, [1]))
    else:
        weight = next(tensor for tensor in graph.initializer if tensor.name == "stem.weight")
        values = edit.array(weight).copy()
        values[0] = np.inf
        weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    path = tmp_path / "net.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(GraphError, match="(?s)" + what.replace("(", r"\(")) as refusal:
        read_network(path)
    assert refusal.value.exit_code == 3 and hint in refusal.value.hint


@pytest.mark.parametrize(
    ("shape", "nhwc"),
    [((3, 8, 3), False), ((8, 8, 3), True), ((8, 8, 1), True), ((5, 8, 8), False), ((1, 8, 3), False)],
)
def test_only_channels_of_an_image_at_the_end_and_nothing_like_them_in_front_are_nhwc(tmp_path, shape, nhwc):
    nodes = [
        helper.make_node("Flatten", ["image"], ["flat"], "flat"),
        helper.make_node("MatMul", ["flat", "weight"], ["logits"], "fc"),
    ]
    weight = np.random.default_rng(0).normal(size=(int(np.prod(shape)), 10)).astype(np.float32)
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", *shape])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 10])],
        [numpy_helper.from_array(weight, "weight")],
    )
    path = tmp_path / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    network = read_network(path)
    assert network.nhwc == nhwc
    image = np.random.default_rng(1).normal(size=(2, *shape)).astype(np.float32)
    given = image.transpose(0, 3, 1, 2) if nhwc else image
    assert network.input_shape[1:] == given.shape[1:]
    found = run(network.model.SerializeToString(), np.ascontiguousarray(given))[network.logits]
    np.testing.assert_allclose(found, image.reshape(2, -1) @ weight, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("read", ["indices", "parts", "values"])
def test_outputs_that_are_read_or_not_optional_stay(tmp_path, read):
    """The indices of a pool that are read, the last of three parts, and TopK with its values alone."""
    image, weight = "image", np.random.default_rng(0).normal(size=(64, CLASSES)).astype(np.float32)
    constants = {"weight": weight, "sizes": np.array([1, 1, 1]), "k": np.array([4])}
    if read == "indices":
        nodes = [
            helper.make_node("MaxPool", [image], ["pooled", "where"], "pool", kernel_shape=[1, 1]),
            helper.make_node("Cast", ["where"], ["places"], "cast", to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["places"], ["mean"], "mean", axes=[1]),
        ]
    elif read == "parts":
        nodes = [
            helper.make_node("Split", [image, "sizes"], ["red", "green", "mean"], "split", axis=1),
        ]
    else:
        nodes = [
            helper.make_node("TopK", [image, "k"], ["largest", "where"], "top", axis=3),
            helper.make_node("Concat", ["largest", "largest"], ["twice"], "twice", axis=3),
            helper.make_node("ReduceMean", ["twice"], ["mean"], "mean", axes=[1]),
        ]
    nodes += [
        helper.make_node("Flatten", ["mean"], ["flat"], "flat"),
        helper.make_node("MatMul", ["flat", "weight"], ["logits"], "fc"),
    ]
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info(image, TensorProto.FLOAT, ["n", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", CLASSES])],
        [numpy_helper.from_array(values, name) for name, values in constants.items() if name in used],
    )
    path = tmp_path / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    model, given = read_network(path).model, images_for(Way())
    assert len(model.graph.node[0].output) == len(nodes[0].output)
    expected = run(path.read_bytes(), given)["logits"]
    np.testing.assert_allclose(
        run(model.SerializeToString(), given)["logits"], expected, rtol=1e-4, atol=1e-4
    )


def test_attributes_that_later_became_inputs_are_constants(tmp_path):
    """Of opset 10: bounds, pads and axes, which onnx's converter writes as Constant nodes."""
    nodes = [
        helper.make_node("Clip", ["image"], ["a"], "clip", min=0.0, max=1.0),
        helper.make_node("Pad", ["a"], ["b"], "pad", pads=[0, 0, 1, 1, 0, 0, 1, 1], value=0.5),
        helper.make_node("ReduceMean", ["b"], ["c"], "mean", axes=[2, 3], keepdims=1),
        helper.make_node("Squeeze", ["c"], ["d"], "squeeze", axes=[2, 3]),
        helper.make_node("MatMul", ["d", "weight"], ["logits"], "fc"),
    ]
    weight = np.random.default_rng(0).normal(size=(3, CLASSES)).astype(np.float32)
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", CLASSES])],
        [numpy_helper.from_array(weight, "weight")],
    )
    path = tmp_path / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 10)], ir_version=4), path)
    model = read_network(path).model
    assert [node.op_type for node in model.graph.node] == ["Clip", "Pad", "ReduceMean", "Squeeze", "MatMul"]
    given = images_for(Way())
    expected = run(path.read_bytes(), given)["logits"]
    np.testing.assert_allclose(run(model.SerializeToString(), given)["logits"], expected, rtol=1e-5)


def test_a_weight_that_nothing_reads_is_dropped_whatever_it_holds(tmp_path):
    model = Writer(Way()).write()
    for name, value in (("unread", np.nan), ("negated", np.inf)):
        model.graph.initializer.append(numpy_helper.from_array(np.full(3, value, np.float32), name))
    model.graph.node.append(helper.make_node("Neg", ["negated"], ["nowhere"], "neg"))
    path = tmp_path / "net.onnx"
    onnx.save(model, path)
    assert read_network(path).model == read_network(save(Way(), tmp_path)).model


def test_a_batch_that_shapes_bake_in_is_fixed(tmp_path):
    model = Writer(Way(flatten="view")).write()
    shape = next(tensor for tensor in model.graph.initializer if tensor.name == "shape")
    shape.CopyFrom(numpy_helper.from_array(np.array([1, 256], np.int64), "shape"))
    path = tmp_path / "net.onnx"
    path.write_bytes(model.SerializeToString())
    network = read_network(path)
    assert network.input_shape[0] == 1 and "its shapes fix it at 1" in network.notes[0]


@pytest.mark.parametrize(("opset", "kept"), [(7, 20), (18, 20), (19, 19), (20, 20), (21, 20)])
def test_opsets_that_tensorrt_reads_are_kept_and_others_become_the_newest_of_them(tmp_path, opset, kept):
    assert edit.opset(read_network(save(Way(opset=opset), tmp_path)).model) == kept


@pytest.mark.parametrize(
    ("first", "second", "chosen"),
    [
        ("y", "z", "z"),  # the deeper one
        ("scores", "z", "scores"),  # named like logits
        ("y", "class_logits", "class_logits"),
        ("aux_logits", "z", "z"),  # named like something else
        ("y", "embedding", "y"),
        ("logits", "hidden_output", "logits"),
    ],
)
def test_the_logits_are_named_so_or_the_deepest_output(tmp_path, first, second, chosen):
    random = np.random.default_rng(0)
    weights = [random.normal(size=shape).astype(np.float32) for shape in ((192, 10), (10, 10))]
    nodes = [
        helper.make_node("Flatten", ["image"], ["flat"], "flat"),
        helper.make_node("MatMul", ["flat", "w0"], [first], "one"),
        helper.make_node("MatMul", [first, "w1"], [second], "other"),
    ]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 10]) for name in (first, second)]
    for order in (outputs, outputs[::-1]):
        graph = helper.make_graph(
            nodes,
            "net",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 8, 8])],
            order,
            [numpy_helper.from_array(values, f"w{index}") for index, values in enumerate(weights)],
        )
        path = tmp_path / "net.onnx"
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
        network = read_network(path)
        assert network.logits == chosen and "--logits NAME chooses" in network.notes[-1]
