"""Options of the verbs that start from a network."""

from __future__ import annotations

from pathlib import Path

from cnnx.options import Batch, Options, Precision, Scales, option
from cnnx.options.shared import (
    CalibrationOptions,
    GpuOptions,
    JudgingOptions,
    TargetOptions,
    TrustOptions,
    weights_option,
)


def read_batch(text: str) -> Batch:
    """Smallest and largest of "4" or "1..8".

    Raises:
        ValueError: it is neither.
    """
    low, _, high = text.partition("..")
    try:
        return int(low), int(high or low)
    except ValueError:
        raise ValueError("expected 4 or 1..8") from None


class ListOptions(Options):
    """Options of `list`: filters, all of which must hold."""

    family: str | None = option(None, "Only this family, such as resnet.")
    side: int | None = option(None, "Only inputs of this width, in pixels.", flag="--input", min=1)
    max_parameters: float | None = option(
        None, "Maximum number of parameters, in millions.", min=0, read=lambda millions: millions * 1e6
    )
    max_multiply_adds: float | None = option(
        None,
        "Maximum number of multiply-adds per image, in thousand millions.",
        min=0,
        read=lambda billions: billions * 1e9,
    )
    min_top1: float | None = option(None, "Minimum published top-1 accuracy, in percent.", min=0, max=100)
    with_weights: bool = option(False, "Only networks whose trained weights can be had.")


class ShowOptions(TrustOptions):
    """Options of `show`."""


class MarkdownOptions(Options):
    """What `show` takes on the command line alone."""

    markdown: bool = option(False, "Print the table as Markdown, to be pasted into a document.")


class NetworkOptions(TrustOptions, CalibrationOptions):
    """What every verb takes that calibrates a network."""

    weights: str = weights_option()
    calibration_images: int | None = option(
        None, "Maximum number of calibration images.", recipe="calibration.images"
    )
    method: str | None = option(
        None,
        "How ranges are chosen: entropy, max, mse, percentile-99.9, -99.99, -99.999, or auto.",
    )
    equalize: bool | None = option(
        None,
        "Scale channels first so that one range serves all of a tensor (INT8; default).",
        recipe="precision.equalize",
    )


class CalibrateOptions(NetworkOptions):
    """Options of `calibrate`."""

    folds: int | None = option(
        None, "Split the images into this number of sets, and report how far ranges and error move."
    )


class ExportOptions(GpuOptions, TargetOptions, JudgingOptions, NetworkOptions):
    """Options of `export`."""

    precision: Precision | None = option(
        None,
        "Precision of the graph; the recipe's default otherwise.",
        flags={
            "fp32": "Keep single precision.",
            "fp16": "Type the graph FP16 (default of most recipes).",
            "int8": "Quantize to INT8, with FP16 elsewhere.",
        },
    )
    out: str | Path | None = option(None, "Folder of the bundle; <name>-<precision> by default.")
    repair: bool = option(False, "Put INT8 layers back into FP16 until the gates of agreement would pass.")
    repair_trials: int | None = option(None, "Maximum number of networks that --repair tries (200).")
    scales: Scales = option("fp16", "Type of the scales; fp32 keeps everything but INT8 in FP32.")
    batch: Batch = option((1, 1), "Batch size, or a range such as 1..8.", read=read_batch, text="1")
    force: bool = option(False, "Write into a folder that holds other files; none of them is lost.")
