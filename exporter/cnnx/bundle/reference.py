"""reference.npz, the self-test: images, and what the original and the bundle's own graph made of them.

Plain arrays, so that a program without NumPy reads them too: an uncompressed ZIP whose members follow one
another, each a local header (no flags, sizes in place, 30 bytes and the name), then a .npy file of version
1.0 in C order. In this order:

    crops.npy     |u1  (N, H, W, C)      pixels, before normalisation
    original.npy  <f4  (N, classes)      the original's logits
    graph.npy     <f4  (N, classes)      those of model.onnx, run on ONNX Runtime when it was exported
    ids.npy       |u1  (N, width)        names of the images in UTF-8, filled up with zeros
    used.npy      |u1  (M, 32)           SHA-256 of the images that set ranges or chose; they must not judge
    labels.npy    <i8  (N,)              true classes, where they are known
"""

from __future__ import annotations

import io
import math
import re
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cnnx.errors import BundleError

REFERENCE_BYTES = 32 * 2**20
"""What the images of a self-test take, at most."""
SELF_TEST_IMAGES = 200
_FILE_BYTES = 2 * REFERENCE_BYTES
_DTYPES: Final = {
    "crops.npy": "|u1",
    "original.npy": "<f4",
    "graph.npy": "<f4",
    "ids.npy": "|u1",
    "used.npy": "|u1",
    "labels.npy": "<i8",
}
_LABELS, _OLD_MEMBER, _TAIL = "labels.npy", b"logits.npy", 1024
_LOCAL = struct.Struct("<4s5H3I2H")  # signature, version, flags, method, time, date, CRC, sizes, lengths
_HEADER = re.compile(
    rb"\{'descr': '([^']{1,8})', 'fortran_order': False, 'shape': \(([0-9, ]{0,80})\), \} *\n"
)


@dataclass(frozen=True, slots=True)
class Reference:
    """The self-test.

    Attributes:
        crops: (N, H, W, C) uint8.
        original: the original's logits, (N, classes).
        graph: the logits of the bundle's graph as it was exported, (N, classes).
        labels: (N,) true classes, or None.
        ids: names of the images.
        used: SHA-256, in hexadecimal, of the images that set ranges or chose.
    """

    crops: NDArray[np.uint8]
    original: NDArray[np.float32]
    graph: NDArray[np.float32]
    labels: NDArray[np.int64] | None
    ids: tuple[str, ...]
    used: tuple[str, ...] = ()

    def save(self, path: Path) -> None:
        """Write it; the same content gives the same bytes."""
        names = [name.encode("utf-8", "backslashreplace") for name in self.ids]
        arrays: dict[str, NDArray[Any]] = {
            "crops.npy": self.crops,
            "original.npy": self.original,
            "graph.npy": self.graph,
            "ids.npy": _rows(names, max(map(len, names), default=1)),
            "used.npy": _rows(map(bytes.fromhex, self.used), 32),
        }
        if self.labels is not None:
            arrays["labels.npy"] = self.labels
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as file:
            for name, array in arrays.items():
                content = io.BytesIO()
                plain = np.ascontiguousarray(array, dtype=_DTYPES[name])
                np.lib.format.write_array(content, plain, version=(1, 0), allow_pickle=False)
                file.writestr(zipfile.ZipInfo(name), content.getvalue())


def _rows(texts: Iterable[bytes], width: int) -> NDArray[np.uint8]:
    joined = b"".join(text.ljust(width, b"\0") for text in texts)
    return np.frombuffer(joined, np.uint8).reshape(-1, width)


