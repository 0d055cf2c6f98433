import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from cnnx.errors import GraphError
from cnnx.graph.constants import constants_to_initializers, fold_constants
from cnnx.graph.simplify import Pass, run_pass, simplify
from tests.inputs.graphs import GRAPHS, Sketch, images, ops, run


def norm_of(sketch, channels):
    """A BatchNormalization's constants."""
    return [
        sketch.constant(f"bn.{n}", np.random.default_rng(i).uniform(0.5, 2, channels).astype(np.float32))
        for i, n in enumerate(("scale", "bias", "mean", "var"))
    ]


def cluttered(*, keepdims: int = 1, shared_norm: bool = False):
    """Everything a pass takes out, in one graph."""
    s = Sketch()
    x = s.conv("input", "conv", 3, 8)
    y = s.node("BatchNormalization", [x, *norm_of(s, 8)], "bn", epsilon=1e-3)
    if shared_norm:
        y = s.node("Add", [y, x], "before_and_after")
    x = s.node("Identity", [y], "same")
    x = s.node("Dropout", [x], "drop")
    x = s.node("Cast", [x], "cast", to=TensorProto.FLOAT)
    x = s.node("AveragePool", [x], "unit_pool", kernel_shape=[1, 1], strides=[1, 1])
    x = s.node("ReduceMean", [x, s.constant("axes", np.array([-1, -2]))], "mean", keepdims=keepdims)
    s.node("Relu", [x], "dead")
    s.constant("unused", np.zeros(3, np.float32))
    s.nodes.append(
        helper.make_node(
            "Constant", [], ["shape"], name="shape", value=numpy_helper.from_array(np.array([-1, 8]))
        )
    )
    return s.classify(s.node("Reshape", [x, "shape"], "reshape"), 8)


@pytest.mark.parametrize("keepdims", [0, 1])
def test_clutter_goes_and_the_logits_stay(keepdims):
    model = cluttered(keepdims=keepdims)
    before = run(model, images())["logits"]
    counts = simplify(model)
    assert ops(model) == ["Conv", "GlobalAveragePool", "Flatten", "Gemm"]
    assert {t.name for t in model.graph.initializer} == {"conv.weight", "conv.bias", "fc.weight", "fc.bias"}
    np.testing.assert_allclose(run(model, images())["logits"], before, atol=1e-5)
    assert counts["fold_batch_norms"] == 1
    assert not any(simplify(model).values())


@pytest.mark.parametrize("given_out", [False, True])
def test_a_norm_whose_input_is_read_elsewhere_is_not_folded(given_out):
    model = cluttered(shared_norm=not given_out)
    if given_out:
        shape = ["batch", 8, 12, 12]
        model.graph.output.append(helper.make_tensor_value_info("conv", TensorProto.FLOAT, shape))
    before = run(model, images())
    simplify(model)
    assert "BatchNormalization" in ops(model)
    for name, values in run(model, images()).items():
        np.testing.assert_allclose(values, before[name], atol=1e-5)


