"""Runs any number of images through a network whose batch is fixed or bounded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnnx.errors import GraphError, ImageError, UsageError
from cnnx.limits import BATCH_BYTES

Images = NDArray[np.float32] | NDArray[np.uint8]
"""A batch at a network's input: normalized floats (N, C, H, W), or pixels where the graph normalizes them."""
Outputs = dict[str, NDArray[np.float32]]


def check_images(images: Images, shape: Sequence[object], dtype: np.dtype[Any]) -> None:
    """Reject images that do not fit the input.

    Args:
        images: a batch.
        shape: shape of the input, in the same order; a size that is not a positive integer is not fixed.
        dtype: type of the input. Floats fit any float type.

    Raises:
        ImageError: wrong rank, no images, a different size, or pixels in place of floats, or the reverse.
    """
    fits = images.ndim == len(shape) and all(
        not isinstance(want, int) or want < 1 or have == want
        for have, want in zip(images.shape[1:], shape[1:], strict=False)
    )
    if not fits or len(images) == 0:
        wanted = ", ".join(str(size) for size in ("N", *shape[1:]))
        raise ImageError(
            f"images of shape {images.shape} do not fit the input ({wanted})",
            hint="preprocess them with the recipe that the network was exported with",
        )
    if (images.dtype == np.uint8) != (dtype == np.uint8):
        wanted, hint = (
            ("pixels (uint8)", "give pixels") if dtype == np.uint8 else ("floats", "normalize them")
        )
        raise ImageError(f"the input takes {wanted}, and the images are {images.dtype}", hint=hint)


def run_in_batches(run: Callable[[Images], Outputs], images: Images, *, size: int, least: int) -> Outputs:
    """Run N images in slices of `size` and concatenate the outputs.

    The outputs of a single full slice are returned unchanged. With several slices, or a padded one, every
    output must have the batch axis first.

    Args:
        run: runs one slice.
        images: the batch.
        size: maximum number of images per slice.
        least: minimum number of images per slice, equal to `size` for a fixed batch. A smaller slice is
            padded with copies of its last image, whose outputs are dropped. Padding with real data avoids
            overflows and slow runs.

    Raises:
        UsageError: an output that must be joined or cut has no batch axis.
        GraphError: the images of a batch would take more than `BATCH_BYTES`.
    """
    if least <= len(images) <= size:
        return run(images)
    if least * images[:1].nbytes > BATCH_BYTES:
        raise GraphError(
            f"the network takes {least:,} images at a time, which need "
            f"{least * images[:1].nbytes / 2**30:.1f} GiB",
            hint="export it again with a smaller batch, or with a range such as --batch 1..8",
        )
    parts = []
    for start in range(0, len(images), size):
        part = images[start : start + size]
        missing = max(0, least - len(part))
        full = np.concatenate([part, np.repeat(part[-1:], missing, axis=0)]) if missing else part
        parts.append(_cut(run(full), ran=len(full), wanted=len(part)))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _cut(outputs: Mapping[str, NDArray[np.float32]], *, ran: int, wanted: int) -> Outputs:
    for name, value in outputs.items():
        if value.ndim == 0 or len(value) != ran:
            raise UsageError(
                f"the output {name!r} of shape {value.shape} has no batch axis, so slices of {ran} images "
                "cannot be joined",
                hint=f"pass exactly {ran} images per run",
            )
    return {name: value[:wanted] for name, value in outputs.items()}
