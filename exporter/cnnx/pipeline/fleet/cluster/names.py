"""Names and addresses in a cluster, checked so that none is an option of a program or a resource of Ray."""

from __future__ import annotations

import ipaddress
import re
import socket
from typing import Annotated

from msgspec import Meta

from cnnx.errors import UsageError

_END = r"(?![\s\S])"  # "$" would let a line break pass
EXPORT = "cnnx-export"
"""The resource of a node whose Python has PyTorch."""
DEVICE_LABEL = "cnnx.device"
_DEVICE = r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?"
# Names of Ray's own resources, in any case, and ours.
_RESERVED = frozenset({"cpu", "gpu", "tpu", "memory", "node", "hpu", "npu", "head", EXPORT})

DeviceName = Annotated[
    str,
    Meta(
        pattern=rf"^(?!({'|'.join(sorted(_RESERVED))}){_END}){_DEVICE}{_END}",
        description="a name such as orin-nano: lower-case letters, digits, '-' and '.'; "
        f"not {', '.join(sorted(_RESERVED))}",
    ),
]
Address = Annotated[
    str,
    Meta(
        pattern=rf"^[A-Za-z0-9:][A-Za-z0-9:._-]{{0,252}}{_END}",
        description="an IP address or a host name, such as 10.8.0.2",
    ),
]
User = Annotated[
    str, Meta(pattern=rf"^([A-Za-z0-9_][A-Za-z0-9._-]{{0,63}})?{_END}", description="a user name, or empty")
]
Port = Annotated[int, Meta(ge=1, le=65535, description="a port in 1..65535")]
NodePorts = Annotated[int, Meta(ge=1024, le=65436, description="the first of 100 ports, in 1024..65436")]
RemotePath = Annotated[
    str,
    Meta(
        pattern=rf"^[A-Za-z0-9_./][^\x00-\x1f\x7f]{{0,1023}}{_END}",
        description="a path on the device, absolute or in the user's home folder, without ~",
    ),
]


def check_device(name: str) -> None:
    """Refuse a name that cannot be that of a device.

    Raises:
        UsageError: it is not lower-case letters, digits, '-' and '.', or is a name of Ray's.
    """
    if name in _RESERVED:
        raise UsageError(
            f"the name {name!r} is reserved", where="--as", hint="choose a name such as orin-nano"
        )
    if not re.fullmatch(_DEVICE, name):
        raise UsageError(
            f"invalid device name {name!r}: expected lower-case letters, digits, '-' and '.'",
            where="--as",
            hint="choose a name such as orin-nano",
        )


def joined(host: str, port: int) -> str:
    """HOST:PORT, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def split_address(text: str) -> tuple[str, int]:
    """Host and port of HOST:PORT.

    Raises:
        UsageError: the text has another form.
    """
    found = re.fullmatch(r"\[([0-9A-Fa-f:.]+)\]:(\d{1,5})|([A-Za-z0-9][A-Za-z0-9._-]*):(\d{1,5})", text)
    if not found or not 0 < int(found[2] or found[4]) < 65536:
        raise UsageError(
            f"invalid --address {text!r}: expected HOST:PORT", hint="give the head's, such as 10.8.0.1:6379"
        )
    return found[1] or found[3], int(found[2] or found[4])


def is_ip(address: str) -> bool:
    """Whether an address is one, not a host name."""
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return False
    return True


def check_node_address(address: str) -> None:
    """Refuse an address that Ray does not take as it is given.

    Ray replaces 127.0.0.1, ::1 and localhost by the address of the route to the internet
    (`resolve_ip_for_localhost`), and would then be reached from there.

    Raises:
        UsageError: it is one of these, or is not an IP address.
    """
    if not is_ip(address):
        raise UsageError(
            f"invalid --node-ip-address {address!r}: expected an IP address", hint="such as 10.8.0.2"
        )
    if address in ("127.0.0.1", "::1"):
        raise UsageError(
            f"Ray replaces {address} by the machine's outward address",
            where="--node-ip-address",
            hint="give the address on your private network; for nodes on this machine alone, 127.0.0.2",
        )


def answers(host: str, port: int, *, timeout_s: float = 3.0) -> bool:
    """Whether a TCP port accepts a connection."""
    try:
        socket.create_connection((host, port), timeout=timeout_s).close()
    except OSError:
        return False
    return True
