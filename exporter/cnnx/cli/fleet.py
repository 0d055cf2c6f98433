"""The commands `cnnx fleet ...`. Heavy imports happen when they run."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from cnnx.cli.fleet_work import calibrate_command, survey_command, validate_command
from cnnx.cli.options import command_of
from cnnx.options.fleet import DownOptions, JoinOptions, StatusOptions, UpOptions

if TYPE_CHECKING:
    from cnnx.cli.ui import Ui

HostsFile = Annotated[Path, typer.Argument(metavar="HOSTS", help="Hosts file (TOML); see docs/fleet.md.")]

fleet = typer.Typer(context_settings={"help_option_names": ["-h", "--help"]})


@fleet.command("join")
@command_of(JoinOptions)
def join_command(ui: Ui, options: JoinOptions) -> None:
    """Make this machine a node of a cluster, in the foreground, until Ctrl-C."""
    import cnnx

    with _ending() as (until, codes):
        result = cnnx.fleet_join(options, listener=ui.listen, until=until)
    ui.show(result, command="fleet join")
    raise typer.Exit(codes[0] if codes else 0)


@contextlib.contextmanager
def _ending() -> Iterator[tuple[threading.Event, list[int]]]:
    """An event that signals set, and the exit codes that they ask for.

    Other commands end some seconds after a signal in any case (see `cnnx.cli.ending`); Ray needs longer to
    drain a node. Signals that the parent process ignores stay ignored.
    """
    until, codes = threading.Event(), list[int]()

    def end(number: int, _frame: FrameType | None) -> None:
        codes.append(128 + number)
        until.set()

    watched = signal.set_wakeup_fd(-1)
    numbers = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
    before = {each: signal.getsignal(each) for each in numbers if signal.getsignal(each) != signal.SIG_IGN}
    for each in before:
        signal.signal(each, end)
    try:
        yield until, codes
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
        signal.set_wakeup_fd(watched)


@fleet.command("up")
@command_of(UpOptions)
def up_command(ui: Ui, hosts: HostsFile, options: UpOptions) -> None:
    """Bring the devices of a hosts file up over SSH: install cnnx there, and join them to one cluster."""
    import cnnx

    result = cnnx.fleet_up(hosts, options, listener=ui.listen)
    ui.show(result, command="fleet up")
    raise typer.Exit(result.exit_code)


@fleet.command("status")
@command_of(StatusOptions)
def status_command(ui: Ui, options: StatusOptions) -> None:
    """List the nodes of a cluster: devices, free slots, versions."""
    import cnnx

    ui.show(cnnx.fleet_status(options), command="fleet status")


@fleet.command("down")
@command_of(DownOptions)
def down_command(ui: Ui, hosts: HostsFile, options: DownOptions) -> None:
    """Stop what `fleet up` started on the devices of a hosts file; files stay there."""
    import cnnx

    result = cnnx.fleet_down(hosts, options, listener=ui.listen)
    ui.show(result, command="fleet down")
    raise typer.Exit(result.exit_code)


fleet.command("survey")(survey_command)
fleet.command("validate")(validate_command)
fleet.command("calibrate")(calibrate_command)
