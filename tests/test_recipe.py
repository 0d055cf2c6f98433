import dataclasses
import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnx.errors import RecipeError
from cnnx.gates import GateTable
from cnnx.recipe import (
    names_meant,
    parse_recipe,
    plain_spelling,
    read_recipe,
    recipe_from_dict,
    recipe_names,
)

WHERE = Path("folder/mine.toml")
MINIMAL = 'name = "mine"\nmodel = { definition = "lenet5", classes = 10 }\n'


def refused(text):
    with pytest.raises(RecipeError) as caught:
        parse_recipe(text, where=WHERE)
    assert str(WHERE) in str(caught.value) and caught.value.hint
    return str(caught.value)


@given(st.sampled_from(recipe_names()), st.data())
def test_a_name_leads_to_its_recipe_however_it_is_spelled(name, data):
    separators = st.sampled_from(["", "-", "_", ".", " "])
    letters = (data.draw(st.sampled_from([sign, sign.upper()])) for sign in plain_spelling(name))
    spelled = "".join(letter + data.draw(separators) for letter in letters)
    assert names_meant(spelled) == (name,)


def test_no_alias_is_the_name_of_another_recipe():
    names = set(map(plain_spelling, recipe_names()))
    assert len(names) == len(recipe_names())
    for name in recipe_names():
        aliases = list(map(plain_spelling, read_recipe(name).aliases))
        assert not names & set(aliases) and len(aliases) == len(set(aliases))


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("resnet50v1.5", "resnet50"),  # torchvision's
        ("ResNet-50 v1", "resnet50-v1"),
        ("vgg16_bn", "vgg16-bn"),
        ("inception_v3", "inception-v3"),
        ("wide_resnet50_2", "wide-resnet50-2"),
        ("resnext50_32x4d", "resnext50-32x4d"),
        ("squeezenet1_1", "squeezenet1.1"),
        ("preact-resnet164", "cifar-preact-resnet164"),
        ("resnet56", "cifar-resnet56"),
        ("levit_256", "levit256"),
        ("mobilenet_v2", "mobilenet-v2"),
        ("efficientnet_lite0", "efficientnet-lite0"),
        ("tf_efficientnet_lite4", "efficientnet-lite4"),
    ],
)
def test_names_of_torchvision_timm_and_papers_are_understood(typed, name):
    assert read_recipe(typed).name == name


def test_a_name_of_several_networks_is_refused_with_all_of_them():
    with pytest.raises(RecipeError, match=r"one of several: squeezenet1\.0, squeezenet1\.1"):
        read_recipe("SqueezeNet")
    with pytest.raises(RecipeError, match="unknown model 'resnet51'"):
        read_recipe("resnet51")


def test_aliases_are_not_in_a_manifest():
    assert "aliases" not in read_recipe("resnet50").as_dict()


@pytest.mark.parametrize("name", recipe_names())
def test_shipped_recipes_are_whole(name):
    recipe = read_recipe(name)
    assert recipe.name == name and recipe.title and recipe.summary and recipe.source
    assert recipe.model.parameters and recipe.model.multiply_adds
    figures = [recipe.weights] if recipe.weights.file else []
    for figure in (*figures, *recipe.published):
        assert figure.source and figure.protocol and 1 < (figure.top1 or figure.top5) < 100
    read = recipe_from_dict(recipe.as_dict(), where=recipe.folder / "x.toml")
    assert read == dataclasses.replace(recipe, aliases=())
    if recipe.model.labels:
        assert (recipe.folder / recipe.model.labels).is_file()


@pytest.mark.parametrize(("name", "size", "crop_pct"), [("inception-v4", 299, 0.875), ("levit256", 224, 0.9)])
def test_timms_networks_resize_to_the_floor_of_size_over_crop_pct(name, size, crop_pct):
    recipe = read_recipe(name)
    assert recipe.input.shape == (3, size, size)
    assert recipe.preprocessing.resize == math.floor(size / crop_pct)
    assert recipe.preprocessing.interpolation == "bicubic"


