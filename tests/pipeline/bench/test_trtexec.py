"""A measurement beside one of trtexec.

The log and the exported times are written by hand, in the format of TensorRT's samples/common (10.3 and 11.1:
sampleReporting.cpp, sampleOptions.cpp); the values are invented.
"""

from __future__ import annotations

import dataclasses
import json
from types import SimpleNamespace

import pytest

import cnnx
from cnnx.errors import InputRefused, UsageError
from cnnx.measure import Breakdown, Latency
from cnnx.measure.trtexec import read_trtexec
from cnnx.pipeline.bench.trtexec import compare_trtexec
from cnnx.report.tables.trtexec import trtexec_table
from cnnx.runtimes import RunTimes

LOG = """[01/02/2026-10:00:00] [I] TensorRT version: 10.3.0
[01/02/2026-10:00:00] [I] Data transfers: Enabled
[01/02/2026-10:00:00] [I] CUDA Graph: Disabled
[01/02/2026-10:00:04] [I] === Performance summary ===
[01/02/2026-10:00:04] [I] Throughput: 1980.5 qps
[01/02/2026-10:00:04] [I] Latency: min = 0.51 ms, max = 0.9 ms, mean = 0.526 ms, median = 0.525 ms, \
percentile(90%) = 0.53 ms, percentile(95%) = 0.54 ms, percentile(99%) = 0.6 ms
[01/02/2026-10:00:04] [I] Enqueue Time: min = 0.1 ms, max = 0.3 ms, mean = 0.2 ms, median = 0.2 ms
[01/02/2026-10:00:04] [I] H2D Latency: min = 0.01 ms, max = 0.03 ms, mean = 0.02 ms, median = 0.02 ms
[01/02/2026-10:00:04] [I] GPU Compute Time: min = 0.49 ms, max = 0.8 ms, mean = 0.501 ms, median = 0.5 ms
[01/02/2026-10:00:04] [I] D2H Latency: min = 4e-03 ms, max = 0.01 ms, mean = 0.005 ms, median = 5e-03 ms
[01/02/2026-10:00:04] [I] Total GPU Compute Time: 2.99 s
""".replace("\\\n", "")
RUN = RunTimes(enqueue_ns=100_000, h2d_ns=20_000, compute_ns=505_000, d2h_ns=5_000)


def measured(batch=8, *, cuda_graph=True, runtime="tensorrt 10.3.0"):
    parts = Breakdown.of([RUN] * 20)
    latency = Latency(parts.latency_ns, batch, 1, "steady", True, parts=parts, queued_ns=(5_100_000,) * 2)
    return SimpleNamespace(
        latency=latency,
        conditions=SimpleNamespace(cuda_graph=cuda_graph),
        subject=SimpleNamespace(runtime=runtime),
    )


def test_a_log_is_compared_figure_by_figure_and_what_differs_is_named(tmp_path):
    file = tmp_path / "trtexec.log"
    file.write_text(LOG)
    theirs = read_trtexec(file)
    assert theirs.medians_ms == {
        "with transfers": 0.525, "enqueue": 0.2, "H2D": 0.02, "GPU compute": 0.5, "D2H": 0.005,
    }  # fmt: skip
    assert (theirs.queries_per_second, theirs.cuda_graph, theirs.transfers) == (1980.5, False, True)
    found = compare_trtexec(measured(), theirs)
    rows = {row.what: (row.agrees, round(row.difference, 3)) for row in found.rows}
    # A query is a run, whatever its batch: 20 of ours take 10.2 ms.
    assert rows == {
        "with transfers": (True, 0.01), "enqueue": (False, -0.5), "H2D": (True, 0.0),
        "GPU compute": (True, 0.01), "D2H": (True, 0.0), "runs per second": (True, -0.01),
    }  # fmt: skip
    assert found.remarks == ("trtexec ran without a CUDA graph, and cnnx with.",)
    table = trtexec_table([row.as_dict() for row in found.rows], found.remarks)
    assert "differ" in str(table) and "+1.0%" in str(table)


def test_without_transfers_only_what_both_measure_is_compared(tmp_path):
    """The default of trtexec of TensorRT 11."""
    file = tmp_path / "trtexec.log"
    file.write_text(LOG.replace("transfers: Enabled", "transfers: Disabled").replace("10.3.0", "11.1.0"))
    found = compare_trtexec(measured(), read_trtexec(file))
    assert {row.what for row in found.rows} == {"GPU compute", "enqueue", "runs per second"}
    assert len(found.remarks) == 3 and "TensorRT 11.1.0, and cnnx ran tensorrt 10.3.0" in found.remarks[1]


def test_exported_times_are_compared_by_their_medians(tmp_path):
    times = [
        {"startEnqMs": at, "endEnqMs": at + 0.1, "h2dMs": 0.02, "computeMs": 0.5 + at / 1e3, "d2hMs": 0.005,
         "latencyMs": 0.525}
        for at in range(3)
    ]  # fmt: skip
    file = tmp_path / "times.json"
    file.write_text("[\n" + ", ".join(map(json.dumps, times)) + "]")
    theirs = read_trtexec(file)
    assert theirs.medians_ms == pytest.approx(
        {"GPU compute": 0.501, "with transfers": 0.525, "enqueue": 0.1, "H2D": 0.02, "D2H": 0.005}
    )
    found = compare_trtexec(measured(), theirs)
    assert all(row.agrees for row in found.rows) and "do not say" in found.remarks[0]
    without = dataclasses.replace(measured().latency, parts=None)
    assert compare_trtexec(SimpleNamespace(latency=without), theirs) is None


@pytest.mark.parametrize("text", ["", "hello", "[\n{}]", '[\n{"computeMs": 1}]', "[\n"])
def test_what_is_not_trtexecs_is_refused(tmp_path, text):
    file = tmp_path / "other"
    file.write_text(text)
    with pytest.raises(InputRefused, match=r"trtexec|no times"):
        read_trtexec(file)
    with pytest.raises(InputRefused, match="cannot read it"):
        read_trtexec(tmp_path / "absent")


def test_a_log_is_about_one_engine_at_one_batch(tiny_bundle, tmp_path):
    """Refused before anything is measured; the bundle has only a graph."""
    file = tmp_path / "trtexec.log"
    file.write_text(LOG)
    with pytest.raises(UsageError, match="one engine at one batch"):
        cnnx.bench(tiny_bundle, target="ort", compare_trtexec=file)
