"""The energy pass on a real network, with simulated readings and time."""

from __future__ import annotations

import dataclasses
import datetime
import io
import json
import shutil
from types import SimpleNamespace

import pytest
from rich.console import Console

import cnnx
from cnnx.bundle import Bundle
from cnnx.device import Device
from cnnx.errors import EnvironmentLacks
from cnnx.measure.power import Unsupported
from cnnx.measure.power.sensors.tegrastats import Beside
from cnnx.pipeline.bench import energy as energy_module
from cnnx.pipeline.bench.energy import choose_sampler, choose_sensor, measure_use
from cnnx.pipeline.bench.passes import pool_of
from cnnx.pipeline.plain import plain
from cnnx.pipeline.progress import Steps
from cnnx.pipeline.target import open_subject
from cnnx.record import read_record
from cnnx.report.tables.energy import energy_table
from cnnx.report.terminal import draw
from cnnx.report.words import Run
from cnnx.runtimes import RunSeries, RunTimes
from tests.doubles.machines import orin_nx_jetpack_6
from tests.doubles.rehearsal import failing, info, rehearsal
from tests.doubles.sessions import FakeTimedSession


@pytest.fixture
def bundle(tiny_bundle, tmp_path):
    shutil.copytree(tiny_bundle, tmp_path / "bundle")
    return tmp_path / "bundle"


def screen(use) -> str:
    out = io.StringIO()
    draw(Console(file=out, width=80), [energy_table([Run("", "", use.as_dict())], rails=True)])
    return out.getvalue()


def test_energy_is_measured_shown_kept_and_reported(bundle, tmp_path):
    told = []
    result = cnnx.bench(bundle, target="ort", seconds=0.05, power=rehearsal(), listener=told.append)
    [use] = result.energy
    assert result.energy_unmeasured == result.energy_ratios == ()
    runs = use.measured.load
    assert runs.inferences == runs.calls > 1000 and runs.span.seconds >= 30
    each = runs.span.seconds / runs.inferences
    assert use.total.power_mw == pytest.approx(8000, rel=0.01)
    assert use.total.gross_mj == pytest.approx(8000 * each, rel=0.01)
    assert use.total.idle_before_mw == pytest.approx(3000, rel=0.01)
    assert use.total.net_mj == pytest.approx(5000 * each, rel=0.02)
    assert use.total.net.low <= use.total.net_mj <= use.total.net.high < use.total.gross_mj
    assert (use.sensor, use.no_total, use.remark != "") == ("ina", "", True)
    shares = [event.done for event in told if event.step == "energy" and event.total]
    assert shares == sorted(shares) and shares[0] == 0 and len(set(shares)) > 20

    [file] = bundle.glob("runs/*-energy-*.json")
    kept = read_record(file)
    assert kept.kind == "energy" and kept.result == json.loads(json.dumps(plain(use)))
    assert len(kept.result["measured"]["trace"]["samples"]) > 1000
    shown = screen(use)
    assert kept.result["uncertainty"] == {"relative": None, "resolution_mw": 40, "basis": "a test"}
    assert kept.result["notes"] == ["rails of a test"]
    assert "ina: no uncertainty stated, in steps of 40 mW; rails of a test" in shown
    for words in ("gross", "net", f"{use.total.gross_mj:.2f}", "8,000", "47.0 Hz", "module input", "VDD_SOC"):
        assert words in shown

    cnnx.write_report(bundle, tmp_path / "r.md")
    assert "# Energy per image" in (tmp_path / "r.md").read_text()
    cnnx.write_report(bundle, tmp_path / "r.json")
    row = next(
        row for row in json.loads((tmp_path / "r.json").read_text())["rows"] if row["kind"] == "energy"
    )
    assert row["gross_mj"] == use.total.gross_mj and row["net_mj_low"] == use.total.net.low
    assert (row["sensor"], row["covers"], row["p50_ns"]) == ("ina", "module input", None)
    pytest.importorskip("altair", reason="HTML reports need the extra report")
    cnnx.write_report(bundle, tmp_path / "r.html")
    assert "measured load" in (tmp_path / "r.html").read_text()


