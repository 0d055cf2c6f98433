import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from cnnx.errors import GraphError
from cnnx.graph.edit import skeleton, value_types
from cnnx.graph.load import fix_batch, input_shape, load_model, logits_name, normalise_version, save_model
from tests.inputs.graphs import Sketch, images, ops, plain, run


@pytest.fixture
def split(tmp_path: Path) -> Path:
    """A model with its weights in a file beside it."""
    path = tmp_path / "model.onnx"
    onnx.save_model(plain(), str(path), save_as_external_data=True, location="weights.bin", size_threshold=0)
    return path


def relocate(path: Path, location: str) -> None:
    model = onnx.load_model(str(path), load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    path.write_bytes(model.SerializeToString())


def write(model: onnx.ModelProto, tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_a_classifier_comes_back_as_it_was_saved(tmp_path):
    path = tmp_path / "model.onnx"
    save_model(plain(), path)
    model = load_model(path)
    assert model == plain()
    assert input_shape(model) == ("batch", 3, 12, 12)
    assert logits_name(model) == "logits"


def test_weights_beside_the_model_are_read_in(split):
    model = load_model(split)
    np.testing.assert_array_equal(run(model, images())["logits"], run(plain(), images())["logits"])
    assert not any(tensor.external_data for tensor in model.graph.initializer)


@pytest.mark.parametrize(
    "location", ["../weights.bin", "/etc/passwd", "", "a/../../weights.bin", "absent.bin"]
)
def test_weights_elsewhere_are_refused(split, location):
    relocate(split, location)
    with pytest.raises(GraphError, match="external data") as refusal:
        load_model(split)
    assert refusal.value.where.startswith(f"{split}, weight ") and refusal.value.hint


@pytest.mark.parametrize("kind", ["symlink", "hardlink", "folder", "fifo", "linked folder"])
def test_weights_that_are_no_plain_file_are_refused(split, kind, tmp_path):
    data = split.parent / "weights.bin"
    elsewhere = tmp_path.parent / f"{tmp_path.name}-elsewhere"
    elsewhere.mkdir()
    secret = elsewhere / "weights.bin"
    data.rename(secret)
    if kind == "symlink":
        data.symlink_to(secret)
    elif kind == "hardlink":
        os.link(secret, data)
    elif kind == "folder":
        data.mkdir()
    elif kind == "fifo":
        os.mkfifo(data)
    else:
        (split.parent / "sub").symlink_to(elsewhere)
        relocate(split, "sub/weights.bin")
    with pytest.raises(GraphError, match="external data"):
        load_model(split)


def test_a_short_weights_file_is_refused_before_it_is_read(split):
    data = split.parent / "weights.bin"
    data.write_bytes(data.read_bytes()[:-1])
    with pytest.raises(GraphError, match="bytes, the weight needs"):
        load_model(split)


@pytest.mark.parametrize(("key", "value"), [("offset", "-4"), ("length", "-4"), ("offset", "x")])
def test_an_offset_or_length_that_is_none_is_refused(split, key, value):
    model = onnx.load_model(str(split), load_external_data=False)
    for tensor in model.graph.initializer:
        kept = [entry for entry in tensor.external_data if entry.key != key]
        del tensor.external_data[:]
        tensor.external_data.extend([*kept, onnx.StringStringEntryProto(key=key, value=value)])
    split.write_bytes(model.SerializeToString())
    with pytest.raises(GraphError, match="external data") as refusal:
        load_model(split)
    assert refusal.value.where.startswith(f"{split}, weight ")


@settings(max_examples=60)
@given(cut=st.floats(0, 0.999), junk=st.binary(max_size=64))
def test_truncated_or_foreign_bytes_are_refused(tmp_path_factory, cut, junk):
    whole = plain().SerializeToString()
    path = tmp_path_factory.mktemp("cut") / "model.onnx"
    for content in (whole[: int(len(whole) * cut)], junk):
        path.write_bytes(content)
        with pytest.raises(GraphError) as refusal:
            load_model(path)
        assert refusal.value.exit_code == 3 and refusal.value.where == str(path) and refusal.value.hint


@pytest.mark.parametrize(
    ("size", "said"),
    [
        (0, "has 0 bytes"),
        (2**31, "has 2,147,483,648 bytes; files of 1 byte to 2 GiB"),
        (None, "contains no ONNX graph"),
    ],
)
def test_a_file_without_a_graph_or_too_large_for_one_is_refused(tmp_path, size, said):
    path = write(onnx.ModelProto(ir_version=10, producer_name="a test"), tmp_path)
    if size is not None:
        os.truncate(path, size)
    with pytest.raises(GraphError, match=said) as refusal:
        load_model(path)
    assert refusal.value.where == str(path)
    assert ("export a smaller model" in refusal.value.hint) == (size == 2**31)


def test_nodes_without_an_operator_set_are_no_graph(tmp_path):
    model = plain()
    del model.opset_import[:]
    with pytest.raises(GraphError, match="contains no ONNX graph"):
        load_model(write(model, tmp_path))


def test_a_model_of_the_largest_size_is_saved_and_a_larger_one_is_refused(tmp_path, monkeypatch):
    path, size = tmp_path / "model.onnx", plain().ByteSize()
    monkeypatch.setattr("cnnx.graph.load._LIMIT", size - 1)
    with pytest.raises(GraphError, match="can hold only 2 GiB") as refusal:
        save_model(plain(), path)
    assert refusal.value.where == str(path) and not path.exists()
    monkeypatch.setattr("cnnx.graph.load._LIMIT", size)
    save_model(plain(), path)
    assert load_model(path) == plain()


def test_external_weights_of_the_largest_size_together_are_read_and_larger_ones_are_refused(
    split, monkeypatch
):
    size = sum(len(tensor.raw_data) for tensor in plain().graph.initializer)
    monkeypatch.setattr("cnnx.graph.load._LIMIT", size)
    assert len(load_model(split).graph.initializer) == len(plain().graph.initializer)
    monkeypatch.setattr("cnnx.graph.load._LIMIT", size - 1)
    with pytest.raises(GraphError, match="the external weights have"):
        load_model(split)


def test_a_fixed_batch_is_that_of_the_input_and_the_outputs():
    model = plain()
    fix_batch(model, 5)
    onnx.checker.check_model(model, full_check=True)
    assert input_shape(model) == (5, 3, 12, 12) and value_types(model)["logits"].shape == (5, 10)
    assert run(model, images(5))["logits"].shape == (5, 10)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(GraphError, match="does not exist"):
        load_model(tmp_path / "absent.onnx")


@pytest.mark.parametrize(("op", "domain"), [("Frobnicate", ""), ("Relu", "com.acme")])
def test_an_operator_nobody_knows_is_named_with_its_node(tmp_path, op, domain):
    model = plain()
    model.graph.node[1].op_type, model.graph.node[1].domain = op, domain
    path = write(model, tmp_path)
    with pytest.raises(GraphError, match=op) as refusal:
        load_model(path)
    assert refusal.value.where == f"{path}, node relu1" and refusal.value.hint


def test_a_node_without_a_name_is_named_after_its_operator_and_output(tmp_path):
    model = plain()
    relu = model.graph.node[1]
    relu.op_type, relu.name = "Frobnicate", ""
    with pytest.raises(GraphError) as refusal:
        load_model(write(model, tmp_path))
    assert refusal.value.where.endswith(", node Frobnicate -> relu1")
    relu.op_type = "Relu"
    del relu.output[:]
    with pytest.raises(GraphError, match="the node has no output") as refusal:
        load_model(write(model, tmp_path))
    assert refusal.value.where.endswith(", node Relu -> ?")


def test_an_output_of_class_numbers_is_not_taken_for_the_logits():
    s = Sketch()
    model = s.classify(s.node("GlobalAveragePool", [s.conv("input", "conv", 3, 8)], "gap"), 8)
    model.graph.node.append(helper.make_node("ArgMax", ["logits"], ["class"], name="class", axis=1))
    model.graph.output.insert(0, helper.make_tensor_value_info("class", TensorProto.INT64, ["batch", 1]))
    assert logits_name(model) == "logits"


def test_control_flow_is_refused(tmp_path):
    s = Sketch()
    branch = helper.make_graph(
        [helper.make_node("Identity", ["input"], ["same"])],
        "branch",
        [],
        [helper.make_tensor_value_info("same", TensorProto.FLOAT, None)],
    )
    flag = s.constant("flag", np.array(True))
    x = s.node("If", [flag], "choice", then_branch=branch, else_branch=branch)
    with pytest.raises(GraphError, match="control flow"):
        load_model(write(s.classify(x, 432), tmp_path))


@pytest.mark.parametrize(
    "fault",
    ["two inputs", "rank 3", "float16", "free height", "no height", "no logits", "nan", "short"],
)
def test_what_is_no_classifier_is_refused(tmp_path, fault):
    model = plain()
    shape = model.graph.input[0].type.tensor_type.shape
    if fault == "two inputs":
        model.graph.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, [1]))
    elif fault == "rank 3":
        del shape.dim[0]
    elif fault == "float16":
        model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    elif fault == "no height":
        shape.dim[2].dim_value = 0
    elif fault == "free height":
        shape.dim[2].dim_param = "height"
    elif fault == "no logits":
        model.graph.output[0].CopyFrom(helper.make_tensor_value_info("gap", TensorProto.FLOAT, None))
    elif fault == "nan":
        model.graph.initializer[1].raw_data = np.full(16, np.nan, np.float32).tobytes()
    else:
        model.graph.initializer[0].raw_data = model.graph.initializer[0].raw_data[:-4]
    path = write(model, tmp_path)
    with pytest.raises(GraphError) as refusal:
        load_model(path)
    assert refusal.value.where.startswith(str(path)) and refusal.value.hint


