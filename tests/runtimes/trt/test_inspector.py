"""The engine inspector's JSON, in the forms of TensorRT 10 and 11.

written/*.json are written by hand. Fields, types and names follow NVIDIA's page "Migrating IEngineInspector
Usage from TensorRT 10.x to 11.x" and TensorRT issues #2418, #4020 (Cask kernels, 8.5 and 10) and #4397
(Myelin, 10). In the form of 11, tensors ("Datatype", "Format") are as TensorRT for RTX 1.7.1 logs them.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnx.runtimes.kernels import types_of
from cnnx.runtimes.trt.inspector import parse_kernels

WRITTEN = Path(__file__).parent / "written"
FORMS = {form: (WRITTEN / f"inspector-{form}.json").read_text() for form in ("10", "11")}


def read(text):
    return types_of(parse_kernels(text))


@pytest.mark.parametrize("form", FORMS)
def test_both_forms_give_the_types_of_the_kernels_that_multiply(form):
    found = read(FORMS[form])
    assert {node: found[node] for node in ("conv1", "conv2", "fc")} == {
        "conv1": "fp16",
        "conv2": "int8",
        "fc": "int8",
    }


def test_a_kernel_that_only_moves_data_does_not_set_the_type_of_a_layer():
    """ "Reformatting CopyNode for Input Tensor 0 to cast_in + conv1 + relu1" has conv1 among its names."""
    only_the_copy = {"Layers": json.loads(FORMS["10"])["Layers"][:1]}
    assert read(json.dumps(only_the_copy)) == {}


def test_a_fused_name_stands_for_its_nodes_where_there_is_no_metadata():
    text = json.dumps(json.loads(FORMS["10"]), ensure_ascii=False)
    bare = json.loads(text)
    for layer in bare["Layers"]:
        layer.pop("Metadata")
    found = read(json.dumps(bare))
    assert (found["conv1"], found["conv2"], found["fc"]) == ("fp16", "int8", "int8")


@pytest.mark.parametrize("between", ["", "\\u001e", "\\u001f", "\x1e", "\x1f"])
def test_every_known_separator_of_nodes_in_the_metadata(between):
    """Joined, escaped, or with raw control characters, which strict JSON does not allow."""
    text = (
        '{"Layers": [{"Name": "k", "LayerType": "gemm", "Inputs": [{"Format/Datatype": "Int8"}], '
        f'"Metadata": "[ONNX Layer: a[0] x]{between}[ONNX Layer: /b/Conv]"}}]}}'
    )
    assert {node: kind for node, kind in read(text).items() if node != "k"} == {
        "a[0] x": "int8",
        "/b/Conv": "int8",
    }


def test_a_node_inside_a_foreign_node_is_not_found():
    """Only the first and last node of the range are named, so no type is assigned to any of them."""
    layer = {
        "Name": "{ForeignNode[conv1...fc]}",
        "LayerType": "Myelin",
        "Inputs": [{"Format/Datatype": "Half"}],
    }
    assert set(read(json.dumps({"Layers": [layer]}))).isdisjoint({"conv1", "conv2", "fc"})


@pytest.mark.parametrize(
    "words, kind",
    [
        ("Row major linear FP32", "fp32"),
        ("Float", "fp32"),
        ("Half", "fp16"),
        ("Channel major FP16 format where channel % 8 == 0", "fp16"),
        ("Thirty-two wide channel vectorized row major Int8 format.", "int8"),
        ("BFloat16", "bf16"),
    ],
)
def test_the_names_of_types(words, kind):
    layer = {"Name": "conv1", "LayerType": "CaskConvolution", "Inputs": [{"Format/Datatype": words}]}
    assert read(json.dumps({"Layers": [layer]})) == {"conv1": kind}


def test_a_type_that_depends_on_the_shape_is_not_known():
    """The inspector reports this without a context with shapes; no other input's type replaces it."""
    inputs = [{"Format/Datatype": "N/A due to dynamic shapes"}, {"Format/Datatype": "Half"}]
    assert (
        read(json.dumps({"Layers": [{"Name": "conv1", "LayerType": "CaskConvolution", "Inputs": inputs}]}))
        == {}
    )


