"""What a user gets for input that cannot be used: its exit code, what, where, what hints it, no traceback."""

import ctypes
import json
import os
import pickle
import resource
import shutil
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import helper
from PIL import Image

from cnnx.runtimes import get
from tests.inputs.tiny import FEW, tiny_graph

RECIPE = """
name = "mine"
model = { definition = "lenet5", classes = 10 }
input = { shape = [1, 32, 32] }
preprocessing = { color = "gray", resize = 32, mean = [0.5], std = [0.5] }
calibration = { data = "digits", images = 16 }
validation = { data = "digits", images = 16 }
"""


@pytest.fixture
def refused(cnnx_command, tmp_path):
    """Run an export that must be refused, leaving nothing at --out; returns stderr."""

    def run(code, *arguments, out=None):
        out = out or tmp_path / "out"
        found, _, said = cnnx_command("export", *arguments, "--out", out)
        assert found == code, said
        assert "error:" in said and not out.exists()
        assert [p.name for p in tmp_path.iterdir() if p.name.endswith(".draft")] == []
        return said

    return run


def test_an_unknown_model_names_the_nearest(refused):
    said = refused(3, "lenat5")
    assert "lenet5" in said and "cnnx list" in said


def test_an_address_is_not_downloaded(refused):
    assert "download the ONNX file" in refused(2, "https://huggingface.co/onnx/net/resolve/main/model.onnx")


def test_a_typing_slip_in_a_recipe_names_its_path_and_the_nearest_key(refused, tmp_path):
    (tmp_path / "mine.toml").write_text(RECIPE.replace("resize", "risize"))
    said = refused(3, tmp_path / "mine.toml")
    assert "preprocessing.risize" in said and "'resize'" in said


def test_a_recipes_own_code_runs_only_when_trusted(refused, cnnx_command, tmp_path):
    pytest.importorskip("torch", reason="the recipe's code is a PyTorch model")
    (tmp_path / "mine.toml").write_text(RECIPE.replace('"lenet5"', '"net.py:net"'))
    (tmp_path / "net.py").write_text(
        "import pathlib\n"
        "from torch import nn\n"
        "def net(classes):\n"
        "    (pathlib.Path(__file__).parent / 'ran').touch()\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(1024, classes))\n"
    )
    said = refused(3, tmp_path / "mine.toml", "--weights", "standin")
    assert "net.py" in said and "--trust-recipe" in said and not (tmp_path / "ran").exists()
    code, out, _ = cnnx_command(
        "export", tmp_path / "mine.toml", "--weights", "standin", "--trust-recipe", "--out", tmp_path / "out"
    )
    assert code == 0 and "NOT JUDGED" in out and (tmp_path / "ran").exists()


