"""Each command on LeNet-5 in INT8: what it shows, what it keeps, and the same as one JSON object."""

import json
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from cnnx.cli.app import app
from cnnx.errors import EnvironmentLacks, MissingExtra
from cnnx.recipe import read_recipe, recipe_names
from cnnx.runtimes import NAMES, get
from cnnx.runtimes.engine.runtime import EngineRuntime


@pytest.fixture(scope="session")
def exported(tmp_path_factory, cache):
    """A bundle, made by the command; gives its place and what was shown. Left as it is."""
    pytest.importorskip("torch", reason="exporting LeNet-5 needs PyTorch")
    place = tmp_path_factory.mktemp("lenet5") / "lenet5-int8"
    command = ["export", "lenet5", "--int8", "--target", "ort", "--out", str(place)]
    result = CliRunner().invoke(app, command, env={"COLUMNS": "250"})
    assert result.exit_code == 0, result.output
    return place, result.stdout


@pytest.fixture
def lenet5(exported, tmp_path):
    """A copy that a command may add to."""
    shutil.copytree(exported[0], tmp_path / "lenet5-int8")
    return tmp_path / "lenet5-int8"


@pytest.fixture
def shown(cnnx_command):
    """What a command that succeeds prints."""

    def run(*arguments):
        code, out, said = cnnx_command(*arguments)
        assert code == 0, said
        return out

    return run


def rows(table):
    """A drawn table's rows by their first cell; a folded cell's rest is left out."""
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in table.splitlines() if "│" in line]
    return {cells[0]: cells[1:] for cells in lines if cells[0]}


def test_list_names_every_recipe_with_its_published_figures(shown):
    table = rows(shown("list"))
    assert set(table) == set(recipe_names())
    assert table["lenet5"] == ["32", "61.7 k", "417 k", "99.50", "ships"]
    table = rows(shown("list", "--verbose"))
    assert table["lenet5"] == [
        "lenet",
        "1x32x32",
        "61.7 k",
        "417 k",
        "99.50",
        "",
        "digits, whole images",
        "ships",
    ]
    figures = ["133 M", "7.61 G", "69.02", "88.63", "centre crop", "download"]
    assert table["vgg11"] == ["vgg", "3x224x224", *figures]
    assert table["resnet50-v1"][-1] == "none"


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["vgg19"], ["vgg19", "vgg19-bn"]),
        (["vgg1?"], ["vgg11", "vgg13", "vgg16", "vgg19"]),
        (["VGG16C"], ["vgg16c", "vgg16c-bn"]),
        (["--family", "squeezenet"], ["squeezenet1.0", "squeezenet1.1"]),
        (["--side", "299"], ["inception-v3", "inception-v4"]),
        (["--max-parameters", "0.1"], ["lenet5", "lenet5-1998"]),
        (["--max-multiply-adds", "0.37", "--side", "224"], ["mobilenet-v2", "squeezenet1.1"]),
        (["--min-top1", "79", "--with-weights", "--family", "inception"], ["inception-v4"]),
        (["nothing-so-called"], []),
    ],
)
def test_list_filters(cnnx_command, arguments, names):
    code, out, _ = cnnx_command("list", *arguments, "--json")
    assert code == 0 and [network["name"] for network in json.loads(out)["result"]] == names


@pytest.mark.parametrize("columns", [80, 100, 120])
def test_no_number_is_cut_on_a_narrow_screen(columns):
    listed = CliRunner().invoke(app, ["list"], env={"COLUMNS": str(columns)}).stdout
    for number in ("69.76", "11.7 M", "1.81 G", "99.05", "download"):
        assert number in listed
    assert max(map(len, listed.splitlines())) <= 80 and "hidden" not in listed
    assert "alexnet-no-conv3-conv4-fc6-fc7" in listed
    pytest.importorskip("torch", reason="the definition is a PyTorch model")
    shown = CliRunner().invoke(app, ["show", "vgg16-bn"], env={"COLUMNS": str(columns)}).stdout
    for number in ("138,365,992", "15,470,264,320", "128x112x112"):
        assert number in shown


def test_into_a_pipe_tables_go_whole(cnnx_process):
    done = cnnx_process("list", "resnet101", "--verbose", env={"COLUMNS": ""})
    assert "centre crop" in done.stdout and "7.80 G" in done.stdout


