"""The command `cnnx init`. Heavy imports happen when it runs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from cnnx.cli.options import command_of
from cnnx.errors import CnnxError
from cnnx.options.networks import AskingOptions, InitOptions

if TYPE_CHECKING:
    from cnnx.cli.ui import Ui

OnnxFile = Annotated[str, typer.Argument(metavar="MODEL", help="ONNX file.")]


@command_of(InitOptions, AskingOptions)
def init_command(ui: Ui, model: OnnxFile, options: InitOptions, yes: bool) -> None:
    """Write a commented recipe for an ONNX file; on a terminal, ask for what the graph does not state."""
    import cnnx
    from cnnx.pipeline.init import ask_nothing

    asks = not (yes or ui.as_json) and on_terminal()
    ui.show(cnnx.init(model, options, ask=_ask if asks else ask_nothing), command="init")


def on_terminal() -> bool:
    """Whether a user can see questions and answer them."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def _ask(question: str, check: Callable[[str], object]) -> str:
    """Ask until the answer is empty or can be used."""
    while True:
        answer = str(typer.prompt(question, default="", show_default=False, err=True)).strip()
        if not answer:
            return ""
        try:
            check(answer)
        except CnnxError as error:
            typer.echo(str(error), err=True)
        else:
            return answer