@pytest.mark.parametrize("trans", [0, 1])
@pytest.mark.parametrize("bias", [True, False])
def test_a_norm_behind_a_linear_layer_is_folded_into_it(trans, bias):
    s = Sketch()
    flat = s.node("Flatten", [s.node("GlobalAveragePool", [s.conv("input", "conv", 3, 8)], "gap")], "flat")
    weight = s.weight("hidden.weight", *((6, 8) if trans else (8, 6)))
    given = [flat, weight, *([s.constant("hidden.bias", np.arange(6, dtype=np.float32))] if bias else [])]
    x = s.node("Gemm", given, "hidden", transB=trans)
    x = s.node("Relu", [s.node("BatchNormalization", [x, *norm_of(s, 6)], "bn")], "relu")
    model = s.classify(x, 6)
    before = run(model, images())["logits"]
    assert simplify(model)["fold_batch_norms"] == 1 and "BatchNormalization" not in ops(model)
    np.testing.assert_allclose(run(model, images())["logits"], before, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("other", [{"alpha": 2.0}, {"beta": 0.5}, {"transA": 1}, {"bias": (1, 6)}])
def test_a_norm_behind_a_product_that_is_more_than_a_layer_stays(other):
    s = Sketch(batch=6)
    flat = s.node("Flatten", [s.node("GlobalAveragePool", [s.conv("input", "conv", 3, 6)], "gap")], "flat")
    bias = s.constant("hidden.bias", np.ones(other.get("bias", 6), np.float32))
    options = {name: value for name, value in other.items() if name != "bias"}
    x = s.node("Gemm", [flat, s.weight("hidden.weight", 6, 6), bias], "hidden", **options)
    x = s.node("BatchNormalization", [x, *norm_of(s, 6)], "bn")
    model = s.classify(s.node("Relu", [x], "relu"), 6)
    before = run(model, images(6))["logits"]
    simplify(model)
    assert "BatchNormalization" in ops(model)
    np.testing.assert_allclose(run(model, images(6))["logits"], before, atol=1e-5)


def test_a_kernel_put_together_from_constants_is_computed_once():
    s = Sketch()
    parts = [s.constant(f"part{i}", np.full((4, 3, 3, 3), i + 1, np.float32)) for i in range(2)]
    joined = s.node("Concat", parts, "joined", axis=0)
    scaled = s.node("Mul", [joined, s.constant("half", np.array(0.5, np.float32))], "scaled")
    x = s.node("Conv", ["input", scaled], "conv", kernel_shape=[3, 3], pads=[1] * 4)
    model = s.classify(s.node("GlobalAveragePool", [x], "pool"), 8)
    before = run(model, images())["logits"]
    assert fold_constants(onnx.ModelProto.FromString(model.SerializeToString())) == 2
    assert simplify(model)["fold_constants"] == 2
    assert ops(model) == ["Conv", "GlobalAveragePool", "Flatten", "Gemm"]
    kernel = next(numpy_helper.to_array(t) for t in model.graph.initializer if t.name == "scaled")
    assert kernel.shape == (8, 3, 3, 3) and set(kernel[:, 0, 0, 0]) == {0.5, 1.0}
    np.testing.assert_allclose(run(model, images())["logits"], before, atol=1e-6)


@pytest.mark.parametrize(
    ("form", "value", "dtype"),
    [
        ("value_float", 1.5, np.float32), ("value_floats", [1.5, 2], np.float32), ("value_int", 3, np.int64),
        ("value_ints", [3, 4], np.int64), ("value_string", "text", None),
    ],
)  # fmt: skip
def test_constants_in_any_form_become_initializers_and_texts_stay(form, value, dtype):
    model = GRAPHS["plain"]()
    model.graph.node.insert(0, helper.make_node("Constant", [], ["given"], name="given", **{form: value}))
    assert constants_to_initializers(model) == (dtype is not None)
    found = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    assert ("given" in found) == (dtype is not None) == ("Constant" not in ops(model))
    if dtype is not None:
        assert found["given"].dtype == dtype and found["given"].tolist() == value


def test_weights_in_int8_and_results_without_end_stay_computed():
    """Q/DQ of a weight is meant; and 2 GB made of one number must not be."""
    s = Sketch()
    scale, zero = s.constant("scale", np.array(0.1, np.float32)), s.constant("zero", np.array(0, np.int8))
    stored = s.constant("stored", np.ones((8, 3, 1, 1), np.int8))
    weight = s.node("DequantizeLinear", [stored, scale, zero], "weight")
    shape = s.constant("shape", np.array([1, 8, 8192, 8192]))
    vast = s.node("ConstantOfShape", [shape], "vast")
    x = s.node("Conv", ["input", weight], "conv", kernel_shape=[1, 1])
    x = s.node("Add", [x, s.node("ReduceMean", [vast], "mean", keepdims=0)], "add")
    model = s.classify(s.node("GlobalAveragePool", [x], "pool"), 8)
    assert simplify(model)["fold_constants"] == 0
    assert {"DequantizeLinear", "ConstantOfShape"} <= set(ops(model))


def test_what_cannot_be_computed_stays_and_so_does_what_follows():
    model = GRAPHS["plain"]()
    before = ops(model)
    for name, values in (("values", np.ones(3, np.float32)), ("place", np.array([7]))):
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    model.graph.node.insert(0, helper.make_node("Gather", ["values", "place"], ["nowhere"], name="bad"))
    assert fold_constants(model) == 0 and ops(model) == ["Gather", *before]
    model.graph.node[0].op_type, model.graph.node[0].domain = "Twirl", "com.example"
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    assert fold_constants(model) == 0 and ops(model) == ["Twirl", *before]


def test_a_result_of_unknown_rank_is_folded_only_when_its_rank_is_known():
    model = GRAPHS["plain"]()
    for name, values in (("row", np.ones((1, 3), np.float32)), ("axes", np.array([0]))):
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    model.graph.node.insert(0, helper.make_node("Abs", ["axes"], ["computed"], name="computed"))
    model.graph.node.insert(1, helper.make_node("Squeeze", ["row", "computed"], ["vector"], name="vector"))
    assert fold_constants(model) == 1 and "Squeeze" in ops(model)
    assert "computed" in {tensor.name for tensor in model.graph.initializer}
    assert fold_constants(model) == 1 and ops(model) == ops(GRAPHS["plain"]())


def test_random_values_are_not_folded_to_one_draw():
    model = GRAPHS["plain"]()
    for op, inputs in (("RandomNormal", []), ("RandomNormalLike", ["fc.bias"])):
        attributes = {"shape": [3]} if not inputs else {}
        model.graph.node.insert(0, helper.make_node(op, inputs, [op], name=op, **attributes))
    assert fold_constants(model) == 0


def test_a_result_of_unknown_length_stays():
    model = GRAPHS["plain"]()
    model.graph.initializer.append(numpy_helper.from_array(np.eye(3, dtype=np.float32), "eye"))
    model.graph.node.insert(0, helper.make_node("NonZero", ["eye"], ["places"], name="places"))
    assert fold_constants(model) == 0 and ops(model)[0] == "NonZero"


def test_nodes_with_graphs_inside_stay():
    model = GRAPHS["plain"]()
    inner = numpy_helper.from_array(np.ones(3, np.float32), "inside")
    branch = helper.make_graph(
        [helper.make_node("Constant", [], ["given"], value=inner)],
        "branch",
        [],
        [helper.make_tensor_value_info("given", TensorProto.FLOAT, [3])],
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "cond"))
    model.graph.node.append(
        helper.make_node("If", ["cond"], ["chosen"], then_branch=branch, else_branch=branch)
    )
    assert fold_constants(model) == 0 and ops(model)[-1] == "If"


