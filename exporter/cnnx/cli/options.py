"""Options that commands share, and what they mean. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import dataclasses
import enum
import functools
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin, get_type_hints

import typer

from cnnx.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cnnx.pipeline.bench.energy import PowerPass


_ANYWHERE = inspect.Parameter.POSITIONAL_OR_KEYWORD

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]
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


def command_of(kind: type[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a command of a function that takes `ui` and `options`, where progress and refusals go to `ui`.

    The command has a parameter for each of the options, and --json, --verbose and --debug.

    Args:
        kind: a dataclass whose fields are made by `cnnx.options.option`.
    """

    def decorated(function: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(function, include_extras=True, localns={"Ui": Any})
        added = [each for f in dataclasses.fields(kind) for each in _parameters(f, kind)]
        shown: list[inspect.Parameter] = []
        for own in inspect.signature(function).parameters.values():
            if own.name == "options":
                shown += added
            elif own.name != "ui":
                shown.append(own.replace(annotation=hints[own.name]))
        for name, hint in (("as_json", Json), ("verbose", Verbose), ("debug", Debug)):
            shown.append(inspect.Parameter(name, _ANYWHERE, default=False, annotation=hint))

        @functools.wraps(function)
        def call(*, as_json: bool, verbose: bool, debug: bool, **given: Any) -> None:
            from cnnx.cli.ui import command

            with command(as_json=as_json, verbose=verbose, debug=debug) as ui:
                values = {f.name: _value(f, given) for f in dataclasses.fields(kind)}
                function(ui=ui, options=kind(**values), **given)

        call.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
        call.__annotations__ = {each.name: each.annotation for each in shown}
        return call

    return decorated


def _parameters(f: dataclasses.Field[Any], kind: type) -> Iterator[inspect.Parameter]:
    """What an option is on the command line: one parameter, or a flag for each choice."""
    said = f.metadata
    if said["flags"]:
        for choice, text in said["flags"].items():
            yield _parameter(choice, bool, False, f"--{choice}", help=text)
        return
    hint, flag = get_type_hints(kind)[f.name], f"--{f.name.replace('_', '-')}"
    members = get_args(hint)
    if get_origin(hint) is Literal:
        make: Any = enum.Enum  # mypy wants the members spelled out
        choices = make(f.name, {choice: choice for choice in members}, type=str)
        yield _parameter(f.name, choices, choices(f.default), help=said["help"])
    elif said["read"]:
        yield _parameter(f.name, str, said["text"], help=said["help"])
    elif get_origin(hint) is tuple:
        yield _parameter(f.name, list[members[0]] | None, None, flag, help=said["help"])  # type: ignore[valid-type]
    elif hint is bool:
        yield _parameter(f.name, bool, f.default, flag, help=said["help"])
    else:
        plain = str | None if Path in members else hint
        yield _parameter(f.name, plain, f.default, help=said["help"])


def _parameter(name: str, hint: Any, default: Any, *flags: str, help: str) -> inspect.Parameter:  # noqa: A002
    annotation = Annotated[hint, typer.Option(*flags, help=help)]
    return inspect.Parameter(name, _ANYWHERE, default=default, annotation=annotation)


def _value(f: dataclasses.Field[Any], given: dict[str, Any]) -> Any:
    """An option's value, taken out of what the command line gave.

    Raises:
        UsageError: two choices at once, or a text that cannot be read.
    """
    if f.metadata["flags"]:
        asked = [choice for choice in f.metadata["flags"] if given.pop(choice)]
        if len(asked) > 1:
            raise UsageError(f"--{asked[0]} and --{asked[1]} exclude each other", mend="give one of them")
        return asked[0] if asked else f.default
    value = given.pop(f.name)
    if f.metadata["read"]:
        return f.metadata["read"](value)
    if isinstance(value, enum.Enum):
        return value.value
    return tuple(value or ()) if isinstance(f.default, tuple) else value


def sizes_of(text: str, *, option: str = "--batch") -> list[int]:
    """Sizes of "1,2,4,8"."""
    try:
        sizes = [int(size) for size in text.split(",")]
    except ValueError:
        sizes = []
    if not sizes or min(sizes) < 1:
        raise UsageError(f"{option} {text!r} is no list of sizes", mend=f"{option} 1,2,4,8")
    return sizes


def power_pass(*, power: bool, rate: float | None, sensor: str | None) -> PowerPass | None:
    """What --power, --rate and --sensor ask for; None without --power."""
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
