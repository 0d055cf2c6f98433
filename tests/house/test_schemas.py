"""The schemas in docs/ are those of the types, and what `--json` prints is what they say."""

import json
import shutil

import pytest

from cnnx.errors import BundleError
from cnnx.schema import from_plain
from tools.docs import schemas_page
from tools.docs.printed import COMMANDS, printed


def test_the_schemas_are_those_of_the_types():
    kept = {file.name: file.read_text(encoding="utf-8") for file in schemas_page.FOLDER.glob("*.json")}
    assert kept == schemas_page.pages(), "run make docs"


SHORT = ("bench", "BUNDLE", "--target", "ort", "--seconds", "0.02", "--percentile", "50")


@pytest.mark.parametrize(
    "command",
    [
        ["list"],
        ["show", "lenet5"],
        ["inspect", "BUNDLE"],
        ["validate", "BUNDLE", "--target", "ort"],
        ["bench", "BUNDLE", "--target", "ort", "--seconds", "0.02", "--layers"],
        [*SHORT, "--streams", "2", "--fps", "50", "--soak", "0.3"],
        ["cache"],
        ["doctor"],
    ],
    ids=lambda command: command[0],
)
def test_what_is_printed_is_what_the_schema_says(cnnx_command, tiny_bundle, tmp_path, command):
    shutil.copytree(tiny_bundle, tmp_path / "b")
    arguments = [str(tmp_path / "b") if word == "BUNDLE" else word for word in command]
    _, out, _ = cnnx_command(*arguments, "--json")
    result = json.loads(out)["result"]
    from_plain(printed(COMMANDS[command[0]]), result, where="--json", error=BundleError)


def test_what_an_export_printed_is_what_the_schema_says(cnnx_command, tiny, tmp_path):
    few = ("--calibration-images", "16", "--validation-images", "16")
    sets = ("--calibration-data", "digits", "--validation-data", "digits")
    _, out, _ = cnnx_command("export", tiny, "--int8", *sets, *few, "--out", tmp_path / "b", "--json")
    result = json.loads(out)["result"]
    from_plain(printed(COMMANDS["export"]), result, where="--json", error=BundleError)
    _, out, _ = cnnx_command("calibrate", tiny, *sets[:2], *few[:2], "--folds", "2", "--json")
    from_plain(printed(COMMANDS["calibrate"]), json.loads(out)["result"], where="--json", error=BundleError)