def test_the_least_recipe_takes_the_defaults():
    recipe = parse_recipe(MINIMAL, where=WHERE)
    assert recipe.gates.of("int8").clear_agreement == 0.95 and recipe.precision.default == "fp16"
    assert recipe.folder == WHERE.parent and not recipe.runs_user_code and not recipe.is_onnx
    assert parse_recipe(MINIMAL.replace("lenet5", "net.py:build"), where=WHERE).runs_user_code
    assert parse_recipe(MINIMAL.replace("lenet5", "net.onnx"), where=WHERE).is_onnx


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name = ", ["not valid TOML"]),
        ('name = "x"', ["'model' is missing"]),
        (MINIMAL + "precison = {}", ["unknown key 'precison'", "'precision'"]),
        (MINIMAL + "input = { shap = [1, 2, 3] }", ["'input.shap'", "'shape'"]),
        (MINIMAL + "input = { shape = [3, 224] }", ["input.shape needs 3 values, has 2"]),
        (
            MINIMAL + "input = { shape = [3, 224, 1.5] }",
            ["input.shape[2]", "integer", "for example, shape = [3, 224, 224]"],
        ),
        (MINIMAL + "input = { shape = [1, 224, 224] }", ["3 channels"]),
        (MINIMAL + "preprocessing = 3", ["should be a table"]),
        (MINIMAL + 'preprocessing = { color = "rbg" }', ["'rbg'", "'rgb', 'bgr', 'gray'"]),
        (MINIMAL + "preprocessing = { mean = [0.5] }", ["mean needs one value"]),
        (
            MINIMAL + "preprocessing = { std = [1, 1, 0] }",
            ["preprocessing.std[2] should be a positive number"],
        ),
        (MINIMAL + "preprocessing = { resize = 100 }", ["crop is larger"]),
        (MINIMAL + "weights = { background_classes = -1 }", ["weights.background_classes", "0 or more"]),
        (MINIMAL + "weights = { rename = { '(' = 'x' } }", ["weights.rename", "regular expression"]),
        (MINIMAL + "weights = { rename = { 'a' = 3 } }", ["weights.rename"]),
        (MINIMAL + "published = [{ source = 'a paper' }]", ["'published[0].protocol' is missing"]),
        (MINIMAL + "preprocessing = { resize = true }", ["integer"]),
        (MINIMAL.replace("mine", "../x"), ["name should be", "folder name"]),
        (MINIMAL.replace("10", "1"), ["at least 2 classes"]),
        (
            MINIMAL + 'precision = { small_layers = "int8" }',
            ["small_layers is not 'fp16'", "precision.reason"],
        ),
        (MINIMAL + 'precision = { first_layer = "fp16" }', ["first_layer is not 'int8'", "precision.reason"]),
        (
            MINIMAL + 'precision = { overrides = [{ match = "*", precision = "int4", reason = "" }] }',
            ["int4"],
        ),
        (
            MINIMAL + "gates = { int8 = { top1_agreement = 0.5, top1_in_top5 = 0.9 } }",
            ["'top1_agreement' differs", "gates.int8.reason"],
        ),
        (
            MINIMAL + "gates = { int8 = { top1_agreement = 95 } }",
            ["gates.int8.top1_agreement", "a rate in 0..1", "95"],
        ),
        (MINIMAL + "calibration = { images = 0 }", ["calibration.images", "1 or more"]),
        (MINIMAL + "validation = { images = 0 }", ["validation.images", "1 or more"]),
        (MINIMAL + "calibration = { images = false }", ["calibration.images", "integer", "False"]),
        (MINIMAL + "input = { shape = { height = 224 } }", ["input.shape", "list"]),
        (MINIMAL + "input = { shape = [3, 0, 224] }", ["input.shape[1]", "1 or more"]),
        (MINIMAL + "preprocessing = { std = [1, nan, 1] }", ["preprocessing.std[1]", "finite"]),
        (MINIMAL + "preprocessing = { mean = [0, inf, 0] }", ["preprocessing.mean[1]", "finite"]),
        (MINIMAL + f"gates = {{ graph_mib = 1{'0' * 400} }}", ["gates.graph_mib"]),
        (MINIMAL + f"budgets = {{ onnx_mib = 1{'0' * 5000} }}", ["not valid TOML"]),
        (MINIMAL.replace("10", "10, arguments = { since = 1979-05-27 }"), ["model.arguments.since", "date"]),
        (MINIMAL.replace("10", "10, labels = 3"), ["model.labels should be a string"]),
        (MINIMAL + f"model.arguments.x = {'[' * 60 + ']' * 60}", ["not valid TOML"]),
        (MINIMAL.replace("10", f"10, arguments = {{ x = {'[' * 60 + ']' * 60} }}"), ["nested too deeply"]),
        ('folder = "/etc"\n' + MINIMAL, ["unknown key 'folder'"]),
        (
            MINIMAL + "gates = { latency_p50 = 5 }",
            ["unknown key 'gates.latency_p50'", "did you mean 'latency_p50_ms'?"],
        ),
        (
            MINIMAL + "gates = { latency_p50_ms = 5 }\nbudgets = { onnx_mib = 1 }",
            ["both 'budgets' and 'gates'", "[gates]"],
        ),
    ],
)
def test_what_a_recipe_gets_wrong_is_named(text, words):
    said = refused(text)
    assert all(word in said for word in words), said


