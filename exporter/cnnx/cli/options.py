"""Turns options dataclasses into Typer commands. Heavy imports happen when a command runs."""

from __future__ import annotations

import dataclasses
import enum
import functools
import inspect
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin, get_type_hints

import typer

from cnnx.errors import UsageError
from cnnx.options import REQUIRED
from cnnx.options.shared import CommonOptions

if TYPE_CHECKING:
    from cnnx.stats import Verdict

Model = Annotated[str, typer.Argument(metavar="MODEL", help="Network name, recipe file, or ONNX file.")]
BundlePath = Annotated[Path, typer.Argument(metavar="BUNDLE", help="Bundle folder.")]


def command_of(
    kind: type[Any] | None = None, own: type[Any] | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorate a function that takes a `Ui`, so that Typer can run it as a command.

    The command has a parameter for each option, and for those of `CommonOptions`.

    Args:
        kind: dataclass whose fields are made by `cnnx.options.option`, passed to the function as `options`.
        own: dataclass of options that exist only on the command line, passed by name.
    """
    kinds: list[Any] = [each for each in (kind, own, CommonOptions) if each]

    def decorated(function: Callable[..., None]) -> Callable[..., None]:
        fields = {each: _fields(each) for each in kinds}
        named = {f.name for each in kinds for f, _ in fields[each]} | {"ui", "options"}
        hints = get_type_hints(function, include_extras=True, localns={"Ui": Any})
        parameters = inspect.signature(function).parameters.values()
        shown = [
            p.replace(kind=p.KEYWORD_ONLY, annotation=hints[p.name])  # so that order is free
            for p in parameters
            if p.name not in named
        ]
        shown += [made for each in kinds for made in _parameters_of(each)]

        @functools.wraps(function)
        def call(**given: Any) -> None:
            from cnnx.cli.ui import command

            with command(**_values(fields[CommonOptions], given)) as ui:
                if own:
                    given.update(_values(fields[own], given))
                if kind:
                    given["options"] = kind(**_values(fields[kind], given))
                function(ui=ui, **given)

        call.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
        call.__annotations__ = {each.name: each.annotation for each in shown}
        return call

    return decorated


@functools.cache
def _fields(kind: Any) -> list[tuple[dataclasses.Field[Any], Any]]:
    """Each option of a class, and its type; options of this command alone come first.

    `kind` is Any here and below: to mypy, a class whose instances define `__hash__` is not hashable itself.
    """
    hints = {name: hint for each in reversed(kind.__mro__) for name, hint in _own_hints(each).items()}
    fields = sorted(dataclasses.fields(kind), key=lambda f: f.name not in kind.__annotations__)
    return [(f, hints[f.name]) for f in fields]


@functools.cache
def _own_hints(kind: Any) -> dict[str, Any]:
    """Types of the options that a class itself declares, so that shared groups are read only once."""
    own = types.SimpleNamespace(__annotations__=inspect.get_annotations(kind))
    return get_type_hints(own, vars(sys.modules[kind.__module__]))


@functools.cache
def _parameters_of(kind: Any) -> list[inspect.Parameter]:
    return [made for f, hint in _fields(kind) for made in _parameters(f, hint)]


def _flag(f: dataclasses.Field[Any]) -> str:
    return f.metadata["flag"] or f"--{f.name.replace('_', '-')}"


def _parameters(f: dataclasses.Field[Any], hint: Any) -> Iterator[inspect.Parameter]:
    """The command-line parameters of an option: one, or a flag for each choice."""
    if f.metadata["flags"]:
        for choice, text in f.metadata["flags"].items():
            yield _parameter(choice, bool, False, f"--{choice}", help=text)
        return
    members, default, flags = get_args(hint), f.default, [_flag(f)]
    if f.metadata["text"]:
        hint, default = str, f.metadata["text"]
    elif default == ():
        hint, default = list[int if int in members else str] | None, None  # type: ignore[misc]
    elif default is False:
        hint = bool
    elif get_origin(hint) is Literal:
        make: Any = enum.Enum  # mypy wants the members spelled out
        hint = make(f.name, {choice: choice for choice in members}, type=str)
        default = hint(default)
    elif bool in members:
        flags = []  # Typer makes --name and --no-name
    elif str in members:
        hint = str | None if default is None else str
    yield _parameter(f.name, hint, default, *flags, help=f.metadata["help"], **f.metadata["shown"])


def _parameter(name: str, hint: Any, default: Any, *flags: str, **shown: Any) -> inspect.Parameter:
    default = inspect.Parameter.empty if default is REQUIRED else default
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[hint, typer.Option(*flags, **shown)],
    )


def _values(fields: Sequence[tuple[dataclasses.Field[Any], Any]], given: dict[str, Any]) -> dict[str, Any]:
    return {f.name: _value(f, given) for f, _ in fields}


def _value(f: dataclasses.Field[Any], given: dict[str, Any]) -> Any:
    """Remove an option from `given` and return its value.

    Raises:
        UsageError: two choices were given, or the text is invalid.
    """
    metadata = f.metadata
    if metadata["flags"]:
        chosen = [choice for choice in metadata["flags"] if given.pop(choice)]
        if len(chosen) > 1:
            raise UsageError(f"--{chosen[0]} and --{chosen[1]} exclude each other", hint="give one of them")
        return chosen[0] if chosen else f.default
    value = given.pop(f.name)
    if f.default == ():
        return tuple(value or ())
    if isinstance(value, enum.Enum):
        return value.value
    if value is None or not metadata["read"]:
        return value
    try:
        return metadata["read"](value)
    except ValueError as error:
        hint = f"the default is {_flag(f)} {metadata['text']}"
        raise UsageError(f"invalid {_flag(f)} {value!r}: {error}", hint=hint) from None


def exit_codes(*, allow_inconclusive: bool, strict: bool) -> Callable[[Iterable[Verdict]], int]:
    """Return the function that gives the exit code for verdicts, after checking the options.

    Raises:
        UsageError: both options are given.
    """
    from cnnx.stats import exit_code_of

    if allow_inconclusive and strict:
        raise UsageError("--allow-inconclusive and --strict exclude each other", hint="give one of them")
    return functools.partial(exit_code_of, allow_inconclusive=allow_inconclusive, strict=strict)


def check_report(paths: Sequence[str], bundles: Sequence[Path] = ()) -> None:
    """Check, before the work starts, that reports can be written.

    Args:
        paths: paths of the reports that were requested.
        bundles: bundles that the reports are about; they must be complete.
    """
    for path in map(Path, paths):
        from cnnx.bundle import Bundle
        from cnnx.report.files import check

        check(path)
        for bundle in bundles:
            Bundle.open(bundle, verify=False)


def write_report(
    bundle: Path | Sequence[Path], paths: Sequence[str], *, images: str | Path | None = None
) -> None:
    """Write the reports that were requested; `images`: the validation images, if not as the recipe says."""
    if paths:
        import cnnx

        cnnx.write_report(bundle, paths, images=images)
