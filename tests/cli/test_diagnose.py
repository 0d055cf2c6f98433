import json

import onnx
import pytest

from tests.inputs.tiny import tiny_graph


def test_findings_are_printed_drawn_and_reported(cnnx_command, tiny_bundle, tmp_path):
    pytest.importorskip("altair", reason="images need the extra report")
    model = tiny_bundle.parent / "tiny.onnx"
    files = ("--plot", tmp_path / "damage.svg", "--report", tmp_path / "report.html")
    code, out, _ = cnnx_command("diagnose", tiny_bundle, "--model", model, "--images", 8, *files)
    assert code == 0 and "alone, nats" in out and "layers do alone" in out
    code, out, _ = cnnx_command("diagnose", tiny_bundle, "--model", model, "--images", 8, "--json")
    found = json.loads(out)["result"]["findings"]
    assert code == 0 and found["images"] == 8
    layers = {each["layer"]: each for each in (*found["layers"], *found["others"])}
    assert set(layers) == {"conv", "fc"} and sum(each["share"] for each in found["layers"]) == pytest.approx(
        1
    )
    drawn = (tmp_path / "damage.svg").read_text()
    assert drawn.startswith("<svg") and all(f">{name}</text>" in drawn for name in layers)
    page = (tmp_path / "report.html").read_text()
    assert found["reading"][0] in page and "Damage by layer" in page and "weights lost" in page
    # Tables of verdicts and measurements have no row for it.
    code, _, _ = cnnx_command("validate", tiny_bundle, "--report", tmp_path / "rows.json")
    kinds = {row["kind"] for row in json.loads((tmp_path / "rows.json").read_text())["rows"]}
    assert code == 0 and "validation" in kinds and "diagnosis" not in kinds


def test_what_cannot_be_diagnosed_is_refused(cnnx_command, tiny_bundle, tmp_path):
    code, _, said = cnnx_command("diagnose", tiny_bundle)
    assert code == 2 and "tiny.onnx, which does not ship" in said and "--model FILE" in said
    code, _, said = cnnx_command("diagnose", tiny_bundle, "--model", tmp_path / "absent.onnx")
    assert code == 3 and "does not exist" in said
    onnx.save(tiny_graph(op="Sigmoid"), tmp_path / "other.onnx")
    code, _, said = cnnx_command("diagnose", tiny_bundle, "--model", tmp_path / "other.onnx")
    assert code == 3 and "these are not the bundle's weights" in said
    code, _, said = cnnx_command("diagnose", tiny_bundle, "--plot", tmp_path / "damage.gif")
    assert code == 2 and "use the suffix .svg or .png" in said
