"""Ranges of the tensors to be quantized, by one method."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cnnx.own_code import own_code
from cnnx.pipeline.progress import Progress, Steps
from cnnx.pipeline.steps.artefacts import RANGES, STATISTICS
from cnnx.quant.calibration import Calibration, calibration_of
from cnnx.quant.observation import Observation
from cnnx.store import Entry

if TYPE_CHECKING:
    from cnnx.data.crops import Crops


def calibration_step(steps: Steps, statistics: Entry, crops: Crops, *, method: str) -> Entry:
    """Ranges of the tensors to be quantized, and maxima of all; `calibration.json` in its folder."""
    inputs = {"statistics": statistics.key, "method": method, "code": own_code(__name__)}

    def fill(folder: Path, _: Progress) -> None:
        seen = Observation.load(statistics.folder / STATISTICS)
        calibration = calibration_of(seen, method=method, images_digest=crops.list_digest)
        (folder / RANGES).write_text(calibration.to_json(), encoding="utf-8")

    return steps.make(f"ranges ({method})", "calibration", inputs, fill)


def read_calibration(entry: Entry) -> Calibration:
    """The calibration that a step left."""
    return Calibration.from_json((entry.folder / RANGES).read_text(encoding="utf-8"))
