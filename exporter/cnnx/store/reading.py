"""Reads files that users give: only regular files, and not more than a limit."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

_BLOCK_BYTES = 1 << 20


def open_regular(path: Path) -> BinaryIO:
    """Open a file for reading; a pipe, a socket or a device is refused and not waited for.

    Raises:
        OSError: it cannot be opened, or is not a regular file.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(mode := os.fstat(handle).st_mode):
        os.close(handle)
        code = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
        reason = os.strerror(code) if stat.S_ISDIR(mode) else "not a regular file"
        raise OSError(code, reason, str(path))
    return os.fdopen(handle, "rb")


def read_bytes(path: Path, *, most: int) -> bytes:
    """The content of a regular file.

    Raises:
        OSError: it cannot be read, is not a regular file, or has more than `most` bytes.
    """
    with open_regular(path) as file:
        # Not `most` at once, as Python would allocate that much. A file of /proc states no size.
        content = file.read(min(os.fstat(file.fileno()).st_size, most) + 1)
        while len(content) <= most and (block := file.read(_BLOCK_BYTES)):
            content += block
    if len(content) > most:
        raise OSError(errno.EFBIG, f"more than {most:,} bytes", str(path))
    return content


def read_text(path: Path, *, most: int, encoding: str = "utf-8") -> str:
    """The text of a regular file, with newlines as Python's own reading gives them.

    Raises:
        OSError: see `read_bytes`.
        UnicodeDecodeError: it is not text in this encoding.
    """
    text = read_bytes(path, most=most).decode(encoding)
    return text.replace("\r\n", "\n").replace("\r", "\n")
