"""What is kept of a builder's log, and what is refused of graphs and builds."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import pytest
from onnx import TensorProto, helper

from cnnx.errors import BuildFailed, GraphError, UsageError
from cnnx.runtimes import BuildRequest
from cnnx.runtimes.engine.network import (
    ParsedNetwork,
    check_precision,
    listed,
    make_log,
    parser_sentence,
    release_of,
    tells_no_memory,
    without_driver_noise,
)
from tests.doubles.imitated_trt import ImitatedBindings

LINES = [f"line {number}" for number in range(1, 8)]


def log():
    made = make_log(ImitatedBindings().loaded.trt)
    return made, ImitatedBindings().loaded.trt.ILogger


@pytest.mark.parametrize(
    ("count", "more"), [(0, ""), (1, ""), (5, ""), (6, "; and 1 more"), (7, "; and 2 more")]
)
def test_five_lines_are_listed_and_the_rest_counted(count, more):
    assert listed(LINES[:count]) == "; ".join(LINES[: min(count, 5)]) + more


def test_the_last_five_errors_are_told_and_the_last_300_lines_kept():
    made, severity = log()
    assert made.said() == "no reason was given" and made.tail() == made.skipped_tactics() == made.layers == ""
    for number in range(302):
        made.log(severity.INFO, f"message {number}")
    for kind, word in ((severity.ERROR, "error"), (severity.INTERNAL_ERROR, "internal")):
        for number in range(3):
            made.log(kind, f"{word} {number}")
    assert made.said() == "error 1; error 2; internal 0; internal 1; internal 2"
    lines = made.tail().splitlines()
    assert len(lines) == 300 and lines[-1].endswith(": internal 2") and lines[0].endswith(": message 8")
    made.log(severity.VERBOSE, "Layers:\na b c")
    assert made.layers == "Layers:\na b c\n" and "Layers" not in made.tail()
    made.log(SimpleNamespace(name="NOTED"), "words")
    assert made.tail().endswith("NOTED: words\n")
    made.clear()
    assert made.said() == "no reason was given" and made.tail() == made.layers == ""


def test_skipped_tactics_are_counted_in_warnings_with_the_largest():
    made, severity = log()
    made.log(severity.ERROR, "Skipping tactic 1")
    assert made.skipped_tactics() == ""
    made.log(severity.WARNING, "Some tactics do not have sufficient workspace memory to run.")
    assert made.skipped_tactics() == "1 tactic was skipped for lack of memory: the engine may be slower"
    made.log(severity.WARNING, "Tactic Device request: 448MB Available: 425MB. Skipping tactic 3")
    made.log(severity.WARNING, "Tactic Device request: 98 MB Available: 90 MB. Skipping tactic 4")
    assert made.skipped_tactics().startswith(
        "3 tactics were skipped for lack of memory (the largest needed 448 MB, 425 MB were free)"
    )
    made.clear()
    assert made.skipped_tactics() == ""


@pytest.mark.parametrize(
    ("text", "memory"),
    [
        ("Cuda Runtime (out of memory)", True),
        ("OutOfMemory", True),
        ("not enough memory", True),
        ("no", False),
    ],
)
def test_lack_of_memory_is_read_in_the_log_and_is_no_driver_noise(text, memory):
    assert tells_no_memory(text) == memory
    said = f"cudaError 35: {text}\nthe reason"
    assert without_driver_noise(said) == (said if memory else "the reason")


def graph(path: Path, *, inputs: int = 1, outputs: int = 1, shape=("n", 3, 4, 4)) -> Path:
    names = [f"x{number}" for number in range(inputs)]
    entries = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in names]
    nodes = [helper.make_node("Relu", names[:1] or [], [f"y{number}"]) for number in range(outputs)]
    results = [
        helper.make_tensor_value_info(f"y{number}", TensorProto.FLOAT, shape) for number in range(outputs)
    ]
    made = helper.make_graph(nodes, "graph", entries, results)
    path.write_bytes(helper.make_model(made, opset_imports=[helper.make_opsetid("", 19)]).SerializeToString())
    return path


@pytest.mark.parametrize(("inputs", "outputs"), [(2, 1), (1, 0)])
def test_a_graph_of_several_inputs_or_without_outputs_is_refused(tmp_path, inputs, outputs):
    file = graph(tmp_path / "g.onnx", inputs=inputs, outputs=outputs)
    with pytest.raises(GraphError, match=f"this graph has {inputs}, and {outputs} outputs"):
        ParsedNetwork(file, ImitatedBindings().loaded, product="TensorRT")


@pytest.mark.parametrize("shape", [("n", 3, "h", 4), (1, 3, 4, "w"), (2, "c", 4, 4)])
def test_a_size_that_varies_is_refused(tmp_path, shape):
    with pytest.raises(GraphError, match="only the batch may be dynamic"):
        ParsedNetwork(graph(tmp_path / "g.onnx", shape=shape), ImitatedBindings().loaded, product="TensorRT")


@pytest.mark.parametrize("first", ["n", 3])
def test_a_fixed_batch_is_built_for_one_size_and_a_free_one_for_a_range(tmp_path, first):
    file = graph(tmp_path / "g.onnx", shape=(first, 3, 4, 4), outputs=2)
    parsed = ParsedNetwork(file, ImitatedBindings().loaded, product="TensorRT")
    weak = ParsedNetwork(file, ImitatedBindings().loaded, product="TensorRT", strongly_typed=False)
    assert (parsed.network.strong, weak.network.strong) == (True, False)
    assert (parsed.input_name, parsed.dynamic) == ("x0", first == "n")
    assert parsed.input_shape == (-1 if first == "n" else 3, 3, 4, 4)
    assert len(parsed.config((3, 3, 3)).profiles) == (first == "n")
    if first == "n":
        parsed.config((1, 2, 4))
    else:
        with pytest.raises(UsageError, match="batches 1 to 4 were requested, but the graph's is fixed at 3"):
            parsed.config((1, 2, 4))


def test_wrong_types_are_refused_and_unseen_ones_remarked(tmp_path):
    request = BuildRequest(
        precision="int8", batch=(1, 1, 1), expected={"a": "int8", "b": "fp16", "c": "fp32"}
    )
    whole = dict(request.expected)
    arguments = {"file": tmp_path / "g.onnx", "target": "sm86"}
    assert check_precision(whole, request, **arguments) == []
    [remark] = check_precision({"a": "int8", "other": "fp32"}, request, **arguments)
    assert remark == "2 of 3 layers have no type in what the build reported, so it was not checked: b; c"
    for found, hint in (
        ({"c": "fp16"}, "narrows a single FP32 layer"),
        ({"a": "fp16"}, "check these layers"),
    ):
        with pytest.raises(BuildFailed, match=r"1 of 3 layers .* \(int8, sm86\): ") as refusal:
            check_precision(whole | found, request, evidence={"build.log": "x"}, **arguments)
        assert hint in refusal.value.hint and refusal.value.evidence == {"build.log": "x"}
    assert check_precision({}, dataclasses.replace(request, expected={}), **arguments) == []


@pytest.mark.parametrize(
    ("version", "release"),
    [
        ("1.7.1.116", (1, 7, 1)),
        ("10.3", (10, 3)),
        ("10.3.0rc1", (10, 3, 0)),
        (None, ()),
        ("", ()),
        ("so", ()),
    ],
)
def test_three_parts_of_a_version_must_match(version, release):
    assert release_of(version) == release


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ("Assertion failed: a::b(c) == d: Words: more\nothers", "Words: more"),
        ("Invalid Node - c\ncudaError 35\nThe real thing", "The real thing"),
        ("Invalid Node - c", "Invalid Node - c"),
        ("cudaError 35", "no reason given"),
        ("", "no reason given"),
        ("Plugin not found, are the name and version right?", "TensorRT does not support this operator"),
    ],
)
def test_of_a_parsers_message_the_sentence_that_helps_is_kept(said, sentence):
    assert parser_sentence(said) == sentence
