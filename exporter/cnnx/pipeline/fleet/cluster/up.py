"""`fleet up`: installs cnnx on the hosts of a file over SSH, and joins them to one cluster."""

from __future__ import annotations

import functools
import hashlib
import posixpath
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cnnx.errors import CnnxError, EnvironmentLacks
from cnnx.options import takes
from cnnx.options.fleet import JoinOptions, UpOptions
from cnnx.pipeline.fleet.cluster import scripts
from cnnx.pipeline.fleet.cluster.hosts import Device, Head, Hosts, Machine, read_hosts
from cnnx.pipeline.fleet.cluster.join import JOINED, join_arguments
from cnnx.pipeline.fleet.cluster.outcomes import (
    HostOutcome,
    HostsResult,
    Outcome,
    Steps,
    at_once,
    one_at_a_time,
)
from cnnx.pipeline.fleet.cluster.placed import VENV, WORKER_VENV, Placed
from cnnx.pipeline.fleet.cluster.status import status_of
from cnnx.pipeline.fleet.cluster.token import create_token, read_token, token_file
from cnnx.pipeline.fleet.cluster.wheel import Wheel, own_wheel, wheel_of_file, wheels_in
from cnnx.pipeline.progress import Listener, ProgressEvent, silent

_SHORT_S, _LONG_S = 90.0, 3600.0
_POLL_S = 2.0
_TITLE = "devices in the cluster"


@dataclass(frozen=True, slots=True)
class _Request:
    """What all hosts get.

    Attributes:
        hosts: the hosts file.
        token: the token.
        wheel: cnnx; None: no host installs it.
        links: wheels to install from, instead of an index.
        minor: minor version of the head's Python, such as 3.11; empty until it is known.
    """

    hosts: Hosts
    token: str
    wheel: Wheel | None
    links: tuple[Wheel, ...]
    minor: str = ""


@takes(UpOptions)
def fleet_up(hosts: str | Path, options: UpOptions, *, listener: Listener = silent) -> HostsResult:
    """Bring the devices of a hosts file up: install cnnx there, and join them to one cluster.

    On each host: a folder, a wheel of this cnnx, an environment with Ray, one with the device's own Python if
    `worker_python` is set, the token, and `cnnx fleet join`, which outlives the SSH session. What is there
    already is left as it is, so a second call continues. A host that fails does not stop the others.

    Args:
        hosts: hosts file; see docs/fleet.md.
        options: options as an object; each can also be given by keyword.
        listener: called with the progress.

    Raises:
        HostsError: the hosts file cannot be used.
        InputRefused: the wheels or the token cannot be used.
        EnvironmentLacks: no wheel of this cnnx can be made.

    Examples:
        >>> cnnx.fleet_up("absent.toml")
        Traceback (most recent call last):
        ...
        cnnx.errors.HostsError: the hosts file cannot be read: No such file or directory
          where: absent.toml
          hint:  see docs/fleet.md for one
    """
    read = read_hosts(Path(hosts))
    listen = one_at_a_time(listener)
    request = _request(read, options)
    minors: list[str] = []
    head = Steps(read.head.name or "head", read.head, listen)
    first = head.run(functools.partial(_bring, request, read.head, minors))
    if minors:
        request = _Request(request.hosts, request.token, request.wheel, request.links, minors[0])
    works = [
        functools.partial(
            Steps(device.name, device, listen).run, functools.partial(_bring, request, device, [])
        )
        for device in read.device
    ]
    outcomes = (first, *at_once(works))
    return HostsResult(read.cluster, _awaited(read, outcomes, options.wait, listen))


def _request(hosts: Hosts, options: UpOptions) -> _Request:
    token = token_file(hosts.head.token_file or None)
    create_token(token)
    installs = [each for each in hosts.device if each.install]
    if hosts.head.ssh and hosts.head.install:
        installs.append(hosts.head)  # type: ignore[arg-type]
    wheel = None
    if installs:
        wheel = own_wheel() if options.wheel is None else wheel_of_file(Path(options.wheel))
    links = () if options.find_links is None else wheels_in(Path(options.find_links))
    return _Request(hosts, read_token(token), wheel, links)


