"""Real builds with TensorRT for RTX, which need no GPU; tests/gpu runs the engines."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from cnnx import runtimes
from cnnx.errors import BuildFailed, GraphError, UsageError
from cnnx.runtimes import BuildRequest
from cnnx.runtimes.engine.network import parser_sentence, release_of

RTX = runtimes.get("rtx")
MISSING = RTX.missing()
needs_rtx = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))
LAYERS = ("conv1", "conv2", "fc")


def request(kind, **more):
    return BuildRequest(kind, dict.fromkeys(LAYERS, kind), **{"compute_capabilities": (86,), **more})


@needs_rtx
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_every_layer_is_of_the_type_the_graph_gives_it(net, precision, capfd):
    (built,) = RTX.build(net(precision), request(precision))
    assert built.layer_types == dict.fromkeys(LAYERS, precision)
    assert built.identity == "rtx-" + ".".join(built.runtime_version.split(".")[:3]) + "-sm86"
    assert (built.target, built.file_name, built.runtime) == ("sm86", "model.engine", "rtx")
    assert len(built.plan) > 10_000
    assert capfd.readouterr() == ("", "")


@needs_rtx
def test_one_engine_for_each_compute_capability(net):
    path = net("int8", batch="N")
    built = RTX.build(path, request("int8", compute_capabilities=(86, 120), batch=(1, 2, 8)))
    assert [engine.target for engine in built] == ["sm86", "sm120"]
    assert built[0].plan != built[1].plan


@needs_rtx
def test_a_graph_of_less_precision_than_asked_fails_naming_each_layer(net):
    with pytest.raises(BuildFailed) as caught:
        RTX.build(net("fp16"), request("int8"))
    assert "3 of 3 layers" in caught.value.what
    assert all(f"{name}: fp16 instead of int8" in caught.value.what for name in LAYERS)


@needs_rtx
def test_a_layer_that_is_not_there_is_remarked(net):
    asked = BuildRequest("int8", {"conv1": "int8", "conv9": "int8"}, compute_capabilities=(86,))
    (built,) = RTX.build(net("int8"), asked)
    assert built.layer_types == {"conv1": "int8"} and "1 of 2 layers have no type" in built.remarks[0]
    assert "LayerType: " in built.evidence["layers.log"] and built.evidence["build.log"]


def zero_point(model):
    next(w for w in model.graph.initializer if w.name == "relu1_y_z").CopyFrom(
        numpy_helper.from_array(np.array(3, np.int8), "relu1_y_z")
    )


def unknown_operator(model):
    next(node for node in model.graph.node if node.name == "relu2").op_type = "Nope"


def mixed_types(model):
    bias = next(w for w in model.graph.initializer if w.name == "conv2_b")
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias).astype(np.float32), "conv2_b"))


@needs_rtx
@pytest.mark.parametrize(
    "harm, words",
    [
        (zero_point, r"node 'relu1_y_quant' \(QuantizeLinear\): Non-zero zero point is not supported"),
        (unknown_operator, r"node 'relu2' \(Nope\): TensorRT does not support this operator"),
        (mixed_types, r"node 'conv2' \(Conv\): .*same type"),
    ],
)
def test_parser_errors_name_node_and_operator(net, harm, words):
    path = net("int8")
    model = onnx.load(path)
    harm(model)
    onnx.save(model, path)
    with pytest.raises(BuildFailed, match=words) as caught:
        RTX.build(path, request("int8"))
    assert "cudaError" not in str(caught.value)


@needs_rtx
def test_a_file_that_is_not_a_graph(tmp_path):
    """The parser accepts the text "hello" as an empty network."""
    path = tmp_path / "text.onnx"
    with pytest.raises(GraphError, match="no such file"):
        RTX.build(path, request("fp32"))
    path.write_text("hello")
    with pytest.raises(GraphError, match="this graph has 0"):
        RTX.build(path, request("fp32"))


@needs_rtx
@pytest.mark.parametrize("capability", [87, 90, 110])
def test_unknown_compute_capabilities(net, capability):
    with pytest.raises(UsageError, match="75, 80, 86, 89, 120, 121") as caught:
        RTX.build(net(), request("fp32", compute_capabilities=(86, capability)))
    assert str(capability) in caught.value.what
    assert "Jetson" in caught.value.what


@needs_rtx
def test_requests_that_contradict_the_graph_or_the_machine(net):
    with pytest.raises(UsageError, match="fixed at 1"):
        RTX.build(net("fp32", batch=1), request("fp32", batch=(1, 4, 8)))
    with pytest.raises(BuildFailed, match="MIN<=OPT<=MAX"):
        RTX.build(net("fp32", batch="N"), request("fp32", batch=(4, 2, 8)))
    if RTX.cannot_run() is not None:
        with pytest.raises(UsageError, match="--sm 86"):
            RTX.build(net(), request("fp32", compute_capabilities=()))


@needs_rtx
def test_a_dynamic_size_besides_the_batch_is_refused(net):
    path = net("fp32", batch="N")
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "H"
    onnx.save(model, path)
    with pytest.raises(GraphError, match="only the batch may be dynamic"):
        RTX.build(path, request("fp32"))


@needs_rtx
def test_an_fp32_layer_narrowed_between_casts_is_caught(tmp_path):
    """TensorRT for RTX 1.7.1 turns Cast, Conv, Cast with FP32 weights into one FP16 kernel, unless the
    activation is in the FP32 part. If this fails, the library was fixed: drop the hint in network.py."""

    def island(activation: bool):
        rng = np.random.default_rng(0)
        weight = numpy_helper.from_array(rng.standard_normal((64, 64, 3, 3)).astype(np.float32), "w")
        nodes = [
            helper.make_node("Cast", ["input"], ["half"], name="to_half", to=TensorProto.FLOAT16),
            helper.make_node("Relu", ["half"], ["r"], name="before"),
            helper.make_node("Cast", ["r"], ["wide"], name="widen", to=TensorProto.FLOAT),
            helper.make_node("Conv", ["wide", "w"], ["c"], name="island", pads=[1] * 4),
            *([helper.make_node("Relu", ["c"], ["cr"], name="after")] if activation else []),
            helper.make_node(
                "Cast", ["cr" if activation else "c"], ["n"], name="narrow", to=TensorProto.FLOAT16
            ),
            helper.make_node("Cast", ["n"], ["logits"], name="out", to=TensorProto.FLOAT),
        ]
        ends = [
            helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 64, 32, 32]) for n in ("input", "logits")
        ]
        graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [weight])
        onnx.save(
            helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=10),
            tmp_path / "island.onnx",
        )
        asked = BuildRequest("fp16", {"island": "fp32"}, compute_capabilities=(86,))
        return RTX.build(tmp_path / "island.onnx", asked)

    with pytest.raises(BuildFailed, match="island: fp16 instead of fp32") as caught:
        island(activation=False)
    assert "activation" in caught.value.hint
    assert island(activation=True)[0].layer_types == {"island": "fp32"}


def test_releases_are_compared_as_numbers():
    assert release_of("1.7.1.116") == release_of("1.7.1") == (1, 7, 1)
    assert release_of("1.10.0") > release_of("1.7.1")
    assert release_of(None) == release_of("so") == ()


def test_a_parser_message_is_stripped_of_code_and_driver_noise():
    noise = "[x] Error Code 1: Cuda Runtime (cudaError 35: CUDA driver version is insufficient)"
    assert parser_sentence(f"Invalid Node - c\n{noise}\nThe real thing") == "The real thing"
    assert parser_sentence("Assertion failed: a::b(c) == d: Words: more") == "Words: more"
    assert parser_sentence(noise) == "no reason given"
