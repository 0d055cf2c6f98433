"""tools/bench/quantization: its page from records as cells leave them, and two cells run in earnest."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import pytest

from tools.bench.quantization import __main__ as bench
from tools.bench.quantization import cells as measuring
from tools.bench.quantization import page as pages
from tools.bench.quantization import records as kept
from tools.resumable import Records


def record(name: str, way: str, right: list[int], **more: object) -> dict[str, object]:
    """A cell's record; one that judged nothing where nobody was to be right."""
    cost = {
        "name": name, "way": way, "images": len(right), "calibration_images": 512, "machine": "2 cores",
        "date": "2026-01-02", "seconds": 2.0, "cpu_seconds": 2.0,
        "peak_bytes": 2**28, "imported_bytes": 2**26,
        "versions": {"onnx": "1.21.0" if way.startswith("modelopt") else "1.23.2"},
        "errors": {}, "warnings": {"average-pool": 2}, "int8_share": 1.0, "rtx": "built",
        "rtx_version": "1.7.1", **more,
    }  # fmt: skip
    if not right:
        return cost
    rates = {"top1_agreement": 0.98, "top1_in_top5": 1.0, "top5_agreement": 0.97}
    packed = np.packbits(np.array(right, bool)).tobytes()
    return {
        "likeness": {**rates, "logit_sqnr_db": 30.0},
        "original": 0.85,
        "accuracy": sum(right) / len(right),
        "right": base64.b64encode(packed).decode(),
        **cost,
    }


@pytest.fixture
def records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(kept, "RECORDS", Records(tmp_path))
    return tmp_path


def keep(record: dict[str, object]) -> None:
    kept.RECORDS.keep(f"{record['name']}/{record['way']}", record)