def test_a_board_without_a_total_shows_its_rails_and_a_rate_its_drops(bundle, tmp_path):
    [use] = cnnx.bench(bundle, target="ort", seconds=0.05, power=rehearsal(total=False, rate=100)).energy
    assert use.total is None and [rail.rails for rail in use.rails] == [("VDD_IN",), ("VDD_SOC",)]
    assert use.rails[1].power_mw == pytest.approx(500)
    shown = screen(use)
    assert "no total on this board" in shown and "at 100 runs per second" in shown and "dropped" in shown
    cnnx.write_report(bundle, tmp_path / "r.md")
    text = (tmp_path / "r.md").read_text()
    assert "no total on this board" in text and "SoC, part of VDD_IN" in text
    assert cnnx.inspect(bundle).records[-1].result["total"] is None


CPU, GPU = Device("cpu", "AMD EPYC"), Device("gpu", "NVIDIA RTX A2000")


def test_the_sensor_measures_the_device_of_the_network():
    nvml, rapl, absent = info("nvml-instant"), info("rapl"), Unsupported("ina", "no INA3221")
    assert choose_sensor([absent, nvml, rapl], CPU)[0] == "rapl"
    assert choose_sensor([absent, nvml, rapl], GPU)[0] == "nvml-instant"
    for device in (CPU, GPU):
        assert choose_sensor([info("ina"), nvml, rapl], device)[0] == "ina"
    # A sensor with a total comes first; without any, rails are better than nothing.
    assert choose_sensor([info("ina", total=False), nvml], GPU)[0] == "nvml-instant"
    assert choose_sensor([info("ina", total=False), nvml], CPU)[0] == "ina"
    name, why = choose_sensor([nvml, rapl], CPU, named="nvml-instant")
    assert name == "nvml-instant" and "measures only the GPU" in why


def test_without_a_suitable_sensor_the_error_gives_each_reason():
    found = [Unsupported("ina", "no INA3221"), info("nvml-instant"), Unsupported("rapl", "root alone")]
    with pytest.raises(EnvironmentLacks) as caught:
        choose_sensor(found, CPU)
    for words in ("ina: no INA3221", "rapl: root alone", "nvml-instant: measures only the GPU"):
        assert words in str(caught.value)
    with pytest.raises(EnvironmentLacks, match="nvml-energy is not available here"):
        choose_sensor(found, GPU, named="nvml-energy")


def test_a_machine_without_sensors_fails_before_measuring(bundle, tmp_path):
    with pytest.raises(EnvironmentLacks, match="no power sensor here"):
        choose_sampler(cnnx.PowerPass(), CPU, root=tmp_path)


def test_energy_survives_a_sensor_that_vanishes_before_its_cost_is_known(bundle):
    gone = EnvironmentLacks("the power sensor ina is not supported here: no chip")
    power, listener = failing(lambda step: step == "cost of sampling", rehearsal(), gone)
    [use] = cnnx.bench(bundle, target="ort", seconds=0.05, power=power, listener=listener).energy
    assert use.total.power_mw == pytest.approx(8000, rel=0.01)
    assert use.cost is None and use.no_cost == gone.what
    assert Bundle.open(bundle).records()[-1].result["sampling"]["no_cost"] == gone.what


def test_a_jetsons_monitors_are_sampled_by_a_process(tmp_path):
    orin_nx_jetpack_6(tmp_path)
    chosen = choose_sampler(cnnx.PowerPass(), Device("gpu", "Orin (nvgpu)"), root=tmp_path)
    assert "board's power monitors" in chosen.why
    with chosen.sampler() as sampler:
        trace = sampler.trace()
    assert trace.sensor.name == "ina" and trace.sensor.total.rails == ("VDD_IN",)


