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
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnnx.errors import BundleError, GraphError, ImageError
from cnnx.quant.histogram import TensorStatistics

Watch = Callable[[NDArray[np.float32]], tuple[NDArray[np.float32], NDArray[np.float32]]]
"""Runs one batch (N, C, H, W); gives the maxima of all channels, and all sampled values in a row."""

_AT_ONCE = 16  # samples wait for so many batches: adding to 40,960 bins takes longer than 4,096 values do
_DAMAGE = (OSError, ValueError, KeyError, IndexError, TypeError, EOFError)


class Observation:
    """Largest |x| of every channel of every watched tensor, and a histogram of each sampled one.

    Args:
        channels: watched tensor -> places of its channels among the maxima; tensors may share places.
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
        self._histograms = {name: TensorStatistics() for name in samples}
        self._pending: list[NDArray[np.float32]] = []

    def take(self, maxima: NDArray[np.float32], sample: NDArray[np.float32], images: int) -> None:
        """Take in one batch.

        Raises:
            GraphError: these are not as many numbers as were announced.
        """
        expected = max((place.stop for place in self._samples.values()), default=0)
        if maxima.shape != self._highest.shape or sample.shape != (expected,):
            raise GraphError(
                f"the observed graph gives maxima of shape {maxima.shape} and a sample of shape "
                f"{sample.shape}, {self._highest.shape} and {(expected,)} were announced"
            )
        finite = np.isfinite(maxima)
        self._bad += ~finite
        np.maximum(self._highest, np.where(finite, maxima, 0), out=self._highest)
        self.images += images
        self._pending.append(sample)
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
        """Add what another saw of the same network. Any split of the pictures gives the same."""
        self._count()
        other._count()
        self.images += other.images
        self._bad += other._bad
        np.maximum(self._highest, other._highest, out=self._highest)
        for name, histogram in self._histograms.items():
            histogram.merge(other._histograms[name])

    def channel_maxima(self, tensor: str) -> NDArray[np.float32]:
        """Largest finite |x| of each channel."""
        return self._highest[self._channels[tensor]]

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
            if arrays["highest"].shape != made._highest.shape or arrays["bad"].shape != made._bad.shape:
                raise ValueError("the maxima are not as many as the channels")
            made._highest, made._bad, made.images = arrays["highest"], arrays["bad"], int(arrays["images"])
            for number, name in enumerate(made._samples):
                of_one = {key: arrays[f"histogram_{key}"][number] for key in ("counts", "totals")}
                made._histograms[name] = TensorStatistics.from_arrays(of_one)
        except (*_DAMAGE, zipfile.BadZipFile, zlib.error) as error:
            what = f"these statistics cannot be read: {error}"
            raise BundleError(what, where=file, mend="calibrate again") from None
        return made


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
        maxima, sample = watch(batch)
        observation.take(maxima, sample, len(batch))
        progress(observation.images)
    if observation.images == 0:
        raise ImageError("the calibration set is empty", mend="give at least one picture; 512 is usual")