def test_weights_that_two_convolutions_share_are_folded_apart():
    s = Sketch()
    shared, scale = s.weight("shared", 8, 8, 1, 1), [s.weight(f"bn{i}", 8) for i in range(3)]
    variance = s.constant("variance", np.full(8, 2, np.float32))
    x = s.conv("input", "stem", 3, 8)
    for name in ("first", "second"):
        x = s.node("Conv", [x, shared], name)
        x = s.node("BatchNormalization", [x, *scale, variance], f"{name}.bn")
    model = s.classify(s.node("GlobalAveragePool", [x], "gap"), 8)
    before = run(model, images())["logits"]
    simplify(model)
    assert "BatchNormalization" not in ops(model)
    np.testing.assert_allclose(run(model, images())["logits"], before, atol=1e-5)


def test_no_op_at_the_output_gives_its_name_to_what_stood_before_it():
    model = GRAPHS["plain"]()
    model.graph.node[-1].output[0] = "raw"
    model.graph.node.append(helper.make_node("Identity", ["raw"], ["logits"], name="out"))
    model.graph.node.append(helper.make_node("Softmax", ["raw"], ["likely"], name="softmax"))
    model.graph.output.append(helper.make_tensor_value_info("likely", TensorProto.FLOAT, ["batch", 10]))
    before = run(model, images())
    assert simplify(model)["remove_no_ops"] == 1
    for name, values in run(model, images()).items():
        np.testing.assert_array_equal(values, before[name])


