"""The group `cnnx fleet`. Its commands are made when one of them is asked for, not for `cnnx --help`."""

from __future__ import annotations

import functools
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_command


@functools.cache
def _commands() -> dict[str, Any]:
    from cnnx.cli.fleet import fleet

    group: Any = get_command(fleet)
    return dict(group.commands)


class _Fleet(TyperGroup):
    """A group that loads its commands when it is asked for them."""

    @property
    def commands(self) -> Any:
        """Name -> command."""
        return _commands()

    @commands.setter
    def commands(self, none_yet: Any) -> None:
        """Typer sets those that it knows: none."""


fleet_group = typer.Typer(
    cls=_Fleet,
    help="Many devices from one machine, joined by Ray.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
