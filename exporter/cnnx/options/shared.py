"""Options that several verbs share, each stated once.

Kinds that are never made objects of their own have no methods: those would cost `cnnx --help` a tenth.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from cnnx.options import Options, option

Power: TypeAlias = Any
"""Whether energy is measured, or a `cnnx.PowerPass` that says how."""

weights_option = partial(
    option, "pretrained", "pretrained, standin (seeded random values), or a checkpoint file."
)


def read_sizes(text: str) -> tuple[int, ...]:
    """Sizes of "1,2,4,8".

    Raises:
        ValueError: it is no such list, or one of them is below 1.
    """
    sizes = text.split(",")
    if not all(size.strip().isdecimal() and int(size) for size in sizes):
        raise ValueError("it is no list of sizes such as 1,2,4,8")
    return tuple(map(int, sizes))


class CommonOptions(Options):
    """What every command takes, and Python has no use for."""

    as_json: bool = option(False, "Print one JSON object instead of tables.", flag="--json")
    verbose: bool = option(False, "Show every layer, warning and flipped image, where there are any.")
    debug: bool = option(False, "Show the traceback of an error, too.")


class ReportOptions(Options):
    """Of commands whose records can be made a report; in Python `cnnx.write_report` makes it."""

    report: Path | None = option(
        None, "Also write a report, overwritten if it exists: .html, .md, .xml (JUnit), .json or .csv."
    )


class TargetOptions(Options):
    """Of verbs that build engines or run what is in a bundle."""

    target: str = option(
        "auto", "auto, or a runtime such as tensorrt, rtx (TensorRT for RTX) or ort (ONNX Runtime)."
    )


class GpuOptions(Options):
    """Of verbs that build engines."""

    sm: tuple[int, ...] = option((), "GPU architecture to build for, such as 86; may be given several times.")


class TrustOptions(Options):
    """Of verbs that read recipes."""

    trust_recipe: bool = option(False, "Let the recipe's own Python code run.")


class CalibrationOptions(Options):
    """Of verbs that calibrate."""

    calibration_data: str | Path | None = option(
        None,
        "Calibration images: digits, deadleaves, shapes100, a folder, or a list of file names.",
        recipe="calibration.data",
    )


class ValidationOptions(Options):
    """Of verbs that judge on images."""

    validation_data: str | Path | None = option(
        None,
        "Validation images: a built-in set, a folder, or a list of file names.",
        recipe="validation.data",
    )


class JudgingOptions(ValidationOptions):
    """Of verbs that judge on images of the user's choice."""

    validation_images: int | None = option(
        None, "Maximum number of validation images.", recipe="validation.images"
    )
    labels: str | Path | None = option(
        None, "Label file of a flat validation folder: one `name label` per line (class index or WordNet ID)."
    )


class SourceOptions(TrustOptions, ValidationOptions):
    """Of verbs that make again what a bundle was made from: where it is, if the bundle does not say."""

    model: str | Path | None = option(
        None, "The recipe or ONNX file that the bundle was made from, if it is yours."
    )
    weights: str | None = option(None, "The checkpoint that the bundle was made from, if it is yours.")


class MeasuringOptions(TargetOptions):
    """Of verbs that measure latency and, if asked, energy."""

    seconds: float = option(3.0, "Minimum time of each latency measurement, in seconds.")
    percentile: float = option(
        99.0, "Latency percentile to report, in percent; as many samples are taken as it needs."
    )
    cuda_graph: bool | None = option(
        None, "Launch an engine as one CUDA graph; without either flag, where that is possible."
    )
    power: Power = option(False, "Then measure energy too, apart from latency; 1 to 4 minutes a measurement.")
    rate: float | None = option(
        None, "With --power: runs per second, such as a camera's 30; without, back to back."
    )
    sensor: str | None = option(None, "With --power: the sensor to read, by its name in cnnx doctor.")


class AgainOptions(Options):
    """Of verbs that go on with what was stopped."""

    again: bool = option(False, "Measure failed cells again, and cells whose energy failed.")
