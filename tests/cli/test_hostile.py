"""Small input that would cause endless or heavy work is refused at once; what is printed does nothing."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

import cnnx
from cnnx.data.images import ImageFile
from cnnx.errors import CnnxError, GateError, GraphError, ImageError, RecipeError, WeightsError
from cnnx.gates import read_gates
from cnnx.graph.entry import read_network
from cnnx.limits import INLINED_NODES, KEY_PARTS, LIST_BYTES, TENSOR_BYTES, TEXT_BYTES
from cnnx.recipe import read_recipe
from cnnx.weights.download import require_safe
from tests.conftest import invoke
from tests.inputs.tiny import tiny_graph

torch = pytest.importorskip("torch")

RECIPE = """
name = "mine"
model = { definition = "lenet5", classes = 10 }
input = { shape = [1, 32, 32] }
preprocessing = { color = "gray", resize = 32, mean = [0.5], std = [0.5] }
"""


@pytest.fixture(autouse=True)
def alarm() -> Iterator[None]:
    """Nothing here takes more than a second or two; what hangs would hang for hours."""

    def late(*_: object) -> None:
        raise TimeoutError("still at work after 30 s")

    signal.signal(signal.SIGALRM, late)
    signal.alarm(30)
    yield
    signal.alarm(0)


# Files


@pytest.mark.parametrize(
    "arguments",
    [
        ("show", "{}.toml"),
        ("show", "{}.onnx"),
        ("export", "lenet5", "--weights", "{}.pth"),
        ("export", "lenet5", "--class-names", "{}.txt"),
        ("export", "lenet5", "--validation-data", "{}.txt"),
        ("export", "lenet5", "--preprocessing", "{}.json"),
        ("validate", "bundle", "--gates", "{}.toml"),
        ("inspect", "bundle"),
        ("report", "{}.json"),
        ("verify", "bundle", "--key", "{}.pem"),
    ],
    ids=" ".join,
)
def test_a_pipe_is_not_waited_for(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bundle").mkdir()
    os.mkfifo(tmp_path / "bundle" / "manifest.json")
    for suffix in ("toml", "onnx", "pth", "txt", "json", "pem"):
        os.mkfifo(tmp_path / f"pipe.{suffix}")
    done = invoke(*(each.format("pipe") for each in arguments))
    assert done.exit_code in (2, 3), done.output


@pytest.mark.parametrize(
    ("name", "size", "read"),
    [
        ("large.toml", TEXT_BYTES, lambda file: read_recipe(str(file))),
        ("large.txt", LIST_BYTES, lambda file: cnnx.export("lenet5", validation_data=file)),
    ],
)
def test_text_has_a_limit(name: str, size: int, read: Callable[[Path], object], tmp_path: Path):
    file = tmp_path / name
    with file.open("wb") as stream:
        stream.truncate(size + 1)
    with pytest.raises(CnnxError, match=f"more than {size:,} bytes"):
        read(file)


@pytest.mark.parametrize("form", ["{}a = 1", "[{}a]", "x = {{ {}a = 1 }}", "'{}'.a = 1"])
def test_a_key_has_a_limited_number_of_parts(form: str, tmp_path: Path):
    """tomllib takes 2.4 GiB for 20,000 parts."""
    (file := tmp_path / "r.toml").write_text(form.format("a." * 20_000))
    for read in (lambda: read_recipe(str(file)), lambda: read_gates(file)):
        with pytest.raises((RecipeError, GateError), match=f"more than {KEY_PARTS} parts|unknown key"):
            read()


def test_text_with_many_dots_is_no_key(tmp_path: Path):
    (file := tmp_path / "r.toml").write_text(f'summary = "{"." * 5000} and {". " * 500}"\n{RECIPE}')
    assert read_recipe(str(file)).name == "mine"


# Images


@pytest.mark.parametrize("start", [b"%!PS-Adobe-3.0 EPSF-3.0\n", b"icns\0\0\0\x10", b"\0\0\1\0\1\0"])
def test_only_formats_that_are_named_are_decoded(start: bytes, tmp_path: Path, monkeypatch):
    """Pillow starts Ghostscript for an EPS, whatever the file's name."""
    monkeypatch.setattr("subprocess.Popen", lambda *_, **__: pytest.fail("a program was started"))
    (file := tmp_path / "a.jpg").write_bytes(start + b"%%BoundingBox: 0 0 32 32\nshowpage\n%%EOF\n" * 40)
    with pytest.raises(ImageError, match="not one of the formats BMP, GIF, JPEG"):
        ImageFile("a.jpg", file).load()


# Checkpoints


def holds_itself(file: Path) -> None:
    content: dict[str, object] = {}
    content["state_dict"] = content
    torch.save(content, file)


def is_wide(file: Path) -> None:
    """Forty names for each of four levels of one dictionary: 2.5 million paths."""
    content: dict[str, object] = {"a": 0}
    for _ in range(4):
        content = {f"k{index}": content for index in range(40)}
    torch.save(content, file)


