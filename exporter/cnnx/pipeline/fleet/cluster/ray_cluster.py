"""The only module here that knows Ray: command and environment of a node, and the list of nodes.

Ray runs in processes of its own, since its client ends the process it is in on some errors.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from cnnx.errors import EnvironmentLacks, MissingExtra, Unreachable
from cnnx.machine.isolated import python_process
from cnnx.pipeline.fleet.cluster.names import DEVICE_LABEL, EXPORT, answers, split_address
from cnnx.pipeline.fleet.cluster.supervisor import end_with_parent
from cnnx.schema import from_plain, read_json

_MODULE = "cnnx.pipeline.fleet.cluster.ray_cluster"
WORKER_PYTHON = "CNNX_FLEET_PYTHON"
"""Environment variable of Ray's workers: the Python that measures, if not their own."""
_LISTING_S = 60.0
# After the head has gone, a node ends so much later, and is then started again. Ray's default is 60 s.
_HEAD_GONE_S = 15
_REFUSED = ("InvalidAuthToken", "Unauthenticated", "AuthenticationError")
_LABEL = re.compile(r"[^A-Za-z0-9._-]")


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """What a node is started with.

    Attributes:
        device: name of the device; None: the node has no slot.
        exports: whether its Python has PyTorch.
        head: whether it is the head.
        address: HOST:PORT of the head; its own, for the head.
        node_ip_address: its own address; None: as Ray finds it.
        first_port: first of its 100 ports.
        object_store_bytes: limit of its object store.
        labels: what `fleet status` shows: name -> value.
    """

    device: str | None
    exports: bool
    head: bool
    address: str
    node_ip_address: str | None
    first_port: int
    object_store_bytes: int
    labels: Mapping[str, str]

    def resources(self) -> dict[str, int]:
        """Ray's custom resources: one slot for the device. Ray does not see a Jetson's GPU."""
        return {**({self.device: 1} if self.device else {}), **({EXPORT: 1} if self.exports else {})}


@dataclass(frozen=True, slots=True)
class ListedNode:
    """A node as Ray lists it.

    Attributes:
        node: Ray's identifier.
        address: its IP address.
        host_name: name of its machine.
        alive: whether it answers its head.
        total: its resources.
        free: those that nothing uses now.
        labels: its labels.
    """

    node: str
    address: str
    host_name: str
    alive: bool
    total: dict[str, Annotated[float, Meta(ge=0)]]
    free: dict[str, Annotated[float, Meta(ge=0)]]
    labels: dict[str, str]


def require_ray() -> None:
    """Check that Ray is installed.

    Raises:
        MissingExtra: it is not.
    """
    if importlib.util.find_spec("ray") is None:
        raise MissingExtra("ray", "fleet", purpose="a fleet")


def environment_of(kept: Mapping[str, str], token: Path, worker_python: Path | None = None) -> dict[str, str]:
    """The environment of a process of Ray: token authentication is on, and the token is in a file alone."""
    dropped = ("RAY_AUTH_TOKEN", "RAY_ADDRESS", WORKER_PYTHON)
    found = {name: value for name, value in kept.items() if name not in dropped}
    found |= {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_gcs_rpc_server_reconnect_timeout_s": str(_HEAD_GONE_S),
        "RAY_prestart_worker_first_driver": "0",  # an idle worker takes 70 MB
    }
    return found if worker_python is None else {**found, WORKER_PYTHON: str(worker_python)}


def node_command(settings: NodeSettings, folder: Path) -> list[str]:
    """The command that runs a node in the foreground, with its files in `folder`."""
    first = settings.first_port
    labels = {**({DEVICE_LABEL: settings.device} if settings.device else {}), **settings.labels}
    options = {
        "node-manager-port": first,
        "object-manager-port": first + 1,
        "runtime-env-agent-port": first + 2,
        "metrics-export-port": first + 3,
        "dashboard-agent-listen-port": first + 4,
        "dashboard-agent-grpc-port": first + 5,
        "min-worker-port": first + 10,
        "max-worker-port": first + 99,
        "num-cpus": 1,
        "num-gpus": 0,
        "resources": json.dumps(settings.resources()),
        "labels": ",".join(f"{name}={_LABEL.sub('_', value)}" for name, value in labels.items() if value),
        "object-store-memory": settings.object_store_bytes,
        "temp-dir": folder,
        "include-log-monitor": "false",
    }
    if settings.head:
        options |= {"port": split_address(settings.address)[1], "include-dashboard": "false"}
    else:
        options["address"] = settings.address
    if settings.node_ip_address:
        options["node-ip-address"] = settings.node_ip_address
    flags = [text for name, value in options.items() if value != "" for text in (f"--{name}", str(value))]
    # The monitor would add nodes from a cloud.
    head = ["--head", "--no-monitor"] if settings.head else []
    return python_process(_MODULE, "start", "--block", *head, *flags)[0]


