import math

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from cnnx.errors import RecipeError
from cnnx.graph.edit import small_conv
from cnnx.graph.policy.placement import (
    plan_layers,
    quantized_uses,
    tensors_to_calibrate,
    tensors_to_observe,
)
from cnnx.graph.policy.rules import RULES
from cnnx.recipe import LayerOverride, PrecisionPolicy
from tests.inputs.graphs import GRAPHS, Sketch, images, maxima_of


def plan(model, x=None, *, precision="int8", scales="fp16", maxima=None, **policy):
    maxima = {**maxima_of(model, images() if x is None else x), **(maxima or {})}
    layers = plan_layers(
        model, precision=precision, policy=PrecisionPolicy(**policy), maxima=maxima, scales=scales
    )
    assert [layer.node for layer in layers] == [node.name for node in model.graph.node]
    names = {rule.name for rule in RULES}
    assert all(layer.rule in names and "{" not in layer.reason for layer in layers)
    return {layer.node: layer for layer in layers}


def test_first_and_last_layers_stay_out_where_the_recipe_says_so():
    model = GRAPHS["plain"]()
    layers = plan(model, first_layer="fp16", last_layer="fp16", reason="measured")
    assert rules(layers)["conv1"] == "first-layer" and rules(layers)["fc"] == "last-layer"
    assert {n for n, layer in layers.items() if layer.precision == "int8"} == {"conv2"}
    assert "measured" in layers["fc"].reason


def test_every_branch_has_a_first_layer_and_every_head_a_last():
    s = Sketch()
    scaled = s.node("Mul", ["input", s.constant("scale", np.full((1, 3, 1, 1), 0.5, np.float32))], "scaled")
    left = s.conv(s.node("Relu", [s.conv(scaled, "left", 3, 16)], "relu"), "middle", 16, 16)
    x = s.node("Add", [left, s.conv(scaled, "right", 3, 16)], "add")
    x = s.node("GlobalAveragePool", [x], "gap")
    head = s.node("MatMul", [s.node("Flatten", [x], "flat"), s.weight("head.weight", 16, 10)], "head")
    s.node("Softmax", [head], "softmax")
    model = s.classify(x, 16)
    model.graph.output.append(helper.make_tensor_value_info("softmax", TensorProto.FLOAT, ["batch", 10]))
    found = rules(plan(model, first_layer="fp16", last_layer="fp16", reason="measured"))
    assert {name for name, rule in found.items() if rule == "first-layer"} == {"left", "right"}
    assert {name for name, rule in found.items() if rule == "last-layer"} == {"head", "fc"}
    assert found["middle"] == "weighted"


def rules(layers):
    return {name: layer.rule for name, layer in layers.items()}


def test_weighted_layers_are_int8_and_all_else_follows():
    layers = plan(GRAPHS["plain"]())
    assert {n for n, layer in layers.items() if layer.precision == "int8"} == {"conv1", "conv2", "fc"}
    assert {layer.precision for layer in layers.values()} == {"int8", "fp16"}


def test_islands_and_group_rules():
    layers = plan(GRAPHS["branching"]())
    assert rules(layers) == {
        "stem": "weighted", "stem.relu": "follows", "lrn": "wide-op", "grouped": "weighted",
        "depthwise": "group-channels", "concat": "follows", "mix": "weighted", "softmax": "wide-op",
        "pool": "follows", "flatten": "follows", "fc": "weighted",
    }  # fmt: skip
    assert layers["lrn"].precision == layers["softmax"].precision == "fp32"
    assert layers["depthwise"].precision == "fp16" and "1" in layers["depthwise"].reason


@pytest.mark.parametrize(("per_group", "int8"), [(1, False), (2, False), (4, True), (6, False), (8, True)])
def test_int8_wants_channels_of_a_group_in_fours(per_group, int8):
    s = Sketch()
    x = s.conv("input", "widen", 3, 4 * per_group)
    x = s.conv(x, "probe", 4 * per_group, 32, group=4)
    found = plan(s.classify(s.node("GlobalAveragePool", [x], "gap"), 32))["probe"]
    assert (found.precision, found.rule) == (("int8", "weighted") if int8 else ("fp16", "group-channels"))


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_tensor_with_fewer_steps_in_fp16_than_in_int8_is_an_island(precision):
    # FP16's steps there are 2**-24.
    for share, island in ((0.99, True), (1.01, False)):
        found = plan(GRAPHS["plain"](), precision=precision, maxima={"gap": share * 127 * 2.0**-24})
        assert (found["gap"].rule == "narrow") == (found["gap"].precision == "fp32") == island
    assert "narrow" not in rules(plan(GRAPHS["plain"](), precision=precision, maxima={"gap": 0.0})).values()


