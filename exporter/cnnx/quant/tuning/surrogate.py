"""Bayesian linear regression: what is known of coefficients after some noisy sums of them were measured.

C. M. Bishop, Pattern Recognition and Machine Learning (2006), sections 3.3 and 3.5.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_SCALES = (0.25, 0.5, 1.0, 2.0, 4.0)
_MISFITS = (0.0005, 0.0015, 0.005, 0.015)


@dataclass(frozen=True, slots=True)
class Prior:
    """What is assumed of coefficients before anything is measured: independent and normal.

    Attributes:
        mean: (k,) means.
        deviation: (k,) standard deviations.
        group: (k,) index of the group of each; the evidence scales the deviations of a group together.
    """

    mean: Floats
    deviation: Floats
    group: NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Posterior:
    """A normal distribution of coefficients.

    Attributes:
        mean: (k,) means.
        root: (k, k) matrix whose product with its transpose is the covariance.
    """

    mean: Floats
    root: Floats

    def draw(self, generator: np.random.Generator) -> Floats:
        """One draw of the coefficients."""
        return np.asarray(self.mean + self.root @ generator.standard_normal(self.root.shape[1]), np.float64)

    def deviation(self, features: Floats) -> float:
        """Standard deviation of a sum of coefficients."""
        return float(np.linalg.norm(self.root.T @ features))


class Regression:
    """Regression whose prior scales and misfit are those of the largest evidence.

    The misfit is the standard deviation, beside the error of measurement, of what the features do not
    explain: two builds of one graph may differ, and more than two neighbors may act on each other.

    Args:
        prior: prior of the coefficients.
    """

    def __init__(self, prior: Prior) -> None:
        self._prior = prior
        self._scales: tuple[float, ...] = (1.0,) * (1 + int(prior.group.max(initial=0)))
        self.misfit = _MISFITS[1]

    def fit(self, rows: Floats, values: Floats, errors: Floats, *, choose: bool = True) -> Posterior:
        """The coefficients after measurements.

        Args:
            rows: (m, k) features.
            values: (m,) measured sums.
            errors: (m,) standard errors of measurement.
            choose: also choose scales and misfit again.
        """
        left = values - rows @ self._prior.mean
        if choose and len(values) > 1:
            grid = itertools.product(*[_SCALES] * len(self._scales), _MISFITS)
            *scales, self.misfit = max(grid, key=lambda each: self._evidence(rows, left, errors, each))
            self._scales = tuple(scales)
        deviation = self._deviations(self._scales)
        scaled = rows * deviation
        gram = scaled @ scaled.T + np.diag(errors**2 + self.misfit**2)
        factor = np.linalg.cholesky(gram)
        half = np.linalg.solve(factor, scaled)
        mean = self._prior.mean + deviation * (half.T @ np.linalg.solve(factor, left))
        # The root of S - S R' (R S R' + N)^-1 R S, scaled by the prior.
        reduced = np.eye(rows.shape[1]) - half.T @ half
        values_, vectors = np.linalg.eigh(reduced)
        root = deviation[:, None] * (vectors * np.sqrt(np.maximum(values_, 0.0)))
        return Posterior(mean, root)

    def _deviations(self, scales: Sequence[float]) -> Floats:
        return np.asarray(self._prior.deviation * np.asarray(scales)[self._prior.group], np.float64)

    def _evidence(self, rows: Floats, left: Floats, errors: Floats, each: tuple[float, ...]) -> float:
        """Logarithm of the probability of the measurements, up to a constant."""
        scaled = rows * self._deviations(each[:-1])
        gram = scaled @ scaled.T + np.diag(errors**2 + each[-1] ** 2)
        factor = np.linalg.cholesky(gram + 1e-12 * np.eye(len(gram)))
        half = np.linalg.solve(factor, left)
        log_prior = -sum(math.log(scale) ** 2 for scale in each[:-1]) / 4  # scales near 1 need less evidence
        return float(-0.5 * half @ half - np.log(np.diag(factor)).sum()) + log_prior
