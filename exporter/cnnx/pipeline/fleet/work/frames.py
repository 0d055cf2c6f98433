"""Messages between a worker and whoever gives it work: a JSON header, and bytes."""

from __future__ import annotations

import asyncio
import json
import struct
from dataclasses import dataclass
from typing import Any, BinaryIO

from cnnx.errors import EnvironmentLacks
from cnnx.limits import MESSAGE_BYTES

PIECE = 1 << 22
"""Largest number of bytes of a file in one message."""
WAITING = "waiting for another run on this machine"
"""The step of a job that has not begun: this does not count as time of the job."""
_SIZES = struct.Struct("!II")


@dataclass(frozen=True, slots=True)
class Frame:
    """One message. The last one that answers another has `last` in its header."""

    header: dict[str, Any]
    payload: bytes = b""

    @property
    def is_last(self) -> bool:
        """Whether no further message answers the same question."""
        return bool(self.header.get("last"))


def packed(frame: Frame) -> bytes:
    """The bytes of a message."""
    header = json.dumps(frame.header).encode()
    return _SIZES.pack(len(header), len(frame.payload)) + header + frame.payload


def read_frame(stream: BinaryIO) -> Frame | None:
    """The next message of a stream; None at its end, also in the middle of a message.

    Raises:
        EnvironmentLacks: these are not messages.
    """
    prefix = stream.read(_SIZES.size)
    if len(prefix) < _SIZES.size:
        return None
    header, payload = _sizes(prefix)
    text, rest = stream.read(header), stream.read(payload)
    return _frame(text, rest) if len(text) == header and len(rest) == payload else None


async def receive_frame(reader: asyncio.StreamReader) -> Frame | None:
    """As `read_frame`."""
    try:
        header, payload = _sizes(await reader.readexactly(_SIZES.size))
        return _frame(await reader.readexactly(header), await reader.readexactly(payload))
    except asyncio.IncompleteReadError:
        return None


def _sizes(prefix: bytes) -> tuple[int, int]:
    header, payload = _SIZES.unpack(prefix)
    if header > MESSAGE_BYTES or payload > PIECE:
        raise _strange(f"it begins with {prefix!r}")
    return header, payload


def _frame(header: bytes, payload: bytes) -> Frame:
    try:
        data = json.loads(header)
    except (ValueError, RecursionError) as error:
        raise _strange(str(error)) from None
    if not isinstance(data, dict):
        raise _strange("a header is no object")
    return Frame(data, payload)


def _strange(why: str) -> EnvironmentLacks:
    return EnvironmentLacks(
        f"the answer is not that of cnnx's worker: {why}",
        hint="a login script may print text: it must not on a connection without a terminal",
    )
