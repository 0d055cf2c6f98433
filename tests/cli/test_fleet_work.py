"""`cnnx fleet validate` and `cnnx fleet calibrate`: exit codes and output."""

import contextlib
import json
import shutil

import pytest
import typer
from typer.testing import CliRunner

from cnnx.cli.fleet_work import calibrate_command, validate_command
from cnnx.pipeline.fleet import calibrate, validate
from tests.conftest import save_tiny
from tests.doubles.in_process_pool import ALIKE, InProcessPool


@pytest.fixture
def command(monkeypatch):
    """Runs a command on a pool, without traceback; gives (exit code, stdout, stderr)."""
    fleet = typer.Typer()
    fleet.command("validate")(validate_command)
    fleet.command("calibrate")(calibrate_command)

    def run(pool, *arguments):
        for module in (validate, calibrate):
            opened = contextlib.nullcontext(pool)
            monkeypatch.setattr(module, "open_pool", lambda _options, *, listener, opened=opened: opened)
        result = CliRunner().invoke(fleet, [str(each) for each in arguments], env={"COLUMNS": "200"})
        assert "Traceback" not in result.output
        return result.exit_code, result.stdout, result.stderr

    return run


def test_a_verdict_has_the_exit_code_of_validate_and_a_lost_shard_has_6(command, tiny_bundle, tmp_path):
    bundle, model = shutil.copytree(tiny_bundle, tmp_path / "b"), save_tiny(tmp_path)
    arguments = ("validate", bundle, "--validation-data", "digits", "--model", model, "--shard-images", 200)
    code, out, _ = command(InProcessPool(*ALIKE), *arguments, "--validation-images", 400, "--json")
    result = json.loads(out)["result"]
    assert code == {"passed": 0, "failed": 1}.get(result["validation"]["verdict"], 6)
    assert result["validation"]["sharding"]["shard_images"] == 200 and result["lost"] == []
    losing = InProcessPool(*ALIKE, loses=lambda job: job.name.startswith("images 201"))
    code, out, _ = command(losing, *arguments, "--validation-images", 401)
    assert code == 6 and "images 201 to 400, original" in out
    assert command(losing, *arguments, "--validation-images", 401, "--strict")[0] == 1
    code, _, err = command(losing, *arguments, "--on", "tx2")
    assert code == 2 and "choose one of: orin-nano" in err
    assert command(losing, "validate", bundle)[0] == 2


def test_a_calibration_without_all_images_has_6(command, tmp_path, monkeypatch):
    monkeypatch.setenv("CNNX_CACHE", str(tmp_path / "cache"))  # another test may have made the statistics
    model = save_tiny(tmp_path)
    arguments = ("calibrate", model, "--calibration-data", "digits", "--calibration-images", 20)
    losing = InProcessPool(*ALIKE, loses=lambda _: True)
    code, out, _ = command(losing, *arguments)
    assert code == 6 and "images 1 to 20, statistics" in out
    code, out, _ = command(InProcessPool(*ALIKE), *arguments, "--json")
    assert code == 0 and json.loads(out)["result"]["sharding"]["threads"] >= 1
