"""Options that several commands share.

Dataclasses that are only base classes generate no methods: generating them would slow `cnnx --help` by 10 %.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from cnnx.options import Options, option

Power: TypeAlias = Any
"""Whether to measure energy, or a `cnnx.PowerPass` with the settings."""

weights_option = partial(
    option, "pretrained", "pretrained, standin (seeded random weights), or a checkpoint file."
)


def read_sizes(text: str) -> tuple[int, ...]:
    """Parse batch sizes such as "1,2,4,8".

    Raises:
        ValueError: the text is not such a list, or a size is below 1.
    """
    sizes = text.split(",")
    if not all(size.strip().isdecimal() and int(size) for size in sizes):
        raise ValueError("expected a list of sizes such as 1,2,4,8")
    return tuple(map(int, sizes))


class CommonOptions(Options):
    """Options of every command, without a counterpart in Python."""

    as_json: bool = option(False, "Print one JSON object instead of tables.", flag="--json")
    verbose: bool = option(False, "Show all details: every layer, warning and flipped image.")
    debug: bool = option(False, "Also show the traceback of an error.")


FORMATS = ".html, .md, .xml (JUnit), .json, .csv, .annotations (GitHub) or .metrics (GitLab)"


class ReportOptions(Options):
    """Options of commands that can write a report; in Python, call `cnnx.write_report`."""

    report: Sequence[str] = option(
        (),
        f"Also write a report: {FORMATS}; overwrites it. Repeatable.",
        metavar="FILE",
    )


class GateOptions(Options):
    """Options of commands that judge gates."""

    gates: str | Path | None = option(
        None, "Gates, a TOML file with the keys of a recipe's [gates]; they take precedence.", metavar="FILE"
    )


class VerdictOptions(Options):
    """Options of commands whose exit code is a verdict; in Python, see the result's `verdict`."""

    allow_inconclusive: bool = option(False, "Let inconclusive gates pass: the exit code is 0, not 6.")
    strict: bool = option(False, "Let inconclusive and unjudged gates fail: the exit code is 1, not 6.")


class JudgedReportOptions(VerdictOptions, ReportOptions):
    """Options of commands that judge and can write a report, beside those in Python."""


class SignatureOptions(Options):
    """Options of commands that load a graph or an engine of a bundle."""

    require_signature: str | Path | Sequence[str | Path] = option(
        (),
        "Refuse a bundle that this public key, or these root certificates (PEM), did not sign. Repeatable: "
        "any one may have signed.",
        metavar="KEY",
    )


class TargetOptions(Options):
    """Options of commands that build engines or run a bundle."""

    target: str = option("auto", "Runtime: auto, tensorrt, rtx (TensorRT for RTX) or ort (ONNX Runtime).")


class GpuOptions(Options):
    """Options of commands that build engines."""

    sm: tuple[int, ...] = option((), "GPU architecture to build for, such as 86. Repeatable.")


class TrustOptions(Options):
    """Options of commands that read recipes."""

    trust_recipe: bool = option(False, "Allow the recipe to run its own Python code.")


class OutputOptions(Options):
    """Options of commands that read an ONNX file."""

    logits: str = option("", "Output of an ONNX file to judge by, if it has several.")


class PreprocessingOptions(Options):
    """Options of commands that read a network: how images become its input. They override the recipe."""

    preprocessing: str | Path | None = option(
        None,
        "Preset: torchvision, timm, timm-inception, keras-tf, keras-caffe, keras-torch, gray, or a timm "
        "config.json.",
        metavar="PRESET",
    )
    mean: str | Sequence[float] | None = option(
        None, "Mean of each channel, for pixels in 0..1, such as 0.485,0.456,0.406."
    )
    std: str | Sequence[float] | None = option(
        None, "Standard deviation of each channel, for pixels in 0..1."
    )
    resize: int | str | None = option(
        None, "Size before the crop: 256 (shorter side), longer:256, 224x224 (squash), letterbox or none."
    )
    crop: float | None = option(
        None, "Input's side as a share of the resized image's, such as 0.875; instead of --resize."
    )
    color: str | None = option(None, "Channels of the input: rgb, bgr or gray.")


class CalibrationOptions(Options):
    """Options of commands that calibrate."""

    calibration_data: str | Path | None = option(
        None,
        "Calibration images: digits, deadleaves, shapes100, a folder, or a list file.",
        recipe="calibration.data",
    )


class ValidationOptions(Options):
    """Options of commands that use validation images."""

    validation_data: str | Path | None = option(
        None,
        "Validation images: digits, deadleaves, shapes100, a folder, or a list file.",
        recipe="validation.data",
    )


class JudgingOptions(ValidationOptions):
    """Options of commands that validate on images that the user chooses."""

    validation_images: int | None = option(
        None, "Maximum number of validation images.", recipe="validation.images"
    )
    labels: str | Path | None = option(
        None, "Label file: one `name label` per line (class index or WordNet ID)."
    )


class SourceOptions(TrustOptions, ValidationOptions):
    """Options of commands that need a bundle's sources again, for sources that have moved."""

    model: str | Path | None = option(None, "Recipe or ONNX file of the bundle, if it has moved.")
    weights: str | None = option(None, "Checkpoint of the bundle, if it has moved.")


class MeasuringOptions(TargetOptions):
    """Options of commands that measure latency and, with --power, energy."""

    seconds: float = option(3.0, "Minimum duration of each latency measurement, in seconds.")
    percentile: float = option(99.0, "Latency percentile to report; enough runs are taken to support it.")
    cuda_graph: bool | None = option(None, "Launch an engine as one CUDA graph. Default: where possible.")
    power: Power = option(False, "Also measure energy: 1 to 4 minutes per measurement.")
    rate: float | None = option(None, "With --power: runs per second, such as 30. Default: back to back.")
    sensor: str | None = option(None, "With --power: sensor to read, as named by cnnx doctor.")


class AgainOptions(Options):
    """Options of commands that resume."""

    again: bool = option(False, "Retry failed cells and failed energy measurements.")
