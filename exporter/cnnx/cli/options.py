"""Options that commands share, and what they mean. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cnnx.pipeline.bench.energy import PowerPass
    from cnnx.recipe import Precision


class Scales(str, enum.Enum):
    """Types that scales are written in."""

    FP16 = "fp16"
    FP32 = "fp32"


Json = Annotated[bool, typer.Option("--json", help="Print one JSON object (docs/json.md) instead of tables.")]
Verbose = Annotated[bool, typer.Option("--verbose", help="Show every layer, warning and flipped image.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error, too.")]
Target = Annotated[str, typer.Option(help="auto, tensorrt, rtx (TensorRT for RTX) or ort (ONNX Runtime).")]
Engine = Annotated[
    str | None,
    typer.Option(metavar="IDENTITY", help="Which of several engines, by its folder's name under engines/."),
]
Engines = Annotated[
    list[str] | None,
    typer.Option(
        "--engine",
        metavar="IDENTITY",
        help="Which of several engines, by its folder's name under engines/; several times: they take turns.",
    ),
]
Sm = Annotated[
    list[int] | None,
    typer.Option("--sm", help="GPU architecture to build for, such as 86; may be given several times."),
]
Trust = Annotated[bool, typer.Option("--trust-recipe", help="Let the recipe's own Python code run.")]
Report = Annotated[
    Path | None, typer.Option(help="Also write a report: .html, .md, .xml (JUnit), .json or .csv.")
]
CalibrationData = Annotated[
    str | None,
    typer.Option(help="digits, deadleaves, shapes100, a folder of pictures, or a list of file names."),
]
CalibrationImages = Annotated[int | None, typer.Option(help="How many of them at most.")]
Equalize = Annotated[
    bool | None,
    typer.Option(help="Scale channels first so that one range serves all of a tensor (INT8; default)."),
]
Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="A recipe's name, a recipe file, or an ONNX file.")
]
Weights = Annotated[str, typer.Option(help="pretrained, standin (seeded random), or a checkpoint.")]
Power = Annotated[
    bool,
    typer.Option(
        "--power", help="Then measure energy too, apart from latency; 1 to 4 minutes a measurement."
    ),
]
Rate = Annotated[
    float | None,
    typer.Option(help="With --power: runs a second, such as a camera's 30; without, back to back."),
]
Sensor = Annotated[
    str | None, typer.Option(help="With --power: the sensor to read, by its name in cnnx doctor.")
]
BundlePath = Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle's folder.")]


def precision_of(*, fp32: bool, fp16: bool, int8: bool) -> Precision | None:
    """The one that was asked for; None where none was."""
    from cnnx.errors import UsageError

    choices: tuple[tuple[Precision, bool], ...] = (("fp32", fp32), ("fp16", fp16), ("int8", int8))
    asked = [name for name, chosen in choices if chosen]
    if len(asked) > 1:
        raise UsageError(f"--{asked[0]} and --{asked[1]} exclude each other", mend="give one of them")
    return asked[0] if asked else None


def batch_of(text: str) -> tuple[int, int]:
    """Smallest and largest of "4" or "1..8"."""
    from cnnx.errors import UsageError

    low, _, high = text.partition("..")
    try:
        return int(low), int(high or low)
    except ValueError:
        raise UsageError(f"--batch {text!r} is no size", mend="--batch 4, or --batch 1..8") from None


def sizes_of(text: str, *, option: str = "--batch") -> list[int]:
    """Sizes of "1,2,4,8"."""
    from cnnx.errors import UsageError

    try:
        sizes = [int(size) for size in text.split(",")]
    except ValueError:
        sizes = []
    if not sizes or min(sizes) < 1:
        raise UsageError(f"{option} {text!r} is no list of sizes", mend=f"{option} 1,2,4,8")
    return sizes


def power_pass(*, power: bool, rate: float | None, sensor: str | None) -> PowerPass | None:
    """What --power, --rate and --sensor ask for; None without --power."""
    from cnnx.errors import UsageError

    if not power:
        for option, value in (("--rate", rate), ("--sensor", sensor)):
            if value is not None:
                raise UsageError(f"{option} says how energy is measured, and it is not", mend="give --power")
        return None
    from cnnx.measure.power import Plan
    from cnnx.pipeline.bench.energy import PowerPass

    return PowerPass(plan=Plan(rate=rate), sensor=sensor)


def check_report(path: Path | None, bundles: Sequence[Path] = ()) -> None:
    """Refuse before the work, not after it, what could not be written.

    Args:
        path: of the report; None: none was asked for.
        bundles: that it will be of: they must be whole.
    """
    if path is not None:
        from cnnx.bundle import Bundle
        from cnnx.report.files import check

        check(path)
        for bundle in bundles:
            Bundle.open(bundle, verify=False)


def write_report(bundle: Path | Sequence[Path], path: Path | None) -> None:
    """Write it, where one was asked for."""
    if path is not None:
        import cnnx

        cnnx.write_report(bundle, path)