def is_compressed(file: Path) -> None:
    torch.save({"conv1.weight": torch.zeros(6, 1, 5, 5)}, plain := file.with_name("plain.pth"))
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        for name in source.namelist():
            packed.writestr(name, source.read(name))


def has_no_values(file: Path) -> None:
    torch.save({"conv1.weight": torch.zeros(6, 1, 5, 5, device="meta")}, file)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (holds_itself, "contains no tensors"),
        (is_wide, "contains no tensors"),
        (is_compressed, "is a compressed archive"),
        (has_no_values, "not tensors: conv1.weight"),
    ],
)
def test_a_checkpoint_that_is_a_trap_is_refused(make: Callable[[Path], None], words: str, tmp_path: Path):
    make(tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=words):
        cnnx.export("lenet5", weights=str(tmp_path / "w.pth"), out=tmp_path / "out")


def test_a_pattern_takes_no_longer_for_a_name_that_almost_matches(tmp_path: Path):
    """With backtracking, each further letter doubles the time."""
    from cnnx import models
    from cnnx.weights.checkpoint import load

    (recipe := tmp_path / "r.toml").write_text(f"{RECIPE}[weights.rename]\n'^(a+)+$' = 'b'\n")
    net = models.build("lenet5", classes=10, arguments={})
    torch.save({**net.state_dict(), "a" * 60 + "!": torch.zeros(1)}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"unexpected|different"):
        load(net, tmp_path / "w.pth", read_recipe(str(recipe)))
    recipe.write_text(f"{RECIPE}[weights.rename]\n'^(?=conv)' = 'b'\n")
    with pytest.raises(RecipeError, match="is not supported"):
        load(net, tmp_path / "w.pth", read_recipe(str(recipe)))


@pytest.mark.parametrize(
    "url",
    [
        "https://[::1",
        "https://[foo]/x",
        "https://é.example/x",
        f"https://{'a' * 70}.com/x",
        "https://a:99999/x",
    ],
)
def test_a_url_that_is_none_is_refused(url: str):
    with pytest.raises(RecipeError, match=r"invalid weights\.url"):
        require_safe(url)


# Graphs


def test_nested_functions_do_not_expand(tmp_path: Path):
    """Each of 30 functions calls the one before twice."""
    domains = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    body = [helper.make_node("Relu", ["x"], ["y"])]
    functions = []
    for index in range(30):
        functions.append(helper.make_function("local", f"f{index}", ["x"], ["y"], body, domains))
        twice = [("x", "t"), ("t", "y")]
        body = [helper.make_node(f"f{index}", [a], [b], domain="local") for a, b in twice]
    x, y = (helper.make_tensor_value_info(name, 1, [1, 3, 8, 8]) for name in ("x", "y"))
    graph = helper.make_graph([helper.make_node("f29", ["x"], ["y"], domain="local")], "g", [x], [y])
    model = helper.make_model(graph, functions=functions, opset_imports=domains, ir_version=9)
    onnx.save(model, tmp_path / "f.onnx")
    with pytest.raises(GraphError, match=r"5e\+08 nodes once its local functions") as refused:
        read_network(tmp_path / "f.onnx")
    assert f"{INLINED_NODES:,}" in str(refused.value.hint)


def test_functions_called_in_branches_count_and_deep_ones_are_refused():
    from cnnx.graph.load import _nodes_when_inlined

    domains = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    body = [helper.make_node("Relu", ["x"], ["y"])] * 10
    inner = helper.make_function("local", "f", ["x"], ["y"], body, domains)
    end = helper.make_tensor_value_info("y", 1, [1])
    branch = helper.make_graph([helper.make_node("f", ["x"], ["y"], domain="local")] * 10, "b", [], [end])
    choice = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    graph = helper.make_graph([choice], "g", [], [end])
    model = helper.make_model(graph, functions=[inner], opset_imports=domains)
    assert _nodes_when_inlined(model) == 201


def test_a_long_chain_of_functions_is_refused(tmp_path: Path):
    domains = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    names = [f"f{index}" for index in range(2000)]
    bodies = [[helper.make_node(name, ["x"], ["y"], domain="local")] for name in names[:-1]]
    functions = [
        helper.make_function("local", name, ["x"], ["y"], body, domains)
        for name, body in zip(names, [[helper.make_node("Relu", ["x"], ["y"])], *bodies], strict=True)
    ]
    x, y = (helper.make_tensor_value_info(name, 1, [1, 3, 8, 8]) for name in ("x", "y"))
    graph = helper.make_graph([helper.make_node(names[-1], ["x"], ["y"], domain="local")], "g", [x], [y])
    model = helper.make_model(graph, functions=functions, opset_imports=domains, ir_version=9)
    onnx.save(model, tmp_path / "f.onnx")
    with pytest.raises(GraphError, match=r"nested too deeply|control flow|inlined"):
        read_network(tmp_path / "f.onnx")


