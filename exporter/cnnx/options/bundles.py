"""Options of the verbs that start from a finished bundle, and of `cache`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cnnx.errors import UsageError
from cnnx.options.option import option
from cnnx.options.shared import (
    CalibrationOptions,
    GpuOptions,
    JudgingOptions,
    MeasuringOptions,
    ReportOptions,
    SourceOptions,
    TargetOptions,
    read_sizes,
)

HardwareCompatibility = Literal["none", "same_compute_capability", "ampere_plus"]

_ENGINE = "Which of several engines, by its folder's name under engines/"


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """How TensorRT builds. The usual build sets none of these; other runtimes refuse them.

    Attributes:
        workspace_bytes: cap on the memory that a layer's kernels may use for themselves; None: all that the
            GPU has. Too low, and fast kernels are skipped; without one, a Jetson can run out of memory.
        timing_cache_folder: where measured kernels are remembered, one file for each GPU and release: builds
            get much faster and repeat the same choices. None: everything is measured again. It does not
            change what is asked, so it is no part of an engine's cache key.
        optimization_level: 0 to 5, None: TensorRT's own (3). Higher tries more kernels: slower builds,
            sometimes faster engines.
        hardware_compatibility: "none": runs on this GPU model alone, fastest. "same_compute_capability":
            on all GPUs of this compute capability, where the release has it. "ampere_plus": on Ampere and
            newer desktop and datacentre GPUs; gives up kernels, and is not for Jetson.
        version_compatible: also runs under later minor and major releases. Larger, often slower, and brings
            CPU code along that is only run where it is allowed.
        dla_core: build for this core of the deep learning accelerator of a Jetson Orin, with the GPU for
            layers that it cannot do. FP16 only; saves power and leaves the GPU free, mostly not faster.
    """

    workspace_bytes: int | None = option(
        None,
        "TensorRT: cap on the kernels' own memory; too low is slow.",
        flag="--workspace",
        read=lambda mib: mib * 2**20,
        min=1,
        metavar="MIB",
    )
    timing_cache_folder: str | None = option(
        None, "TensorRT: folder that keeps the times of kernels; in cnnx's cache by default."
    )
    optimization_level: int | None = option(
        None, "TensorRT: 0 to 5 (3); higher tries more kernels and builds longer.", min=0, max=5
    )
    hardware_compatibility: HardwareCompatibility = option(
        "none", "TensorRT: run on other GPUs, too; slower than an engine for one model."
    )
    version_compatible: bool = option(False, "TensorRT: run on later releases, too; larger and slower.")
    dla_core: int | None = option(
        None,
        "TensorRT: build for this DLA core of an Orin; FP16 only.",
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
            raise UsageError(f"a workspace of {self.workspace_bytes} bytes makes no sense", mend="give MiB")
        if self.optimization_level is not None and not 0 <= self.optimization_level <= 5:
            raise UsageError(f"optimization level {self.optimization_level} is not in 0 to 5")
        if self.dla_core is not None and self.dla_core < 0:
            raise UsageError(f"DLA core {self.dla_core} is below 0", mend="an Orin has the cores 0 and 1")


@dataclass(frozen=True, kw_only=True)
class EngineOptions(BuildOptions, GpuOptions, TargetOptions):
    """Options of `build`."""

    opt_batch: int | None = option(
        None, "Batch to choose the fastest kernels for; else the largest.", min=1, metavar="N"
    )


@dataclass(frozen=True, kw_only=True)
class ValidateOptions(SourceOptions, JudgingOptions, TargetOptions):
    """Options of `validate`."""

    engine: str | None = option(None, f"{_ENGINE}.", metavar="IDENTITY")


@dataclass(frozen=True, kw_only=True)
class DiagnoseOptions(SourceOptions, CalibrationOptions):
    """Options of `diagnose`."""

    images: int = option(512, "Maximum number of images that layers are tried on.")


@dataclass(frozen=True, kw_only=True)
class DrawingOptions(ReportOptions):
    """What `diagnose` takes on the command line alone."""

    picture: Path | None = option(
        None, "Draw the damage along the network, overwritten if it exists: .svg or .png."
    )


@dataclass(frozen=True, kw_only=True)
class BenchOptions(MeasuringOptions):
    """Options of `bench`."""

    engine: str | Sequence[str] | None = option(
        (), f"{_ENGINE}; may be given several times: they take turns.", metavar="IDENTITY"
    )
    batch: int | Sequence[int] = option(
        (1,), "Images per run, or several sizes such as 1,2,4,8.", read=read_sizes, text="1"
    )
    layers: bool = option(False, "Time layers, too, in a run apart, with the share of casts.")


@dataclass(frozen=True, kw_only=True)
class CacheOptions:
    """Options of `cache`."""

    prune_days: float | None = option(
        None, "Remove what was not used for this number of days; downloaded weights stay.", flag="--prune"
    )
