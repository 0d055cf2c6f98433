"""Runs shell scripts on a machine: over the system's `ssh`, or here."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from cnnx.errors import EnvironmentLacks, Unreachable
from cnnx.machine.isolated import environment, find_program
from cnnx.pipeline.fleet.cluster.hosts import Head, Machine

_SSH_FAILED = 255
_CONNECT_S = 20
# Over BatchMode: nothing asks for a password, and known_hosts decides.
_OPTIONS = (
    "BatchMode=yes",
    f"ConnectTimeout={_CONNECT_S}",
    "ServerAliveInterval=15",
    "ServerAliveCountMax=4",
    "ForwardAgent=no",
    "ForwardX11=no",
    "ClearAllForwardings=yes",
    "PermitLocalCommand=no",
    "RequestTTY=no",
    "LogLevel=ERROR",
)


class Shell:
    """Runs scripts on one machine."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self.is_here = isinstance(machine, Head) and not machine.ssh
        self.python = sys.executable if self.is_here else machine.python

    def run(self, script: str, arguments: Sequence[str], *, stdin: bytes = b"", seconds: float) -> str:
        """Run a script, and return what it printed.

        Args:
            script: text for `sh`.
            arguments: its $1, $2 and so on.
            stdin: what it reads.
            seconds: limit of its time.

        Raises:
            Unreachable: SSH does not reach the machine.
            EnvironmentLacks: the script failed, did not end in time, or there is no SSH here.
        """
        command = self.command(script, arguments)
        try:
            done = subprocess.run(
                command,
                input=stdin,
                capture_output=True,
                timeout=seconds,
                env=environment(),
                cwd=Path.home() if self.is_here else None,
            )
        except subprocess.TimeoutExpired:
            raise EnvironmentLacks(
                f"it did not end within {seconds:.0f} s",
                where=self.name,
                hint="check its load and its network",
            ) from None
        said = done.stderr.decode(errors="replace").strip()
        if done.returncode == _SSH_FAILED and not self.is_here:
            raise Unreachable(f"ssh: {_last(said)}", where=self.name, hint=self._hint(said))
        if done.returncode:
            raise self._failed(done.stdout, said)
        return done.stdout.decode(errors="replace")

    def command(self, script: str, arguments: Sequence[str]) -> list[str]:
        """The command that runs a script there; see `run`.

        Raises:
            EnvironmentLacks: there is no SSH here.
        """
        words = ["sh", "-c", script, "sh", *arguments]
        return words if self.is_here else [*self._ssh(), shlex.join(words)]

    def _failed(self, stdout: bytes, said: str) -> EnvironmentLacks:
        """Why a script failed: the error that cnnx printed there as JSON, or the end of its output."""
        try:
            error = json.loads(stdout)["error"]
            return EnvironmentLacks(str(error["what"]), where=self.name, hint=str(error["hint"]))
        except (ValueError, KeyError, TypeError):
            return EnvironmentLacks(_last(said), where=self.name, hint=_fix(said))

    @property
    def name(self) -> str:
        """USER@HOST, for messages."""
        user = f"{self._machine.user}@" if self._machine.user else ""
        return "this machine" if self.is_here else f"{user}{self._machine.address}"

    def _ssh(self) -> list[str]:
        machine, program = self._machine, find_program("ssh")
        if program is None:
            raise EnvironmentLacks("the program ssh is missing", hint="install OpenSSH's client")
        options = [word for option in _OPTIONS for word in ("-o", option)]
        config = ["-F", _local(machine.ssh_config)] if machine.ssh_config else []
        identity = ["-i", _local(machine.identity), "-o", "IdentitiesOnly=yes"] if machine.identity else []
        user = ["-l", machine.user] if machine.user else []
        # After "--", and hosts.toml takes no address that begins with a dash.
        return [program, *config, *options, *identity, "-p", str(machine.port), *user, "--", machine.address]

    def _hint(self, said: str) -> str:
        port = f" -p {self._machine.port}" if self._machine.port != 22 else ""
        by_hand = f"ssh{port} {self.name}"
        if "Host key verification failed" in said or "IDENTIFICATION HAS CHANGED" in said:
            return f"compare the host's key: {by_hand}"
        if "Permission denied" in said:
            return "set user and identity in the hosts file; the device needs the public key (ssh-copy-id)"
        return f"check address and port in the hosts file; try {by_hand}"


def _local(path: str) -> str:
    return str(Path(path).expanduser().absolute())


def _last(said: str) -> str:
    """The line of an output that says most: pip's first error, or the last line."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")]
    return ((errors or lines[-1:] or ["no output"])[0])[:400]


def _fix(said: str) -> str:
    """A hint for what commonly fails on a device."""
    if "ensurepip" in said:
        return "install python3-venv there, or name another Python in the hosts file"
    if "No matching distribution" in said:
        return "give --find-links FOLDER with the wheels for the device, or check that it reaches its index"
    if "No space left" in said:
        return "free disk space there, or set folder to another disk"
    if "Permission denied" in said:
        return "set folder in the hosts file to one that the user can write"
    if "there is no Python" in said:
        return "set python in the hosts file: a Python of the head's minor version"
    return "log in there and try the step by hand"