def test_a_report_has_the_newest_energy_of_each_batch_and_rate(bundle, tmp_path):
    """Copies of a record that differ in the conditions of the measurement."""
    cnnx.bench(bundle, target="ort", seconds=0.05, power=rehearsal())
    [file] = bundle.glob("runs/*-energy-*.json")
    record = read_record(file)
    for number, other in enumerate([{}, {"batch": 8}, {"rate": 30.0}, {"sensor": "rapl"}]):
        later = datetime.datetime.fromisoformat(record.date) + datetime.timedelta(seconds=1 + number)
        date = later.isoformat(timespec="microseconds")
        kept = dataclasses.replace(record, date=date, result={**record.result, **other})
        (bundle / "runs" / kept.file_name).write_text(json.dumps(kept.as_dict()))
    cnnx.write_report(bundle, tmp_path / "r.json")
    rows = [row for row in json.loads((tmp_path / "r.json").read_text())["rows"] if row["kind"] == "energy"]
    assert [(row["batch"], row["rate"], row["sensor"]) for row in rows] == [
        (1, None, "ina"), (8, None, "ina"), (1, 30, "ina"), (1, None, "rapl"),
    ]  # fmt: skip
    cnnx.write_report(bundle, tmp_path / "r.md")
    text = (tmp_path / "r.md").read_text()
    assert "| 8 | back to back | ina | total |" in text and "| 1 | at 30 runs per second | ina |" in text


def test_the_cost_of_sampling_reports_progress_and_is_skipped_for_slow_runs(bundle):
    opened, power, told = Bundle.open(bundle), rehearsal(), []
    subject = open_subject(opened, "ort")

    def measured(run_ns):
        return measure_use(
            subject,
            pool_of(opened, 1),
            batch=1,
            cuda_graph=None,
            power=power,
            chosen=choose_sampler(power, CPU),
            run_ns=run_ns,
            remark="",
            steps=Steps(told.append),
            title="energy",
        )

    assert measured(2e9).no_cost == ""
    step = "cost of sampling"
    assert [event.done for event in told if event.step == step and event.total] == list(range(8))
    told.clear()
    slow = measured(6.4e9)
    assert step not in [event.step for event in told]
    said = plain(slow)
    assert said["cost"] is said["sampling"]["latency_ratio"] is None
    assert "a run takes 6.4 s" in said["sampling"]["no_cost"] and "a run takes 6.4 s" in screen(slow)


@pytest.mark.parametrize(("rate", "queued"), [(None, True), (30.0, False)])
def test_back_to_back_runs_are_queued_from_filled_buffers(bundle, rate, queued):
    """One by one, a GPU would wait for the copy into page-locked memory most of the time.

    At a rate, each call is one frame."""
    power = rehearsal(rate=rate) if rate else rehearsal()
    clock, called = power.clock, []

    class Session(FakeTimedSession):
        def timed_series(self, images, runs):
            called.append(runs)
            clock.now += int(5e6 * (runs + 1))
            return RunSeries((RunTimes(1, 1, 5_000_000, 1),) * runs, 5_000_000 * runs)

        def run(self, images):
            called.append("run")
            clock.now += 5_000_000
            return {}

    opened = Bundle.open(bundle)
    session = Session(lambda x: x, runs=[])
    subject = SimpleNamespace(subject=open_subject(opened, "ort").subject, open=lambda cuda_graph: session)
    use = measure_use(
        subject,
        pool_of(opened, 1),
        batch=2,
        cuda_graph=None,
        power=power,
        chosen=choose_sampler(power, CPU),
        run_ns=5e6,
        remark="",
        steps=Steps(lambda _: None),
        title="energy",
    )
    load = use.measured.load
    assert (100 in called) == queued
    assert load.inferences == load.calls * (2 * 101 if queued else 2)


def test_tegrastats_on_the_path_is_compared_and_shown(bundle, tmp_path, monkeypatch):
    """With a fake clock it has no time to print; it is only started, and the pass continues."""
    monkeypatch.setattr(energy_module, "find_program", lambda name: f"/no/such/{name}")
    [use] = cnnx.bench(bundle, target="ort", seconds=0.05, power=rehearsal()).energy
    reason = "/no/such/tegrastats: No such file or directory"
    assert plain(use)["tegrastats"] == {"deviations": {}, "lines": 0, "reason": reason}
    assert f"no comparison with tegrastats: {reason}" in " ".join(screen(use).split())
    said = Beside(use.measured.beside.span, 48, {"VDD_IN": 8104.0, "VDD_SOC": 499.0}, "")
    use = dataclasses.replace(use, measured=dataclasses.replace(use.measured, beside=said))
    assert plain(use)["tegrastats"]["deviations"]["VDD_SOC"] == pytest.approx(-0.002)
    shown = " ".join(screen(use).split())
    assert "tegrastats read VDD_IN 1.3% higher, VDD_SOC 0.2% lower, over 48 lines" in shown
