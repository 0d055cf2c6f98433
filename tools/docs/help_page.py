"""Write docs/help.md from the parameters of the commands. With --check, fail if the page is stale.

python -m tools.docs.help_page [--check]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import Any

from typer.main import get_command

from cnnx.cli.app import app
from tools import ROOT
from tools.markdown import wrapped

PAGE = ROOT / "docs" / "help.md"


def page() -> str:
    """The page, built from parameters: rendered help changes between releases of Typer."""
    root: Any = get_command(app)
    written = "Written by `make docs` from the commands themselves; do not edit."
    lines = ["# The command line", "", written, "", root.help, "", root.epilog, "", *table(root.params)]
    for name, command in leaves(root):
        arguments = [
            str(p.metavar or p.name.upper()) for p in command.params if p.param_type_name == "argument"
        ]
        heading = f"## `{' '.join(['cnnx', name, *arguments])}`"
        lines += [heading, "", command.help, "", *table(command.params)]
    return "\n".join(lines)


def leaves(group: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    """Each command with its whole name; those of a group are `group command`."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from leaves(command, f"{before}{name} ")
        else:
            yield f"{before}{name}", command


def table(parameters: list[Any]) -> Iterator[str]:
    yield from ("| | | default |", "|---|---|---|")
    for parameter in parameters:
        option = parameter.param_type_name == "option"
        names = [parameter.metavar or parameter.name.upper()]
        default, shown = parameter.default, ""
        if option:
            names = [*parameter.opts, *parameter.secondary_opts]
            shown = "" if default in (None, False, (), "") else f"`{getattr(default, 'value', default)}`"
        yield f"| `{', '.join(names)}` | {parameter.help} | {shown} |"
    yield ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="fail if docs/help.md is stale")
    text = wrapped(page())
    if parser.parse_args().check:
        if not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != text:
            print(f"{PAGE.name} is stale: run make docs")
            return 1
        return 0
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