@pytest.mark.parametrize(
    ("fault", "location", "said"),
    [
        ("unsorted", "node pool1", "nowhere"),
        ("unknown attribute", "node conv1", "Unrecognized attribute: unknown"),
        ("missing input", "node conv1", "input size 1"),
        ("other classes", "node fc", "77"),
        ("no such output", "graph sketch", "other"),
        ("no output", "node relu1", "no output"),
    ],
)
def test_an_invalid_graph_is_refused_with_the_file_and_the_node(tmp_path, fault, location, said):
    model = plain()
    conv, relu, pool = model.graph.node[:3]
    if fault == "unsorted":
        pool.input[0] = "nowhere"
    elif fault == "unknown attribute":
        conv.attribute.append(helper.make_attribute("unknown", 1))
    elif fault == "missing input":
        del conv.input[1:]
    elif fault == "other classes":
        model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 77
    elif fault == "no such output":
        model.graph.output[0].name = "other"
    else:
        del relu.output[:]
    path = write(model, tmp_path)
    with pytest.raises(GraphError) as refusal:
        load_model(path)
    assert refusal.value.where == f"{path}, {location}" and refusal.value.hint
    assert said in refusal.value.what and "\n" not in refusal.value.what


def test_pixels_are_an_input_only_where_they_are_expected():
    model = plain()
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    assert input_shape(model, raw=True) == input_shape(plain(), raw=True) == ("batch", 3, 12, 12)
    with pytest.raises(GraphError, match="should be float32"):
        input_shape(model)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_value_of_a_weight_that_is_not_finite_is_enough(tmp_path, dtype, value):
    model = plain()
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(0, dtype), "none"))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([-1, value, 1], dtype), "bad"))
    path = write(model, tmp_path)
    with pytest.raises(GraphError, match="NaN or infinity") as refusal:
        load_model(path)
    assert refusal.value.where == f"{path}, weight bad" and refusal.value.hint


