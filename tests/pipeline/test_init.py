"""`init`: a recipe from an ONNX file."""

import json

import pytest

import cnnx
from cnnx.errors import RecipeError, UsageError
from cnnx.recipe import read_recipe


def test_the_recipe_holds_what_the_graph_states_and_marks_what_it_does_not(tiny, tmp_path):
    result = cnnx.init(tiny)
    assert result.file == tmp_path / "tiny.toml" and result.assumed == ("preprocessing",)
    recipe = read_recipe(str(result.file))
    assert recipe.is_onnx and recipe.folder / recipe.model.definition == tiny
    assert (recipe.input.shape, recipe.input.name, recipe.model.classes) == ((1, 32, 32), "input", 10)
    assert recipe.preprocessing.assumed
    text = result.file.read_text()
    assert "CHECK THIS" in text and "keras-caffe" in text
    assert "Preprocessing is assumed" in repr(result)
    # The assumption ends where the text tells the user to end it.
    lines = [line for line in text.splitlines() if not line.startswith("assumed = true")]
    result.file.write_text("\n".join(lines))
    assert not read_recipe(str(result.file)).preprocessing.assumed


@pytest.mark.parametrize(
    "options", [{"preprocessing": "gray"}, {"resize": "none"}, {"resize": "40x36", "mean": [0.1]}]
)
def test_what_is_stated_is_written_and_not_marked(tiny, options):
    result = cnnx.init(tiny, **options)
    assert result.assumed == () and "assumed" not in repr(result)
    text = result.file.read_text()
    assert "CHECK THIS" not in text and "assumed" not in text
    assert not read_recipe(str(result.file)).preprocessing.assumed


def test_files_are_found_from_another_folder(tiny, tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("\n".join("abcdefghij"))
    (tmp_path / "recipes").mkdir()
    result = cnnx.init(tiny, out=tmp_path / "recipes" / "x.toml", class_names=names)
    recipe = read_recipe(str(result.file))
    assert (recipe.folder / recipe.model.definition).samefile(tiny)
    assert recipe.labels_file is not None and recipe.labels_file.samefile(names)


def test_odd_file_names_give_a_valid_recipe(tiny, tmp_path):
    odd = tiny.rename(tmp_path / 'my "net"\\\n\u00e4\x7f.onnx')
    result = cnnx.init(odd, out=tmp_path / "x.toml")
    recipe = read_recipe(str(result.file))
    assert recipe.title == odd.name and (recipe.folder / recipe.model.definition).samefile(odd)


def test_questions_are_asked_only_about_what_no_option_states(tiny):
    asked = []

    def ask(question, check):
        asked.append(question)
        if "Preprocessing" in question:
            with pytest.raises(UsageError, match="gray"):
                check("timm")
            check("gray")
            return "gray"
        return ""

    result = cnnx.init(tiny, ask=ask)
    assert len(asked) == 2 and result.assumed == () and "shorter side to 36" in result.preprocessing
    cnnx.init(tiny, ask=ask, mean="0.5", force=True)
    assert len(asked) == 3 and "names of the 10 classes" in asked[2]


def test_a_file_is_overwritten_only_with_force(tiny, tmp_path):
    file = tmp_path / "tiny.toml"
    file.write_text("mine")
    with pytest.raises(UsageError, match="exists already") as caught:
        cnnx.init(tiny)
    assert "--force" in caught.value.hint and file.read_text() == "mine"
    cnnx.init(tiny, force=True)
    assert "mine" not in file.read_text()


@pytest.mark.parametrize(
    ("model", "options", "error", "said"),
    [
        ("lenet5", {}, UsageError, "for an ONNX file"),
        ("tiny.onnx", {"out": "x.txt"}, UsageError, "ends in .toml"),
        ("tiny.onnx", {"out": "folder.toml"}, UsageError, "this is a folder"),
        ("tiny.onnx", {"preprocessing": "x"}, UsageError, "unknown preset 'x'"),
        ("tiny.onnx", {"class_names": "absent.txt"}, RecipeError, "absent.txt"),
        ("tiny.onnx", {"class_names": "two.txt"}, RecipeError, "2"),
        ("absent.onnx", {}, cnnx.CnnxError, "does not exist"),
    ],
)
def test_what_cannot_be_used_is_refused_and_nothing_is_written(
    tiny, tmp_path, monkeypatch, model, options, error, said
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.toml").mkdir()
    (tmp_path / "two.txt").write_text("a\nb\n")
    with pytest.raises(error) as caught:
        cnnx.init(model, **options)
    assert said in str(caught.value) and caught.value.hint and caught.value.exit_code in (2, 3)
    assert not (tmp_path / "tiny.toml").exists()


def test_the_result_is_plain_data(tiny, cnnx_command):
    code, stdout, _ = cnnx_command("init", tiny, "--json")
    result = json.loads(stdout)["result"]
    assert code == 0 and result["assumed"] == ["preprocessing"] and result["classes"] == 10
