"""Activation statistics of a network on calibration images, in constant memory for any number of images.

One pass over the images serves every method of `cnnx.quant.methods`. Merging two halves gives exactly the
statistics of the whole. Statistics can be saved and loaded again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cnnx.errors import GraphError, ImageError
from cnnx.quant.histogram import TensorStatistics
from cnnx.quant.saved import read_saved


class Seen(NamedTuple):
    """Statistics of one batch: largest |x| and mean of every watched channel, and the sampled values."""

    maxima: NDArray[np.float32]
    means: NDArray[np.float32]
    sample: NDArray[np.float32]


Watch = Callable[[NDArray[np.float32]], Seen]
"""Runs one batch (N, C, H, W)."""

# Means are summed as integers in steps of 2**-28, so that the sum does not depend on the order. Values beyond
# FP16 cannot be quantized with FP16 scales and have no mean, so up to 200,000 images do not overflow.
_STEPS, _LARGEST = 2.0**28, 65504.0
_AT_ONCE = 16  # batches per histogram update: updating 40,960 bins takes longer than counting 4,096 values


class Observation:
    """Largest |x| and mean of each channel of the watched tensors, and histograms of the sampled tensors.

    Args:
        channels: watched tensor -> slice of its channels in maxima and means; tensors may share a slice.
        samples: sampled tensor -> slice of its values in the sample. Sampled tensors are also watched.
        one_sided: sampled tensors that are never negative.

    Attributes:
        images: number of images so far.
        one_sided: sampled tensors that are never negative.
    """

    def __init__(
        self,
        channels: Mapping[str, slice],
        samples: Mapping[str, slice],
        one_sided: Collection[str] = (),
    ) -> None:
        self.images = 0
        self.one_sided = frozenset(one_sided)
        self._channels = dict(channels)
        self._samples = dict(samples)
        length = max((each.stop for each in channels.values()), default=0)
        self._highest = np.zeros(length, np.float32)
        self._bad = np.zeros(length, np.int64)
        self._sums = np.zeros(length, np.int64)
        self._histograms = {name: TensorStatistics() for name in samples}
        self._pending: list[NDArray[np.float32]] = []

    def take(self, seen: Seen, images: int) -> None:
        """Add the statistics of one batch.

        Raises:
            GraphError: the arrays do not have the expected shapes.
        """
        sampled = max((each.stop for each in self._samples.values()), default=0)
        expected = (self._highest.shape, self._highest.shape, (sampled,))
        if (shapes := tuple(values.shape for values in seen)) != expected:
            raise GraphError(
                f"the observed graph gives maxima, means and a sample of shapes {shapes}, not {expected}",
                hint="export the graph again: its outputs do not match the tensors to observe",
            )
        finite = np.isfinite(seen.maxima)
        self._bad += ~finite
        np.maximum(self._highest, np.where(finite, seen.maxima, 0), out=self._highest)
        bounded = np.clip(np.where(finite, seen.means, 0), -_LARGEST, _LARGEST)
        self._sums += np.rint(bounded.astype(np.float64) * (_STEPS * images)).astype(np.int64)
        self.images += images
        self._pending.append(seen.sample)
        if len(self._pending) == _AT_ONCE:
            self._count()

    def _count(self) -> None:
        """Add the pending samples to their histograms."""
        if self._pending:
            pending = np.stack(self._pending)
            self._pending.clear()
            for name, columns in self._samples.items():
                self._histograms[name].update(pending[:, columns])

    def merge(self, other: Observation) -> None:
        """Add other statistics of the same network. Any split of the images gives the same result.

        Raises:
            GraphError: the other statistics are of different tensors.
        """
        tensors, others = ((each._channels, each._samples, each.one_sided) for each in (self, other))
        if tensors != others:
            raise GraphError(
                "statistics of different networks cannot be merged",
                hint="observe all images with the same graph",
            )
        self._count()
        other._count()
        self.images += other.images
        self._bad += other._bad
        self._sums += other._sums
        np.maximum(self._highest, other._highest, out=self._highest)
        for name, histogram in self._histograms.items():
            histogram.merge(other._histograms[name])

    def channel_maxima(self, tensor: str) -> NDArray[np.float32]:
        """Return the largest finite |x| of each channel."""
        return self._highest[self._channels[tensor]]

    def means(self, tensor: str) -> NDArray[np.float32] | None:
        """Return the mean of each channel, or None if values were not finite or beyond FP16."""
        columns = self._channels[tensor]
        if self._bad[columns].any() or self._highest[columns].max(initial=0) > _LARGEST or not self.images:
            return None
        return (self._sums[columns] / (_STEPS * self.images)).astype(np.float32)

    def maxima(self) -> dict[str, float]:
        """Return the largest finite |x| of every watched tensor."""
        return {
            name: float(self._highest[columns].max(initial=0)) for name, columns in self._channels.items()
        }

    def nonfinite(self) -> dict[str, int]:
        """Return the number of batches with NaN or infinite values, for tensors that had any."""
        counts = {name: int(self._bad[columns].max(initial=0)) for name, columns in self._channels.items()}
        return {name: count for name, count in counts.items() if count}

    def statistics(self, tensor: str) -> TensorStatistics:
        """Return the statistics of a sampled tensor, with its exact maximum."""
        self._count()
        histogram = self._histograms[tensor]
        histogram.tell_maximum(float(self._highest[self._channels[tensor]].max(initial=0)))
        return histogram

    @property
    def watched(self) -> tuple[str, ...]:
        """Names of the tensors with maxima."""
        return tuple(self._channels)

    @property
    def sampled(self) -> tuple[str, ...]:
        """Names of the tensors with a histogram."""
        return tuple(self._samples)

    def save(self, file: Path) -> None:
        """Write the statistics to a file, to be read with `load`."""
        self._count()
        layout = [
            *(
                {name: [columns.start, columns.stop] for name, columns in slices.items()}
                for slices in (self._channels, self._samples)
            ),
            sorted(self.one_sided),
        ]
        histograms = [histogram.to_arrays() for histogram in self._histograms.values()]
        keys = histograms[0] if histograms else {}
        stacked: dict[str, Any] = {
            f"histogram_{key}": np.stack([each[key] for each in histograms]) for key in keys
        }
        with file.open("wb") as stream:
            np.savez_compressed(
                stream,
                layout=np.frombuffer(json.dumps(layout).encode(), np.uint8),
                images=np.array(self.images, np.int64),
                highest=self._highest,
                bad=self._bad,
                sums=self._sums,
                **stacked,
            )

    @classmethod
    def load(cls, file: Path) -> Observation:
        """Read a file written by `save`.

        Raises:
            BundleError: the file is damaged.
        """
        arrays, channels, samples, one_sided = read_saved(file)
        made = cls(channels, samples, one_sided)
        made._highest, made._bad, made._sums = (arrays[key] for key in ("highest", "bad", "sums"))
        made.images = int(arrays["images"])
        for number, name in enumerate(samples):
            of_one = {key: arrays[f"histogram_{key}"][number] for key in ("counts", "totals")}
            made._histograms[name] = TensorStatistics.from_arrays(of_one)
        return made


def observe(
    watch: Watch,
    batches: Iterable[NDArray[np.float32]],
    observation: Observation,
    *,
    progress: Callable[[int], None],
) -> None:
    """Run every batch once and add its statistics to an observation.

    NaN and infinite values are counted, and their tensor gets no range.

    Args:
        watch: function that runs one batch; see `Watch`.
        batches: normalized images, (N, C, H, W) each. Only one batch is in memory at a time.
        observation: statistics so far, to which the batches are added.
        progress: called after each batch with the total number of images.

    Raises:
        GraphError: the statistics of a batch do not have the expected shapes.
        ImageError: there are no images.
    """
    for batch in batches:
        observation.take(watch(batch), len(batch))
        progress(observation.images)
    if observation.images == 0:
        raise ImageError(
            "the calibration set is empty",
            hint="give at least one image with --calibration-data; 512 is usual",
        )