@pytest.mark.parametrize("version", [13, 17, 18, 20, 21, 22, 23])
def test_every_accepted_operator_set_can_be_brought_to_one(version):
    model = plain()
    model.opset_import[0].version = version
    model.ir_version = 11
    normalise_version(model)
    assert (model.opset_import[0].version, model.ir_version) == (19, 10)
    np.testing.assert_allclose(run(model, images())["logits"], run(plain(), images())["logits"], atol=1e-6)


def test_a_version_that_the_converter_cannot_reach_is_refused():
    with pytest.raises(GraphError, match="cannot be converted to 13"):
        normalise_version(plain(), 13)


def test_nodes_without_names_are_called_after_their_weights(tmp_path):
    model = plain()
    for node in model.graph.node:
        node.name = ""
    loaded = load_model(write(model, tmp_path))
    assert [node.name for node in loaded.graph.node][:3] == ["conv1", "Relu_relu1", "MaxPool_pool1"]


def test_local_functions_are_inlined(tmp_path):
    model = plain()
    model.graph.node[1].op_type, model.graph.node[1].domain = "Positive", "here"
    model.opset_import.append(helper.make_opsetid("here", 1))
    body = [helper.make_node("Relu", ["x"], ["y"])]
    model.functions.append(
        helper.make_function("here", "Positive", ["x"], ["y"], body, [helper.make_opsetid("", 19)])
    )
    assert ops(load_model(write(model, tmp_path))) == ops(plain())


def test_checks_and_types_do_not_carry_the_weights_along():
    s = Sketch()
    model = s.classify(s.conv("input", "conv", 3, 64), 64 * 144, classes=500)
    bones = skeleton(model)
    assert model.ByteSize() > 18_000_000 and bones.ByteSize() < 20_000
    assert value_types(model)["conv.weight"].shape == (64, 3, 3, 3)
    assert value_types(model)["logits"].shape == ("batch", 500)
