"""Where cnnx is on a host: its folder, its Python and its token."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass

from cnnx.errors import EnvironmentLacks
from cnnx.pipeline.fleet.cluster.hosts import Hosts, Machine
from cnnx.pipeline.fleet.cluster.shell import Shell
from cnnx.pipeline.fleet.cluster.token import token_file

_RUN = """
cd "$1" || exit 1
shift
python="$1"
shift
exec "$python" -m cnnx "$@"
"""
VENV, WORKER_VENV = "venv", "worker-venv"


@dataclass(frozen=True, slots=True)
class Placed:
    """Where cnnx is on a host; paths are on that host, relative ones in the user's home folder.

    Attributes:
        shell: runs scripts there.
        folder: folder of cnnx.
        python: Python that has cnnx and Ray; relative to the folder if cnnx made it.
        measures: Python that measures; relative to the folder if cnnx made it.
        token: file of the token, relative to the folder.
    """

    shell: Shell
    folder: str
    python: str
    measures: str
    token: str

    @classmethod
    def on(cls, machine: Machine) -> Placed:
        """Where `fleet up` puts cnnx on a device."""
        shell = Shell(machine)
        python = posixpath.join(VENV, "bin", "python") if machine.install else shell.python
        measures = python
        if machine.worker_python:
            made = posixpath.join(WORKER_VENV, "bin", "python")
            measures = made if machine.install else machine.worker_python
        return cls(shell, machine.folder, python, measures, "token")

    @classmethod
    def head(cls, hosts: Hosts) -> Placed:
        """Where it is on the head, which may be this machine, with this Python and the user's token."""
        placed = cls.on(hosts.head)
        if not placed.shell.is_here:
            return placed
        token = str(token_file(hosts.head.token_file or None))
        return cls(placed.shell, hosts.head.folder, placed.shell.python, placed.measures, token)

    def cnnx(self, arguments: Sequence[str], *, seconds: float) -> str:
        """Run a command of cnnx there, and return what it printed.

        Raises:
            Unreachable: SSH does not reach the host.
            EnvironmentLacks: the command failed.
        """
        try:
            return self.shell.run(_RUN, [self.folder, self.python, *arguments], seconds=seconds)
        except EnvironmentLacks as error:
            if "can't cd" in error.what or "No such file" in error.what or "not found" in error.what:
                raise EnvironmentLacks(
                    "cnnx is not installed there yet", where=self.shell.name, hint="run cnnx fleet up"
                ) from None
            raise
