"""reference.npz, the self-test: images with the logits of the original and of the bundle's graph.

The format is simple enough for programs without NumPy: an uncompressed ZIP of consecutive members. Each
member has a local header (no flags, sizes included, 30 bytes and the name), followed by a .npy file of
version 1.0 in C order. The members are, in this order:

    crops.npy     |u1  (N, H, W, C)      pixels before normalization
    original.npy  <f4  (N, classes)      logits of the original
    graph.npy     <f4  (N, classes)      logits of model.onnx, run with ONNX Runtime at export
    ids.npy       |u1  (N, width)        image names in UTF-8, padded with zeros
    used.npy      |u1  (M, 32)           SHA-256 of calibration images, which must not be used for validation
    labels.npy    <i8  (N,)              true classes, if known
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
"""Maximum size of the self-test images in bytes."""
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
    """Images and expected logits of the self-test.

    Attributes:
        crops: (N, H, W, C) uint8 pixels.
        original: (N, classes) logits of the original.
        graph: (N, classes) logits of the bundle's graph at export.
        labels: (N,) true classes, or None.
        ids: image names.
        used: hexadecimal SHA-256 of the images used to set ranges or to choose a method.
    """

    crops: NDArray[np.uint8]
    original: NDArray[np.float32]
    graph: NDArray[np.float32]
    labels: NDArray[np.int64] | None
    ids: tuple[str, ...]
    used: tuple[str, ...] = ()

    def save(self, path: Path) -> None:
        """Write the file; equal content gives equal bytes."""
        names = [name.encode("utf-8", "backslashreplace") for name in self.ids]
        arrays: dict[str, NDArray[Any]] = {
            "crops.npy": self.crops,
            "original.npy": self.original,
            "graph.npy": self.graph,
            "ids.npy": _rows(names, max(1, *map(len, names))),
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
    """Indices of the validation images for the self-test: evenly spaced, as many as its size allows."""
    count = min(images, SELF_TEST_IMAGES, max(1, REFERENCE_BYTES // bytes_each))
    return np.arange(count) * images // count


def read_reference(path: Path, *, shape: tuple[int, int, int], classes: int) -> Reference:
    """Read a self-test.

    Args:
        path: file whose hash has been checked.
        shape: channels, height and width of the network's input.
        classes: number of logits.

    Raises:
        BundleError: the file is not in the format of this module; the message names the member.
    """
    size = path.stat().st_size
    if size > _FILE_BYTES:
        raise _refusal(f"it has {size:,} bytes; the maximum is {_FILE_BYTES:,}", path)
    data = path.read_bytes()
    if _OLD_MEMBER in data[-_TAIL:]:
        raise BundleError(
            "reference.npz was written by cnnx 0.1 and does not have the logits of the bundle's graph",
            where=path,
            hint="export the bundle again with this version of cnnx",
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
    """Name and content of each member, according to the local headers."""
    at, seen = 0, set()
    while data[at : at + 4] == b"PK\3\4":
        if at + _LOCAL.size > len(data):
            raise _refusal("it ends inside a header", path)
        _, _, flags, method, _, _, crc, packed, size, length, extra = _LOCAL.unpack_from(data, at)
        named = at + _LOCAL.size
        if named + length > len(data):
            raise _refusal("it ends inside a header", path)
        name = data[named : named + length].decode("ascii", "backslashreplace")
        content = memoryview(data)[named + length + extra :][:size]
        at = named + length + extra + size
        if flags or method or packed != size:
            raise _refusal(f"{name} is compressed or streamed, which is not supported", path)
        if name in seen:
            raise _refusal(f"{name} is duplicated", path)
        if len(content) != size:
            raise _refusal(f"{name} is truncated", path)
        if zlib.crc32(content) != crc:
            raise _refusal(f"{name} has a wrong checksum", path)
        seen.add(name)
        yield name, content
    if data[at : at + 4] != b"PK\1\2":
        raise _refusal("it is not a ZIP file, or it is truncated", path)


def _array(name: str, content: memoryview, path: Path) -> NDArray[Any]:
    """Array of a member; its size is checked against its shape before it is read."""
    if name not in _DTYPES:
        raise _refusal(f"{name!r} is not a known member", path)
    head = bytes(content[:10])
    if len(head) < 10 or head[:8] != b"\x93NUMPY\1\0":
        raise _refusal(f"{name} is not a .npy file of version 1.0", path)
    start = 10 + int.from_bytes(head[8:], "little")
    header = _HEADER.fullmatch(bytes(content[10:start]))
    dtype = np.dtype(_DTYPES[name])
    if header is None or header[1].decode("latin-1") != dtype.str:
        raise _refusal(f"{name} should be a plain array of {dtype} ({dtype.str})", path)
    shape = tuple(int(length) for length in header[2].replace(b" ", b"").split(b",") if length)
    # NumPy refuses a huge length even if another length is zero.
    if math.prod(shape) * dtype.itemsize != len(content) - start or max(shape, default=0) > _FILE_BYTES:
        raise _refusal(f"{name} does not have the number of values of its shape {shape}", path)
    return np.frombuffer(content[start:], dtype).reshape(shape)


def _check_shapes(
    arrays: Mapping[str, NDArray[Any]], shape: tuple[int, int, int], classes: int, path: Path
) -> None:
    """Check the shapes of the arrays against the network and against each other."""
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
            raise _refusal(f"{name} has the shape {array.shape}, not {_shape(wanted)}", path)
    if not images or not images[0]:
        raise _refusal("it contains no images", path)


def _shape(lengths: Iterable[int | None]) -> str:
    return f"({', '.join('any' if length is None else str(length) for length in lengths)})"


def _check_values(arrays: Mapping[str, NDArray[Any]], classes: int, path: Path) -> None:
    if not np.isfinite(arrays["original.npy"]).all():
        raise _refusal("original.npy has non-finite values", path)
    labels = arrays.get(_LABELS)
    if labels is not None and (labels.min() < 0 or labels.max() >= classes):
        raise _refusal(f"{_LABELS} has a class outside 0..{classes - 1}", path)


def _texts(rows: NDArray[np.uint8], path: Path) -> tuple[str, ...]:
    try:
        return tuple(row.tobytes().rstrip(b"\0").decode("utf-8") for row in rows)
    except UnicodeDecodeError:
        raise _refusal("ids.npy has a name that is not UTF-8", path) from None


def _refusal(what: str, path: Path) -> BundleError:
    return BundleError(
        f"{path.name} is damaged: {what}",
        where=path,
        hint="copy the bundle again from its source, or export it again",
    )
