"""What the calibration pictures showed of a network: of fixed size, however many pictures pass.

One pass over the pictures serves every method of `cnnx.quant.methods`. Two halves merged are exactly the
whole, and what was seen so far can be saved and taken up again.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cnnx.errors import BundleError, GraphError, ImageError
from cnnx.quant.histogram import TensorStatistics


class Seen(NamedTuple):
    """What one batch showed: largest |x| and mean of every watched channel, all sampled values in a row."""

    maxima: NDArray[np.float32]
    means: NDArray[np.float32]
    sample: NDArray[np.float32]


Watch = Callable[[NDArray[np.float32]], Seen]
"""Runs one batch (N, C, H, W)."""

# Means are added up in steps of 2**-28, as integers: their sum is then the same in any order. What is beyond
# FP16 has no INT8 with FP16 scales, and no mean; so 200,000 pictures fit.
_STEPS, _LARGEST = 2.0**28, 65504.0
_AT_ONCE = 16  # samples wait for so many batches: adding to 40,960 bins takes longer than 4,096 values do
_DAMAGE = (OSError, ValueError, KeyError, IndexError, TypeError, EOFError)


class Observation:
    """Largest |x| and mean of every channel of every watched tensor, and a histogram of each sampled one.

    Args:
        channels: watched tensor -> places of its channels among maxima and means; tensors may share places.
        samples: sampled tensor -> places of its values in the sample. Each is watched, too.

    Attributes:
        images: pictures seen.
    """

    def __init__(self, channels: Mapping[str, slice], samples: Mapping[str, slice]) -> None:
        self.images = 0
        self._channels = dict(channels)
        self._samples = dict(samples)
        places = max((place.stop for place in channels.values()), default=0)
        self._highest = np.zeros(places, np.float32)
        self._bad = np.zeros(places, np.int64)
        self._sums = np.zeros(places, np.int64)
        self._histograms = {name: TensorStatistics() for name in samples}
        self._pending: list[NDArray[np.float32]] = []

    def take(self, seen: Seen, images: int) -> None:
        """Take in one batch.

        Raises:
            GraphError: these are not as many numbers as were announced.
        """
        expected = max((place.stop for place in self._samples.values()), default=0)
        announced = (self._highest.shape, self._highest.shape, (expected,))
        if (shapes := tuple(values.shape for values in seen)) != announced:
            raise GraphError(
                f"the observed graph gives maxima, means and a sample of shapes {shapes}, {announced} were "
                "announced"
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
        """Put the samples that wait into their histograms."""
        if self._pending:
            waiting = np.stack(self._pending)
            self._pending.clear()
            for name, place in self._samples.items():
                self._histograms[name].update(waiting[:, place])

    def merge(self, other: Observation) -> None:
        """Add what another saw of the same network. Any split of the pictures gives the same.

        Raises:
            GraphError: it watched other tensors.
        """
        if (self._channels, self._samples) != (other._channels, other._samples):
            raise GraphError("statistics of different networks cannot be merged")
        self._count()
        other._count()
        self.images += other.images
        self._bad += other._bad
        self._sums += other._sums
        np.maximum(self._highest, other._highest, out=self._highest)
        for name, histogram in self._histograms.items():
            histogram.merge(other._histograms[name])

    def channel_maxima(self, tensor: str) -> NDArray[np.float32]:
        """Largest finite |x| of each channel."""
        return self._highest[self._channels[tensor]]

    def means(self, tensor: str) -> NDArray[np.float32] | None:
        """Mean of each channel; None where values were not finite, or beyond FP16."""
        place = self._channels[tensor]
        if self._bad[place].any() or self._highest[place].max(initial=0) > _LARGEST or not self.images:
            return None
        return (self._sums[place] / (_STEPS * self.images)).astype(np.float32)

    def maxima(self) -> dict[str, float]:
        """Largest finite |x| of every watched tensor."""
        return {name: float(self._highest[place].max(initial=0)) for name, place in self._channels.items()}

    def nonfinite(self) -> dict[str, int]:
        """For tensors that had NaN or infinite values, in how many batches."""
        counts = {name: int(self._bad[place].max(initial=0)) for name, place in self._channels.items()}
        return {name: count for name, count in counts.items() if count}

    def statistics(self, tensor: str) -> TensorStatistics:
        """Of a sampled tensor, with its exact maximum."""
        self._count()
        histogram = self._histograms[tensor]
        histogram.tell_maximum(float(self._highest[self._channels[tensor]].max(initial=0)))
        return histogram

    @property
    def watched(self) -> tuple[str, ...]:
        """Tensors that have maxima."""
        return tuple(self._channels)

    @property
    def sampled(self) -> tuple[str, ...]:
        """Tensors that have a histogram."""
        return tuple(self._samples)

    def save(self, file: Path) -> None:
        """Write all that was seen, to be read with `load`."""
        self._count()
        layout = [
            {name: [place.start, place.stop] for name, place in places.items()}
            for places in (self._channels, self._samples)
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
        """Read what `save` wrote.

        Raises:
            BundleError: it is damaged.
        """
        try:
            with np.load(file) as saved:
                arrays: dict[str, NDArray[Any]] = dict(saved)
            layout = json.loads(arrays["layout"].tobytes())
            made = cls(*({name: slice(*place) for name, place in places.items()} for places in layout))
            made._highest, made._bad, made._sums = (
                _of_shape(arrays[key], made._highest.shape) for key in ("highest", "bad", "sums")
            )
            made.images = int(arrays["images"])
            for number, name in enumerate(made._samples):
                of_one = {key: arrays[f"histogram_{key}"][number] for key in ("counts", "totals")}
                made._histograms[name] = TensorStatistics.from_arrays(of_one)
        except (*_DAMAGE, zipfile.BadZipFile, zlib.error) as error:
            what = f"these statistics cannot be read: {error}"
            raise BundleError(what, where=file, mend="calibrate again") from None
        return made


def _of_shape(values: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    if values.shape != shape:
        raise ValueError(f"figures of shape {values.shape} for channels of shape {shape}")
    return values


def observe(
    watch: Watch,
    batches: Iterable[NDArray[np.float32]],
    observation: Observation,
    *,
    progress: Callable[[int], None],
) -> None:
    """Run every batch once.

    Args:
        watch: see `Watch`.
        batches: pictures, normalised, (N, C, H, W) each. One batch is held at a time.
        observation: what was seen before, if anything; it takes in the rest.
        progress: called after each batch with the number of pictures seen in all.

    NaN and infinite values stop nothing: they are counted, and their tensor gets no range.

    Raises:
        GraphError: the network gives other things than announced.
        ImageError: there was no picture.
    """
    for batch in batches:
        observation.take(watch(batch), len(batch))
        progress(observation.images)
    if observation.images == 0:
        raise ImageError("the calibration set is empty", mend="give at least one picture; 512 is usual")
