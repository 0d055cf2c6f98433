"""`cnnx calibrate`, without PyTorch: what it shows, the same as JSON, what it refuses."""

import json

from cnnx.quant.methods import METHODS

DIGITS = ("--calibration-data", "digits", "--calibration-images", "20")


def test_ranges_and_folds_as_tables_and_as_json(cnnx_command, tiny):
    code, out, _ = cnnx_command("calibrate", tiny, *DIGITS, "--folds", "4")
    assert code == 0
    for expected in (*METHODS, "largest / smallest", "4 folds of 5", "all 20 images", "may still change"):
        assert expected in out
    code, out, _ = cnnx_command("calibrate", tiny, *DIGITS, "--folds", "4", "--json")
    result = json.loads(out)["result"]
    assert code == 0 and result["images"] == 20 and result["candidates"] == []
    tensors = {each["tensor"]: each for each in result["tensors"]}
    assert list(tensors) == ["input", "flat"]
    assert list(tensors["flat"]["methods"]) == list(METHODS)
    folds = result["folds"]
    assert [fold["images"] for fold in folds["folds"]] == [5] * 4
    assert set(folds["whole"]["likeness"]) >= {"divergence", "logit_sqnr_db"}
    spread = folds["spreads"][0]
    assert spread["tensor"] == "flat" and spread["ratio"] == max(spread["folds"]) / min(spread["folds"]) > 1
    assert folds["settled"] is not any("too small" in note for note in result["notes"])


def test_one_method_alone(cnnx_command, tiny):
    code, out, _ = cnnx_command("calibrate", tiny, *DIGITS, "--method", "max", "--json")
    tensor = json.loads(out)["result"]["tensors"][1]
    assert code == 0 and tensor["methods"] == {"max": {"amax": tensor["maximum"], "saturated_share": 0.0}}


def test_what_cannot_be_compared_is_refused(cnnx_command, tiny):
    for arguments, code, words in (
        (("--folds", "1"), 2, "invalid --folds 1: expected at least 2"),
        (("--folds", "21"), 2, "20 calibration images do not fill 21 folds"),
        (("--method", "mes"), 2, "did you mean 'mse'?"),
        (("--weights", "standin"), 2, "contains its own weights"),
    ):
        given, out, said = cnnx_command("calibrate", tiny, *DIGITS, *arguments)
        assert (given, out) == (code, "") and words in said