def test_fp32_scales_keep_the_rest_in_fp32():
    layers = plan(GRAPHS["branching"](), scales="fp32")
    assert {layer.precision for layer in layers.values()} == {"int8", "fp32"}
    assert layers["pool"].rule == "scales"


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_other_precisions_have_no_int8(precision):
    layers = plan(GRAPHS["branching"](), precision=precision)
    assert layers["stem"].precision == layers["pool"].precision == precision
    assert layers["lrn"].precision == "fp32"


# The thresholds of ModelOpt: a group of one wants in or out channels % 8 == 0 and one of them >= 16, or
# the graph's input; groups want out % 8 == 0 and a kernel of 3.
@pytest.mark.parametrize(
    ("inputs", "outputs", "kernel", "group", "first", "int8"),
    [
        (3, 8, 3, 1, True, True),
        (3, 6, 3, 1, True, False),
        (8, 8, 3, 1, False, False),
        (8, 16, 1, 1, False, True),
        (12, 20, 3, 1, False, False),
        (12, 24, 3, 1, False, True),
        (8, 16, 3, 2, False, True),
        (8, 16, 1, 2, False, False),
        (8, 12, 3, 2, False, False),
    ],
)
def test_small_layers(inputs, outputs, kernel, group, first, int8):
    s = Sketch(channels=inputs if first else 3)
    x = "input" if first else s.conv("input", "widen", 3, inputs)
    x = s.conv(x, "probe", inputs, outputs, kernel=kernel, group=group)
    model = s.classify(s.node("GlobalAveragePool", [x], "gap"), outputs)
    found = plan(model, images(channels=inputs if first else 3))["probe"]
    assert (found.precision, found.rule) == (("int8", "weighted") if int8 else ("fp16", "small-layer"))
    assert int8 or ("groups" in found.reason) == (group > 1)
    x = images(channels=inputs if first else 3)
    assert plan(model, x, small_layers="int8", reason="measured")["probe"].precision == "int8"


@pytest.mark.parametrize(
    ("kernel", "small"), [((3, 3), False), ((1, 3), True), ((3, 1), True), ((5, 3), False)]
)
def test_of_groups_either_side_of_the_kernel_wants_three(kernel, small):
    conv = helper.make_node("Conv", ["x", "w"], ["y"], "conv", group=2)
    found = small_conv(conv, (16, 8, *kernel), first=False)
    assert (found is not None) == small
    assert not small or f"kernel {kernel[0]}x{kernel[1]}" in found


@pytest.mark.parametrize(("bad", "word"), [(0.0, "zero"), (math.inf, "finite"), (math.nan, "finite")])
def test_a_bad_range_keeps_a_layer_from_int8(bad, word):
    layers = plan(GRAPHS["plain"](), maxima={"pool1": bad}, scales="fp32")
    assert layers["conv2"].rule == "no-range" and word in layers["conv2"].reason
    assert layers["conv1"].precision == "int8"


@pytest.mark.parametrize(("share", "rule"), [(0.99, "no-range"), (1.01, "weighted")])
def test_a_range_below_the_least_that_an_fp16_scale_has_keeps_a_layer_from_int8(share, rule):
    value = share * 127 * 2.0**-20
    layer = plan(GRAPHS["plain"](), maxima={"pool1": value})["conv2"]
    assert layer.rule == rule and (rule == "weighted" or "smallest range of a scale, 0.00012" in layer.reason)
    assert plan(GRAPHS["plain"](), maxima={"pool1": value}, scales="fp32")["conv2"].rule == "weighted"