def _bring(request: _Request, machine: Machine, minors: list[str], steps: Steps) -> Outcome:
    """Do all steps of one host. The minor version of its Python goes to `minors`."""
    placed = Placed.head(request.hosts) if isinstance(machine, Head) else Placed.on(machine)
    folder, python = _connected(placed, steps, request.minor)
    minors.append(python.rpartition(".")[0])
    changed = [""]
    if machine.install and not placed.shell.is_here:
        assert request.wheel is not None
        steps.step("files", lambda: _uploaded(placed, request))
        changed.append(
            steps.step(
                "environment", lambda: _installed(placed, request, VENV, machine.python, extra="fleet")
            )
        )
        if machine.worker_python:
            worker = machine.worker_python
            changed.append(
                steps.step(
                    "environment that measures", lambda: _installed(placed, request, WORKER_VENV, worker)
                )
            )
    token = request.token.encode()
    if not placed.shell.is_here:
        changed.append(
            steps.step("token", lambda: _word(placed, scripts.TOKEN, [placed.folder], stdin=token))
        )
    command = [placed.python, "-m", "cnnx", *join_arguments(_join(request.hosts, machine, placed, folder))]
    secret_free = "\0".join([*command, request.wheel.sha256 if request.wheel and machine.install else ""])
    digest = hashlib.sha256(secret_free.encode()).hexdigest()
    if set(changed) & {"made", "written"}:
        # The same command, but with another token or environment: the process must start again.
        _word(placed, scripts.STOP, [placed.folder, steps.name])
    arguments = [placed.folder, steps.name, digest, *command]
    state = steps.step("start", lambda: _word(placed, scripts.START, arguments))
    return "already up" if state == "running" else "joined"


def _connected(placed: Placed, steps: Steps, minor: str) -> tuple[str, str]:
    """The absolute path of the folder on a host, and the version of its Python.

    Raises:
        EnvironmentLacks: its Python is older than 3.10, or not of the head's minor version.
    """
    shell, found = placed.shell, [""]

    def connect() -> str:
        found[:] = shell.run(scripts.CONNECT, [placed.folder, shell.python], seconds=_SHORT_S).splitlines()
        return "connected"

    steps.step("connect", connect)
    folder, python = found[-3], found[-1]
    of_it = python.rpartition(".")[0]
    if tuple(map(int, of_it.split("."))) < (3, 10) or (minor and of_it != minor):
        raise EnvironmentLacks(
            f"its Python is {python}; the cluster needs {minor or '3.10 or newer'} on all nodes",
            where=shell.name,
            hint="set python in the hosts file to one of that version, for example: uv python install "
            f"{minor or '3.12'}",
        )
    return folder, python


def _uploaded(placed: Placed, request: _Request) -> str:
    """Upload the wheels that are not there yet."""
    wheels: Mapping[str, Wheel] = {
        each.name: each for each in (*request.links, request.wheel) if each is not None
    }
    listed = "".join(f"{each.sha256} {each.name}\n" for each in wheels.values())
    missing = placed.shell.run(scripts.MISSING, [placed.folder], stdin=listed.encode(), seconds=_SHORT_S)
    names = [name for name in missing.split() if name in wheels]
    for name in names:
        wheel = wheels[name]
        placed.shell.run(
            scripts.RECEIVE, [placed.folder, name, wheel.sha256], stdin=wheel.read(), seconds=_LONG_S
        )
    return "uploaded" if names else "same"


def _installed(placed: Placed, request: _Request, name: str, python: str, *, extra: str = "") -> str:
    """Make an environment and install the wheel in it, unless that was done.

    The environment of the Python that measures sees the packages of the system, such as JetPack's TensorRT.
    """
    wheel = request.wheel
    assert wheel is not None
    what = [python, extra, wheel.sha256, *sorted(each.sha256 for each in request.links)]
    key = hashlib.sha256("\0".join(what).encode()).hexdigest()
    option = "-" if extra else "--system-site-packages"
    offline = "offline" if request.links else "-"
    arguments = [placed.folder, name, python, key, option, wheel.name, extra or "-", offline]
    return _word(placed, scripts.INSTALL, arguments, seconds=_LONG_S)


def _word(
    placed: Placed, script: str, arguments: list[str], *, stdin: bytes = b"", seconds: float = _SHORT_S
) -> str:
    """The last word that a script printed."""
    return (placed.shell.run(script, arguments, stdin=stdin, seconds=seconds).split() or [""])[-1]