def myelin(inputs, metadata, **more):
    layer = {
        "Name": "__myl_CastConv_layers_9_myl0_3",
        "LayerType": "fusion",
        "Inputs": [{"Name": "x", "Dimensions": [1, 8], "Format/Datatype": inputs}],
        "Metadata": metadata,
        **more,
    }
    return json.dumps({"Layers": [layer]})


def constants(*kinds):
    return [{"Dimensions": [64 // at], "Format/Datatype": kind} for at, kind in enumerate(kinds, start=1)]


@pytest.mark.parametrize(
    ("inputs", "nodes", "more", "found"),
    [
        # TensorRT #4397, with a cast or a quantization fused into the product.
        ("Float", ("x_fp16", "layers_9"), {}, None),
        ("Half", ("x.quantized", "layers_9"), {}, None),
        ("Float", ("x_fp16", "layers_9"), {"Constants": constants("Half", "Half")}, "fp16"),
        # The cast is not named; the largest constant is the weight.
        ("Float", ("layers_9", "act"), {"Constants": constants("Half", "Float")}, None),
        ("Float", ("layers_9", "act"), {"Constants": constants("Float", "Half")}, "fp32"),
        ("Float", ("layers_9",), {"Constants": constants("Half")}, None),
        ("Float", ("layers_9", "act"), {"Constants": constants("Half"), "LayerType": "CaskConv"}, "fp32"),
        ("Half", ("layers_9", "act"), {}, "fp16"),
        ("Int8", ("x.dequantized", "layers_9"), {}, "int8"),
    ],
)
def test_a_fused_kernel_of_myelin_has_a_type_only_where_that_follows(inputs, nodes, more, found):
    metadata = "\x1e".join(f"[ONNX Layer: {name}]" for name in nodes)
    assert read(myelin(inputs, metadata, **more)).get("layers_9") == found


def test_a_kernel_of_a_single_layer_has_the_type_of_its_data():
    layer = {
        "Name": "a",
        "LayerType": "fusion",
        "Inputs": [{"Type": "Float"}],
        "Constants": constants("Half"),
    }
    assert read(json.dumps({"Layers": [layer]})) == {"a": "fp32"}


@pytest.mark.parametrize(
    ("layer", "weight", "stored"),
    [
        ({"Weights": {"Type": "Int8"}, "Bias": {"Type": "Float"}}, "int8", ("int8", "fp32")),
        ({"Weights": {"Type": "Int8"}, "Constants": constants("Half")}, "int8", ("int8",)),
        ({"Weights": {"Type": "Odd"}, "Constants": constants("Half")}, "fp16", ("fp16",)),
        ({"Constants": [{"Type": "Half"}, {"Dimensions": [1], "Type": "Float"}]}, "fp32", ("fp16", "fp32")),
        ({"Constants": [{"Dimensions": ["n", 9], "Type": "Half"}, *constants("Int8")]}, "int8", None),
        (
            {"Constants": [{"Dimensions": [3], "Type": "Half"}, {"Dimensions": [2, 2], "Type": "Int8"}]},
            "int8",
            None,
        ),
        ({"Constants": [{"Type": "Half"}]}, "", ("fp16",)),
        ({"Constants": [{"Dimensions": [0], "Type": "Half"}]}, "", ("fp16",)),
        ({"Constants": ["odd", 3]}, "", ()),
        ({"Constants": "odd"}, "", ()),
        ({}, "", ()),
    ],
)
def test_the_weight_is_stated_or_the_largest_constant(layer, weight, stored):
    [found] = parse_kernels(json.dumps({"Layers": [{"Name": "a", "LayerType": "fusion", **layer}]}))
    assert found.weight == weight and (stored is None or found.constants == stored)


def test_int8_data_with_other_weights_is_not_int8():
    text = FORMS["10"].replace('"Type": "Int8",\n    "Count": 2304', '"Type": "Half",\n    "Count": 2304')
    assert text != FORMS["10"]
    assert read(text)["conv2"] == "int8 data, fp16 weights"


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"Layers": 3}', '{"Layers": ["conv1 + relu1"]}', '{"Layers": [{}]}', "Layers: x"],
)
def test_what_cannot_be_read_is_not_found(text):
    assert read(text) == {}


@given(st.text(max_size=80), st.integers(0, len(FORMS["10"])))
def test_damaged_text_raises_nothing(junk, at):
    read(FORMS["10"][:at] + junk + FORMS["10"][at:])
