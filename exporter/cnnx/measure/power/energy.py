"""What an energy measurement recorded, and the energy per inference that follows from it."""

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

# Bootstrap: means of 1 s, four neighbours together. NVML averages over 1 s; fans and clocks take seconds.
_WINDOW_NS = 1_000_000_000
_BLOCK = 4


@dataclass(frozen=True, slots=True)
class EnergyPerInference:
    """Energy of one inference on some rails. Intervals are 95 %; see `EnergyMeasurement.energy`.

    Attributes:
        rails: added up.
        covers: what they stand for.
        gross_mj: all energy while the load ran, by its inferences.
        gross: its interval.
        net_mj: without what the machine takes at rest in the same time.
        net: its interval.
        power_mw: mean while the load ran.
        idle_before_mw: mean at rest before.
        idle_after_mw: mean at rest after; warmer, so usually more.
        basis: how the intervals came about and what is not in them.
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
    """What was measured. Raw samples are kept; energies are derived from them.

    Attributes:
        trace: of the sensor, from before the first rest to after the last.
        idle_before: rest before the load.
        warmup: load that does not count.
        warmup_ended: "steady", or "time limit": no plateau was reached, so the figures are doubtful.
        load: what counts.
        idle_after: rest after it.
        rate: calls a second that were asked for; None: back to back.
        beside: what tegrastats read under the same load, before what counts; None: not asked.
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

        The interval of gross energy is a circular block bootstrap of the load's powers (means of 1 s,
        four neighbours together), widened on both sides by what the sensor states: its relative
        uncertainty and half a step a rail. Net energy takes off the mean of both rests, which are
        bootstrapped too, and is widened by half their difference (the drift) instead of the step: an
        offset is in load and rest alike.

        Args:
            rails: names; None: those of the sensor's total.

        Returns:
            None where no rails are given and the board has no total; `trace.sensor.total.covers` says why.

        Raises:
            UsageError: a rail that the sensor lacks, or whose counter stood still while the load ran.
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
        """What speaks against the figures, in plain words; empty: nothing known."""
        trace, span = self.trace, self.load.span
        gaps = [
            (after - before) / 1e9
            for before, after in trace.gaps_ns
            if before < span.end_ns and after > span.start_ns
        ]
        rate, renewed = trace.achieved_hz or 0.0, trace.sensor.rate_hz
        failed = ", ".join(f"{count} of {rail}" for rail, count in trace.failed.items())
        doubts = {
            "no plateau: the load had not settled when the measurement began": self.warmup_ended != "steady",
            f"power was sampled at {rate:.1f} Hz, less than {LEAST_HZ:g}": rate < LEAST_HZ,
            f"the sensor renews its values at {renewed or 0:.1f} Hz, less than {LEAST_HZ:g}": (
                renewed is not None and renewed < LEAST_HZ
            ),
            f"{len(gaps)} gaps between samples under load, the longest {max(gaps, default=0):.2f} s": gaps,
            f"readings that failed: {failed} (of {len(trace.samples)})": failed,
            f"{self.load.dropped} frames dropped: the load is slower than the rate": self.load.dropped,
        }
        return tuple(words for words, holds in doubts.items() if holds)

    @property
    def deviations(self) -> dict[str, float]:
        """(tegrastats' mean - ours) / |ours| by rail, over the span that both read; empty: not compared."""
        if self.beside is None:
            return {}
        span, ours = self.beside.span, dict[str, float]()
        for rail in self.trace.sensor.rails:
            with contextlib.suppress(UsageError):  # readings at the span's ends failed
                ours[rail.name] = self.trace.power_mw([rail.name], span.start_ns, span.end_ns)
        return cross_check(ours, self.beside.power_mw)

    def as_dict(self) -> dict[str, Any]:
        """Plain data: raw samples and the spans they belong to."""
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
    """An `EnergyMeasurement` as records have it."""

    trace: TraceRows
    idle_before: Span
    warmup: Span
    warmup_ended: WarmUpEnd
    load: Driven
    idle_after: Span
    rate: float | None
    beside: Beside | None = None

    def measurement(self) -> EnergyMeasurement:
        """The measurement itself."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return EnergyMeasurement(**{**values, "trace": self.trace.trace()})


def _per_inference(measured: EnergyMeasurement, rails: tuple[str, ...], covers: str) -> EnergyPerInference:
    trace, span = measured.trace, measured.load.span
    if still := _standing_still(trace, rails, span):
        raise UsageError(f"the counter did not move while the load ran: {', '.join(still)}")
    each_s = span.seconds / measured.load.inferences  # mW times this is mJ an inference
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
    """Rails whose counter did: nothing feeds it, as in a virtual machine. That is no energy of 0."""
    if trace.sensor.quantity != "energy_mj":
        return []
    return [rail for rail in rails if trace.energy_mj([rail], span.start_ns, span.end_ns) == 0]


def _deviations(trace: Trace, rails: tuple[str, ...], *spans: Span) -> NDArray[np.float64]:
    """Bootstrap draws of the mean power over spans, less that mean; spans of rest count alike."""
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
        "the sensor's calibration is not in it"
        if stated.relative is None
        else f"widened by the sensor's {stated.relative:.0%}"
    )
    return f"block bootstrap of 1 s means; net widened by idle drift; {sensor} ({stated.basis})"
