"""The soak pass: short soaks on ONNX Runtime, with states and sensors that are made up."""

from __future__ import annotations

import json
import shutil

import pytest

import cnnx
from cnnx.errors import EnvironmentLacks, RecordError, UsageError
from cnnx.machine.state import read_state
from cnnx.measure.power import PolledSensor
from cnnx.pipeline.bench.load import soak as soak_module
from cnnx.pipeline.bench.load.soak import judged, soak_seconds
from cnnx.pipeline.plain import plain
from cnnx.record import Subject, read_record
from cnnx.report.tables.soak import soak_table
from cnnx.report.terminal import as_text
from cnnx.report.words import Run, duration
from tests.doubles.rehearsal import info
from tests.measure.load.test_soak import Hot

SHORT = {"target": "ort", "seconds": 0.05, "percentile": 50}
GPU = Subject("net", "engine", "a" * 64, "fp16", "tensorrt 10.3", "Orin", device_kind="gpu")


@pytest.fixture
def bundle(tiny_bundle, tmp_path):
    return shutil.copytree(tiny_bundle, tmp_path / "b")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("10m", 600),
        ("90s", 90),
        ("1h30m", 5400),
        ("2h", 7200),
        ("1.5m", 90),
        ("600", 600),
        (0.5, 0.5),
        (30, 30),
    ],
)
def test_durations(text, seconds):
    assert soak_seconds(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "0", "0m", "-1", "ten", "10x", "1h30", "m", "inf", float("nan"), "10m 5"]
)
def test_what_is_no_duration_is_refused(text, bundle):
    with pytest.raises(UsageError, match="invalid --soak"):
        cnnx.bench(bundle, soak=text, **SHORT)


def test_durations_in_words():
    said = {0.25: "0.25 s", 45: "45 s", 600: "10 min", 5400: "1 h 30 min", 3601: "1 h 1 s"}
    assert {seconds: duration(seconds) for seconds in said} == said


def shown(found):
    return " ".join(as_text([soak_table([Run("engine fp16", "net engine fp16", plain(found))])]).split())


def test_a_soak_is_printed_kept_and_reported(bundle, cnnx_command, tmp_path, monkeypatch):
    watts = PolledSensor(info("ina"), [lambda: 6000.0, lambda: 500.0])
    monkeypatch.setattr(soak_module, "find_sensor", lambda device, named: ("ina", "a test"))
    monkeypatch.setattr(soak_module, "open_sensor", lambda name: watts)
    code, out, _ = cnnx_command(
        "bench", bundle, "--target", "ort", "--soak", "0.4s", "--seconds", "0.05", "--percentile", "50",
        "--report", tmp_path / "r.json", "--json",
    )  # fmt: skip
    [found] = json.loads(out)["result"]["soaks"]
    assert (code, found["ended"], found["asked_s"], found["of"]) == (0, "complete", 0.4, "end to end")
    # Fewer windows on a slow machine, and then no drift.
    assert 1 <= len(found["windows"]) <= 12 and (found["drift"] is None) == (len(found["windows"]) < 10)
    assert {window["power_mw"] for window in found["windows"]} == {6000}
    assert found["sensor"]["total"]["rails"] == ["VDD_IN"] and found["no_power"] == ""
    [file] = bundle.glob("runs/*-soak-ort.json")
    assert read_record(file).result == found
    report = json.loads((tmp_path / "r.json").read_text())
    [row] = [row for row in report["rows"] if row["kind"] == "soak"]
    assert (row["ended"], row["power_mw"], row["drift"]) == (
        "complete",
        6000,
        (found["drift"] or {}).get("ends"),
    )
    [section] = [each for each in report["sections"] if each["title"] == "Soak"]
    titles = [chart["title"].split(" during")[0] for chart in section["charts"]]
    assert titles[0] == "Latency" and titles[-1] == "Power"
    assert "drift of p50 in the soak" in [each["label"] for each in report["cards"][0]["figures"]]
    with pytest.raises(RecordError, match="a soak record holds nothing to compare: a soak shows the course"):
        cnnx.compare(bundle, file)