def self_test_places(images: int, bytes_each: int) -> NDArray[np.intp]:
    """Which of the validation images become the self-test: spread evenly, as many as its size allows."""
    count = min(images, SELF_TEST_IMAGES, max(1, REFERENCE_BYTES // bytes_each))
    return np.arange(count) * images // count


def read_reference(path: Path, *, shape: tuple[int, int, int], classes: int) -> Reference:
    """The self-test in a file.

    Args:
        path: its hash must have been checked.
        shape: channels, height, width of the network's input.
        classes: number of its logits.

    Raises:
        BundleError: anything in it is not as this module writes it; the member is named.
    """
    size = path.stat().st_size
    if size > _FILE_BYTES:
        raise _refusal(f"it has {size:,} bytes, at most {_FILE_BYTES:,} are read", path)
    data = path.read_bytes()
    if _OLD_MEMBER in data[-_TAIL:]:
        raise BundleError(
            "reference.npz was written by cnnx 0.1: it lacks the logits of the bundle's own graph",
            where=path,
            mend="export again with this cnnx",
        )
    arrays = {name: _array(name, content, path) for name, content in _members(data, path)}
    if missing := [name for name in _DTYPES if name not in arrays and name != _LABELS]:
        raise _refusal(f"{missing[0]} is missing", path)
    _check_shapes(arrays, shape, classes, path)
    _check_values(arrays, classes, path)
    return Reference(
        crops=arrays["crops.npy"],
        original=arrays["original.npy"],
        graph=arrays["graph.npy"],
        labels=arrays.get(_LABELS),
        ids=_texts(arrays["ids.npy"], path),
        used=tuple(row.tobytes().hex() for row in arrays["used.npy"]),
    )


def _members(data: bytes, path: Path) -> Iterator[tuple[str, memoryview]]:
    """Each member's name and content, by the local headers alone."""
    at, seen = 0, set()
    while data[at : at + 4] == b"PK\3\4":
        if at + _LOCAL.size > len(data):
            raise _refusal("it ends within a header", path)
        _, _, flags, method, _, _, crc, packed, size, length, extra = _LOCAL.unpack_from(data, at)
        named = at + _LOCAL.size
        name = data[named : named + length].decode("ascii", "backslashreplace")
        content = memoryview(data)[named + length + extra :][:size]
        at = named + length + extra + size
        if flags or method or packed != size:
            raise _refusal(f"{name} is compressed or streamed; only plain members are read", path)
        if name in seen:
            raise _refusal(f"{name} is there twice", path)
        if len(content) != size:
            raise _refusal(f"{name} is cut off", path)
        if zlib.crc32(content) != crc:
            raise _refusal(f"{name} does not have its checksum", path)
        seen.add(name)
        yield name, content
    if data[at : at + 4] != b"PK\1\2":
        raise _refusal("it is not a ZIP file, or it is cut off", path)


def _array(name: str, content: memoryview, path: Path) -> NDArray[Any]:
    """A member's array, its size held to its shape before anything is taken from it."""
    if name not in _DTYPES:
        raise _refusal(f"{name!r} is not known there", path)
    head = bytes(content[:10])
    if len(head) < 10 or head[:8] != b"\x93NUMPY\1\0":
        raise _refusal(f"{name} is not a .npy file of version 1.0", path)
    start = 10 + int.from_bytes(head[8:], "little")
    header = _HEADER.fullmatch(bytes(content[10:start]))
    dtype = np.dtype(_DTYPES[name])
    if header is None or header[1].decode("latin-1") != dtype.str:
        raise _refusal(f"{name} should be a plain array of {dtype} ({dtype.str})", path)
    shape = tuple(int(length) for length in header[2].replace(b" ", b"").split(b",") if length)
    # NumPy refuses a huge length even beside a length of zero.
    if math.prod(shape) * dtype.itemsize != len(content) - start or max(shape, default=0) > _FILE_BYTES:
        raise _refusal(f"{name} does not have the {shape} values that it states", path)
    return np.frombuffer(content[start:], dtype).reshape(shape)


def _check_shapes(
    arrays: Mapping[str, NDArray[Any]], shape: tuple[int, int, int], classes: int, path: Path
) -> None:
    """Hold the arrays to the network and to one another."""
    channels, height, width = shape
    images = arrays["crops.npy"].shape[:1]
    expected: dict[str, tuple[int | None, ...]] = {
        "crops.npy": (*images, height, width, channels),
        "original.npy": (*images, classes),
        "graph.npy": (*images, classes),
        "ids.npy": (*images, None),
        "used.npy": (None, 32),
        _LABELS: images,
    }
    for name, array in arrays.items():
        wanted = expected[name]
        fits = [length in (found, None) for length, found in zip(wanted, array.shape)]  # noqa: B905
        if len(wanted) != array.ndim or not all(fits):
            raise _refusal(f"{name} has the shape {array.shape}, {_shape(wanted)} is expected", path)
    if not images or not images[0]:
        raise _refusal("it holds no image", path)


def _shape(lengths: Iterable[int | None]) -> str:
    return f"({', '.join('any' if length is None else str(length) for length in lengths)})"


def _check_values(arrays: Mapping[str, NDArray[Any]], classes: int, path: Path) -> None:
    if not np.isfinite(arrays["original.npy"]).all():
        raise _refusal("original.npy has values that are not finite", path)
    labels = arrays.get(_LABELS)
    if labels is not None and (labels.min() < 0 or labels.max() >= classes):
        raise _refusal(f"{_LABELS} has a class that is not among the {classes}", path)


def _texts(rows: NDArray[np.uint8], path: Path) -> tuple[str, ...]:
    try:
        return tuple(row.tobytes().rstrip(b"\0").decode("utf-8") for row in rows)
    except UnicodeDecodeError:
        raise _refusal("ids.npy has a name that is not UTF-8", path) from None


def _refusal(what: str, path: Path) -> BundleError:
    return BundleError(
        f"{path.name} is damaged: {what}",
        where=path,
        mend="copy the bundle again from where it was made, or export it again",
    )
