"""A survey over several nodes: workers on this machine, one of which is killed in the middle."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeGuard

import pytest

from cnnx.bundle import Bundle
from cnnx.errors import UsageError
from cnnx.options.fleet import NodeOptions
from cnnx.pipeline.export.export import export
from cnnx.pipeline.fleet import survey as module
from cnnx.pipeline.fleet.survey import fleet_survey
from cnnx.pipeline.fleet.work.pool import FleetPool
from cnnx.pipeline.progress import Listener, NodeEvent, ProgressEvent
from cnnx.pipeline.report.report import write_report
from cnnx.pipeline.survey.report import write_survey_report
from tests.conftest import save_tiny
from tests.doubles.local_fleet import LocalNodes

PLAN: dict[str, Any] = {"precisions": ("fp16", "int8"), "batches": (1, 2), "seconds": 0.05, "images": 32}


@pytest.fixture
def fleet(monkeypatch: pytest.MonkeyPatch) -> LocalNodes:
    """Two nodes of one kind, and one of another."""
    nodes = LocalNodes({"a": "desk", "b": "desk", "c": "rack"})

    @contextlib.contextmanager
    def open_pool(options: NodeOptions, *, listener: Listener) -> Iterator[FleetPool]:
        with FleetPool(nodes, listener=listener, limit_s=60 * options.limit, patience_s=3) as pool:
            yield pool

    monkeypatch.setattr(module, "open_pool", open_pool)
    return nodes


def measures(event: ProgressEvent) -> TypeGuard[NodeEvent]:
    return isinstance(event, NodeEvent) and "batch" in event.job and event.step == "latency and memory"


def portable(bundle: Bundle) -> dict[str, str]:
    names = ("model.onnx", "calibration.json", "labels.txt", "reference.npz")
    return {name: digest for name, digest in bundle.manifest.files.items() if name in names}


def test_a_node_killed_in_the_middle_changes_nothing(fleet: LocalNodes, tmp_path: Path) -> None:
    """All cells finish; graphs and ranges are those of an export here, bit for bit; a second run is idle."""
    killed: list[str] = []

    def kill_one(event: ProgressEvent) -> None:
        if (
            not killed
            and isinstance(event, NodeEvent)
            and event.step == "latency and memory"
            and "batch" in event.job
        ):
            killed.append(event.job)
            os.killpg(fleet.lines[event.node]._process.pid, signal.SIGKILL)

    out = tmp_path / "out"
    result = fleet_survey(["lenet5"], out=out, listener=kill_one, **PLAN)
    assert killed and result.exit_code == 0
    cells = {(row["on"], row["precision"], row["batch"]) for row in result.rows}
    assert cells == {
        (on, kind, size) for on in ("desk", "rack") for kind in PLAN["precisions"] for size in (1, 2)
    }
    assert {row["status"] for row in result.rows} == {"done"}
    for precision in PLAN["precisions"]:
        here = export(
            "lenet5",
            precision=precision,
            target="ort",
            out=tmp_path / precision,
            batch=(1, 2),
            calibration_images=PLAN["images"],
            validation_images=PLAN["images"],
        ).bundle
        there = Bundle.open(out / "bundles" / f"lenet5-{precision}")
        assert portable(there) == portable(here)
        judged = [
            [record.result["gates"] for record in each.records() if record.kind == "validation"]
            for each in (here, there)
        ]
        assert len(judged[0]) == 1 and judged[0] == judged[1]
    records = sorted(out.rglob("runs/*.json"))
    again = fleet_survey(["lenet5"], out=out, **PLAN)
    assert again.rows == result.rows and sorted(out.rglob("runs/*.json")) == records
    write_report([out], tmp_path / "all.json")
    assert write_survey_report(out, tmp_path / "survey.md").report.rows
    assert "| desk " in (tmp_path / "survey.md").read_text()


def test_a_device_that_vanishes_leaves_reasons(fleet: LocalNodes, tmp_path: Path) -> None:
    """The cells of the others finish, and the same command measures the missing ones later."""

    def take_away(event: ProgressEvent) -> None:
        if (
            isinstance(event, NodeEvent)
            and event.node == "c"
            and event.state == "working"
            and "batch" in event.job
        ):
            fleet.devices.pop("c", None)
            fleet.lines["c"]._process.kill()

    options = {**PLAN, "precisions": ("fp16",), "batches": (1,)}
    result = fleet_survey(["lenet5"], out=tmp_path / "out", listener=take_away, **options)
    [lost] = [row for row in result.rows if row["on"] == "rack"]
    assert (
        lost["status"] == "failed" and "no node of the fleet offers rack" in lost["reason"] and lost["hint"]
    )
    assert [row["status"] for row in result.rows if row["on"] == "desk"] == ["done"]
    fleet.devices["c"] = "rack"
    again = fleet_survey(["lenet5"], out=tmp_path / "out", **options)
    assert [row["status"] for row in again.rows] == ["done", "done"]


def test_a_device_that_nobody_has_is_refused(fleet: LocalNodes, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="orin-nano") as refused:
        fleet_survey(["lenet5"], out=tmp_path / "out", on=("orin-nano",), **PLAN)
    assert "desk, rack" in str(refused.value.hint)
    assert not (tmp_path / "out/devices").exists()


def test_files_of_any_name_and_damaged_bundles_have_rows_of_their_own(
    fleet: LocalNodes, tiny_bundle: Path, tmp_path: Path
) -> None:
    """A network is named as its file, whatever its recipe says; what cannot be read fails alone."""
    model = save_tiny(tmp_path).rename(tmp_path / "My Net.onnx")
    broken = shutil.copytree(tiny_bundle, tmp_path / "broken")
    (broken / "reference.npz").unlink()
    options = {**PLAN, "precisions": ("fp16",), "batches": (1,), "on": ("rack",)}
    result = fleet_survey([model, broken], out=tmp_path / "out", **options)
    by = {row["model"]: row for row in result.rows}
    assert by["My Net"]["status"] == "done", by["My Net"]["reason"]
    [lost] = [row for name, row in by.items() if name != "My Net"]
    assert lost["status"] == "failed" and "reference.npz" in lost["reason"]
    again = fleet_survey([model, broken], out=tmp_path / "out", **options)
    assert again.rows == result.rows
