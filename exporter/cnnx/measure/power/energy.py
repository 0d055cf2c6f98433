"""Recorded energy measurements, and the energy per inference derived from them."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnnx.errors import UsageError
from cnnx.measure.bootstrap import middle, resampled_means
from cnnx.measure.power.driving import Driven
from cnnx.measure.power.sampler import LEAST_HZ
from cnnx.measure.power.sensors.sensor import Span
from cnnx.measure.power.sensors.tegrastats import Beside, cross_check
from cnnx.measure.power.trace import Trace, TraceRows
from cnnx.measure.samples import WarmUpEnd
from cnnx.stats import Interval

# The bootstrap uses 1 s means in blocks of four: NVML averages over 1 s, and fans and clocks take seconds.
_WINDOW_NS = 1_000_000_000
_BLOCK = 4


@dataclass(frozen=True, slots=True)
class EnergyPerInference:
    """Energy per inference on some rails, with 95 % confidence intervals; see `EnergyMeasurement.energy`.

    Attributes:
        rails: rails that are added up.
        covers: what the rails supply.
        gross_mj: total energy under load, divided by the number of inferences.
        gross: interval of the gross energy.
        net_mj: gross energy minus the idle energy of the same time.
        net: interval of the net energy.
        power_mw: mean power under load.
        idle_before_mw: mean idle power before the load.
        idle_after_mw: mean idle power after the load; usually higher, as the machine is warmer.
        basis: how the intervals were computed, and what they do not include.
    """

    rails: tuple[str, ...]
    covers: str
    gross_mj: float
    gross: Interval
    net_mj: float
    net: Interval
    power_mw: float
    idle_before_mw: float
    idle_after_mw: float
    basis: str


@dataclass(frozen=True, slots=True)
class EnergyMeasurement:
    """An energy measurement. Raw samples are kept; energies are derived from them.

    Attributes:
        trace: sensor trace from before the first to after the last idle phase.
        idle_before: idle phase before the load.
        warmup: load that is not counted.
        warmup_ended: "steady", or "time limit" if power had not settled and results are doubtful.
        load: load that is counted.
        idle_after: idle phase after the load.
        rate: requested calls per second; None for back to back.
        beside: readings of tegrastats under the same load, before the counted load; None if not requested.
    """

    trace: Trace
    idle_before: Span
    warmup: Span
    warmup_ended: WarmUpEnd
    load: Driven
    idle_after: Span
    rate: float | None
    beside: Beside | None = None

    def energy(self, rails: Sequence[str] | None = None) -> EnergyPerInference | None:
        """Energy per inference.

        The interval of the gross energy is a circular block bootstrap of the power under load (1 s means in
        blocks of four). It is widened on both sides by the stated uncertainty of the sensor: its relative
        uncertainty and half a step per rail. The net energy subtracts the mean of both idle phases, which are
        also bootstrapped. It is widened by half their difference (the drift) instead of the step, as an
        offset affects load and idle alike.

        Args:
            rails: rail names; None for the rails of the sensor's total.

        Returns:
            None without rails if the board has no total; `trace.sensor.total.covers` has the reason.

        Raises:
            UsageError: the sensor does not have a rail, or its counter did not change under load.
        """
        total = self.trace.sensor.total
        chosen = tuple(rails) if rails is not None else total.rails
        if not chosen:
            return None
        names = {rail.name: rail.covers for rail in self.trace.sensor.rails}
        covers = total.covers if chosen == total.rails else "; ".join(names.get(one, one) for one in chosen)
        return _per_inference(self, chosen, covers)

    @property
    def doubts(self) -> tuple[str, ...]:
        """Reasons to doubt the results; empty if there are none."""
        trace, span = self.trace, self.load.span
        gaps = [
            (after - before) / 1e9
            for before, after in trace.gaps_ns
            if before < span.end_ns and after > span.start_ns
        ]
        rate, renewed = trace.achieved_hz or 0.0, trace.sensor.rate_hz
        failed = ", ".join(f"{count} of {rail}" for rail, count in trace.failed.items())
        doubts = {
            "power had not settled when the measurement began": self.warmup_ended != "steady",
            f"power was sampled at {rate:.1f} Hz, below {LEAST_HZ:g} Hz": rate < LEAST_HZ,
            f"the sensor updates its values at {renewed or 0:.1f} Hz, below {LEAST_HZ:g} Hz": (
                renewed is not None and renewed < LEAST_HZ
            ),
            f"{len(gaps)} gaps between samples under load, the longest of {max(gaps, default=0):.2f} s": gaps,
            f"failed readings: {failed} (of {len(trace.samples)})": failed,
            f"{self.load.dropped} frames dropped, as the load is slower than the rate": self.load.dropped,
        }
        return tuple(words for words, holds in doubts.items() if holds)

    @property
    def deviations(self) -> dict[str, float]:
        """(mean of tegrastats - ours) / |ours| by rail over the common span; empty if not compared."""
        if self.beside is None:
            return {}
        span, ours = self.beside.span, dict[str, float]()
        for rail in self.trace.sensor.rails:
            with contextlib.suppress(UsageError):  # readings at the ends of the span failed
                ours[rail.name] = self.trace.power_mw([rail.name], span.start_ns, span.end_ns)
        return cross_check(ours, self.beside.power_mw)

    def as_dict(self) -> dict[str, Any]:
        """The raw samples and their spans as plain data."""
        spans = {
            name: dataclasses.asdict(getattr(self, name))
            for name in ("idle_before", "warmup", "load", "idle_after")
        }
        return {
            "trace": self.trace.as_dict(),
            **spans,
            "warmup_ended": self.warmup_ended,
            "rate": self.rate,
            "beside": dataclasses.asdict(self.beside) if self.beside else None,
        }


@dataclass(frozen=True, slots=True)
class EnergyRows:
    """An `EnergyMeasurement` as stored in records."""

    trace: TraceRows
    idle_before: Span
    warmup: Span
    warmup_ended: WarmUpEnd
    load: Driven
    idle_after: Span
    rate: float | None
    beside: Beside | None = None

    def measurement(self) -> EnergyMeasurement:
        """Convert to an `EnergyMeasurement`."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return EnergyMeasurement(**{**values, "trace": self.trace.trace()})