def test_a_sequence_has_no_size(tmp_path: Path):
    model = tiny_graph()
    name = model.graph.output[0].name
    index = onnx.numpy_helper.from_array(np.array(0), "index")
    model.graph.initializer.append(index)
    model.graph.node.extend(
        [
            helper.make_node("SequenceConstruct", [name], ["all"], name="all"),
            helper.make_node("SequenceAt", ["all", "index"], ["same"], name="same"),
        ]
    )
    model.graph.output[0].name = "same"
    onnx.save(model, tmp_path / "s.onnx")
    assert read_network(tmp_path / "s.onnx").classes == 10


def test_a_few_bytes_do_not_make_a_tensor_that_fills_the_memory(tmp_path: Path):
    model = tiny_graph()
    classes = model.graph.output[0].name
    count = onnx.numpy_helper.from_array(np.array([TENSOR_BYTES // 4 + 1]), "count")
    model.graph.initializer.append(count)
    model.graph.node.extend(
        [
            helper.make_node("ConstantOfShape", ["count"], ["zeros"], name="zeros"),
            helper.make_node("ReduceSum", ["zeros"], ["none"], name="none", keepdims=0),
            helper.make_node("Add", [classes, "none"], ["sum"], name="sum"),
        ]
    )
    model.graph.output[0].name = "sum"
    onnx.save(model, tmp_path / "z.onnx")
    with pytest.raises(GraphError, match=r"the tensor zeros has 0\.5 GiB for one image"):
        read_network(tmp_path / "z.onnx")


# Output

NAME = "=cmd|' /C calc'!A0 \x1b]0;title\x07\x9b31m\u202e [x](javascript:alert(1)) <img src=x>"


@pytest.fixture(scope="module")
def named(tmp_path_factory):
    """A bundle whose network and first class have a name that would do something wherever it is printed."""
    folder = tmp_path_factory.mktemp("named")
    (folder / "names.txt").write_text("\n".join([NAME, *map(str, range(9))]), encoding="utf-8")
    (folder / "r.toml").write_text(f"title = {NAME!r}\n".replace("\\x", "\\u00") + RECIPE)
    out = folder / "bundle"
    images = {"validation_data": "digits", "validation_images": 8}
    return cnnx.export("lenet5", precision="fp32", class_names=folder / "names.txt", out=out, **images).bundle


def test_names_do_nothing_on_a_terminal_and_in_reports(named, tmp_path):
    from cnnx.report.files import FORMATS
    from cnnx.report.markdown import markdown
    from cnnx.report.table import Column, Facts, Remark, table_of
    from cnnx.report.terminal import as_text

    done = invoke("classify", str(named.path), "--top", "10", str(_digit(tmp_path)))
    assert done.exit_code == 0 and "\\x1b]0;title\\x07\\x9b31m\\u202e" in done.output.replace("\n", "")
    table = table_of(NAME, (Column("name", lambda row: row),), [[NAME]])
    blocks = [table, Facts(((NAME, NAME),)), Remark(NAME, NAME, hint=NAME)]
    for text in (as_text(blocks), markdown([table, blocks[2]])):
        assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(text)
    assert "](java" not in markdown([table]) and "<img" not in markdown([table])
    report = type("Report", (), {"rows": ({"name": NAME, "value": -1.5},)})()
    [row] = csv.DictReader(FORMATS[".csv"](report).splitlines())
    assert row == {"name": f"'{NAME}", "value": "-1.5"}


def _digit(folder: Path) -> Path:
    from PIL import Image

    Image.new("L", (32, 32)).save(folder / "a.png")
    return folder / "a.png"


@pytest.mark.parametrize("arguments", [["list"], ["list", "--json"], ["--help"], ["--version"]])
def test_output_that_cannot_be_written_is_no_fault_of_cnnx(arguments):
    command = [sys.executable, "-m", "cnnx", *arguments]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 4
    assert "the output cannot be written: No space left on device" in done.stderr
    assert "Exception ignored" not in done.stderr
    closed = subprocess.run(
        ["sh", "-c", '"$0" "$@" >&-', *command], capture_output=True, text=True, timeout=60
    )
    assert (closed.returncode, closed.stderr) == (0, "")


@pytest.mark.parametrize("how", [">/dev/full", "2>/dev/full", "| true", "2>&1 | true"])
@pytest.mark.parametrize(
    ("arguments", "code"), [(["bom", "nothing", "--json"], 3), (["bom", "nothing"], 3), (["bom", "--no"], 2)]
)
def test_an_error_that_cannot_be_written_keeps_its_exit_code(arguments, code, how):
    """Exit code 1 would say that a gate failed."""
    script = f'"$0" -m cnnx "$@" {how}; exit "${{PIPESTATUS[0]}}"'
    command = ["bash", "-c", script, sys.executable, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == code and "Traceback" not in done.stderr
    assert code == 2 or "2>" in how or "does not exist" in done.stderr
