"""Options of the commands that start from a network."""

from __future__ import annotations

from pathlib import Path

from cnnx.options import Batch, Options, Precision, Scales, option
from cnnx.options.shared import (
    CalibrationOptions,
    GpuOptions,
    JudgingOptions,
    OutputOptions,
    PreprocessingOptions,
    TargetOptions,
    TrustOptions,
    weights_option,
)

SHIPPED_NAMES = ("imagenet",)
"""Class names that ship with cnnx, for --class-names."""


def read_batch(text: str) -> Batch:
    """Parse "4" or "1..8" into the smallest and the largest batch.

    Raises:
        ValueError: the text has neither form.
    """
    low, _, high = text.partition("..")
    try:
        return int(low), int(high or low)
    except ValueError:
        raise ValueError("expected 4 or 1..8") from None


class ListOptions(Options):
    """Options of `list`: filters that must all match."""

    family: str | None = option(None, "Only networks of this family, such as resnet.")
    side: int | None = option(None, "Only networks with this input width, in pixels.", min=1)
    max_parameters: float | None = option(
        None, "Maximum number of parameters, in millions.", min=0, read=lambda millions: millions * 1e6
    )
    max_multiply_adds: float | None = option(
        None,
        "Maximum GMACs per image.",
        min=0,
        read=lambda billions: billions * 1e9,
    )
    min_top1: float | None = option(None, "Minimum published top-1 accuracy, in percent.", min=0, max=100)
    with_weights: bool = option(False, "Only networks whose trained weights are available.")


class ShowOptions(OutputOptions, TrustOptions):
    """Options of `show`."""


class MarkdownOptions(Options):
    """Options of `show` that exist only on the command line."""

    markdown: bool = option(False, "Print the table as Markdown.")


class NetworkOptions(OutputOptions, TrustOptions, CalibrationOptions, PreprocessingOptions):
    """Options of the commands that calibrate a network."""

    weights: str = weights_option()
    calibration_images: int | None = option(
        None, "Maximum number of calibration images.", recipe="calibration.images"
    )
    method: str | None = option(
        None,
        "Calibration method: entropy, max, mse, percentile-99.9 (-99.99, -99.999), auto, file (its Q/DQ).",
    )
    equalize: bool | None = option(
        None,
        "Equalize channel ranges before quantizing (INT8; default).",
        recipe="precision.equalize",
    )


class CalibrateOptions(NetworkOptions):
    """Options of `calibrate`."""

    folds: int | None = option(None, "Calibrate on this many subsets; report how ranges and error vary.")


class InitOptions(OutputOptions, PreprocessingOptions):
    """Options of `init`."""

    out: str | Path | None = option(None, "Recipe to write. Default: the ONNX file's name, with .toml.")
    class_names: str | Path | None = option(
        None, "File with one class name per line, in the order of the logits."
    )
    force: bool = option(False, "Overwrite the recipe if it exists.")


class AskingOptions(Options):
    """Options of `init` that exist only on the command line."""

    yes: bool = option(False, "Ask nothing: assume what no option states, and mark it in the recipe.")


class ExportOptions(GpuOptions, TargetOptions, JudgingOptions, NetworkOptions):
    """Options of `export`."""

    precision: Precision | None = option(
        None,
        "Precision of the graph. Default: the recipe's.",
        flags={
            "fp32": "Keep the graph in FP32.",
            "fp16": "Convert the graph to FP16 (default of most recipes).",
            "int8": "Quantize to INT8; other layers stay in FP16.",
        },
    )
    class_names: str | Path | None = option(
        None,
        "Class names: a file with one name per line in logit order, or imagenet.",
        recipe="model.labels",
    )
    reference: str | Path | None = option(
        None,
        "ONNX file to judge by instead of the network itself, such as the one before its quantization.",
        recipe="model.reference",
    )
    input: str | None = option(
        None,
        "Input of the graph: uint8-nhwc or uint8-nchw (pixels); -bgr, -rgb or -gray; :1080x1920 to resize. "
        "Default: normalized floats.",
        metavar="FORMAT",
        recipe="input.format",
    )
    out: str | Path | None = option(None, "Output folder. Default: <name>-<precision>.")
    with_source: bool = option(
        False, "Also store what the graph is made from, so that a device can diagnose it without PyTorch."
    )
    repair: bool = option(False, "Return INT8 layers to FP16 until the agreement gates pass.")
    repair_trials: int | None = option(None, "Maximum number of trials of --repair (default 200).")
    scales: Scales = option("fp16", "Type of the scales. fp32 keeps all but INT8 layers in FP32.")
    batch: Batch = option((1, 1), "Batch size, or a range such as 1..8.", read=read_batch, text="1")
    force: bool = option(False, "Write into a folder that holds other files; keeps them.")