def row_of(page: str, heading: str, start: str) -> list[str]:
    part = page.split(f"{heading}\n", 1)[1]
    line = next(line for line in part.splitlines() if line.startswith(f"| {start} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


@pytest.mark.usefixtures("records")
def test_every_network_is_a_row_won_lost_failed_or_not_run(tmp_path: Path) -> None:
    half, most = [1, 0] * 500, [1] * 800 + [0] * 200
    low = {"top1_agreement": 0.1, "top1_in_top5": 0.2, "top5_agreement": 0.3, "logit_sqnr_db": 2.0}
    keep(record("resnet20", "plain", half) | {"cpu_seconds": 1.0})
    keep(record("resnet20", "cnnx", half))
    keep(record("resnet20", "ort-max", most, int8_share=0.5, rtx="the parser | refuses it"))
    keep({"name": "resnet20", "way": "modelopt-max", "images": 1000, "failed": "ended by signal 9: killed"})
    keep(record("resnet20-hostile", "cnnx", most))
    keep(record("resnet20-hostile", "ort-max", half, likeness=low))
    keep(record("vgg16", "plain", [], seconds=4.0, calibration_images=64))
    keep(record("vgg16", "ort-entropy", [], seconds=20.0, calibration_images=32))
    pages.write(kept.records(), folder=tmp_path)
    page = (tmp_path / "quantization.md").read_text()
    prose = " ".join(page.split())

    accuracy = row_of(page, "## Accuracy", "resnet20")
    assert accuracy[1:5] == ["85.00", "50.00", "-", "**80.00**"]
    assert accuracy[2 + kept.JUDGED.index("modelopt-max")] == "failed"
    assert "| resnet20 | modelopt-max | ended by signal 9: killed |" in page
    lost = row_of(page, "## Against the best peer", "resnet20")
    assert lost[1] == "ort-max" and lost[2].startswith("-30.00 (") and lost[3] == "worse"
    assert "ort-max leaves 50% of the MACs out of INT8, cnnx 0%" in prose
    won = row_of(page, "## Against the best peer", "resnet20-hostile")
    assert won[3:5] == ["not worse", "+28.0"]
    assert "on 1 networks, worse on 1, open on 0; better logits (SQNR) on 1 of 1 twins" in prose
    cost = row_of(page, "## What it costs", "vgg16")
    assert cost[1 + list(kept.WAYS).index("ort-entropy")] == "20.0 (10.0), 256 (of 32 images, not 64)"
    assert row_of(page, "## What it costs", "resnet20")[3] == "2.0 (2.0), 256"
    refused = row_of(page, "## Linter and TensorRT", "ort-max")
    assert refused[1:3] == ["2", "1"] and refused[-1] == "the parser / refuses it (1)"
    assert "Not run yet: " in prose and "modelopt-max on all but resnet20" in prose
    assert "onnx 1.23.2" in page and (tmp_path / "quantization.svg").stat().st_size > 1000


@pytest.mark.usefixtures("records")
def test_divergence_is_compared_with_the_best_peers_by_the_same_images(tmp_path: Path) -> None:
    """What is hard for one graph is hard for the other: the ratio is known to a percent."""
    hard = np.random.default_rng(0).gamma(2, 2e-3, kept.BLOCKS)

    def judged(network: str, way: str, factor: float, **more: str) -> None:
        blocks = (factor * hard).tolist()
        likeness = {
            "top1_agreement": 0.9, "top1_in_top5": 1.0, "top5_agreement": 0.9,
            "logit_sqnr_db": 20.0, "divergence": float(np.mean(blocks)),
        }  # fmt: skip
        made = record(network, way, [], likeness=likeness, divergence_by_block=blocks)
        keep(made | {"images": kept.TILES, "int8_share": 0.91, **more})

    judged("efficientnet-lite1", "fp16", 0.01)
    judged("efficientnet-lite1", "cnnx", 0.4, remedies="the first layer rounded together")
    judged("efficientnet-lite1", "ort-max", 1.0)
    judged("efficientnet-lite1", "modelopt-max", 1.5)
    judged("resnet20", "cnnx", 0.9)
    judged("resnet20", "ort-max", 1.0)
    pages.write(kept.records(), folder=tmp_path)
    page = (tmp_path / "quantization.md").read_text()
    floor, ours = row_of(page, "## Divergence", "efficientnet-lite1")[1:3]
    assert ours == f"**{40 * float(floor):.3g}**"
    part = page.split("Over that of the best peer", 1)[1]
    ratio = row_of(part, "", "efficientnet-lite1")
    assert ratio[1:4] == ["ort-max", "91.0%", "0.5"] and ratio[4].startswith("0.4 (0.4 .. 0.4")
    assert ratio[5:7] == ["reached", "91.0%"] and row_of(part, "", "resnet20")[5] == "missed"
    assert row_of(page, "## Accuracy", "efficientnet-lite1")[1:3] == ["-", "-"]
    assert "| efficientnet-lite1 | cnnx | the first layer rounded together |" in page


def test_the_difference_is_paired() -> None:
    """Ten images apart in a thousand: as classifiers that err alike they are closer than alone."""
    ours, theirs = [1] * 850 + [0] * 150, [1] * 840 + [0] * 10 + [0] * 145 + [1] * 5
    cells = {way: record("x", way, right) for way, right in (("cnnx", ours), ("ort-max", theirs))}
    cells["ort-entropy"] = record("x", "ort-entropy", [1] * 500 + [0] * 500)
    gap = kept.gap_to_best(cells, "cnnx")
    assert gap is not None
    difference, interval, peer = gap
    assert (round(difference, 6), peer) == (0.005, "ort-max")
    assert 0.012 < interval.high - interval.low < 0.018


def test_cells_in_earnest(records: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch", reason="the networks are PyTorch's")
    monkeypatch.setattr(measuring, "CALIBRATION_IMAGES", 16)
    monkeypatch.setattr(measuring, "_LONG", 0.0)

    def fill(*ways: str) -> None:
        bench.fill(["resnet20"], list(ways), images=64, large=False, again=False)

    fill("plain", "fp16", "cnnx", "ort-max")
    cells = kept.records()["resnet20"]
    for way in ("cnnx", "ort-max"):
        found = cells[way]
        assert found["likeness"]["logit_sqnr_db"] > 25 and found["accuracy"] > 0.75
        assert not found["errors"] and found["int8_share"] == 1
        assert found["rtx"] == "built" or found["rtx"].startswith("not tried")
        assert found["seconds"] > 0 and found["peak_bytes"] > found["imported_bytes"] > 0
    assert cells["plain"]["seconds"] < cells["ort-max"]["seconds"]
    floor, ours = (kept.divergence(cells, way) for way in ("fp16", "cnnx"))
    assert floor is not None and ours is not None and 0 < floor < 0.1 * ours
    assert np.mean(cells["cnnx"]["divergence_by_block"]) == pytest.approx(ours, rel=0.2)

    # A cell with a record is not run again; one that fails is a record with the last that it said.
    broken = records / "broken.py"
    broken.write_text("import sys\nprint('no more memory', file=sys.stderr)\nsys.exit(3)\n")
    monkeypatch.setattr(measuring, "PROGRAM", (str(broken),))
    fill("cnnx", "ort-percentile")
    cells = kept.records()["resnet20"]
    assert "accuracy" in cells["cnnx"] and cells["ort-percentile"]["failed"] == "exit 3: no more memory"
