"""Paths that the operating system refuses, and a disk that may not be read: a message, not a traceback."""

import ctypes
import json
import os
import shutil

import pytest
from PIL import Image

from cnnx.runtimes import get

from .conftest import FEW

TOO_LONG = "a" * 300


def obey_permissions():
    """Take from root, before the command starts, the capabilities that let it ignore permissions."""
    pr_capbset_drop, cap_dac_override, cap_dac_read_search = 24, 1, 2  # linux/prctl.h, linux/capability.h
    if os.geteuid() == 0:
        for capability in (cap_dac_override, cap_dac_read_search):
            ctypes.CDLL(None).prctl(pr_capbset_drop, capability)


@pytest.mark.parametrize(
    "arguments",
    [
        ("show", f"{TOO_LONG}.onnx"),
        ("inspect", TOO_LONG),
        ("export", "tiny.onnx", *FEW, "--out", TOO_LONG),
        ("export", "lenet5", "--weights", TOO_LONG),
    ],
)
def test_a_name_too_long_to_exist(cnnx_command, tiny, monkeypatch, arguments):
    monkeypatch.chdir(tiny.parent)
    code, _, said = cnnx_command(*arguments)
    assert code == 3 and "File name too long" in said and TOO_LONG in said and "hint:" in said
    assert [path.name for path in tiny.parent.iterdir()] == ["tiny.onnx"]


@pytest.mark.parametrize("command", ["show", "inspect", "export"])
def test_a_file_that_may_not_be_read(cnnx_process, tiny, tiny_bundle, tmp_path, command):
    shutil.copytree(tiny_bundle, tmp_path / "bundle")
    unreadable = tmp_path / "bundle" / "model.onnx" if command == "inspect" else tiny
    unreadable.chmod(0)
    given = tmp_path / "bundle" if command == "inspect" else tiny
    options = (*FEW, "--out", tmp_path / "out") if command == "export" else ()
    done = cnnx_process(command, given, *options, "--json", preexec_fn=obey_permissions)
    said = json.loads(done.stdout)["error"]
    assert done.returncode == 3 and done.stderr == ""
    assert "Permission denied" in said["what"] and said["where"] == str(unreadable) and said["mend"]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("seconds", ["nan", "inf", "-1", "0"])
def test_a_time_to_measure_for_that_is_none(cnnx_command, tiny_bundle, seconds):
    code, _, said = cnnx_command("bench", tiny_bundle, "--seconds", seconds)
    assert code == 2 and "--seconds 3" in said


def test_a_picture_whose_name_is_not_utf8_is_kept_by_an_escaped_name(cnnx_command, tiny, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index in range(4):
        Image.new("L", (40, 40), 40 * index).save(folder / f"{index}.png")
    (folder / os.fsdecode(b"\xffd.jpg")).write_text("no picture")
    code, out, said = cnnx_command(
        "export", tiny, "--int8", *FEW, "--calibration-data", folder, "--out", tmp_path / "out"
    )
    assert code in (0, 1, 6), said
    assert "\\xffd.jpg" in out and cnnx_command("inspect", tmp_path / "out")[0] == 0


def test_a_wrong_gpu_or_method_is_refused_before_any_work(cnnx_command, tiny, tmp_path):
    for wrong in (("--target", "ort", "--sm", "86"), ("--int8", "--method", "entropi")):
        code, _, said = cnnx_command("export", tiny, *FEW, *wrong, "--out", tmp_path / "out")
        assert code == 2 and "ONNX graph" not in said and not (tmp_path / "out").exists()
    if get("rtx").missing() is None:
        code, _, said = cnnx_command(
            "export", tiny, *FEW, "--target", "rtx", "--sm", "87", "--out", tmp_path / "out"
        )
        assert code == 2 and "Jetson" in said and not (tmp_path / "out").exists()


def test_a_cache_where_no_folder_can_be_made_is_refused(cnnx_process, tiny, tmp_path):
    done = cnnx_process("export", tiny, *FEW, "--out", tmp_path / "out", env={"CNNX_CACHE": "/proc/nowhere"})
    assert done.returncode == 4 and "CNNX_CACHE" in done.stderr, done.stderr