class TestCheckpoints:
    @pytest.fixture(autouse=True)
    def torch(self):
        return pytest.importorskip("torch", reason="checkpoints are read by PyTorch")

    def test_truncated(self, refused, tmp_path, torch):
        torch.save({"conv1.weight": torch.zeros(6, 1, 5, 5)}, tmp_path / "net.pth")
        data = (tmp_path / "net.pth").read_bytes()
        (tmp_path / "net.pth").write_bytes(data[: len(data) // 2])
        assert "net.pth" in refused(3, "lenet5", "--weights", tmp_path / "net.pth")

    def test_of_another_model(self, refused, tmp_path, torch):
        torch.save({"features.0.weight": torch.zeros(64, 3, 3, 3)}, tmp_path / "other.pth")
        said = refused(3, "lenet5", "--weights", tmp_path / "other.pth")
        assert "features.0.weight" in said and "conv1.weight" in said

    def test_with_code_in_it(self, refused, tmp_path):
        class Evil:
            def __reduce__(self):
                return os.system, (f"touch {tmp_path}/owned",)

        (tmp_path / "evil.pth").write_bytes(pickle.dumps({"conv1.weight": Evil()}))
        said = refused(3, "lenet5", "--weights", tmp_path / "evil.pth")
        assert "evil.pth" in said and not (tmp_path / "owned").exists()

    def test_that_does_not_exist(self, refused, tmp_path):
        assert "does not exist" in refused(3, "lenet5", "--weights", tmp_path / "none.pth")

    def test_with_the_names_of_other_classes(self, refused, tmp_path, torch):
        from cnnx import models

        net = models.build("lenet5", classes=26, arguments={})
        torch.save(net.state_dict(), tmp_path / "letters.pth")
        (tmp_path / "five.txt").write_text("a\nb\nc\nd\ne\n")
        options = ("--weights", tmp_path / "letters.pth", "--class-names")
        for names, says in (
            (tmp_path / "five.txt", "5 names for 26 classes"),
            ("imagenet", "1000 names for 26 classes"),
            (tmp_path / "absent.txt", "correct --class-names"),
        ):
            assert says in refused(3, "lenet5", *options, names)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("[1, 32, 32]", "[1, 28, 28]"), ["does not accept an input of shape [1, 28, 28]", "input.shape"]),
        (
            ('"lenet5", classes = 10', '"lenet5_1998", classes = 26'),
            ["invalid number of classes 26", "lenet5"],
        ),
        (("classes = 10", "classes = 10, parameters = 61_707"), ["61,706 parameters", "states 61,707"]),
        (
            ("classes = 10", "classes = 10, arguments = { depth = 5 }"),
            ["model.arguments", "no argument 'depth'"],
        ),
        (('definition = "lenet5"', 'definition = "resnet", arguments = { depth = 51 }'), ["18, 34, 50, 101"]),
    ],
    ids=["input size", "classes", "counts", "argument", "depth"],
)
def test_a_recipe_that_does_not_fit_its_definition(refused, tmp_path, change, words):
    pytest.importorskip("torch", reason="the definition is a PyTorch model")
    assert change[0] in RECIPE
    (tmp_path / "mine.toml").write_text(RECIPE.replace(*change))
    said = refused(3, tmp_path / "mine.toml", "--weights", "standin")
    assert all(word in said for word in words), said


def test_no_network_names_the_url_the_place_and_the_way_around(refused, tmp_path, cache):
    url = "http://localhost:9/mine-01234567.pth"
    (tmp_path / "mine.toml").write_text(
        RECIPE + f'weights = {{ file = "mine-01234567.pth", url = "{url}" }}\n'
    )
    said = refused(4, tmp_path / "mine.toml")
    assert (
        url in said and str(cache / "weights" / "mine-01234567.pth") in said and "--weights standin" in said
    )


