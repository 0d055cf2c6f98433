"""A cluster of Ray nodes on this machine, as `cnnx fleet join` starts them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cnnx.errors import CnnxError
from cnnx.pipeline.fleet.cluster.ray_cluster import list_nodes

PORT = 18_900
_UP_S = 120.0


@dataclass(frozen=True)
class Joined:
    """A node of this machine.

    Attributes:
        name: name of its device.
        process: `cnnx fleet join`, which leads a session of its own.
    """

    name: str
    process: subprocess.Popen[bytes]

    def kill(self) -> None:
        """Kill it with all it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)


@contextlib.contextmanager
def cluster(devices: Sequence[str], folder: Path) -> Iterator[tuple[str, Path, list[Joined]]]:
    """Nodes with these devices, the first as head. Yields its address, the token's file, and the nodes."""
    token = folder / "token"
    address = f"127.0.0.2:{PORT}"
    nodes: list[Joined] = []
    try:
        for number, device in enumerate(devices):
            where = ["--head", "--port", str(PORT)] if number == 0 else ["--address", address]
            where += ["--node-ip-address", f"127.0.0.{number + 2}", "--token-file", str(token)]
            where += ["--node-ports", str(PORT + 100 * (number + 1)), "--object-store-mib", "100"]
            environment = {**os.environ, "CNNX_CACHE": str(folder / f"cache{number}")}
            command = [sys.executable, "-m", "cnnx", "fleet", "join", "--as", device, *where]
            log = (folder / f"node-{number}.log").open("wb")
            process = subprocess.Popen(
                command, stdout=log, stderr=log, start_new_session=True, env=environment
            )
            nodes.append(Joined(device, process))
            _wait(address, token, number + 1)
        yield address, token, nodes
    finally:
        for node in nodes:
            node.process.terminate()
        for node in nodes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                node.process.wait(30)
            node.kill()


def _wait(address: str, token: Path, count: int) -> None:
    """Wait until the cluster has as many nodes."""
    ends = time.monotonic() + _UP_S
    while time.monotonic() < ends:
        with contextlib.suppress(CnnxError):
            if sum(node.alive for node in list_nodes(address, token)) >= count:
                return
        time.sleep(1)
    raise TimeoutError(f"the cluster has less than {count} nodes after {_UP_S:.0f} s")