@given(st.lists(st.floats(0.01, 10), min_size=3, max_size=3), st.integers(224, 4000))
def test_a_recipe_survives_being_written_down(std, resize):
    recipe = parse_recipe(MINIMAL, where=WHERE)
    changed = dataclasses.replace(recipe.preprocessing, std=tuple(std), resize=resize)
    recipe = dataclasses.replace(recipe, preprocessing=changed)
    assert recipe_from_dict(recipe.as_dict(), where=WHERE) == recipe


def test_whole_numbers_count_as_numbers_but_truth_does_not():
    text = MINIMAL + "preprocessing = { std = [1, 2, 3] }"
    assert parse_recipe(text, where=WHERE).preprocessing.std == (1.0, 2.0, 3.0)
    assert "gates.graph_mib" in refused(MINIMAL + "gates = { graph_mib = true }")


def test_a_recipe_of_an_older_cnnx_has_its_thresholds_and_budgets_among_the_gates():
    old = """
        [acceptance.int8]
        top1_agreement = 0.9
        top1_in_top5 = 0.99
        top5_agreement = 0.9
        accuracy_ratio = 0.99
        reason = "measured on the robot"
        [budgets]
        onnx_mib = 270
        engine_mib = 0
    """
    recipe = parse_recipe(MINIMAL + old, where=WHERE)
    assert recipe.gates.stated("int8").set() == {"top1_agreement": 0.9, "graph_mib": 270}
    assert recipe.gates.of("int8").top1_in_top5 == 0.99
    for key, other in (("acceptance", "budgets"), ("budgets", "acceptance")):
        assert f"unknown key '{key}'" in refused(f"{MINIMAL}{key} = 5\n[{other}]\n")
        assert f"unknown key '{key}'" in refused(f"{MINIMAL}{key} = 5\n")


def test_a_manifest_of_an_older_cnnx_states_defaults_that_nobody_chose():
    rates = {"top1_agreement": 0.99, "top1_in_top5": 0.995, "top5_agreement": 0.98, "accuracy_ratio": 0.99}
    data = parse_recipe(MINIMAL, where=WHERE).as_dict()
    del data["gates"]
    data |= {"acceptance": {"fp16": {**rates, "reason": ""}}, "budgets": {"onnx_mib": 0.0}}
    assert recipe_from_dict(data, where=WHERE).gates == GateTable()


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "x.toml").write_bytes(b"\xff\xfe")
    for file in ("x.toml", "absent.toml"):
        with pytest.raises(RecipeError, match="cannot be read") as caught:
            read_recipe(str(tmp_path / file))
        assert file in caught.value.where


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("lenet6", "did you mean 'lenet5'?"),
        ("VGG17", "did you mean 'vgg1"),
        ("", "cnnx list"),
        ("x" * 300, "cnnx list"),
    ],
)
def test_an_unknown_name_names_the_nearest_or_the_list(name, said):
    with pytest.raises(RecipeError, match="unknown model") as caught:
        read_recipe(name)
    assert said in caught.value.hint


@pytest.mark.parametrize("precision", ["fp16", "int8"])
@pytest.mark.parametrize("key", ["top1_agreement", "top1_in_top5", "top5_agreement", "accuracy_ratio"])
def test_each_threshold_moves_only_with_a_reason(precision, key):
    """Thresholds guard the verdict."""
    data = parse_recipe(MINIMAL, where=WHERE).as_dict()
    for gates, table in ((whole := {}, whole), ({precision: (own := {})}, own)):
        data["gates"] = gates
        table[key] = 0.5
        with pytest.raises(RecipeError, match="no reason is given"):
            recipe_from_dict(data, where=WHERE)
        table["reason"] = "measured on the robot"
        assert getattr(recipe_from_dict(data, where=WHERE).gates.of(precision), key) == 0.5


def places(data, above=()):
    """Return the path to every key of a recipe's plain data."""
    for key, value in data.items():
        yield (*above, key)
        if isinstance(value, dict):
            yield from places(value, (*above, key))


SCALARS = st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats() | st.text(max_size=8)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
)


@given(st.sampled_from(list(places(read_recipe("lenet5").as_dict()))), ANYTHING)
def test_whatever_stands_at_a_key_is_taken_or_refused(place, value):
    """Any wrong value (a table for a list, a number beyond every float, nothing) raises only RecipeError."""
    data = json.loads(json.dumps(read_recipe("lenet5").as_dict()))
    table = data
    for key in place[:-1]:
        table = table[key]
    table[place[-1]] = value
    try:
        recipe = recipe_from_dict(data, where=WHERE)
    except RecipeError as error:
        assert str(WHERE) in str(error.where) and error.hint
    else:
        assert recipe_from_dict(recipe.as_dict(), where=WHERE).name == recipe.name
