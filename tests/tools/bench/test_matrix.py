"""The page of `make matrix`, from records as its cells leave them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.bench import matrix
from tools.resumable import Records


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matrix, "RECORDS", Records(tmp_path))


def record(name: str, precision: str, **more: object) -> dict[str, object]:
    return {
        "name": name, "precision": precision, "multiply_adds": 416_520, "error": 1e-6, "sqnr_db": 30.0,
        "int8_share": 0.5, "left_out": ["too small", 200_000], "engines": {"rtx-sm86": {"int8": 5}},
        "original_ns": 1e6, "graph_ns": 2e6, "seconds": 3.0, "peak_bytes": 2**29,
        "tools": {"cnnx": "0.1.0"}, "machine": "2 cores", "date": "2026-01-02", **more,
    }  # fmt: skip


def test_a_page_has_a_row_a_network_reasons_and_failures() -> None:
    for precision in ("fp32", "int8"):
        matrix.RECORDS.keep(f"lenet5-{precision}", record("lenet5", precision))
    failed = {"name": "lenet5", "precision": "fp16", "failed": "ended by signal 9"}
    matrix.RECORDS.keep("lenet5-fp16", failed)
    page = matrix.page(matrix.records())
    row = "| lenet5 | 416,520 | 1.0e-06 | failed | 1.0e-06 | 30.0 | 50.0% | 2 of 3 | 1.0 |  | 2.0 | 6 | 512 |"
    assert row in page.splitlines()
    assert "- lenet5 (50.0%): too small (200,000 MACs)" in page
    assert "- lenet5 fp16: ended by signal 9" in page and "3 cells of 1 networks, 1 failed" in page


def test_a_cell_that_dies_is_recorded_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = tmp_path / "cell.py"
    monkeypatch.setattr(matrix, "PROGRAM", (str(cell),))
    cell.write_text("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    matrix.fill("lenet5", again=False, jobs=2)
    assert matrix.records()["lenet5"]["int8"]["failed"] == "ended by signal 9"
    cell.write_text(f"import json, sys; print(json.dumps({record('lenet5', 'any')!r}))")
    matrix.fill("lenet5", again=False, jobs=2)
    assert set(matrix.records()["lenet5"]) == {"fp32", "fp16", "int8"}
    assert not any("failed" in found for found in matrix.records()["lenet5"].values())
