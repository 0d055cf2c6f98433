"""A fleet on one machine: an sshd of the current user, free ports, and processes by their folder."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")


def needs(program, package):
    """Skip without a program; in CI, fail."""
    if not (SSHD if program == "sshd" else shutil.which(program)):
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"needs {program}, of Debian's {package}")


_CLAIMS = []


def free_block(count=100):
    """The first of `count` free ports, below those that the kernel gives to clients.

    Tests of other processes take other ones: a lock claims each hundred until this process ends.
    """
    start = os.getpid() % 180
    for place in range(180):
        first = 12000 + (start + place) % 180 * 100
        hundreds = range(first, first + count, 100)
        if all(map(_is_free, range(first, first + count))) and all(map(_claimed, hundreds)):
            return first
    raise AssertionError("no free ports")


def _claimed(first):
    handle = os.open(Path("/tmp") / f"cnnx-test-ports-{first}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return False
    _CLAIMS.append(handle)
    return True


def _is_free(port):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))
        except OSError:
            return False
    return True


def processes_of(*folders):
    """Processes whose command, environment or working folder names a folder: process ID -> command.

    Ray writes its own names for processes over the first two of some.
    """
    found = {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                command = (entry / "cmdline").read_bytes()
                named = command + (entry / "environ").read_bytes() + os.fsencode((entry / "cwd").readlink())
                if any(os.fsencode(folder) in named for folder in folders):
                    found[int(entry.name)] = command.replace(b"\0", b" ").decode(errors="replace")
    return found


def eventually(condition, *, seconds=60.0):
    """Wait until a condition is true, and return its value."""
    ends = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < ends, f"not within {seconds:.0f} s"
        time.sleep(0.1)
    return value


def kill_all(*folders):
    """Kill what a failed test left."""
    for pid in processes_of(*folders):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@dataclass(frozen=True)
class Sshd:
    """A server of the current user on 127.0.0.1."""

    folder: Path
    port: int
    identity: Path
    config: Path
    temporary: Path

    def keys(self, **more):
        """What a table of a hosts file says about it."""
        given = {"port": self.port, "identity": str(self.identity), "ssh_config": str(self.config), **more}
        return "".join(f"{key} = {toml(value)}\n" for key, value in given.items())


def toml(value):
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int) else f'"{value}"'


def key_pair(file):
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", file], check=True)
    return file, file.with_suffix(".pub").read_text()


@contextlib.contextmanager
def serving(folder):
    """Start an sshd whose files are all in `folder`; nothing of the user's is read or written."""
    needs("sshd", "openssh-server")
    folder.mkdir()
    if os.geteuid() == 0:
        # Which sshd wants of root, and Debian makes at boot.
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    _, host_key = key_pair(folder / "host")
    identity, public = key_pair(folder / "identity")
    (folder / "authorized").write_text(public)
    port = free_block(1)
    (folder / "known").write_text(f"[127.0.0.1]:{port} {host_key}")
    (folder / "config").write_text(f"UserKnownHostsFile {folder}/known\nGlobalKnownHostsFile /dev/null\n")
    settings = {
        "ListenAddress": "127.0.0.1", "Port": port, "HostKey": folder / "host", "PidFile": "none",
        "AuthorizedKeysFile": folder / "authorized", "UsePAM": "no", "StrictModes": "no",
        "PasswordAuthentication": "no", "MaxStartups": "100",
    }  # fmt: skip
    (folder / "sshd").write_text("".join(f"{key} {value}\n" for key, value in settings.items()))
    with contextlib.ExitStack() as stack:
        # Short, as paths of sockets are.
        temporary = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="s", dir="/tmp")))
        (folder / "sshd").open("a").write(f"SetEnv CNNX_CACHE={folder}/cache TMPDIR={temporary}\n")
        log = stack.enter_context((folder / "log").open("wb"))
        server = subprocess.Popen([SSHD, "-D", "-e", "-f", folder / "sshd"], stderr=log)
        stack.callback(server.wait)
        stack.callback(server.terminate)
        eventually(lambda: server.poll() is None and not _is_free(port))
        yield Sshd(folder, port, identity, folder / "config", temporary)