@pytest.mark.parametrize(
    ("tensor", "value", "rule"),
    [
        ("conv2.weight", 127 * 2.0**-20 * 0.99, "no-range"),
        ("conv2.weight", 127 * 2.0**-20 * 1.01, "weighted"),
        ("conv2.weight", 127 * 2.0**-24 * 0.99, "narrow"),
        ("conv2.weight", 0.0, "weighted"),
        ("conv2.bias", 127 * 2.0**-24 * 0.99, "weighted"),
    ],
)
def test_weights_below_the_least_range_keep_a_layer_from_int8_and_small_biases_do_no_harm(
    tensor, value, rule
):
    model = GRAPHS["plain"]()
    stored = next(each for each in model.graph.initializer if each.name == tensor)
    values = np.full(stored.dims, -value, np.float32)
    stored.CopyFrom(numpy_helper.from_array(values, tensor))
    layer = plan(model)["conv2"]
    assert layer.rule == rule and (rule == "weighted" or f"{tensor} reaches only" in layer.reason)


@pytest.mark.parametrize("value", [30001.0, math.inf, math.nan])
def test_what_fp16_cannot_hold_is_an_island(value):
    for precision in ("fp16", "int8"):
        layers = plan(GRAPHS["plain"](), precision=precision, maxima={"relu2": value})
        wide = {n for n, layer in layers.items() if layer.rule == "wide-activation"}
        assert wide == {"relu2", "gap"}
        assert {layers[n].precision for n in wide} == {"fp32"}
        assert "wide-activation" not in rules(plan(GRAPHS["plain"](), maxima={"relu2": 30000.0})).values()


def test_constants_beyond_fp16_are_an_island():
    model = GRAPHS["plain"]()
    values = numpy_helper.to_array(model.graph.initializer[1]).copy()
    values[3] = 70000
    model.graph.initializer[1].raw_data = values.tobytes()
    layer = plan(model, precision="fp16", fp16_limit=1e9)["conv1"]
    assert (layer.rule, layer.precision) == ("wide-constant", "fp32") and "7e+04" in layer.reason


def test_integers_beyond_fp16_are_no_island():
    """PyTorch writes the largest integer where a slice goes to the end."""
    s = Sketch()
    x = s.conv("input", "conv", 3, 16)
    ends = [
        s.constant(name, np.array([value])) for name, value in (("from", 0), ("to", 2**63 - 1), ("axis", 1))
    ]
    model = s.classify(s.node("GlobalAveragePool", [s.node("Slice", [x, *ends], "slice")], "gap"), 16)
    assert plan(model, precision="fp16")["slice"].precision == "fp16"


def test_the_last_matching_override_wins():
    overrides = (
        LayerOverride("conv*", "fp32", "first"),
        LayerOverride("conv2", "fp16", "second"),
    )
    layers = plan(GRAPHS["plain"](), overrides=overrides)
    assert (layers["conv1"].precision, layers["conv2"].precision) == ("fp32", "fp16")
    assert "second" in layers["conv2"].reason


def test_an_fp32_island_takes_its_activation_with_it():
    override = LayerOverride("conv2", "fp32", "asked")
    layers = plan(GRAPHS["plain"](), precision="fp16", overrides=(override,))
    assert {name for name, layer in layers.items() if layer.precision == "fp32"} == {"conv2", "relu2"}
    assert layers["relu2"].rule == "island-activation" and "conv2" in layers["relu2"].reason
    kept = (override, LayerOverride("relu2", "fp16", "no"))
    assert plan(GRAPHS["plain"](), precision="fp16", overrides=kept)["relu2"].precision == "fp16"


def test_an_override_to_int8_takes_weighted_layers_only():
    override = LayerOverride("*", "int8", "measured")
    layers = plan(GRAPHS["branching"](), overrides=(override,))
    assert layers["depthwise"].precision == "int8"
    assert layers["concat"].precision == "fp16" and layers["lrn"].precision == "fp32"
    for precision in ("fp16", "fp32"):
        elsewhere = plan(GRAPHS["branching"](), precision=precision, overrides=(override,))
        assert "int8" not in {layer.precision for layer in elsewhere.values()}


def test_an_override_that_matches_nothing_is_refused():
    with pytest.raises(RecipeError, match="matches no layer") as refusal:
        plan(GRAPHS["residual"](), overrides=(LayerOverride("b.conv3", "fp16", "typo"),))
    assert refusal.value.hint.count("conv") == 3 and "b.conv1" in refusal.value.hint
    with pytest.raises(RecipeError) as refusal:
        plan(GRAPHS["residual"](), overrides=(LayerOverride("12345678.", "fp16", "nothing is near"),))
    assert refusal.value.hint.endswith("such as stem, stem.relu, a.conv1")


