"""Reads the file of an observation. It may come from elsewhere in a bundle, so nothing in it is trusted."""

from __future__ import annotations

import json
import math
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnnx.errors import BundleError
from cnnx.limits import STATISTICS_BYTES

# RuntimeError: an encrypted or otherwise packed archive, or JSON that is nested too deeply.
_DAMAGE = (
    OSError, ValueError, KeyError, IndexError, TypeError, EOFError, AttributeError, RuntimeError,
    SyntaxError, tokenize.TokenError,  # from NumPy, which reads the header of an array as Python
)  # fmt: skip
# The arrays of a saved observation; histograms only if tensors were sampled.
_SAVED: Mapping[str, Any] = {
    "layout": np.uint8,
    "images": np.int64,
    "highest": np.float32,
    "bad": np.int64,
    "sums": np.int64,
    "histogram_counts": np.int64,
    "histogram_totals": np.int64,
}
_NOT_NEGATIVE = ("images", "highest", "bad")

Slices = dict[str, slice]
Arrays = dict[str, NDArray[Any]]


def read_saved(file: Path) -> tuple[Arrays, Slices, Slices, list[str]]:
    """The arrays of a saved observation, the slices of its watched and of its sampled tensors, and those of
    the sampled ones that are never negative.

    Raises:
        BundleError: the file is damaged, or another than `Observation.save` writes.
    """
    try:
        arrays = _arrays(file)
        return arrays, *_layout(arrays)
    except (*_DAMAGE, zipfile.BadZipFile, zlib.error) as error:
        what = f"the saved statistics cannot be read: {error}"
        raise BundleError(what, where=file, hint="calibrate again, or copy the bundle again") from None


def _arrays(file: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a saved observation. None takes more memory than the file states, or than is sensible.

    Raises:
        ValueError: an array is not one of `_SAVED`, or has not the size that its header states.
    """
    arrays: dict[str, NDArray[Any]] = {}
    with zipfile.ZipFile(file) as archive:
        if sum(each.file_size for each in archive.infolist()) > STATISTICS_BYTES:
            raise ValueError(f"they have more than {STATISTICS_BYTES:,} bytes")
        for member in archive.infolist():
            name = member.filename.removesuffix(".npy")
            with archive.open(member) as stream:
                np.lib.format.read_magic(stream)
                shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
                if (
                    dtype != _SAVED[name]
                    or math.prod(shape) * dtype.itemsize != member.file_size - stream.tell()
                ):
                    raise ValueError(f"the array {name} has another type or size")
                arrays[name] = np.frombuffer(stream.read(), dtype).reshape(shape).copy()
    if not np.isfinite(arrays["highest"]).all() or any((arrays[key] < 0).any() for key in _NOT_NEGATIVE):
        raise ValueError("they have values that no network gives")
    return arrays


def _layout(arrays: Mapping[str, NDArray[Any]]) -> tuple[Slices, Slices, list[str]]:
    """The slices of watched and of sampled tensors and the names of one-sided ones, checked.

    Raises:
        ValueError: they do not fit.
    """
    kept = json.loads(arrays["layout"].tobytes())
    channels, samples = ({name: slice(*ends) for name, ends in slices.items()} for slices in kept[:2])
    one_sided = list(kept[2]) if len(kept) > 2 else []  # files of 0.1.0 do not have them
    length = max((each.stop for each in channels.values()), default=0)
    fits = (
        all(arrays[key].shape == (length,) for key in ("highest", "bad", "sums"))
        and all(0 <= each.start <= each.stop for each in (*channels.values(), *samples.values()))
        and samples.keys() <= channels.keys()
        and samples.keys() >= set(one_sided)
        and all(len(arrays[f"histogram_{key}"]) == len(samples) for key in ("counts", "totals") if samples)
    )
    if not fits or arrays["images"].shape != ():
        raise ValueError("their layout does not fit the arrays")
    return channels, samples, one_sided
