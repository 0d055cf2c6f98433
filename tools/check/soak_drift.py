"""Simulate how often the interval of a soak's drift holds the truth. Prints the table of docs/measuring.md.

python -m tools.check.soak_drift [--series N]

A series has the medians of 5 s windows: a first-order autoregression with a standard deviation of 0.5 %, in
which a share of the windows is disturbed and takes 10 % longer. Columns are the shares of the series whose
interval holds the true drift, without a drift and with one of 3 %, and in which a drift of 3 % is found.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np
from numpy.typing import NDArray

from cnnx.measure.load.trend import Trend, trend_of

_WINDOW_S, _NOISE, _DRIFT, _LONGER = 5.0, 0.005, 0.03, 1.1
_ROWS = tuple(
    (minutes, correlation, disturbed)
    for minutes in (2, 10)
    for correlation, disturbed in ((0.0, 0.0), (0.5, 0.0), (0.5, 0.02), (0.9, 0.0))
)


def series(
    minutes: int, correlation: float, disturbed: float, drift: float, generator: np.random.Generator
) -> NDArray[np.float64]:
    """Medians of the windows, relative to the first."""
    count = int(minutes * 60 / _WINDOW_S)
    shocks = generator.normal(size=count) * _NOISE * np.sqrt(1 - correlation**2)
    state = generator.normal() * _NOISE
    noise = np.empty(count)
    for at, shock in enumerate(shocks):
        state = correlation * state + shock
        noise[at] = state
    longer = np.where(generator.random(count) < disturbed, _LONGER, 1.0)
    found: NDArray[np.float64] = (1 + drift * np.linspace(0, 1, count) + noise) * longer
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--series", type=int, default=200)
    count = parser.parse_args().series
    print("| soak | correlation | disturbed | holds 0 % | holds 3 % | finds 3 % |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for minutes, correlation, disturbed in _ROWS:
        still, drifting = (
            [
                _trend(series(minutes, correlation, disturbed, drift, np.random.default_rng(number)))
                for number in range(count)
            ]
            for drift in (0.0, _DRIFT)
        )
        true = _DRIFT / (1 + _DRIFT / 2)  # relative to the median
        shares = (
            np.mean([one.interval.low <= 0 <= one.interval.high for one in still]),
            np.mean([one.interval.low <= true <= one.interval.high for one in drifting]),
            np.mean([one.interval.low > 0 for one in drifting]),
        )
        said = " | ".join(f"{100 * share:.0f} %" for share in shares)
        print(f"| {minutes} min | {correlation:g} | {100 * disturbed:g} % | {said} |", flush=True)
    return 0


def _trend(values: NDArray[np.float64]) -> Trend:
    found = trend_of((_WINDOW_S * np.arange(len(values))).tolist(), values.tolist(), ends_s=60.0)
    assert found is not None
    return found


if __name__ == "__main__":
    sys.exit(main())