def _join(hosts: Hosts, machine: Machine, placed: Placed, folder: str) -> JoinOptions:
    """What `cnnx fleet join` gets on a host."""
    is_head = isinstance(machine, Head)
    worker = machine.worker_python
    if worker and machine.install and not placed.shell.is_here:
        worker = posixpath.join(folder, WORKER_VENV, "bin", "python")
    return JoinOptions(
        device=machine.name if isinstance(machine, (Head, Device)) else None,
        head=is_head,
        address=None if is_head else hosts.cluster,
        node_ip_address=machine.node_ip_address,
        port=hosts.head.cluster_port,
        node_ports=machine.node_ports,
        worker_python=worker,
        token_file=placed.token if placed.token.startswith("/") else posixpath.join(folder, placed.token),
        object_store_mib=machine.object_store_mib,
    )


def _awaited(
    hosts: Hosts, outcomes: tuple[HostOutcome, ...], wait_s: float, listener: Listener
) -> tuple[HostOutcome, ...]:
    """Wait until the hosts that were started are in the cluster; those that do not come have failed."""
    machines: Mapping[str, Machine] = {
        (hosts.head.name or "head"): hosts.head, **{each.name: each for each in hosts.device},
    }  # fmt: skip
    pending = {each.name: each for each in outcomes if each.outcome != "failed"}
    total, ended, began = len(pending), dict[str, HostOutcome](), time.monotonic()
    while pending:
        listener(ProgressEvent(_TITLE, total - len(pending), total))
        late = time.monotonic() - began > wait_s
        said: set[str] = set()
        ended |= _failed(hosts, machines, pending, said)
        # To list the nodes takes seconds of the head, which may just be starting.
        if late or said.issuperset(pending):
            for name in _alive(hosts):
                pending.pop(name, None)
        if late:
            ended |= _failed(hosts, machines, pending, None)
        elif pending:
            time.sleep(_POLL_S)
    if total:
        listener(ProgressEvent(_TITLE, total, total, seconds=time.monotonic() - began))
    return tuple(ended.get(each.name, each) for each in outcomes)


def _failed(
    hosts: Hosts, machines: Mapping[str, Machine], pending: dict[str, HostOutcome], said: set[str] | None
) -> dict[str, HostOutcome]:
    """Take those out of `pending` that have failed; see `_looked`."""
    looks = [functools.partial(_looked, hosts, machines[name], pending[name], said) for name in pending]
    failed = {each.name: each for each in at_once(looks) if each.outcome == "failed"}
    for name in failed:
        pending.pop(name)
    return failed


def _alive(hosts: Hosts) -> set[str]:
    """Names of the hosts that are alive in the cluster; none while the head does not answer."""
    try:
        nodes = status_of(hosts).nodes
    except CnnxError:
        return set()
    return {node.device or "head" for node in nodes if node.alive}


def _looked(hosts: Hosts, machine: Machine, outcome: HostOutcome, said: set[str] | None) -> HostOutcome:
    """The outcome of a host that is not in the cluster yet: failed if its process ended, or it is late.

    If its process says that it is in the cluster, its name is added to `said`; None: it is late.
    """
    placed = Placed.head(hosts) if isinstance(machine, Head) else Placed.on(machine)

    def look(_steps: Steps) -> Outcome:
        state, _, log = placed.shell.run(
            scripts.LOOK, [placed.folder, outcome.name], seconds=_SHORT_S
        ).partition("\n")
        if said is not None and state == "running":
            if JOINED in log:
                said.add(outcome.name)
            return outcome.outcome
        raise _reason(log, state, placed)

    return _timed(Steps(outcome.name, machine, lambda _: None), look, outcome.seconds)


def _timed(steps: Steps, work: Callable[[Steps], Outcome], before_s: float) -> HostOutcome:
    found = steps.run(work)
    step = "join" if found.outcome == "failed" else ""
    return HostOutcome(
        found.name, found.address, found.outcome, step, found.reason, found.hint, before_s + found.seconds
    )


def _reason(log: str, state: str, placed: Placed) -> EnvironmentLacks:
    """Why a host did not join, from the end of the log of its `cnnx fleet join`."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    hints = [line.removeprefix("hint:").strip() for line in lines if line.startswith("hint:")]
    where = posixpath.join(placed.folder, "*.log")
    what = (errors or lines or ["it printed nothing"])[-1]
    if state == "running":
        what = f"not in the cluster in time: {what}"
    default = f"read {where} there; check that it reaches the head, and firewalls between them"
    return EnvironmentLacks(what, where=placed.shell.name, hint=hints[-1] if errors and hints else default)
