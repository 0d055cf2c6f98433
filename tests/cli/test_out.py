"""Where `export --out` points: only cnnx's own files are replaced there, and what is left is named."""

import shutil

import pytest

from tests.inputs.tiny import FEW


@pytest.fixture
def export(cnnx_command, tiny):
    def run(out, *options):
        return cnnx_command("export", tiny, *FEW, "--out", out, *options)

    return run


def test_a_web_apps_folder_is_refused_before_any_work_and_with_force_kept(export, tmp_path):
    """Once, every file of it was deleted, as it has a manifest.json."""
    app = {"manifest.json": '{"name": "app"}', "index.html": "<html>", "src/app.js": "start()"}
    out = tmp_path / "app"
    for name, text in app.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(text)
    code, _, said = export(out)
    assert code == 3 and "manifest.json" in said and "--force" in said and "ONNX graph" not in said
    assert {name: (out / name).read_text() for name in app} == app
    code, shown, _ = export(out, "--int8", "--force")
    assert code in (0, 1, 6)
    assert "index.html, manifest.json.kept-1, src" in shown
    assert (out / "manifest.json.kept-1").read_text() == app["manifest.json"]
    assert (out / "index.html").exists() and (out / "src" / "app.js").exists()
    assert export(out, "--fp16")[0] in (0, 1, 6), "it is a bundle now"


def test_a_file_where_records_go_is_refused_before_any_work(export, tmp_path):
    out = tmp_path / "b"
    assert export(out, "--int8")[0] in (0, 1, 6)
    shutil.rmtree(out / "runs")
    (out / "runs").touch()
    code, _, said = export(out, "--fp16")
    assert code == 3 and "runs is not a folder" in said and "ONNX graph" not in said


def test_a_bundles_folder_keeps_what_is_not_the_bundles(export, cnnx_command, tmp_path):
    out = tmp_path / "b"
    assert export(out, "--int8")[0] in (0, 1, 6)
    (out / "notes.txt").write_text("mine")
    (out / "engines" / "mine").mkdir(parents=True)
    (out / "engines" / "mine" / "model.engine").write_text("mine")
    records = sorted(path.name for path in (out / "runs").iterdir())
    code, shown, _ = export(out, "--fp16")
    assert code in (0, 1, 6) and "engines/mine, notes.txt" in shown
    assert (
        (out / "notes.txt").read_text() == "mine" == (out / "engines" / "mine" / "model.engine").read_text()
    )
    assert set(records) < {path.name for path in (out / "runs").iterdir()}
    assert cnnx_command("inspect", out)[0] == 0


def test_out_may_be_the_working_folder_or_a_link(export, cnnx_command, tmp_path, monkeypatch):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    for precision in ("--int8", "--fp16"):
        assert export(tmp_path / "link", precision)[0] in (0, 1, 6)
        assert (tmp_path / "link").is_symlink() and (tmp_path / "real" / "model.onnx").is_file()
    monkeypatch.chdir(tmp_path / "real")
    assert export(".", "--int8")[0] in (0, 1, 6) and cnnx_command("inspect", ".")[0] == 0
    (tmp_path / "nowhere").symlink_to("absent")
    code, _, said = export(tmp_path / "nowhere")
    assert code == 3 and "link is broken" in said and (tmp_path / "nowhere").is_symlink()


def test_a_report_goes_where_a_link_leads(cnnx_command, tiny_bundle, tmp_path):
    (tmp_path / "latest.json").symlink_to("today.json")
    code, _, said = cnnx_command("validate", tiny_bundle, "--report", tmp_path / "latest.json")
    assert code in (0, 1, 6), said
    assert (tmp_path / "latest.json").is_symlink() and (tmp_path / "today.json").stat().st_size > 100
