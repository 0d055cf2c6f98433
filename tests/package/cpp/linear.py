"""Bundles of a linear classifier, which ONNX Runtime runs, and which the stand-in of TensorRT runs too."""

from __future__ import annotations

import dataclasses
import struct

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from cnnx.bundle import Bundle
from cnnx.bundle.engine import Engine
from cnnx.bundle.manifest import TensorInfo
from cnnx.bundle.reference import Reference
from cnnx.bundle.sealed import write_sealed
from cnnx.bundle.writing import seal
from cnnx.data.normalize import normalize
from cnnx.machine.environment import detect
from cnnx.preprocessing import Preprocessing
from cnnx.store.digests import digest_of_file
from tests.inputs.bundles import manifest

CLASSES, CROP, FRAME = 7, (10, 12), (20, 24)
NAMES = ("cat", "dog", "größer", "bird", "fish", "horse", "two words")
PREPROCESSING = Preprocessing(resize=14, interpolation="bicubic")


def weights(values, seed=0):
    random = np.random.default_rng(seed)
    matrix = random.normal(size=(CLASSES, values)).astype(np.float32) / np.float32(np.sqrt(values))
    return matrix, random.normal(size=CLASSES).astype(np.float32)


def network_input(crops, preprocessing, form):
    """Crops as the graph takes them, by this test's own arithmetic."""
    if form == "float32-nchw":
        return normalize(crops, preprocessing)
    kind, _, frame = form.partition(":")
    _, layout, *order = kind.split("-")
    if frame:
        crops = crops.repeat(2, axis=1).repeat(2, axis=2)
    if order and order[0] != preprocessing.color:
        crops = crops[..., ::-1]
    return np.ascontiguousarray(crops.transpose(0, 3, 1, 2) if layout == "nchw" else crops)


def graph(form, shape):
    """The classifier as an ONNX graph; of a frame it takes every other pixel."""
    raw, framed, values = form.startswith("uint8"), ":" in form, int(np.prod(shape[1:]))
    if framed:
        values //= 4
    matrix, bias = weights(values)
    nodes, last = [], "input"
    constants = {"w": matrix, "b": bias}
    if raw:
        nodes.append(helper.make_node("Cast", [last], ["float"], to=TensorProto.FLOAT))
        last = "float"
    if framed:
        axes = [1, 2] if "nhwc" in form else [2, 3]
        constants |= {
            "starts": np.array([0, 0]),
            "ends": np.array(FRAME),
            "axes": np.array(axes),
            "steps": np.array([2, 2]),
        }
        nodes.append(helper.make_node("Slice", [last, "starts", "ends", "axes", "steps"], ["taken"]))
        last = "taken"
    nodes.append(helper.make_node("Flatten", [last], ["flat"]))
    nodes.append(helper.make_node("Gemm", ["flat", "w", "b"], ["logits"], transB=1))
    kind = TensorProto.UINT8 if raw else TensorProto.FLOAT
    made = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("input", kind, ["N", *shape[1:]])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", CLASSES])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def logits_of(inputs, matrix, bias):
    """Logits in double precision, rounded at the end, as the stand-in computes them."""
    flat = inputs.reshape(len(inputs), -1).astype(np.float64)
    return (flat @ matrix.T.astype(np.float64) + bias).astype(np.float32)


def linear_bundle(
    folder,
    preprocessing=PREPROCESSING,
    form="float32-nchw",
    *,
    precision="int8",
    images=120,
    noise=0.01,
    recipe=None,
    **changes,
):
    """Write a bundle; `changes` replace fields of its manifest, and `recipe` tables of its recipe."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(1)
    channels = 1 if preprocessing.color == "gray" else 3
    crops = random.integers(0, 256, (images, *CROP, channels), dtype=np.uint8)
    inputs = network_input(crops, preprocessing, form)
    shape = [None, *inputs.shape[1:]]
    matrix, bias = weights(int(np.prod(inputs.shape[1:])) // (4 if ":" in form else 1))
    logits = logits_of(network_input(crops, preprocessing, form.partition(":")[0]), matrix, bias)
    spread = noise * logits.std()
    original = (logits + random.normal(size=logits.shape) * spread).astype(np.float32)
    onnx.save(graph(form, shape), folder / "model.onnx")
    (folder / "calibration.json").write_text("{}")
    for name in ("source.onnx", "source-statistics.npz", "source-scales.json"):
        (folder / name).write_text("of no use to the program, which checks its digest")
    (folder / "labels.txt").write_text("\n".join(NAMES) + "\n", encoding="utf-8")
    ids = tuple(f"{i}.png" for i in range(images))
    Reference(crops, original, logits, None, ids, ("ab" * 32,)).save(folder / "reference.npz")
    stated = {
        "name": "linear",
        "model": {"definition": "linear", "classes": CLASSES},
        "input": {"shape": [channels, *CROP], "name": "input"},
        "preprocessing": dataclasses.asdict(preprocessing),
        **(recipe or {}),
    }
    if form != "float32-nchw":
        stated["input"] = {**stated["input"], "format": form}
    raw, nhwc = form.startswith("uint8"), "nhwc" in form
    info = TensorInfo("input", "uint8" if raw else "float32", tuple(shape), "NHWC" if nhwc else "NCHW")
    fields = {
        "name": "linear",
        "precision": precision,
        "recipe": stated,
        "inputs": (info,),
        "outputs": (TensorInfo("logits", "float32", (None, CLASSES), "NC"),),
        "batch": (1, 64),
        "classes": CLASSES,
        **changes,
    }
    seal(folder, dataclasses.replace(manifest(), **fields))
    return folder


def plan(
    inputs="input input float 4 -1 3 10 12",
    *,
    batch=(2, 8),
    matrix=None,
    bias=None,
    extra="output aux half 2 -1 5",
    outputs="output logits float 2 -1 7",
    release=(10, 3, 0, 26),
    product=b"ftrt",
):
    """An engine file for the stand-in of TensorRT (standin/nvinfer.cpp)."""
    matrix, bias = weights(360) if matrix is None else (matrix, bias)
    head = product + bytes(20) + bytes(release)
    text = (
        f"{inputs}\n{extra}\n{outputs}\nbatch {batch[0]} {batch[1]}\nlinear {len(bias)} {matrix.shape[1]}\n\n"
    )
    return head + text.encode() + struct.pack(f"<{matrix.size + len(bias)}f", *matrix.ravel(), *bias)


def add_engine(bundle, content, identity="tensorrt-10.3.0-sm87", **changes):
    """Add an engine to a bundle, as a build does."""
    folder = bundle / "engines" / identity
    folder.mkdir(parents=True)
    (folder / "model.engine").write_bytes(content)
    opened = Bundle.open(bundle, verify=False)
    engine = Engine(
        identity=identity,
        file="model.engine",
        digest=digest_of_file(folder / "model.engine"),
        runtime="tensorrt",
        runtime_version="10.3.0",
        target="",
        precision=opened.manifest.precision,
        graph_digest=opened.manifest.files["model.onnx"],
        layer_types={},
        environment=detect().as_dict(),
    )
    write_sealed(folder / "engine.json", dataclasses.asdict(dataclasses.replace(engine, **changes)))
    return identity
