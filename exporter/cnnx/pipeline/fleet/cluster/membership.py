"""Which cluster this machine is a node of: a locked file for each of its nodes, while it runs."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cnnx.errors import CnnxError, EnvironmentLacks, UsageError
from cnnx.schema import from_plain, read_json
from cnnx.store.cache import cache_folder
from cnnx.store.drafts import make_folder
from cnnx.store.files import writing
from cnnx.store.reading import read_bytes

_PREFIX = "fleet-"
_MOST_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Membership:
    """A node of this machine.

    Attributes:
        address: HOST:PORT of the head of its cluster.
        node_ip_address: its own address there; None: as Ray found it.
    """

    address: str
    node_ip_address: str | None


@contextlib.contextmanager
def holding(name: str, membership: Membership) -> Iterator[None]:
    """Hold the name of a device on this machine, and state its cluster for `memberships`.

    Raises:
        EnvironmentLacks: another process holds it: two nodes would measure at once on one device.
        WriteFailed: the cache cannot be written.
    """
    file = _folder() / f"{_PREFIX}{name}"
    with writing(file):
        make_folder(file.parent)
        handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise EnvironmentLacks(
                f"this machine has already joined as {name}: two nodes would measure at once on one device",
                where="--as",
                hint="stop the other one (cnnx fleet down, or Ctrl-C), or choose another name",
            ) from None
        with writing(file):
            os.ftruncate(handle, 0)
            os.write(handle, json.dumps(dataclasses.asdict(membership)).encode())
        yield
    finally:
        os.close(handle)


def memberships() -> tuple[Membership, ...]:
    """What the running nodes of this machine, and of this cache, are members of."""
    found = []
    for file in sorted(_folder().glob(f"{_PREFIX}*")):
        with contextlib.suppress(OSError, CnnxError):
            if _is_held(file):
                data = read_json(read_bytes(file, most=_MOST_BYTES), where=file, error=EnvironmentLacks)
                found.append(from_plain(Membership, data, where=file, error=EnvironmentLacks))
    return tuple(dict.fromkeys(found))


def membership_of(address: str | None) -> Membership:
    """The node of this machine in the cluster at an address, or in the only one.

    Raises:
        UsageError: none is named, and this machine is a node of no cluster, or of several.
    """
    found = [each for each in memberships() if address in (None, each.address)]
    if address is not None and not found:
        return Membership(address, None)
    if len({each.address for each in found}) != 1:
        what = "is a node of several clusters" if found else "is not a node of a cluster"
        hint = "cnnx fleet join --head starts a cluster, cnnx fleet up brings devices up"
        raise UsageError(
            f"this machine {what}", hint=f"name one: --address {found[0].address}" if found else hint
        )
    return found[0]


def _folder() -> Path:
    return cache_folder() / "locks"


def _is_held(file: Path) -> bool:
    handle = os.open(file, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False