def _per_inference(measured: EnergyMeasurement, rails: tuple[str, ...], covers: str) -> EnergyPerInference:
    trace, span = measured.trace, measured.load.span
    if still := _standing_still(trace, rails, span):
        raise UsageError(
            f"the energy counter did not change under load: {', '.join(still)}",
            where=f"power sensor {trace.sensor.name}",
            hint="choose another sensor; cnnx doctor lists them. Counters do not work in virtual machines",
        )
    each_s = span.seconds / measured.load.inferences  # multiplied by mW, this gives mJ per inference
    power = trace.power_mw(rails, span.start_ns, span.end_ns)
    before, after = (
        trace.power_mw(rails, rest.start_ns, rest.end_ns)
        for rest in (measured.idle_before, measured.idle_after)
    )
    net_power = power - (before + after) / 2
    loads, rests = (
        _deviations(trace, rails, span),
        _deviations(trace, rails, measured.idle_before, measured.idle_after),
    )
    stated = trace.sensor.uncertainty
    relative, step = stated.relative or 0.0, (stated.resolution_mw or 0.0) * len(rails) / 2
    drift = abs(after - before) / 2
    gross = _widened(power, loads, relative * abs(power) + step)
    net = _widened(net_power, loads - rests, relative * abs(net_power) + drift)
    return EnergyPerInference(
        rails=rails,
        covers=covers,
        gross_mj=power * each_s,
        gross=Interval(gross.low * each_s, gross.high * each_s),
        net_mj=net_power * each_s,
        net=Interval(net.low * each_s, net.high * each_s),
        power_mw=power,
        idle_before_mw=before,
        idle_after_mw=after,
        basis=_basis(trace),
    )


def _standing_still(trace: Trace, rails: tuple[str, ...], span: Span) -> list[str]:
    """Rails whose energy counter did not change, as in a virtual machine; their energy is not 0."""
    if trace.sensor.quantity != "energy_mj":
        return []
    return [rail for rail in rails if trace.energy_mj([rail], span.start_ns, span.end_ns) == 0]


def _deviations(trace: Trace, rails: tuple[str, ...], *spans: Span) -> NDArray[np.float64]:
    """Bootstrap draws of the mean power over spans minus that mean; spans have equal weight."""
    draws = []
    for number, span in enumerate(spans):
        powers = trace.powers_mw(rails, span.start_ns, span.end_ns, window_ns=_WINDOW_NS)
        means = resampled_means(powers, block=_BLOCK, seed=len(spans) * 10 + number)
        draws.append(means - np.mean(powers))
    return np.asarray(np.mean(draws, axis=0))


def _widened(value: float, deviations: NDArray[np.float64], by: float) -> Interval:
    found = middle(deviations)
    return Interval(value + found.low - by, value + found.high + by)


def _basis(trace: Trace) -> str:
    stated = trace.sensor.uncertainty
    sensor = (
        "the sensor's calibration is not included"
        if stated.relative is None
        else f"widened by the sensor's {stated.relative:.0%}"
    )
    return f"block bootstrap of 1 s means; net widened by idle drift; {sensor} ({stated.basis})"
