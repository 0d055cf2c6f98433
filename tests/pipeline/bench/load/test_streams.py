"""The streams pass: on a simulated device, with ONNX Runtime and with the imitation of TensorRT."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

import cnnx
from cnnx.bundle import Bundle
from cnnx.device import Device
from cnnx.errors import EnvironmentLacks, RecordError, UsageError
from cnnx.machine.state import Frequency, MachineState
from cnnx.measure.footprint import Footprint
from cnnx.measure.load.streams import StreamsRun, StreamTimes
from cnnx.measure.memory import MemoryUse
from cnnx.pipeline.bench.load import streams as streams_module
from cnnx.pipeline.bench.load.streams import StreamsPass, judge_streams, measure_stream_counts
from cnnx.pipeline.plain import plain
from cnnx.pipeline.target import OpenSubject
from cnnx.record import Subject, read_record
from cnnx.report.tables.streams import streams_table
from cnnx.report.terminal import as_text
from cnnx.report.words import Run
from cnnx.runtimes.trt import runtime as trt
from cnnx.runtimes.trt.runtime import TrtRuntime
from tests.doubles.imitated_trt import ImitatedBindings
from tests.doubles.simulated_host import MS, SharedDevice, SimulatedHost

POOL = np.arange(4, dtype=np.float32).reshape(4, 1, 1, 1)
KNOWN = Footprint(MemoryUse(1 << 20, 3 << 20, 2 << 20))
SHORT = {"target": "ort", "seconds": 0.05, "percentile": 50}


def counted(
    monkeypatch, *, run_ms=10, at=None, most=8, fps=30.0, kind="gpu", footprints=(KNOWN,) * 8, **device
):
    """The pass on a device that runs one batch after another."""
    host = SimulatedHost()
    shared = SharedDevice(host, at or (lambda _: int(run_ms * MS)), **device)
    monkeypatch.setattr(streams_module, "measure_footprints", lambda *_, streams: footprints[:streams])
    state = MachineState(None, Frequency(900.0, None, 1000.0), None, {}, ())
    monkeypatch.setattr(streams_module, "read_state", lambda: state)
    on = Device(kind, "a device of a test")
    subject = Subject("net", "graph", "a" * 64, "fp16", "ort 1", str(on), device_kind=kind)
    runtime = SimpleNamespace(name="ort", open=lambda file, options: shared.open())
    told = []
    found = measure_stream_counts(
        OpenSubject(subject, runtime, None),
        POOL,
        batch=1,
        cuda_graph=None,
        run_ns=run_ms * MS,
        remark="",
        streams=StreamsPass(most, fps, 90.0, 1.0, 64, 60.0, host),
        progress=lambda done, total: told.append((done, total)),
    )
    assert shared.sessions == 0, "a session is left open"
    return found, told


def shown(found):
    return " ".join(as_text([streams_table([Run("graph fp16", "net graph fp16", plain(found))])]).split())


def test_cameras_are_counted_up_to_the_number_that_overloads_the_device(monkeypatch):
    found, told = counted(monkeypatch)
    assert found.of == "frame to result"
    assert (found.cameras, [each.streams for each in found.counts], found.ended) == (
        3,
        [1, 2, 3, 4],
        "overloaded",
    )
    assert [each.run.fits for each in found.counts] == [True, True, True, False]
    assert told == [(done, 8) for done in range(5)]
    assert all(len(each.states) >= 1 and each.memory == KNOWN for each in found.counts)
    said = shown(found)
    assert "3 cameras at 30 fps fit: none of 192 frames took longer than 33.3 ms" in said
    assert (
        "more streams were not tried: 4 streams missed" in said and "valid: net graph fp16, streams" in said
    )
    assert "10.000 .. 30.000" in said


def test_all_that_were_requested_may_fit(monkeypatch):
    found, _ = counted(monkeypatch, most=2)
    assert (found.cameras, found.ended, found.reason) == (2, "complete", "")
    assert "a larger --streams may fit, too" in shown(found)


def test_a_single_interruption_counts_against_the_number_it_hit_and_larger_ones_are_still_tried(monkeypatch):
    # Run 100 is one of two streams.
    found, _ = counted(monkeypatch, run_ms=2, at=lambda number: (60 if number == 100 else 2) * MS, most=4)
    assert [each.run.missed > 0 for each in found.counts] == [False, True, False, False]
    assert found.cameras == 1 and found.ended == "complete"
    assert "1 camera at 30 fps fits" in shown(found) and "4 streams missed none, so measure longer" in shown(
        found
    )


def test_no_camera_fits_if_a_run_takes_longer_than_a_period(monkeypatch):
    found, _ = counted(monkeypatch, run_ms=40)
    assert found.cameras == 0 and len(found.counts) == 1
    assert "0 cameras at 30 fps fit: one alone missed 64 of 64 frames" in shown(found)


def test_back_to_back_there_is_no_answer_about_cameras(monkeypatch):
    found, _ = counted(monkeypatch, fps=None, most=3)
    assert found.cameras is None and found.of == "end to end" and found.ended == "complete"
    assert [round(each.run.images_per_second) for each in found.counts] == [100, 100, 100]
    said = shown(found)
    assert "back to back" in said and "camera" not in said and "1.00" in said


def test_contexts_without_memory_are_not_opened_here(monkeypatch):
    killed = Footprint(MemoryUse(None, None, None), failed="signal 9")
    found, _ = counted(monkeypatch, run_ms=1, footprints=(KNOWN, KNOWN, killed), room=2)
    assert (len(found.counts), found.ended) == (2, "no room") and "3 streams: signal 9" in found.reason
    assert "no room: net graph fp16: there is no memory for 3 streams" in shown(found)
    # Where even one network is not measured, memory is unknown, and streams are.
    found, _ = counted(monkeypatch, run_ms=1, footprints=(killed,), most=2)
    assert found.ended == "complete" and {each.memory.failed for each in found.counts} == {"signal 9"}


def test_what_was_measured_before_a_failure_is_kept(monkeypatch):
    found, _ = counted(monkeypatch, run_ms=1, room=2)
    assert (len(found.counts), found.ended) == (2, "failed")
    assert found.reason == "3 streams failed: out of memory"
    with pytest.raises(cnnx.CnnxError, match="out of memory"):
        counted(monkeypatch, room=0)


def test_ctrl_c_keeps_the_numbers_that_are_done(monkeypatch):
    def at(number):
        if number == 200:
            raise KeyboardInterrupt
        return MS

    found, _ = counted(monkeypatch, run_ms=1, at=at)
    assert 1 <= len(found.counts) < 8 and found.ended == "interrupted"
    with pytest.raises(KeyboardInterrupt):
        counted(monkeypatch, at=lambda number: at(200))


def test_figures_of_streams_are_judged_by_whether_they_are_repeatable():
    """They vary more than those of one stream alone may."""
    generator = np.random.default_rng(0)

    def judged(times, **options):
        each = StreamTimes(tuple(int(ns) for ns in times), len(times), 10**9)
        return judge_streams(StreamsRun((each,), 1), [], percentile=99.0, **options)

    varying = generator.choice([10, 30], 2000, p=[0.7, 0.3]) * MS
    validity = judged(varying, on_gpu=True)
    assert validity.valid and [each.percentile for each in validity.percentiles] == [50, 99]
    assert not any(each.reason for each in validity.percentiles)
    few = judged(varying[:20], on_gpu=True)
    assert "20 samples are too few" in few.percentiles[1].reason
    wild = np.concatenate([varying[:1970], generator.pareto(1, 30) * 100 * MS])
    assert "not repeatable" in judged(wild, on_gpu=True).percentiles[1].reason
    assert judged(varying, on_gpu=False).percentiles == ()
    hot = MachineState(None, None, None, {}, ("hardware slowdown",))
    each = StreamTimes((MS,), 1, 10**9)
    assert not judge_streams(StreamsRun((each,), 1), [hot], on_gpu=True, percentile=50.0).valid


@pytest.fixture
def bundle(tiny_bundle, tmp_path):
    return shutil.copytree(tiny_bundle, tmp_path / "b")


def test_streams_are_printed_kept_and_reported(bundle, cnnx_command, tmp_path):
    """Real threads over one session of ONNX Runtime; no times are tested."""
    code, out, _ = cnnx_command(
        "bench", bundle, "--target", "ort", "--streams", "2", "--seconds", "0.05", "--percentile", "90",
        "--report", tmp_path / "r.json", "--report", tmp_path / "r.md", "--json",
    )  # fmt: skip
    [found] = json.loads(out)["result"]["streams"]
    assert code == 0 and found["ended"] == "complete" and found["asked"] == 2
    for number, count in enumerate(found["counts"], start=1):
        assert len(count["each"]) == count["streams"] == number and 0 < count["fairness"] <= 1
        assert all(len(each["latency_ns"]) >= 1 for each in count["each"])
        assert count["images_per_second"] == pytest.approx(sum(e["images_per_second"] for e in count["each"]))
        assert count["memory"]["libraries_bytes"] > 2**20 and count["missed"] is None
    [file] = bundle.glob("runs/*-streams-ort.json")
    record = read_record(file)
    assert record.kind == "streams" and record.result == found
    report = json.loads((tmp_path / "r.json").read_text())
    rows = [row for row in report["rows"] if row["kind"] == "streams"]
    assert [(row["streams"], row["batch"], row["missed"]) for row in rows] == [(1, 1, None), (2, 1, None)]
    [section] = [each for each in report["sections"] if each["title"] == "Streams"]
    # On a slow machine there may be too few runs for a percentile.
    assert [chart["kind"] for chart in section["charts"]][-1] == "throughput"
    assert "# Each stream" in (tmp_path / "r.md").read_text()
    with pytest.raises(RecordError, match="a streams record holds nothing to compare: numbers of streams"):
        cnnx.compare(bundle, file)
    assert any("streams records are not compared" in note for note in cnnx.compare(bundle, bundle).notes)


def test_cameras_are_on_the_card_of_a_report(bundle):
    result = cnnx.bench(bundle, streams=1, fps=20, **SHORT)
    [found] = result.streams
    [card, *_] = cnnx.write_report(bundle, bundle.parent / "r.json").report.cards
    [figure] = [each for each in card.figures if each.label == "cameras at 20 fps"]
    assert figure.value == f"{found.cameras}{', or more' * (found.cameras == 1)}"
    assert "at 20 fps" in repr(result) and result.exit_code == 0


def test_engines_run_in_contexts_of_their_own_with_their_cuda_graphs(bundle, monkeypatch):
    imitation = ImitatedBindings("11.4.0.106")
    monkeypatch.setattr(trt, "RUNTIME", TrtRuntime(imitation))
    cnnx.build(bundle, target="tensorrt")
    short = {"seconds": 0.001, "percentile": 50}  # of the device: a run takes some microseconds there
    [found] = cnnx.bench(bundle, streams=3, **short).streams
    assert found.of == "with transfers" and found.cuda_graph and len(found.counts) == 3, found.reason
    assert found.subject.engine and not imitation.device.held
    launches = imitation.device.launches
    assert launches > sum(each.runs for count in found.counts for each in count.run.streams)
    imitation.device.threads = False
    [alone] = cnnx.bench(bundle, streams=2, **short).streams
    assert (len(alone.counts), alone.ended) == (1, "failed") and "pycuda" in alone.reason
    assert not imitation.device.held


def test_a_pass_that_fails_is_a_row(bundle, monkeypatch):
    def fail(*_, **__):
        raise EnvironmentLacks("the GPU is gone", hint="find it")

    monkeypatch.setattr(streams_module, "measure_streams", fail)
    result = cnnx.bench(bundle, streams=2, **SHORT)
    assert result.measurements and result.streams == () and result.exit_code == 4
    assert "Streams not measured" in repr(result) and "the GPU is gone" in repr(result)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"fps": 30.0}, "--fps has no effect without --streams"),
        ({"streams": 0}, "invalid --streams 0"),
        ({"streams": 2, "fps": 0.0}, "invalid --fps 0"),
        ({"streams": 2, "fps": float("inf")}, "invalid --fps inf"),
    ],
)
def test_invalid_options_are_refused_before_any_work(bundle, options, word):
    with pytest.raises(UsageError, match=word):
        cnnx.bench(bundle, **SHORT, **options)
    assert not [each for each in Bundle.open(bundle).records() if each.kind == "streams"]