def test_list_says_when_nothing_fits(cnnx_command):
    assert "No network matches" in cnnx_command("list", "nothing-so-called")[1]
    for wrong in (["--min-top1", "101"], ["--side", "-3"], ["--max-parameters", "-5"]):
        assert cnnx_command("list", *wrong)[0] == 2


def test_show_of_a_bundle_says_what_shows_it(cnnx_command, exported):
    code, _, said = cnnx_command("show", exported[0])
    assert code == 3 and "exported bundle" in said and "cnnx inspect" in said


def test_list_imports_nothing_heavy():
    code = (
        "import sys\nfrom cnnx.cli.app import app\n"
        "try: app(['list'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'PIL', 'polars'} & set(sys.modules)\n"
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_list_orders_by_family_and_depth(cnnx_command):
    networks = json.loads(cnnx_command("list", "--json")[1])["result"]
    names = [network["name"] for network in networks]
    assert names.index("resnet18") < names.index("resnet50") < names.index("resnet101")
    families = [network["family"] for network in networks]
    assert families == sorted(families)


def test_list_refuses_a_family_that_does_not_exist(cnnx_command):
    code, _, said = cnnx_command("list", "--family", "resnets")
    assert code == 2 and "did you mean 'resnet'" in said


def test_show_counts_lenet5_as_the_lecture_does(shown):
    pytest.importorskip("torch", reason="the definition is a PyTorch model")
    table = rows(shown("show", "lenet5"))
    assert table["total"][-2:] == ["61,706", "416,520"]
    assert table["input"] == ["Input", "1x32x32", "4.0", "", ""]
    assert table["conv1"] == ["Conv2d", "6x28x28", "18.4", "156", "117,600"]  # 4 * 6 * 28 * 28 bytes
    assert table["fc3"] == ["Linear", "10", "0.0", "850", "840"]


def test_show_prints_markdown_and_json_of_the_same_table(cnnx_command):
    pytest.importorskip("torch", reason="the definition is a PyTorch model")
    code, out, _ = cnnx_command("show", "vgg16", "--markdown")
    assert code == 0
    lines = out.strip().splitlines()
    assert lines[0] == "**VGG-16 (configuration D), input 3x224x224**"
    cells = {line.split(" | ")[0].strip("| "): line.strip("| ").split(" | ") for line in lines[2:]}
    assert cells["classifier.6"] == ["classifier.6", "Linear", "1000", "3.9", "4,097,000", "4,096,000"]
    # 15,237,608 values of four bytes: docs/errata.md.
    assert cells["total"][3:] == ["59,521.9", "138,357,544", "15,470,264,320"]
    shown = json.loads(cnnx_command("show", "vgg16", "--json")[1])["result"]
    assert shown["totals"] == {
        "parameters": 138_357_544, "multiply_adds": 15_470_264_320, "activation_bytes": 4 * 15_237_608
    }  # fmt: skip
    code, said, _ = cnnx_command("show", "vgg16", "--json", "--markdown")
    assert code == 2 and "exclude each other" in said


def test_show_counts_a_quantized_graph_as_its_original(shown, exported):
    """Q/DQ nodes, scales and zero points are no layers and no parameters of the network."""
    table = rows(shown("show", exported[0] / "model.onnx"))
    assert table["total"][-2:] == ["61,706", "416,520"]
    assert table["conv1"] == ["Conv", "6x28x28", "18.4", "156", "117,600"]  # in FP32, as the original
    assert not any("Quantize" in cells[0] for cells in table.values() if cells)


def test_export_shows_verdict_cost_and_place(exported):
    place, said = exported
    assert "lenet5 int8: PASSED" in said and str(place) in said
    assert {"top-1 agreement", "top-1 in top-5", "top-5 agreement"} <= set(rows(said))
    assert "5 in INT8" in said and "No engine was built" not in said  # ort was asked for
    assert "predicts nothing for a GPU" in said
    assert len(said.splitlines()) <= 22 and said.rstrip().endswith("# on the device")
    assert f"cnnx build {place}" in said and "(original fp32)" in said and "MiB" in said


def test_export_shows_the_rest_when_asked(shown, exported):
    out = shown("export", "lenet5", "--int8", "--target", "ort", "--out", exported[0], "--verbose")
    assert "Unchanged" in out and "800 images of digits" in out and "peak memory" in out
    assert "Linter warnings" in out


def test_inspect_shows_every_layers_precision_with_its_reason(shown, exported):
    out = shown("inspect", exported[0])
    table = rows(out)
    weighted = {name: cells for name, cells in table.items() if cells[0] in ("Conv", "Gemm")}
    assert {name: cells[1] for name, cells in weighted.items()} == dict.fromkeys(
        ("conv1", "conv2", "fc1", "fc2", "fc3"), "int8"
    )
    # Its ReLUs are centered, which makes them Clips.
    others = [cells for cells in table.values() if cells[0] in ("Clip", "MaxPool", "Flatten")]
    assert len(others) == 7 and {cells[1] for cells in others} == {"fp16"}
    assert all(cells[-1] for cells in table.values())
    reason = "but the recipe requests it: " + read_recipe("lenet5").precision.reason
    assert reason[:80] in table["conv1"][-1]
    assert "all verified" in out and "100.0% of the MACs in INT8" in out and "passed (lenet5" in out


def test_inspect_shows_the_linters_remarks_when_asked(shown, exported):
    remarks = json.loads((exported[0] / "manifest.json").read_text())["warnings"]
    assert remarks and f"{len(remarks)} linter warning" in shown("inspect", exported[0])
    table = shown("inspect", exported[0], "--verbose")
    assert all(remark["rule"] in table and remark["node"] in table for remark in remarks)


def test_validate_shows_the_self_test_and_keeps_a_record(shown, lenet5):
    before = set((lenet5 / "runs").iterdir())
    out = shown("validate", lenet5)
    [record] = set((lenet5 / "runs").iterdir()) - before
    kept = json.loads(record.read_text())
    assert "lenet5 int8, self-test: PASSED" in out and "200 images of digits" in out
    assert kept["kind"] == "selftest" and kept["result"]["images"] == 200
    assert kept["subject"]["digest"][:12] in out and kept["subject"]["device"] in out


def test_bench_shows_latency_and_memory_and_keeps_every_sample(shown, lenet5):
    before = set((lenet5 / "runs").iterdir())
    out = shown("bench", lenet5, "--target", "ort", "--seconds", "0.2")
    [record] = set((lenet5 / "runs").iterdir()) - before
    kept = json.loads(record.read_text())
    assert kept["kind"] == "benchmark" and "Latency on ort" in out
    batch, p50, *_, samples = rows(out[: out.index("Memory, MiB")])["graph int8"]
    assert batch == "1" and float(p50) > 0
    assert samples == str(len(kept["result"]["latency"]["samples_ns"]))


def test_bench_says_what_power_options_need(cnnx_command, lenet5):
    for option in (["--rate", "30"], ["--sensor", "ina"]):
        code, _, said = cnnx_command("bench", lenet5, *option)
        assert code == 2 and "add --power" in said
    for rate in ("0", "nan", "inf", "-3"):
        code, _, said = cnnx_command("bench", lenet5, "--power", "--rate", rate)
        assert code == 2 and "positive" in said
    before = set((lenet5 / "runs").iterdir())
    code, _, said = cnnx_command("bench", lenet5, "--power", "--sensor", "no-such-sensor")
    assert code == 4 and "no-such-sensor" in said and "ina: " in said
    assert set((lenet5 / "runs").iterdir()) == before  # refused before anything was measured


def test_build_shows_the_engine_and_inspect_finds_it(shown, lenet5):
    if reason := get("rtx").missing():
        pytest.skip(str(reason))
    [(identity, cells)] = rows(shown("build", lenet5, "--target", "rtx", "--sm", "86")).items()
    assert "sm86" in identity and "5 of 5 weighted" in cells and cells[-1]
    assert rows(shown("inspect", lenet5))[identity] == cells


def test_doctor_says_what_can_be_done_and_what_the_rest_would_take(shown):
    out = shown("doctor")
    table = rows(out)
    assert table["run and validate with ort"] == ["yes"] and "python" in out
    cannot = [what for what, can in table.items() if can == ["no"]]
    wrong = json.loads(shown("doctor", "--json"))["result"]["wrong_combinations"]
    assert all(f"{what}: " in out for what in cannot)
    assert out.count("hint: ") == len(cannot) + len(wrong)
    for name in NAMES:
        assert f"run and validate with {name}" in table


def test_version_is_that_of_the_package(shown):
    from importlib.metadata import version

    assert shown("--version") == f"cnnx {version('cnnx')}\n"


@pytest.mark.parametrize("command", ["list", "show", "doctor", "inspect", "validate", "bench", "export"])
def test_json_is_one_object_and_nothing_else(cnnx_command, exported, lenet5, command):
    place = lenet5 if command in ("validate", "bench") else exported[0]
    arguments = {
        "list": [],
        "doctor": [],
        "show": ["lenet5"],
        "bench": [place, "--seconds", "0.01"],
        "export": ["lenet5", "--int8", "--target", "ort", "--out", place],
    }.get(command, [place])
    code, out, said = cnnx_command(command, *arguments, "--json")
    data = json.loads(out)
    assert (code, said) == (0, "") and set(data) == {"schema", "command", "result"}
    assert data["schema"] == 4 and data["command"] == command and data["result"]
    if command == "export":
        assert data["result"]["unchanged"] and data["result"]["validation"]["verdict"] == "passed"


def test_a_damaged_record_is_listed_in_a_report_and_hides_no_other(lenet5, tmp_path, cnnx_command):
    (lenet5 / "runs" / "2026-benchmark.json").write_text('{"kind": "bench')
    for command in (("bench", lenet5, "--seconds", "0.02"), ("validate", lenet5)):
        code, out, _ = cnnx_command(*command, "--report", tmp_path / "r.md", "--json")
        assert code == 0 and json.loads(out)["result"]
        text = (tmp_path / "r.md").read_text()
        assert "# lenet5 int8: PASSED" in text and "2026-benchmark.json | damaged | invalid JSON" in text


def test_an_absent_recipe_is_an_input_for_diagnose_as_for_export(lenet5, cnnx_command):
    for command in (("diagnose", lenet5, "--model", "nope.toml"), ("export", "nope.toml")):
        code, _, said = cnnx_command(*command)
        assert code == 3 and "nope.toml" in said


def test_a_place_for_no_record_or_no_bundle_is_found_before_the_work(lenet5, tmp_path, cnnx_command):
    shutil.rmtree(lenet5 / "runs")
    (lenet5 / "runs").write_text("in the way")
    for command in ("bench", "validate", "diagnose"):
        code, out, _ = cnnx_command(command, lenet5, "--json")
        error = json.loads(out)["error"]
        assert code == 4 and "a file exists where a folder is needed" in error["what"]
        assert str(lenet5 / "runs") in error["where"]
    code, _, said = cnnx_command("export", "lenet5", "--out", lenet5 / "runs" / "x")
    assert code == 4 and "a file exists where a folder is needed" in said
    assert "weights" not in said and (lenet5 / "runs").read_text() == "in the way"
    code, _, said = cnnx_command("diagnose", lenet5, "--plot", lenet5 / "runs" / "x.svg")
    assert code == 4 and "a file exists where a folder is needed" in said
    (lenet5 / "engines").write_text("in the way")
    code, _, said = cnnx_command("build", lenet5, "--target", "rtx", "--sm", "86")
    assert code == 4 and (
        "a file exists" in said or "tensorrt_rtx" in said
    )  # without RTX, that error comes first
    code, _, said = cnnx_command(
        "export", "lenet5", "--out", tmp_path / "a" / "b", "--sm", "86", "--target", "ort"
    )
    assert code == 2 and list(tmp_path.iterdir()) == [lenet5]


def test_where_nothing_builds_it_is_said_why(lenet5, cnnx_command, monkeypatch):
    reason = EnvironmentLacks("no CUDA-capable device is detected", hint="plug one in")
    monkeypatch.setattr(EngineRuntime, "cannot_run", lambda _: reason)
    code, _, said = cnnx_command("build", lenet5)
    assert code == 4 and reason.what in said and "plug one in; or" in said and "--target rtx --sm 86" in said
    absent = MissingExtra("tensorrt", "tensorrt", purpose="building")
    monkeypatch.setattr(EngineRuntime, "cannot_run", lambda _: absent)
    monkeypatch.setattr("cnnx.pipeline.build.detect", lambda: SimpleNamespace(gpu=None, l4t=None))
    code, _, said = cnnx_command("build", lenet5)
    assert code == 4 and "no NVIDIA GPU was found" in said and "pip" not in said