def list_nodes(address: str, token: Path) -> tuple[ListedNode, ...]:
    """The nodes of a cluster, also those that have ended.

    Args:
        address: HOST:PORT of the head.
        token: file of the token.

    Raises:
        MissingExtra: Ray is not installed.
        Unreachable: the head does not answer.
        EnvironmentLacks: the head refuses the token, or runs another release of Ray.
    """
    require_ray()
    if not answers(*split_address(address)):
        raise Unreachable(
            "the head of the cluster does not answer",
            where=address,
            hint="start it (cnnx fleet join --head, or cnnx fleet up), and check firewalls on the way",
        )
    command, kept = python_process(_MODULE, "list", address)
    try:
        done = subprocess.run(
            command,
            env=environment_of(kept, token),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_LISTING_S,
            cwd="/",
        )
    except subprocess.TimeoutExpired:
        raise Unreachable(
            f"the head did not list its nodes within {_LISTING_S:.0f} s",
            where=address,
            hint="check that the port is that of a cluster, and the load of the head",
        ) from None
    if done.returncode:
        raise refusal(done.stderr, address)
    data = read_json(done.stdout.splitlines()[-1], where=address, error=EnvironmentLacks)
    return from_plain(tuple[ListedNode, ...], data, where=address, error=EnvironmentLacks)


def is_refusal(output: str) -> bool:
    """Whether Ray's output says that the head refuses the token."""
    return any(word in output for word in _REFUSED)


def refusal(output: str, address: str) -> EnvironmentLacks:
    """What Ray's output says about why a head was not joined, or its nodes were not listed."""
    if is_refusal(output):
        return EnvironmentLacks(
            "the head refuses the token",
            where=address,
            hint="copy the head's token (cnnx/fleet-token in its ~/.config) over this one",
        )
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    versions = [line for line in lines if "ersion mismatch" in line]
    if versions:
        return EnvironmentLacks(
            f"the head has another Ray or Python: {versions[-1]}",
            where=address,
            hint="install the same ray and the same minor version of Python on all nodes",
        )
    reason = lines[-1][:300] if lines else "no output"
    return Unreachable(
        f"Ray failed: {reason}", where=address, hint="check that the port is that of a cluster"
    )


def _listed(address: str) -> list[dict[str, Any]]:
    from ray._private.state import GlobalState
    from ray._raylet import GcsClientOptions

    state = GlobalState()
    options = GcsClientOptions.create(address, None, allow_cluster_id_nil=True, fetch_cluster_id_if_nil=False)
    state._initialize_global_state(options)
    free = state.available_resources_per_node()
    return [
        {
            "node": node["NodeID"],
            "address": node["NodeManagerAddress"],
            "host_name": node["NodeManagerHostname"],
            "alive": node["Alive"],
            "total": dict(node["Resources"]),
            "free": dict(free.get(node["NodeID"], {})),
            "labels": dict(node["Labels"]),
        }
        for node in state.node_table()
    ]


def main(arguments: Sequence[str]) -> int:
    """In a process of its own: `list ADDRESS` prints the nodes as JSON, `start ...` is Ray's own command."""
    if arguments[0] == "list":
        sys.stdout.write("\n" + json.dumps(_listed(arguments[1])) + "\n")
        sys.stdout.flush()
        os._exit(0)  # Ray's threads may wait for the head
    end_with_parent()
    from ray.scripts.scripts import main as ray

    sys.argv = ["ray", *arguments]
    ray()
    return 0
