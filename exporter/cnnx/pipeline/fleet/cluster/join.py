"""`fleet join`: runs this machine's node of a cluster in the foreground, and starts it again if it dies."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from cnnx.errors import EnvironmentLacks, Unreachable, UsageError
from cnnx.machine.isolated import python_process
from cnnx.options import takes
from cnnx.options.fleet import JoinOptions
from cnnx.pipeline.fleet.cluster import supervisor
from cnnx.pipeline.fleet.cluster.membership import Membership, holding
from cnnx.pipeline.fleet.cluster.names import (
    answers,
    check_device,
    check_node_address,
    joined,
    split_address,
)
from cnnx.pipeline.fleet.cluster.ray_cluster import (
    NodeSettings,
    environment_of,
    is_refusal,
    node_command,
    refusal,
    require_ray,
)
from cnnx.pipeline.fleet.cluster.token import create_token, read_token, token_file
from cnnx.pipeline.fleet.cluster.worker import Worker, worker_of
from cnnx.pipeline.progress import Listener, ProgressEvent, silent
from cnnx.report.result import Result
from cnnx.report.table import Block, Facts
from cnnx.store.files import temporary_root, writing

JOINED = "is in the cluster"
"""What a node says once it is; `fleet up` waits for it."""
_STARTED = "Ray runtime started"
# Once a node has joined, it wakes up seldom, so as not to disturb measurements.
_POLL_S, _IDLE_S = 0.2, 1.0
_FIRST_WAIT_S, _LONGEST_WAIT_S = 1.0, 30.0
# A node that ran this long was sound: the next start is not delayed for the failures before it.
_SOUND_S = 60.0
_STOP_S = 40.0
# Ray puts sockets into its folder, below the name of a session; a socket's path has at most 107 characters.
_LONGEST_FOLDER = 40
_OWN_PORTS = 6
_OUTPUT_BYTES = 1 << 16


@dataclass(frozen=True, slots=True, repr=False)
class JoinResult(Result):
    """A node that was stopped.

    Attributes:
        device: name of the device; None: a head without a slot.
        address: HOST:PORT of the head.
        starts: number of times that the node was started.
        seconds: time from the first start to the end.
    """

    device: str | None
    address: str
    starts: int
    seconds: float

    def blocks(self, *, verbose: bool = False) -> Iterable[Block]:
        """What the command prints."""
        yield Facts(
            (
                ("stopped", self.device or "head"),
                ("cluster", self.address),
                ("starts", str(self.starts)),
                ("ran for", f"{self.seconds:.0f} s"),
            )
        )


@takes(JoinOptions)
def fleet_join(
    options: JoinOptions, *, listener: Listener = silent, until: threading.Event | None = None
) -> JoinResult:
    """Run this machine's node of a cluster until told to stop; start it again when it dies.

    Token authentication is always on. The node's resources are one slot with the device's name, and
    `cnnx-export` if its Python has PyTorch. Ray's processes end with this call, however it ends.

    Args:
        options: options as an object; each can also be given by keyword.
        listener: called with sentences about what happens.
        until: ends the call when it is set; without it, only an exception such as KeyboardInterrupt does.

    Raises:
        UsageError: options contradict each other, or a name or an address is invalid.
        MissingExtra: Ray is not installed.
        EnvironmentLacks: the head refuses the token, a port is in use, this machine has already joined under
            this name, or the Python that measures does not fit.
        InputRefused: others can read the token.

    Examples:
        >>> cnnx.fleet_join(device="GPU 0", head=True)
        Traceback (most recent call last):
        ...
        cnnx.errors.UsageError: invalid device name 'GPU 0': expected lower-case letters, digits, '-' and '.'
          where: --as
          hint:  choose a name such as orin-nano
    """
    _check(options)
    require_ray()
    worker_python = Path(options.worker_python).absolute() if options.worker_python else None
    worker = worker_of(worker_python)
    token = token_file(options.token_file)
    if options.head:
        create_token(token)
    read_token(token)
    settings = _settings(options, worker)
    membership = Membership(settings.address, settings.node_ip_address)
    # A head without a device disturbs nobody: it holds a name of its own.
    with holding(options.device or f"head-{settings.address}", membership), _ray_folder() as folder:
        node = _Node(settings, folder, token, worker_python, listener, until or threading.Event())
        return node.run()


def _check(options: JoinOptions) -> None:
    """Refuse options that contradict each other.

    Raises:
        UsageError: they do.
    """
    if options.head == (options.address is not None):
        raise UsageError(
            "give either --head or --address", hint="--head starts a cluster; --address joins one"
        )
    if options.device is None and not options.head:
        raise UsageError("the device has no name", where="--as", hint="add --as orin-nano, for example")
    if options.device is not None:
        check_device(options.device)
    if options.address is not None:
        split_address(options.address)
    if options.node_ip_address is not None:
        check_node_address(options.node_ip_address)
    elif options.head:
        raise UsageError(
            "the head has no address that other nodes reach",
            where="--node-ip-address",
            hint="add the machine's address on your private network, such as --node-ip-address 10.8.0.1",
        )
    first, last = options.node_ports, options.node_ports + 99
    if options.head and first <= options.port <= last:
        raise UsageError(
            f"--port {options.port} is among the node's ports {first} to {last}", hint="choose another --port"
        )


def _settings(options: JoinOptions, worker: Worker) -> NodeSettings:
    address = options.address or joined(str(options.node_ip_address), options.port)
    labels = {
        "cnnx.version": metadata.version("cnnx"),
        "cnnx.python": ".".join(map(str, sys.version_info[:3])),
        "cnnx.worker-python": worker.python,
        "cnnx.machine": worker.machine,
        "cnnx.tensorrt": worker.tensorrt,
        "cnnx.onnxruntime": worker.onnxruntime,
        "cnnx.pytorch": worker.pytorch,
    }
    return NodeSettings(
        device=options.device,
        exports=bool(worker.pytorch),
        head=options.head,
        address=address,
        node_ip_address=options.node_ip_address,
        first_port=options.node_ports,
        object_store_bytes=options.object_store_mib * 2**20,
        labels=labels,
    )


@contextlib.contextmanager
def _ray_folder() -> Iterator[Path]:
    """A folder that only this user can enter: Ray lets everybody write into its own, with its sockets."""
    root = temporary_root()
    if len(str(root)) > _LONGEST_FOLDER - len("/cnnx-ray-12345678/r"):
        root = Path("/tmp")
    with (
        writing(root / "cnnx-ray-", hint="free disk space there, or set TMPDIR to another folder"),
        tempfile.TemporaryDirectory(prefix="cnnx-ray-", dir=root, ignore_cleanup_errors=True) as folder,
    ):
        yield Path(folder)


class _Node:
    """Starts a node again and again, until it is asked to stop."""

    def __init__(
        self,
        settings: NodeSettings,
        folder: Path,
        token: Path,
        worker_python: Path | None,
        listener: Listener,
        until: threading.Event,
    ) -> None:
        self._settings, self._folder, self._token = settings, folder, token
        self._worker_python, self._listener, self._until = worker_python, listener, until
        self._starts = 0

    def run(self) -> JoinResult:
        """Run the node; see `fleet_join`."""
        began, wait = time.monotonic(), _FIRST_WAIT_S
        if busy := _busy_ports(self._settings):
            raise EnvironmentLacks(
                f"the port {busy[0]} is in use",
                hint="stop what uses it, or choose others: --port, --node-ports",
            )
        while not self._until.is_set():
            started = time.monotonic()
            if not self._settings.head and not self._head_is_there():
                break
            reason = self._run_once()
            if self._until.is_set():
                break
            if time.monotonic() - started > _SOUND_S:
                wait = _FIRST_WAIT_S
            self._note(f"the node ended: {reason.what}; starting it again in {wait:.0f} s")
            self._until.wait(wait)
            wait = min(2 * wait, _LONGEST_WAIT_S)
        return JoinResult(
            self._settings.device, self._settings.address, self._starts, time.monotonic() - began
        )

    def _note(self, sentence: str) -> None:
        self._listener(ProgressEvent(sentence, note=True))

    def _head_is_there(self) -> bool:
        """Wait for the head; False: asked to stop."""
        host, port = split_address(self._settings.address)
        wait, said = _FIRST_WAIT_S, False
        while not self._until.is_set():
            if answers(host, port):
                return True
            if not said:
                self._note(f"waiting for the head at {self._settings.address}")
                said = True
            self._until.wait(wait)
            wait = min(2 * wait, _LONGEST_WAIT_S / 2)
        return False

    def _run_once(self) -> EnvironmentLacks:
        """Run Ray until it ends or it is asked to stop; why it ended.

        Raises:
            EnvironmentLacks: the head refuses the token, or runs another release of Ray.
        """
        command, kept = python_process(supervisor.__name__)
        node = node_command(self._settings, self._folder / "r")
        log = self._folder / "ray.log"
        with log.open("wb") as opened:
            process = subprocess.Popen(
                [*command, str(os.getpid()), *node],
                env=environment_of(kept, self._token, self._worker_python),
                stdin=subprocess.DEVNULL,
                stdout=opened,
                stderr=subprocess.STDOUT,
                cwd=self._folder,  # Ray's workers import from the working folder
                start_new_session=True,
            )
        self._starts += 1
        has_joined = False
        try:
            while process.poll() is None and not self._until.wait(_IDLE_S if has_joined else _POLL_S):
                if has_joined:
                    continue
                output = _end_of(log)
                if has_joined := _STARTED in output:
                    who = self._settings.device or "the head"
                    self._note(f"{who} {JOINED} {self._settings.address}")
                elif is_refusal(output):  # which Ray itself accepts only after 20 s
                    break
        finally:
            _stop(process)
        reason = refusal(_end_of(log), self._settings.address)
        if not has_joined and not isinstance(reason, Unreachable) and not self._until.is_set():
            raise reason
        return reason


def _end_of(log: Path) -> str:
    """The end of what Ray printed."""
    return log.read_bytes()[-_OUTPUT_BYTES:].decode(errors="replace")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Have the supervisor end Ray's processes, and wait for it."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _busy_ports(settings: NodeSettings) -> list[int]:
    """Ports that the node needs and something uses."""
    wanted = [settings.first_port + place for place in range(_OWN_PORTS)]
    if settings.head:
        wanted.insert(0, split_address(settings.address)[1])
    return [port for port in wanted if not _is_free(port)]


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # not one that only waits to be forgotten
        try:
            probe.bind(("0.0.0.0", port))
        except OSError:
            return False
    return True


def join_arguments(options: JoinOptions) -> list[str]:
    """The command line of a join, after `cnnx`."""
    words = ["fleet", "join", *(["--head"] if options.head else [])]
    for flag, value in (
        ("--as", options.device),
        ("--address", options.address),
        ("--node-ip-address", options.node_ip_address),
        ("--port", options.port if options.head else None),
        ("--node-ports", options.node_ports),
        ("--worker-python", options.worker_python),
        ("--token-file", options.token_file),
        ("--object-store-mib", options.object_store_mib),
    ):
        words += [] if value is None else [flag, str(value)]
    return words