def test_a_no_op_between_an_input_or_output_and_an_output_stays():
    """Both tensors have names that callers use."""
    model = GRAPHS["plain"]()
    for source, result, shape in (("input", "echo", (3, 12, 12)), ("logits", "again", (10,))):
        model.graph.node.append(helper.make_node("Identity", [source], [result], name=result))
        output = helper.make_tensor_value_info(result, TensorProto.FLOAT, ["batch", *shape])
        model.graph.output.append(output)
    before = run(model, images())
    assert simplify(model)["remove_no_ops"] == 0
    for name, values in run(model, images()).items():
        np.testing.assert_array_equal(values, before[name])


@pytest.mark.parametrize("shape", [[0, -1], [-1, 1152], [4, -1], [0, 1152]])
def test_a_reshape_that_flattens_serves_any_batch_afterwards(shape):
    s = Sketch(batch=4)
    x = s.node("Reshape", [s.conv("input", "conv", 3, 8), s.constant("shape", np.array(shape))], "flat")
    weight = s.weight("fc.weight", 1152, 10)
    s.node("MatMul", [x, weight], "logits")
    model = s.model(helper.make_tensor_value_info("logits", TensorProto.FLOAT, [4, 10]))
    before = run(model, images())["logits"]
    simplify(model)
    assert ops(model) == ["Conv", "Flatten", "MatMul"]
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    np.testing.assert_allclose(run(model, images(4))["logits"], before, atol=1e-5)
    assert run(model, images(7))["logits"].shape == (7, 10)


@pytest.mark.parametrize(("batch", "shape"), [(4, [2, 2304]), ("batch", [4, 1152])])
def test_a_reshape_that_mixes_images_or_fixes_their_number_stays(batch, shape):
    s = Sketch(batch=batch)
    x = s.node("Reshape", [s.conv("input", "conv", 3, 8), s.constant("shape", np.array(shape))], "mix")
    model = s.model(helper.make_tensor_value_info("mix", TensorProto.FLOAT, shape))
    simplify(model)
    assert ops(model) == ["Conv", "Reshape"] and x == "mix"


def test_a_pass_is_held_to_what_it_declares():
    def lose_the_last_node(model):
        del model.graph.node[-2]
        return 1

    def rename_the_output(model):
        model.graph.output[0].name = "other"
        return 1

    for apply, added, message in (
        (lose_the_last_node, 0, "number of nodes"),
        (lose_the_last_node, -1, "ONNX specification"),
        (rename_the_output, 0, "inputs or outputs"),
    ):
        with pytest.raises(GraphError, match=message):
            run_pass(Pass("liar", apply, added), GRAPHS["plain"]())


def around(op, *, inputs=(), spatial=(12, 12), **attributes):
    """A node between a convolution and a classifier."""
    s = Sketch()
    x = s.node("Relu", [s.conv("input", "conv", 3, 8)], "relu")
    more = [
        s.constant(f"more{place}", value) if value is not None else "" for place, value in enumerate(inputs)
    ]
    x = s.node(op, [x, *more], "it", **attributes)
    return s.classify(s.node("Relu", [x], "after"), 8 * int(np.prod(spatial)))


@pytest.mark.parametrize(
    ("op", "options", "stays"),
    [
        ("Dropout", {}, False),
        ("Dropout", {"inputs": (np.float32(0.5), np.array(False))}, False),
        ("Dropout", {"inputs": (np.float32(0.0), np.array(True))}, True),
        ("MaxPool", {"kernel_shape": [1, 1]}, False),
        ("MaxPool", {"kernel_shape": [1, 1], "strides": [2, 2], "spatial": (6, 6)}, True),
        ("MaxPool", {"kernel_shape": [1, 3], "pads": [0, 1, 0, 1]}, True),
        ("Reshape", {"inputs": (np.array([0, 8, 12, 12]),)}, False),
        ("Reshape", {"inputs": (np.array([0, 8, 6, 24]),)}, True),
        ("Cast", {"to": TensorProto.FLOAT}, False),
        ("Abs", {}, True),
    ],
)
def test_a_node_goes_only_where_it_changes_nothing(op, options, stays):
    model = around(op, **options)
    before = run(model, images())["logits"]
    assert simplify(model)["remove_no_ops"] == (not stays)
    assert (op in ops(model)) == stays
    np.testing.assert_allclose(run(model, images())["logits"], before, atol=1e-5)


