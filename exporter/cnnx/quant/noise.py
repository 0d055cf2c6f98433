"""Signal-to-noise ratio of tensors along a network, and the first tensor where it falls."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# A tensor falls if its noise is this much above what its graph has: 2 dB. Two runs of a graph differ by
# less, as the same values are rounded. Noise below the second figure (45 dB) is that of FP16 arithmetic,
# which ONNX Runtime's CPU provider does in FP32.
_WORSE, _ROUNDING = 10**0.2, 10**-4.5
# A tensor behind one that falls confirms it by 1 dB more noise than its graph has, as some averages away.
_CONFIRMS = 10**0.1
# If all but a quarter of the noise is a factor, the scale of the tensor is wrong.
_LEFT = 0.25


@dataclass(slots=True)
class Noise:
    """Running sums of a tensor over images, compared with a reference.

    Attributes:
        signal: sum of the squared reference.
        noise: sum of the squared differences; infinite if a value is not finite.
        cross: sum of products of reference and value.
        energy: sum of the squared values.
    """

    signal: float = 0.0
    noise: float = 0.0
    cross: float = 0.0
    energy: float = 0.0

    def add(self, reference: NDArray[Any], found: NDArray[Any]) -> None:
        """Add values of the same number of elements, in any float type."""
        expected, values = (each.astype(np.float64).reshape(-1) for each in (reference, found))
        self.signal += float(expected @ expected)
        if not np.isfinite(values).all():
            self.noise = self.energy = math.inf
            return
        difference = values - expected
        self.noise += float(difference @ difference)
        self.cross += float(expected @ values)
        self.energy += float(values @ values)

    @property
    def ratio(self) -> float:
        """Noise as a share of the signal; infinite if values are not finite, or without a signal."""
        return self.noise / self.signal if self.signal else math.inf if self.noise else 0.0

    @property
    def db(self) -> float | None:
        """Signal-to-noise ratio in dB; None if there is no noise, minus infinity if nothing is finite."""
        return decibels(self.ratio)

    @property
    def gain(self) -> float | None:
        """The factor that values differ by from the reference, if that is most of the noise; else None."""
        if not (math.isfinite(self.noise) and self.signal and self.noise):
            return None
        factor = self.cross / self.signal
        left = self.energy - factor * self.cross
        return factor if left < _LEFT * min(1.0, factor**2) * self.noise else None


def decibels(ratio: float) -> float | None:
    """The dB of a signal whose noise is this share of it; None without noise."""
    if ratio == 0:
        return None
    return -math.inf if ratio == math.inf else -10 * math.log10(ratio)


def fake_quantized(values: NDArray[np.float32], scale: float) -> NDArray[np.float64]:
    """Values after INT8 and back, as QuantizeLinear and DequantizeLinear compute them."""
    return np.clip(np.rint(values.astype(np.float64) / scale), -128, 127) * scale


@dataclass(frozen=True, slots=True)
class Compared:
    """A tensor that was compared.

    Attributes:
        before: the nearest tensors before it that were compared.
        ratio: its noise, as a share of its signal.
        expected: the noise that the graph gives it.
    """

    before: Sequence[str]
    ratio: float
    expected: float

    @property
    def is_worse(self) -> bool:
        """Whether it has clearly more noise than the graph gives it."""
        return self.ratio > _WORSE * self.expected + _ROUNDING


def falls(compared: Mapping[str, Compared]) -> tuple[str, ...]:
    """Tensors that fall, in order: those with clearly more noise than the graph gives them, which stays.

    A tensor that no tensor after it confirms was taken for another one: noise does not go away.

    Args:
        compared: tensor -> what was measured, in graph order.
    """
    after: dict[str, list[str]] = {name: [] for name in compared}
    for name, each in compared.items():
        for other in each.before:
            after[other].append(name)
    confirm = {name for name, each in compared.items() if each.ratio > _CONFIRMS * each.expected}
    return tuple(
        name
        for name, each in compared.items()
        if each.is_worse and (not after[name] or confirm.intersection(after[name]))
    )


def own_noise(compared: Mapping[str, Compared]) -> dict[str, float]:
    """Tensor -> the share of its signal that is noise the graph adds right before it."""
    return {
        name: max(0.0, each.expected - max((compared[other].expected for other in each.before), default=0.0))
        for name, each in compared.items()
    }
