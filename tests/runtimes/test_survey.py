"""A survey of a small network on ONNX Runtime: cells fail alone, and a second run does nothing again."""

from __future__ import annotations

import json

import onnx
import pytest
from tests.cli.conftest import cnnx_command, tiny_graph  # noqa: F401

import cnnx
from cnnx.errors import UsageError

PLAN = cnnx.SurveyPlan(target="ort", seconds=0.01, percentile=50, images=16)


@pytest.fixture
def tiny(tmp_path):
    model = tiny_graph()
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    onnx.save(model, tmp_path / "tiny.onnx")
    return str(tmp_path / "tiny.onnx")


def run(models, out, **options):
    steps = []
    found = cnnx.survey(
        models, out=out, batches=(1, 2), plan=PLAN, listener=lambda event: steps.append(event.step), **options
    )
    return found, steps


def cells(found):
    return [(row["model"], row["precision"], row["batch"], row["status"]) for row in found.rows]


def test_every_cell_is_a_row_and_a_stopped_survey_goes_on(tiny, tmp_path):
    out = tmp_path / "out"
    found, _ = run([tiny, str(tmp_path / "absent.onnx")], out)
    assert cells(found) == [
        (name, precision, batch, "done" if name == "tiny" else "failed")
        for name in ("tiny", "absent")
        for precision in ("fp16", "int8")
        for batch in (1, 2)
    ]
    first, last = found.rows[0], found.rows[-1]
    assert first["p50_ns"] > 0 and first["memory"]["added_bytes"] > 0 and first["verdict"]
    assert last["reason"] and found.exit_code == 0
    page = (out / "survey.md").read_text()
    assert page.count("| tiny |") == 4 and page.count("failed: ") == 4
    assert json.loads((out / "survey.json").read_text()) == list(found.rows)

    again, steps = run([tiny, str(tmp_path / "absent.onnx")], out)
    assert again.rows == found.rows and steps == []

    # Killed in a cell: its row said "running". It is not tried again by itself, as it would be killed again.
    row = out / "rows" / "tiny-int8-b2.json"
    row.write_text(json.dumps({**json.loads(row.read_text()), "status": "running"}))
    killed, steps = run([tiny], out)
    assert steps == [] and [r["status"] for r in killed.rows] == ["done"] * 3 + ["failed"]
    assert "died in this cell" in killed.rows[-1]["reason"]
    mended, steps = run([tiny], out, again=True)
    assert mended.rows[-1]["status"] == "done" and steps.count("latency and memory") >= 1


def test_finished_bundles_are_judged_and_measured_and_batches_they_lack_are_rows(
    tiny,
    tmp_path,
    cnnx_command,  # noqa: F811
):
    images = {"calibration_images": 16, "validation_images": 16}
    cnnx.export(tiny, precision="int8", out=tmp_path / "bundle", target="ort", **images)
    code, out, _ = cnnx_command(
        "survey", "--models", tmp_path / "bundle", "--out", tmp_path / "out", "--batches", "1,4",
        "--seconds", "0.01", "--percentile", "50", "--target", "ort",
    )  # fmt: skip
    assert code == 0 and "failed: the graph takes batches of 1 to 1, not 4" in out
    assert list((tmp_path / "bundle" / "runs").glob("*-benchmark-*"))
    with pytest.raises(UsageError, match="no precision"):
        cnnx.survey([tiny], out=tmp_path / "o", precisions=["int4"])
