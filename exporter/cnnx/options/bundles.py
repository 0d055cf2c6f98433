"""Options of the commands that read a finished bundle, of `survey`, `doctor` and `cache`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, cast

from cnnx.errors import UsageError
from cnnx.options import REQUIRED, Options, Precision, option
from cnnx.options.shared import (
    FORMATS,
    AgainOptions,
    CalibrationOptions,
    GateOptions,
    GpuOptions,
    JudgingOptions,
    MeasuringOptions,
    ReportOptions,
    SignatureOptions,
    SourceOptions,
    TargetOptions,
    read_sizes,
    weights_option,
)

HardwareCompatibility = Literal["none", "same_compute_capability", "ampere_plus"]

_ENGINE = "Engine to use: name of its folder under engines/"


class BuildOptions(Options):
    """Options of TensorRT builds. All are optional; other runtimes refuse them.

    A timing cache does not change the engine that is requested, so the engine's cache key leaves it out.
    """

    workspace_bytes: int | None = option(
        None,
        "TensorRT: workspace limit in MiB, for Jetsons; too low is slow.",
        flag="--workspace",
        read=lambda mib: mib * 2**20,
        min=1,
        metavar="MIB",
    )
    timing_cache_folder: str | None = option(
        None,
        "TensorRT: folder of kernel timings for faster builds. Default: cnnx's cache.",
    )
    optimization_level: int | None = option(
        None, "TensorRT: 0 to 5 (default 3). Higher levels try more kernels.", min=0, max=5
    )
    hardware_compatibility: HardwareCompatibility = option(
        "none",
        "TensorRT: GPUs the engine runs on. ampere_plus excludes Jetsons; slower.",
    )
    version_compatible: bool = option(False, "TensorRT: also run on later releases. Larger and slower.")
    dla_core: int | None = option(
        None,
        "TensorRT: build for this DLA core of an Orin (FP16 only); rarely faster.",
        flag="--dla",
        min=0,
        metavar="CORE",
    )

    def __post_init__(self) -> None:
        """Check the ranges that every release shares.

        Raises:
            UsageError: a number is out of range.
        """
        if self.workspace_bytes is not None and self.workspace_bytes < 1:
            raise UsageError(
                f"invalid workspace of {self.workspace_bytes} bytes: expected 1 or more",
                hint="give a size in MiB, such as --workspace 1024",
            )
        if self.optimization_level is not None and not 0 <= self.optimization_level <= 5:
            raise UsageError(
                f"invalid optimization level {self.optimization_level}: expected 0 to 5",
                hint="3 is TensorRT's default",
            )
        if self.dla_core is not None and self.dla_core < 0:
            raise UsageError(
                f"invalid DLA core {self.dla_core}: expected 0 or more", hint="an Orin has the cores 0 and 1"
            )


class EngineOptions(SignatureOptions, BuildOptions, GpuOptions, TargetOptions):
    """Options of `build`."""

    target: str = option("auto", "Builder: auto, tensorrt or rtx (TensorRT for RTX).")
    opt_batch: int | None = option(
        None, "Batch size to tune kernels for. Default: the largest.", min=1, metavar="N"
    )


class JudgeOptions(SignatureOptions, GateOptions, SourceOptions, JudgingOptions, TargetOptions):
    """Options of commands that judge a bundle on images."""

    reference: str | Path | None = option(None, "Reference of the bundle, if it has moved.")
    engine: str | None = option(None, f"{_ENGINE}.", metavar="IDENTITY")


class ValidateOptions(JudgeOptions):
    """Options of `validate`."""

    run: str | Path | None = option(
        None,
        "Judge this record in runs/, or the newest of a folder of records, again; run nothing.",
        flag="--from",
        metavar="RUN",
    )


class ClassifyOptions(SignatureOptions, TargetOptions):
    """Options of `classify`."""

    top: int = option(5, "Number of classes to show for each image.", min=1)
    limit: int | None = option(None, "Stop after this many images or frames.", min=1)
    engine: str | None = option(None, f"{_ENGINE}.", metavar="IDENTITY")


class PreflightOptions(SignatureOptions):
    """Options of `preflight`."""

    rebuild: bool = option(False, "Build engines that do not fit, from the bundle's graph; self-test them.")


class InspectOptions(SignatureOptions):
    """Options of `inspect`."""


class SignOptions(Options):
    """Options of `sign`. A passphrase is not an option: other users of a machine can read command lines."""

    key: str | Path = option(
        REQUIRED,
        "Private EC key, PEM. If it is encrypted, CNNX_KEY_PASSPHRASE holds the passphrase, or it is asked "
        "for.",
        metavar="FILE",
    )
    certificate: str | Path | None = option(
        None, "Certificate of the key, PEM, to be stored in the signature.", metavar="FILE"
    )
    chain: Sequence[str | Path] = option(
        (), "Certificate between that and the root, PEM, to be stored too. Repeatable.", metavar="FILE"
    )


class VerifyOptions(Options):
    """Options of `verify`."""

    key: str | Path | Sequence[str | Path] = option(
        (),
        "Public key or root certificates, PEM. Repeatable: any one may have signed.",
        metavar="FILE",
    )


class BomOptions(Options):
    """Options of `bom`."""

    out: str | Path | None = option(
        None, "File to write. Default: <name>.cdx.json. Overwrites it.", metavar="FILE"
    )
    modelpack: str | Path | None = option(
        None,
        "Also write a Kitfile, and ModelPack's configuration and annotations, for kit or oras.",
        metavar="FOLDER",
    )


class PackageOptions(SignatureOptions):
    """Options of `package`."""

    consumer: str = option(
        REQUIRED,
        "What will use it: cpp, triton, deepstream, isaac-ros, jetson-inference or python.",
        flag="--for",
        metavar="CONSUMER",
    )
    out: str | Path | None = option(
        None, "New folder to write. Default: <bundle>-<consumer>.", metavar="FOLDER"
    )


class CompareOptions(GateOptions):
    """Options of `compare`."""


class DiagnoseOptions(SignatureOptions, SourceOptions, CalibrationOptions):
    """Options of `diagnose`."""

    images: int | None = option(
        None, "Maximum number of images. Default: 512 to test layers on, 32 with --target."
    )


class TuneOptions(
    SignatureOptions, GateOptions, BuildOptions, CalibrationOptions, JudgingOptions, TargetOptions
):
    """Options of `tune`."""

    out: str | Path | None = option(None, "Folder of the new bundle. Default: <bundle>-tuned.")
    budget: float = option(30.0, "Minutes to search for, with the final comparison.", metavar="MINUTES")
    batch: int | None = option(
        None, "Batch size to build for and to measure. Default: the largest.", min=1, metavar="N"
    )
    images: int | None = option(None, "Maximum number of images to choose by. Default: 512.")
    reference: str | Path | None = option(None, "Reference of the bundle, if it has moved.")
    force: bool = option(False, "Write into a folder that holds other files; keeps them.")


class ComparingOptions(ReportOptions):
    """Options of `diagnose` that exist only on the command line; some are arguments in Python."""

    target: str | None = option(
        None, "Compare the tensors of an engine (tensorrt, rtx), or of the graph (ort), with the FP32 graph."
    )
    data: str | None = option(
        None,
        "With --target: images to run: digits, deadleaves, shapes100, a folder, or a list file. "
        "Default: the self-test's.",
    )
    plot: Path | None = option(None, "Plot the damage, or the tensors, to this .svg or .png; overwrites it.")


class BenchOptions(SignatureOptions, MeasuringOptions):
    """Options of `bench`."""

    engine: str | Sequence[str] | None = option((), f"{_ENGINE}. Repeatable.", metavar="IDENTITY")
    batch: int | Sequence[int] = option((1,), "Batch sizes, such as 1,2,4,8.", read=read_sizes, text="1")
    layers: bool = option(False, "Also time each layer, in a separate run.")
    streams: int | None = option(
        None,
        "Also run 1, 2, ... N streams at once, each with its own execution context.",
        min=1,
        metavar="N",
    )
    fps: float | None = option(
        None,
        "With --streams: frame rate of cameras, such as 30, to see how many fit. Default: back to back.",
    )
    soak: float | str | None = option(
        None,
        "Also run for this long, such as 10m: latency, clocks, temperature and power over time.",
        metavar="TIME",
    )
    compare_trtexec: str | Path | None = option(
        None,
        "Output of trtexec for the same engine and batch, or its --exportTimes file: show where both agree.",
        metavar="LOG",
    )


class ArchiveOptions(Options):
    """Options of `doctor` that exist only on the command line; the first argument of `cnnx.prove`."""

    archive: Path | None = option(
        None,
        "Measure networks and write records to this .tar.gz; overwrites it.",
        flag="--proof",
    )


class CacheOptions(Options):
    """Options of `cache`."""

    prune_days: float | None = option(
        None, "Remove entries unused for this many days; keeps downloads.", flag="--prune"
    )


def read_precisions(text: str) -> tuple[Precision, ...]:
    """The precisions in a text such as "fp16,int8"; a survey checks the names."""
    return cast("tuple[Precision, ...]", tuple(text.split(",")))


class SurveyPlan(MeasuringOptions):
    """Options of one survey cell. `weights` may also map each model to its weights."""

    weights: str | Mapping[str, str] = weights_option()
    images: int | None = option(None, "Maximum number of images, for calibration and validation each.")

    def weights_of(self, model: str) -> str:
        """The weights of one model."""
        return self.weights if isinstance(self.weights, str) else self.weights[model]


class ThumbnailOptions(Options):
    """Options of `write_report`."""

    images: str | Path | None = option(
        None,
        "Validation images, for thumbnails of those that flipped. Default: as the recipe says.",
        metavar="FOLDER",
    )
    no_images: bool = option(False, "Leave these thumbnails out, so that the report can be shared.")


class FileOptions(Options):
    """Options of `report` that exist only on the command line."""

    survey: Path | None = option(None, "Report on this survey instead of on runs.", metavar="FOLDER")

    out: Sequence[str] = option(
        (),
        f"File to write. Default: report.html, or survey.html. Overwrites it. Formats: {FORMATS}.",
        metavar="FILE",
    )


class SurveyOptions(AgainOptions, SurveyPlan):
    """Options of `survey`."""

    out: str | Path = option(REQUIRED, "Output folder. A survey that was stopped resumes there.")
    precisions: Sequence[Precision] = option(
        ("fp16", "int8"), "Precisions to export.", read=read_precisions, text="fp16,int8"
    )
    batches: Sequence[int] = option(
        (1, 2, 4, 8, 16, 32), "Batch sizes.", read=read_sizes, text="1,2,4,8,16,32"
    )


class ProofOptions(AgainOptions):
    """Options of `prove`, which is `doctor --proof` on the command line."""

    bundles: Sequence[str | Path] = option(
        (),
        "With --proof: finished bundle to measure (needs no PyTorch). Repeatable.",
        flag="--bundle",
    )
    folder: str | Path | None = option(
        None, "With --proof: working folder. A proof that was stopped resumes there."
    )
    no_power: bool = option(False, "With --proof: skip energy, which takes most of the time.")