class TestPictures:
    def images(self, folder, count):
        folder.mkdir()
        random = np.random.default_rng(0)
        for index in range(count):
            pixels = random.integers(0, 255, (40, 40), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{index}.png")
        return folder

    def test_an_empty_folder(self, refused, tiny, tmp_path):
        (tmp_path / "empty").mkdir()
        said = refused(3, tiny, "--int8", *FEW, "--calibration-data", tmp_path / "empty")
        assert str(tmp_path / "empty") in said

    def test_a_text_file_called_jpg_is_named_and_skipped(self, cnnx_command, tiny, tmp_path):
        folder = self.images(tmp_path / "images", 8)
        (folder / "note.jpg").write_text("not an image")
        code, out, _ = cnnx_command(
            "export", tiny, "--int8", *FEW, "--calibration-data", folder, "--out", tmp_path / "out"
        )
        assert code in (0, 6) and "1 images of images were skipped: note.jpg" in out
        said = json.loads(cnnx_command("inspect", tmp_path / "out", "--json")[1])
        [skipped] = said["result"]["bundle"]["manifest"]["images"]["calibration"]["skipped"]
        assert skipped.startswith("note.jpg: ")

    def test_nothing_but_text_files_called_jpg(self, refused, tiny, tmp_path):
        (tmp_path / "images").mkdir()
        (tmp_path / "images" / "note.jpg").write_text("not an image")
        said = refused(3, tiny, "--int8", *FEW, "--calibration-data", tmp_path / "images")
        assert "note.jpg" in said

    def test_the_same_images_for_both_roles(self, refused, tiny, tmp_path):
        folder = self.images(tmp_path / "images", 4)
        said = refused(3, tiny, "--int8", "--calibration-data", folder, "--validation-data", folder)
        assert "all 4 are used for validation" in said


class TestGraphs:
    def test_external_data_outside_its_folder(self, refused, tmp_path):
        (tmp_path / "secret.bin").write_bytes(bytes(16 * 25 * 4))
        (tmp_path / "model").mkdir()
        model = tiny_graph()
        weight = next(t for t in model.graph.initializer if t.name == "conv.weight")
        weight.ClearField("raw_data")
        weight.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", "../secret.bin"), ("offset", "0"), ("length", str(16 * 25 * 4))):
            entry = weight.external_data.add()
            entry.key, entry.value = key, value
        (tmp_path / "model" / "net.onnx").write_bytes(model.SerializeToString())
        said = refused(3, tmp_path / "model" / "net.onnx", *FEW)
        assert "conv.weight" in said and "../secret.bin" in said

    def test_an_operator_nobody_knows(self, refused, tmp_path):
        model = tiny_graph(op="Frobnicate")
        (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
        said = refused(3, tmp_path / "net.onnx", *FEW)
        assert "Frobnicate" in said and "act" in said

    def test_an_operator_that_tensorrt_refuses_is_named_by_the_linter(self, refused, tmp_path):
        model = tiny_graph()
        model.graph.node[1].CopyFrom(helper.make_node("Bernoulli", ["conv"], ["act"], "dice"))
        (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
        said = refused(3, tmp_path / "net.onnx", "--fp32", *FEW)
        assert "Bernoulli" in said and "dice" in said

    def test_text_called_onnx(self, refused, tmp_path):
        (tmp_path / "net.onnx").write_text("hello")
        assert "net.onnx" in refused(3, tmp_path / "net.onnx", *FEW)


@pytest.mark.parametrize("command", ["inspect", "validate", "bench", "build"])
@pytest.mark.parametrize("file", ["model.onnx", "reference.npz", "calibration.json", "manifest.json"])
def test_a_bundle_with_one_byte_changed(cnnx_command, tiny_bundle, tmp_path, command, file):
    bundle = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, bundle)
    data = bytearray((bundle / file).read_bytes())
    data[len(data) // 2] ^= 1
    (bundle / file).write_bytes(data)
    code, out, said = cnnx_command(command, bundle)
    assert code == 3 and out == "" and file in said and "hint:" in said


class TestUsage:
    @pytest.mark.parametrize(
        ("arguments", "word"),
        [
            (("--int8", "--fp16"), "exclude each other"),
            (("--int8", "--method", "entopy"), "entropy"),
            (("--batch", "many"), "--batch"),
            (("--batch", "4..2"), "batch"),
            (("--target", "tensort"), "rtx"),
            (("--target", "ort", "--sm", "86"), "--target rtx"),
            (("--weights", "standin"), "drop --weights"),
            (("--validation-images", "0"), "at least 1"),
            (("--scales", "int4"), "fp16"),
        ],
    )
    def test_options_that_contradict_or_mean_nothing(self, cnnx_command, tiny, tmp_path, arguments, word):
        code, _, said = cnnx_command("export", tiny, *FEW, *arguments, "--out", tmp_path / "out")
        assert code == 2 and word in said and not (tmp_path / "out").exists()

    def test_a_gpu_that_rtx_does_not_know(self, cnnx_command, tiny_bundle):
        if reason := get("rtx").missing():
            pytest.skip(str(reason))
        code, _, said = cnnx_command("build", tiny_bundle, "--target", "rtx", "--sm", "87")
        assert code == 2 and "87" in said and "86" in said and "Jetson" in said


@pytest.mark.parametrize(
    ("arguments", "blocked", "extra"),
    [
        (("export", "lenet5", "--fp16"), "torch", "export"),
        (("validate", "BUNDLE"), "onnxruntime", "cpu"),
        (("build", "BUNDLE", "--sm", "86"), "tensorrt_rtx_bindings", "rtx"),
    ],
)
def test_a_missing_extra_is_named(tmp_path, tiny_bundle, arguments, blocked, extra):
    """In a process that cannot find the package, as one without the extra."""
    arguments = [str(tiny_bundle) if a == "BUNDLE" else a for a in arguments]
    code = f"""
import importlib.machinery, sys
from cnnx.cli import main
find = importlib.machinery.PathFinder.find_spec
hide = lambda name, *a, **k: None if name.split(".")[0] == {blocked!r} else find(name, *a, **k)
importlib.machinery.PathFinder.find_spec = hide
sys.argv = ["cnnx", *{arguments!r}]
main()
"""
    environment = {**os.environ, "CNNX_CACHE": str(tmp_path / "cache"), "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=tmp_path
    )
    assert done.returncode == 4, done.stderr
    assert f".[{extra}]" in done.stderr and "Traceback" not in done.stderr


def obey_permissions():
    """Take from root, before the command starts, the capability that lets it ignore permissions."""
    pr_capbset_drop, cap_dac_override = 24, 1  # linux/prctl.h, linux/capability.h
    if os.geteuid() == 0:
        ctypes.CDLL(None).prctl(pr_capbset_drop, cap_dac_override)


class TestWriting:
    def test_a_place_that_is_no_folder(self, refused, tiny, tmp_path):
        (tmp_path / "file").touch()
        said = refused(4, tiny, *FEW, out=tmp_path / "file" / "out")
        assert "cannot write" in said and "another path" in said and str(tmp_path / "file" / "out") in said

    def test_a_folder_that_may_not_be_written(self, cnnx_process, tiny, tmp_path):
        locked = tmp_path / "locked"
        locked.mkdir(mode=0o555)
        done = cnnx_process("export", tiny, *FEW, "--out", locked / "out", preexec_fn=obey_permissions)
        assert done.returncode == 4, done.stderr
        assert "permission denied" in done.stderr and list(locked.iterdir()) == []

    def test_a_file_size_limit(self, cnnx_process, tiny, tmp_path):
        """As a full disk: the write fails half-way, and nothing half-written is left."""
        done = cnnx_process(
            "export",
            tiny,
            *FEW,
            "--out",
            tmp_path / "out",
            env={"CNNX_CACHE": str(tmp_path / "cache")},
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
        )
        assert done.returncode == 4 and "file-size limit" in done.stderr, done.stderr
        assert "Traceback" not in done.stderr and not (tmp_path / "out").exists()
        leftovers = [p for p in (tmp_path / "cache").rglob("*") if p.name.endswith((".draft", ".onnx"))]
        assert leftovers == []

    def test_something_else_at_the_place_is_left_alone(self, cnnx_command, tiny, tmp_path):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "thesis.tex").write_text("years of work")
        code, _, said = cnnx_command("export", tiny, *FEW, "--out", tmp_path / "out")
        assert code == 3 and "not a cnnx bundle" in said and "--force" in said
        assert [p.name for p in (tmp_path / "out").iterdir()] == ["thesis.tex"]


def test_json_says_the_same_in_one_object(cnnx_command):
    code, out, said = cnnx_command("export", "lenat5", "--json")
    data = json.loads(out)
    assert (code, data["exit_code"], data["schema"], said) == (3, 3, 4, "")
    assert data["error"]["kind"] == "RecipeError" and "lenet5" in data["error"]["hint"]
