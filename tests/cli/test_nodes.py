"""What the nodes of a fleet do: as a live table, as lines of a log, as JSON lines."""

import io
import json

import pytest
from rich.console import Console

from cnnx.cli.nodes import NodeDisplay
from cnnx.cli.ui import Ui
from cnnx.pipeline.progress import NodeEvent, ProgressEvent

EVENTS = (
    NodeEvent("", node="nano@10.8.0.11", device="nano", state="connecting", jobs=2),
    NodeEvent("", node="nano@10.8.0.11", device="nano", state="idle", jobs=2),
    NodeEvent(
        "latency and memory",
        30,
        100,
        node="nano@10.8.0.11",
        device="nano",
        job="net[x], batch 1",
        state="working",
        seconds_left=75.0,
        jobs=2,
    ),
    NodeEvent("it was ended by SIGKILL", node="desk", device="desk", state="lost", jobs=2),
    NodeEvent("", node="desk", device="desk", state="connecting", jobs=2),
    NodeEvent("it was ended by SIGKILL", node="desk", device="desk", state="lost", jobs=2),
    NodeEvent(
        "survey",
        node="nano@10.8.0.11",
        device="nano",
        job="net[x], batch 1",
        state="done",
        jobs_done=1,
        jobs=2,
    ),
)


def shown(*, terminal, as_json=False):
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=120, color_system=None)
    display = NodeDisplay(console, as_json=as_json)
    for event in EVENTS:
        display.show(event)
    table = display._table() if terminal else None
    display.stop()
    if table is not None:
        console.print(table)
    return out.getvalue()


def test_a_log_has_a_line_when_a_node_comes_or_goes_and_when_a_job_ends():
    lines = [line.strip() for line in shown(terminal=False).splitlines()]
    assert lines[:2] == ["nano@10.8.0.11: ready as nano", "desk: it was ended by SIGKILL; retrying"]
    assert lines[2].startswith("nano@10.8.0.11: net[x], batch 1 done (1 of 2 jobs, about ")
    assert len(lines) == 3


def test_a_terminal_has_a_table_with_a_line_for_each_node():
    last = shown(terminal=True)
    assert "1 of 2 jobs" in last
    assert "nano@10.8.0.11" in last and "net[x], batch 1" in last and "desk" in last and "lost" in last


def test_json_has_a_line_for_each_event():
    events = [json.loads(line)["event"] for line in shown(terminal=False, as_json=True).splitlines()]
    states = [event["state"] for event in events]
    assert states == ["connecting", "idle", "working", "lost", "connecting", "lost", "done"]
    assert events[2]["seconds_left"] == 75.0 and events[-1]["jobs_done"] == 1


def test_with_json_only_events_of_nodes_are_written(capsys: pytest.CaptureFixture[str]):
    ui = Ui(as_json=True)
    ui.listen(ProgressEvent("a step"))
    ui.listen(EVENTS[-1])
    ui.stop()
    written = capsys.readouterr()
    assert written.out == "" and json.loads(written.err)["event"]["job"] == "net[x], batch 1"