def test_only_shortcuts_are_quantized_at_an_add():
    model = GRAPHS["residual"]()
    layers = plan(model)
    assert layers["a.add"].rule == layers["b.add"].rule == "residual"
    uses = quantized_uses(model, tuple(layers.values()))
    assert uses["stem.relu"] == ("a.conv1", "a.add")
    assert uses["b.down"] == ("b.add",)  # the projection, though it stands first
    assert "a.conv2" not in uses and "b.conv2" not in uses
    assert tensors_to_calibrate(model, tuple(layers.values())) == tuple(uses)
    observed = tensors_to_observe(model, tuple(layers.values()))
    assert set(observed) - set(uses) == {"b.conv2"}, "the other side of the sum with the projection"


def test_a_convolution_that_others_read_too_is_the_shortcut():
    """TensorRT fuses an Add only with a convolution that nothing else reads."""
    s = Sketch()
    first = s.conv("input", "first", 3, 16)
    x = s.node("Add", [first, s.conv(first, "second", 16, 16)], "add")
    model = s.classify(s.node("GlobalAveragePool", [x], "gap"), 16)
    layers = plan(model)
    assert layers["add"].rule == "residual"
    assert quantized_uses(model, tuple(layers.values()))["first"] == ("second", "add")


def test_a_branch_that_does_not_end_in_an_int8_convolution_has_no_shortcut_beside_it():
    model = GRAPHS["residual"]()
    override = LayerOverride("a.conv2", "fp16", "measured")
    assert plan(model, overrides=(override,))["a.add"].rule == "follows"
    s = Sketch()
    stem = s.node("Relu", [s.conv("input", "stem", 3, 16)], "relu")
    branch = s.node("Sigmoid", [s.conv(stem, "conv", 16, 16)], "gate")
    model = s.classify(s.node("GlobalAveragePool", [s.node("Add", [branch, stem], "add")], "gap"), 16)
    assert plan(model)["add"].rule == "follows"


def test_a_sum_with_a_constant_or_with_itself_has_no_shortcut():
    s = Sketch(batch=1)
    whole = s.constant("whole", np.ones((1, 16, 12, 12), np.float32))
    x = s.node("Add", [s.conv("input", "conv", 3, 16), whole], "with_constant")
    other = s.conv(x, "other", 16, 16)
    model = s.classify(s.node("GlobalAveragePool", [s.node("Add", [other, other], "doubled")], "gap"), 16)
    layers = plan_layers(model, precision="int8", policy=PrecisionPolicy(), maxima=None)
    assert {layer.node: layer.rule for layer in layers if layer.op == "Add"} == {
        "with_constant": "follows", "doubled": "follows"
    }  # fmt: skip


def test_a_sum_of_maps_of_different_sizes_has_no_shortcut():
    s = Sketch()
    stem = s.node("Relu", [s.conv("input", "stem", 3, 16)], "relu")
    means = s.node("GlobalAveragePool", [stem], "means")
    x = s.node("Add", [s.conv(stem, "conv", 16, 16), means], "add")
    model = s.classify(s.node("GlobalAveragePool", [x], "gap"), 16)
    assert plan(model)["add"].rule == "follows"


def test_a_sum_of_rows_has_no_shortcut():
    """A residual block of one-dimensional convolutions: TensorRT fuses those of images."""
    s = Sketch()
    rows = s.node(
        "Reshape", [s.conv("input", "stem", 3, 16), s.constant("r", np.array([0, 16, 144]))], "rows"
    )
    conv = s.node("Conv", [rows, s.weight("conv.weight", 16, 16, 3)], "conv", pads=[1, 1])
    model = s.classify(s.node("Add", [conv, rows], "add"), 16 * 144)
    assert rules(plan(model))["conv"] == "weighted" and rules(plan(model))["add"] == "follows"


def test_a_shortcut_stays_where_its_range_is_bad_or_the_recipe_says_so():
    model = GRAPHS["residual"]()
    assert plan(model, maxima={"b.down": 0.0})["b.add"].rule == "follows"
    override = LayerOverride("a.add", "fp16", "measured")
    layers = plan(model, overrides=(override,))
    assert quantized_uses(model, tuple(layers.values()))["stem.relu"] == ("a.conv1",)
    layers = plan(model, residual="fp16", reason="measured")
    assert "residual" not in rules(layers).values() and rules(layers)["a.conv2"] == "weighted"
