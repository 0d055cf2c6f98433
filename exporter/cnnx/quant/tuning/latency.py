"""The model of latency: what Q/DQ at sites, and at both ends of links, add to FP16's time."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from cnnx.quant.tuning.device import Tried
from cnnx.quant.tuning.problem import Floats, Problem
from cnnx.quant.tuning.surrogate import Prior, Regression

# Before anything is measured: INT8 saves this share of the time of a site, and is as uncertain.
_SAVES, _UNSURE = 0.25, 0.35
# What a link adds or saves, as a share of the time of a typical site.
_LINKED = 0.3
# Smallest standard deviation of a coefficient, as a share of FP16's time.
_SMALLEST = 0.002


class LatencyModel:
    """Coefficients of sites and links, in shares of FP16's time.

    Args:
        problem: sites and links.
    """

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        shares, typical = problem.shares(), 1.0 / max(len(problem.sites), 1)
        sites = np.maximum(_UNSURE * (0.5 * shares + 0.5 * typical), _SMALLEST)
        links = np.full(problem.link_kinds, max(_LINKED * typical, _SMALLEST))
        mean = np.concatenate([-_SAVES * shares, np.zeros(problem.link_kinds)])
        group = np.repeat([0, 1], [problem.kinds, problem.link_kinds])
        self._regression = Regression(Prior(mean, np.concatenate([sites, links]), group))
        self._posterior = self._regression.fit(*self._arrays(()))
        self._fitted: tuple[int, bool] = (-1, False)

    def fit(self, measured: Sequence[Tried], *, choose: bool = True) -> None:
        """Learn from all measurements so far; `choose`: also choose scales and misfit again."""
        state = (len(measured), choose)
        if self._fitted in (state, (len(measured), True)):
            return
        self._posterior = self._regression.fit(*self._arrays(measured), choose=choose)
        self._fitted = state

    def mean(self) -> tuple[Floats, Floats]:
        """Expected coefficients of sites, (n,), and of pairs, (n, n)."""
        return self._problem.per_site(self._posterior.mean)

    def draw(self, generator: np.random.Generator) -> tuple[Floats, Floats]:
        """A draw of the coefficients of sites, (n,), and of pairs, (n, n)."""
        return self._problem.per_site(self._posterior.draw(generator))

    def estimate(self, tried: Tried) -> float:
        """Time over FP16's, minus 1, of a measured placement: its measurement and the model, weighted."""
        assert tried.time is not None
        features = self._problem.features(self._problem.placement(tried.placement))
        predicted = float(features @ self._posterior.mean)
        of_model = self._posterior.deviation(features) ** 2 + self._regression.misfit**2
        of_time = max(tried.time.error, 1e-6) ** 2
        measured = math.expm1(tried.time.log_ratio)
        return (measured * of_model + predicted * of_time) / (of_model + of_time)

    def _arrays(self, measured: Sequence[Tried]) -> tuple[Floats, Floats, Floats]:
        """Features (m, k), values (m,) and errors (m,)."""
        known = [each for each in measured if each.placement and each.time is not None]
        problem = self._problem
        rows = np.array([problem.features(problem.placement(each.placement)) for each in known])
        times = [each.time for each in known if each.time is not None]
        values = np.array([math.expm1(time.log_ratio) for time in times])
        errors = np.array([time.ratio * time.error for time in times])
        return rows.reshape(len(known), problem.kinds + problem.link_kinds), values, errors
