"""Options of the verbs that start from a finished bundle, of surveys, and of `cache`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, cast

from cnnx.errors import UsageError
from cnnx.options import REQUIRED, Options, Precision, option
from cnnx.options.shared import (
    AgainOptions,
    CalibrationOptions,
    GpuOptions,
    JudgingOptions,
    MeasuringOptions,
    ReportOptions,
    SourceOptions,
    TargetOptions,
    read_sizes,
    weights_option,
)

HardwareCompatibility = Literal["none", "same_compute_capability", "ampere_plus"]

_ENGINE = "Which of several engines, by its folder's name under engines/"


class BuildOptions(Options):
    """How TensorRT builds. The usual build sets none of these; other runtimes refuse them.

    A timing cache does not change what is asked, so it is no part of an engine's cache key.
    """

    workspace_bytes: int | None = option(
        None,
        "TensorRT: cap on the kernels' own memory; a Jetson may run out without one, too low is slow.",
        flag="--workspace",
        read=lambda mib: mib * 2**20,
        min=1,
        metavar="MIB",
    )
    timing_cache_folder: str | None = option(
        None,
        "TensorRT: folder that remembers measured kernels, for faster builds; cnnx's cache else.",
    )
    optimization_level: int | None = option(
        None, "TensorRT: 0 to 5 (3); higher tries more kernels and builds longer.", min=0, max=5
    )
    hardware_compatibility: HardwareCompatibility = option(
        "none",
        "TensorRT: run on all GPUs alike, or on Ampere and newer but no Jetson; slower.",
    )
    version_compatible: bool = option(False, "TensorRT: run on later releases, too; larger and slower.")
    dla_core: int | None = option(
        None,
        "TensorRT: build for this DLA core of an Orin, FP16 only; frees the GPU, is mostly not faster.",
        flag="--dla",
        min=0,
        metavar="CORE",
    )

    def __post_init__(self) -> None:
        """Refuse what no release takes.

        Raises:
            UsageError: a number out of its range.
        """
        if self.workspace_bytes is not None and self.workspace_bytes < 1:
            raise UsageError(f"a workspace of {self.workspace_bytes} bytes makes no sense", hint="give MiB")
        if self.optimization_level is not None and not 0 <= self.optimization_level <= 5:
            raise UsageError(f"optimization level {self.optimization_level} is not in 0 to 5")
        if self.dla_core is not None and self.dla_core < 0:
            raise UsageError(f"DLA core {self.dla_core} is below 0", hint="an Orin has the cores 0 and 1")


class EngineOptions(BuildOptions, GpuOptions, TargetOptions):
    """Options of `build`."""

    opt_batch: int | None = option(
        None, "Batch to choose the fastest kernels for; else the largest.", min=1, metavar="N"
    )


class ValidateOptions(SourceOptions, JudgingOptions, TargetOptions):
    """Options of `validate`."""

    engine: str | None = option(None, f"{_ENGINE}.", metavar="IDENTITY")


class DiagnoseOptions(SourceOptions, CalibrationOptions):
    """Options of `diagnose`."""

    images: int = option(512, "Maximum number of images that layers are tried on.")


class DrawingOptions(ReportOptions):
    """What `diagnose` takes on the command line alone."""

    plot: Path | None = option(
        None, "Draw the damage along the network, overwritten if it exists: .svg or .png."
    )


class BenchOptions(MeasuringOptions):
    """Options of `bench`."""

    engine: str | Sequence[str] | None = option(
        (), f"{_ENGINE}; may be given several times: they take turns.", metavar="IDENTITY"
    )
    batch: int | Sequence[int] = option(
        (1,), "Images per run, or several sizes such as 1,2,4,8.", read=read_sizes, text="1"
    )
    layers: bool = option(False, "Time layers, too, in a run apart, with the share of casts.")


class ArchiveOptions(Options):
    """What `doctor` takes on the command line alone; in Python it is the first argument of `cnnx.prove`."""

    archive: Path | None = option(
        None,
        "Build, validate and measure three networks, with energy where a sensor tells it, and write records "
        "to this .tar.gz, overwritten if it exists.",
        flag="--proof",
    )


class CacheOptions(Options):
    """Options of `cache`."""

    prune_days: float | None = option(
        None, "Remove what was not used for this number of days; downloaded weights stay.", flag="--prune"
    )


def read_precisions(text: str) -> tuple[Precision, ...]:
    """Precisions of "fp16,int8"; a survey checks the names."""
    return cast("tuple[Precision, ...]", tuple(text.split(",")))


class SurveyPlan(MeasuringOptions):
    """What is done in each cell. `weights` may be a mapping: model -> its weights."""

    weights: str | Mapping[str, str] = weights_option()
    images: int | None = option(None, "Maximum number of calibration images, and of validation images.")

    def weights_of(self, model: str) -> str:
        """Those of one model."""
        return self.weights if isinstance(self.weights, str) else self.weights[model]


class SurveyOptions(AgainOptions, SurveyPlan):
    """Options of `survey`."""

    out: str | Path = option(REQUIRED, "Folder of rows, bundles and reports; goes on where it was.")
    precisions: Sequence[Precision] = option(
        ("fp16", "int8"), "Precisions of what is exported.", read=read_precisions, text="fp16,int8"
    )
    batches: Sequence[int] = option(
        (1, 2, 4, 8, 16, 32), "Images per run.", read=read_sizes, text="1,2,4,8,16,32"
    )


class ProofOptions(AgainOptions):
    """Options of `prove`, which is `doctor --proof` on the command line."""

    bundles: Sequence[str | Path] = option(
        (),
        "With --proof: finished bundles to take, which needs no PyTorch; may be given several times.",
        flag="--bundle",
    )
    folder: str | Path | None = option(
        None, "With --proof: folder of its work, so that a stopped one goes on."
    )
    no_power: bool = option(False, "With --proof: leave energy out, which takes most of its time.")
