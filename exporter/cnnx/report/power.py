"""Plots power over time for an energy measurement. Needs the extra `report`."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from cnnx.errors import BundleError, UsageError
from cnnx.measure.power import EnergyMeasurement, EnergyRows, SensorInfo
from cnnx.schema import from_plain

_WINDOW_NS = 500_000_000
# Okabe and Ito's palette.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


def draw_power(result: Mapping[str, Any]) -> str:
    """An SVG of half-second means of the total, or of each rail without a total; load is shaded.

    Args:
        result: result of an energy record.
    """
    import matplotlib as mpl

    mpl.use("svg")
    import matplotlib.pyplot as plt

    rows = from_plain(EnergyRows, result["measured"], where="the record", error=BundleError, at="measured")
    measured = rows.measurement()
    figure, axes = plt.subplots(figsize=(8, 2.8), layout="constrained")
    start = measured.idle_before.start_ns
    for color, (name, powers) in zip(_COLORS, _series(measured).items(), strict=False):
        seconds = [(index + 0.5) * _WINDOW_NS / 1e9 for index in range(len(powers))]
        axes.plot(seconds, [power / 1000 for power in powers], color=color, label=name, linewidth=1)
    span = measured.load.span
    axes.axvspan(
        (span.start_ns - start) / 1e9, (span.end_ns - start) / 1e9, color="#dddddd", label="measured load"
    )
    axes.set_xlabel("seconds")
    axes.set_ylabel("watts")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    plt.close(figure)
    return buffer.getvalue()


def _series(measured: EnergyMeasurement) -> dict[str, tuple[float, ...]]:
    """Power of the total, or of each rail, from the first idle period to the last."""
    sensor = measured.trace.sensor
    whole = {"total": sensor.total.rails} if sensor.total.rails else {}
    return {name: _powers(measured, rails) for name, rails in (whole or _each(sensor)).items()}


def _each(sensor: SensorInfo) -> dict[str, tuple[str, ...]]:
    return {rail.name: (rail.name,) for rail in sensor.rails}


def _powers(measured: EnergyMeasurement, rails: tuple[str, ...]) -> tuple[float, ...]:
    """Mean powers; empty if readings failed at either end."""
    start, end = measured.idle_before.start_ns, measured.idle_after.end_ns
    try:
        return measured.trace.powers_mw(rails, start, end, window_ns=_WINDOW_NS)
    except UsageError:
        return ()