def test_without_a_sensor_the_reason_is_told(bundle, monkeypatch):
    def nothing(device, named):
        raise EnvironmentLacks("no power sensor here")

    monkeypatch.setattr(soak_module, "find_sensor", nothing)
    [found] = cnnx.bench(bundle, soak=0.1, **SHORT).soaks
    assert (found.sensor, found.no_power) == (None, "no power sensor here")
    monkeypatch.setattr(soak_module, "find_sensor", lambda device, named: ("ina", ""))
    rails = PolledSensor(info("ina", total=False), [lambda: 1.0, lambda: 2.0])
    monkeypatch.setattr(soak_module, "open_sensor", lambda name: rails)
    [found] = cnnx.bench(bundle, soak=0.1, **SHORT).soaks
    assert (
        found.no_power == "no total: no total on this board: a test" and found.run.windows[0].power_mw is None
    )


def stopping(monkeypatch, error, after=5):
    """The machine's state can be read a number of times; then an error comes."""
    left = iter(range(after))

    def state():
        if next(left, None) is None:
            raise error
        return read_state()

    monkeypatch.setattr(soak_module, "read_state", state)


def test_ctrl_c_keeps_the_soak_and_ends_with_130(bundle, cnnx_command, monkeypatch):
    stopping(monkeypatch, KeyboardInterrupt())
    arguments = [
        "bench",
        bundle,
        "--target",
        "ort",
        "--seconds",
        "0.05",
        "--percentile",
        "50",
        "--soak",
        "3s",
    ]
    code, out, said = cnnx_command(*arguments)
    assert (
        code == 130
        and "cut short: tiny graph int8:" in out
        and "of 3 s, stopped by Ctrl-C" in " ".join(out.split())
    )
    assert "Ctrl-C ends it early and keeps what was measured" in said
    [file] = bundle.glob("runs/*-soak-*.json")
    record = read_record(file)
    assert record.result["ended"] == "interrupted" and len(record.result["windows"]) == 5


def test_a_failure_after_hours_keeps_the_soak(bundle, monkeypatch):
    stopping(monkeypatch, EnvironmentLacks("the GPU fell off the bus"))
    result = cnnx.bench(bundle, soak=3.0, **SHORT)
    assert result.soaks[0].run.ended == "failed" and "the GPU fell off the bus" in repr(result)
    assert result.exit_code == 4
    monkeypatch.undo()
    stopping(monkeypatch, EnvironmentLacks("no driver"), after=0)
    result = cnnx.bench(bundle, soak=3.0, **SHORT)
    assert result.soaks == () and "Not soaked" in repr(result) and result.exit_code == 4


def test_a_soak_finds_throttling_which_would_make_a_latency_invalid():
    found = judged(GPU, True, Hot().soak(300.0, power=lambda: 9000.0), info("ina"), "", "")
    assert found.validity.valid and found.run.throttled_share > 0.8
    said = shown(found)
    assert "drift: net engine fp16: p50 moved by +25.0% from the first 1 min to the last" in said
    assert "throttling: net engine fp16: a limit reduced the GPU's clock for 81.4% of the time" in said
    assert "ina: net engine fp16: module input" in said and "9.00" in said
    unknown = judged(GPU, True, Hot(counted=False, reasons=False).soak(), None, "no sensor", "")
    said = shown(unknown)
    assert "throttling is unknown" in said and "no power: no sensor" in said and "a limit reduced" not in said
    steady = judged(GPU, True, Hot(since_s=1e9).soak(), None, "no sensor", "")
    assert "a limit reduced the GPU's clock for 0.0% of the time" in shown(steady)
    short = judged(GPU, None, Hot().soak(0.05), None, "", "")
    assert short.drift is None and "too few windows" in shown(short)