@pytest.mark.parametrize("keepdims", [0, 1])
def test_a_mean_over_the_last_axes_of_what_is_no_map_stays(keepdims):
    """Of (N, 8, 144), the last two axes are all but the batch."""
    s = Sketch()
    x = s.node("Reshape", [s.conv("input", "conv", 3, 8), s.constant("shape", np.array([0, 8, 144]))], "rows")
    x = s.node("ReduceMean", [x, s.constant("axes", np.array([-1, -2]))], "mean", keepdims=keepdims)
    if not keepdims:
        x = s.node("Unsqueeze", [x, s.constant("last", np.array([1]))], "column")
    model = s.classify(x, 1)
    before = run(model, images())["logits"]
    simplify(model)
    assert "ReduceMean" in ops(model)
    np.testing.assert_allclose(run(model, images())["logits"], before, atol=1e-5)


def test_a_reshape_between_shapes_that_only_the_image_tells_stays():
    s = Sketch()
    largest = s.node("ReduceMax", [s.node("Abs", ["input"], "abs")], "largest", keepdims=0)
    x = s.node("Relu", [s.conv("input", "conv", 3, 8)], "relu")
    for name, shape in (("there", [0, 8, 144]), ("back", [0, 8, 12, 12])):
        below = s.constant(f"{name}.below", np.full(len(shape), -1, np.float32))
        kept = [s.constant(f"{name}.all", np.array(shape)), s.node("Less", [below, largest], f"{name}.yes")]
        x = s.node("Reshape", [x, s.node("Compress", kept, f"{name}.shape")], name)
    model = s.classify(x, 8 * 144)
    before = run(model, images())["logits"]
    simplify(model)
    assert ops(model).count("Reshape") == 2
    np.testing.assert_allclose(run(model, images())["logits"], before, atol=1e-5)


@pytest.mark.parametrize("place", range(4))
def test_a_norm_with_a_computed_value_is_not_folded(place):
    s = Sketch()
    x = s.conv("input", "conv", 3, 8)
    values = norm_of(s, 8)
    values[place] = s.node("ReduceMean", [s.node("Abs", [x], "abs")], "computed", axes=[0, 2, 3], keepdims=0)
    y = s.node("Conv", ["input", s.weight("other", 8, 3, 1, 1)], "conv2")
    y = s.node("BatchNormalization", [y, *values], "bn")
    model = s.classify(s.node("GlobalAveragePool", [y], "gap"), 8)
    model.opset_import[0].version = 17
    assert simplify(model)["fold_batch_norms"] == 0


@pytest.mark.parametrize(
    ("axes", "options", "pool"),
    [
        ([2, 3], {"spatial": (1, 1)}, True),
        ([-1, 2], {"spatial": (1, 1), "keepdims": 1}, True),
        ([3], {"spatial": (12, 1)}, False),
        ([2, 3], {"keepdims": 0, "spatial": (1, 1)}, True),
    ],
)
def test_a_mean_over_the_whole_map_becomes_a_pool(axes, options, pool):
    model = around("ReduceMean", inputs=(np.array(axes),), **options)
    before = run(model, images())["logits"]
    simplify(model)
    assert ("GlobalAveragePool" in ops(model), "ReduceMean" in ops(model)) == (pool, not pool)
    np.testing.assert_allclose(run(model, images())["logits"], before, atol=1e-5)


def test_a_mean_of_an_older_operator_set_has_its_axes_as_an_attribute():
    model = around("ReduceMean", axes=[2, 3], spatial=(1, 1))
    model.opset_import[0].version = 13
    before = run(model, images())["logits"]
    simplify(model)
    assert "GlobalAveragePool" in ops(model)
    np.testing.assert_allclose(run(model, images())["logits"], before, atol=1e-5)
