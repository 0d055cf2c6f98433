"""`fleet down`: stops what `fleet up` started; files stay."""

from __future__ import annotations

import functools
from pathlib import Path

from cnnx.options import takes
from cnnx.options.fleet import DownOptions
from cnnx.pipeline.fleet.cluster import scripts
from cnnx.pipeline.fleet.cluster.hosts import Head, Hosts, Machine, read_hosts
from cnnx.pipeline.fleet.cluster.outcomes import (
    HostOutcome,
    HostsResult,
    Outcome,
    Steps,
    at_once,
    one_at_a_time,
)
from cnnx.pipeline.fleet.cluster.placed import Placed
from cnnx.pipeline.progress import Listener, silent

_STOP_S = 120.0


@takes(DownOptions)
def fleet_down(hosts: str | Path, options: DownOptions, *, listener: Listener = silent) -> HostsResult:
    """Stop what `fleet up` started on the hosts of a file: the devices at once, then the head.

    A process is stopped only if it is the one that was started: its ID and its start time are those that were
    written down. Files and environments stay, so that the next `fleet up` takes seconds.

    Args:
        hosts: hosts file; see docs/fleet.md.
        options: options as an object; each can also be given by keyword.
        listener: called with the progress.

    Raises:
        HostsError: the hosts file cannot be used.

    Examples:
        >>> cnnx.fleet_down("absent.toml")
        Traceback (most recent call last):
        ...
        cnnx.errors.HostsError: the hosts file cannot be read: No such file or directory
          where: absent.toml
          hint:  see docs/fleet.md for one
    """
    read = read_hosts(Path(hosts))
    listen = one_at_a_time(listener)
    devices = at_once([functools.partial(_stopped, read, each, each.name, listen) for each in read.device])
    if options.keep_head:
        return HostsResult(read.cluster, devices)
    head = _stopped(read, read.head, read.head.name or "head", listen)
    return HostsResult(read.cluster, (head, *devices))


def _stopped(hosts: Hosts, machine: Machine, name: str, listener: Listener) -> HostOutcome:
    placed = Placed.head(hosts) if isinstance(machine, Head) else Placed.on(machine)

    def stop(steps: Steps) -> Outcome:
        said = steps.step(
            "stop", lambda: placed.shell.run(scripts.STOP, [placed.folder, name], seconds=_STOP_S).strip()
        )
        return "stopped" if said == "stopped" else "not running"

    return Steps(name, machine, listener).run(stop)
