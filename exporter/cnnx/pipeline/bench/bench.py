"""`bench`: finished bundles side by side, over batches; energy in a pass of its own for each."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cnnx.bundle import Bundle
from cnnx.bundle.manifest import recipe_of
from cnnx.data.normalize import normalize
from cnnx.device import Device
from cnnx.errors import CnnxError, EnvironmentLacks, UsageError
from cnnx.measure.samples import samples_needed
from cnnx.options import takes
from cnnx.options.bundles import BenchOptions
from cnnx.pipeline.bench.energy import (
    Chosen,
    PowerPass,
    choose_sampler,
    how_long,
    measure_use,
    power_pass,
)
from cnnx.pipeline.bench.energy_use import EnergyRatio, EnergyUse, ratios_of
from cnnx.pipeline.bench.latency import POOL, Effort, measure_pools
from cnnx.pipeline.bench.measurement import Advice, Measurement, Unmeasured, advice_of
from cnnx.pipeline.progress import Listener, ProgressEvent, Steps, StepTime, silent
from cnnx.pipeline.target import OpenSubject, open_subject
from cnnx.record import Subject

# Samples by which a ratio of two networks gets an interval: ten turns of ten.
_TO_COMPARE = 100


@dataclass(frozen=True, slots=True)
class BenchResult:
    """Measurements, side by side in one run.

    Attributes:
        bundles: in the order given.
        measurements: batch by batch.
        unmeasured: what was asked and could not be measured, with the reason.
        advice: INT8 against FP16, where both were measured on a GPU.
        energy: bundle by bundle, engine by engine, each over its batches; empty unless it was asked for.
        energy_unmeasured: of what was measured, what has no energy, with the reason.
        energy_ratios: INT8's over FP16's.
    """

    bundles: tuple[Bundle, ...]
    measurements: tuple[Measurement, ...]
    unmeasured: tuple[Unmeasured, ...]
    advice: tuple[Advice, ...]
    steps: tuple[StepTime, ...]
    energy: tuple[EnergyUse, ...] = ()
    energy_unmeasured: tuple[Unmeasured, ...] = ()
    energy_ratios: tuple[EnergyRatio, ...] = ()

    @property
    def subjects(self) -> tuple[Subject, ...]:
        """All that stood side by side, those that were not measured, too."""
        measured = [one.subject for one in self.measurements]
        return tuple(dict.fromkeys([*measured, *(row.subject for row in self.unmeasured)]))

    @property
    def exit_code(self) -> int:
        """6 where a measurement is invalid: its figures decide nothing.

        What was measured at no batch at all, or energy of which nothing came, gives the code of its reason.
        """
        measured = {one.subject for one in self.measurements}
        for row in self.unmeasured:
            if row.subject not in measured:
                return row.error.exit_code
        if self.energy_unmeasured and not self.energy:
            return self.energy_unmeasured[0].error.exit_code
        return 0 if all(measured.validity.valid for measured in self.measurements) else 6


@dataclass(frozen=True, slots=True)
class _Taker:
    """What takes turns: something of a bundle that runs here."""

    home: Bundle
    opened: OpenSubject

    @property
    def subject(self) -> Subject:
        """What it is."""
        return self.opened.subject


@takes(BenchOptions)
def bench(
    bundle: str | Path | Sequence[str | Path], options: BenchOptions, *, listener: Listener = silent
) -> BenchResult:
    """Measure latency and memory of what runs here, on the self-test's images; energy if asked.

    Several bundles and engines take turns, so that what drifts on the machine hits all alike: FP16 and INT8
    of one network can be compared. Each measurement is kept as a record in its bundle's runs/. Energy is
    measured after latency, in a pass of its own for each subject at each batch, one after another; a pass
    that fails is a row with its reason.

    Args:
        bundle: a bundle's folder, or several.
        options: as an object; each can be given by keyword, too. Of several engines each bundle's own take
            turns; none: see `open_subject`. `power` may be a `PowerPass`.
        listener: told of progress.

    Raises:
        UsageError: options that make no sense, no such engine, or no bundle takes any of the batches.
        EnvironmentLacks: energy is asked for and no sensor sees a device; told before anything is measured.
        WriteFailed: records cannot be kept, which is told before, too.
    """
    paths = [bundle] if isinstance(bundle, (str, Path)) else list(bundle)
    batches = [options.batch] if isinstance(options.batch, int) else list(dict.fromkeys(options.batch))
    engines = [options.engine] if isinstance(options.engine, str) else options.engine
    _check(paths, batches)
    check_effort(options.seconds, options.percentile)
    power = power_pass(options)
    steps = Steps(listener)
    bundles = [Bundle.open(Path(path)) for path in paths]
    for opened in bundles:
        opened.check_place("runs")
    takers = _takers(bundles, options.target, engines)
    _check_ranges(bundles, batches)
    if power:
        _check_sensors(power, [taker.opened for taker in takers])
        passes = sum(not _out_of_range(taker.home, size) for taker in takers for size in batches)
        listener(ProgressEvent(f"Energy after latency: {how_long(power.plan, passes)}.", note=True))
    effort = Effort(
        options.seconds,
        min_samples=max(samples_needed(options.percentile / 100), _TO_COMPARE if len(takers) > 1 else 1),
        max_seconds=max(60.0, 3 * options.seconds) * len(takers),
        percentile=options.percentile,
        cuda_graph=options.cuda_graph,
        layers=options.layers,
    )
    measured: list[Measurement] = []
    unmeasured: list[Unmeasured] = []
    for size in batches:
        found, failed = _at(size, takers, effort, steps)
        measured += found
        unmeasured += failed
    if not measured:
        raise unmeasured[0].error
    uses, without = _energies(takers, measured, power, steps) if power else ((), ())
    return BenchResult(
        bundles=tuple(bundles),
        measurements=tuple(measured),
        unmeasured=tuple(unmeasured),
        advice=advice_of(measured),
        steps=tuple(steps.times),
        energy=uses,
        energy_unmeasured=without,
        energy_ratios=ratios_of(uses),
    )


def _takers(bundles: Sequence[Bundle], target: str, engines: Sequence[str] | None) -> list[_Taker]:
    """Of each bundle the engines that it holds of those named, or the usual one.

    Raises:
        UsageError: a bundle holds none of them, or none holds one; what `open_subject` says.
    """
    found = []
    for home in bundles:
        held = {engine.identity for engine in home.engines()}
        mine = [name for name in dict.fromkeys(engines or ()) if name in held]
        asked: list[str | None] = [*mine] or [engines[0] if engines else None]
        found += [_Taker(home, open_subject(home, target, engine=name)) for name in asked]
    taken = {taker.subject.engine for taker in found}
    for name in engines or ():
        if name not in taken:
            open_subject(bundles[0], target, engine=name)  # refuses it
    return found


def _at(
    size: int, takers: Sequence[_Taker], effort: Effort, steps: Steps
) -> tuple[tuple[Measurement, ...], tuple[Unmeasured, ...]]:
    """One batch: those that take it side by side, the others as rows with their reason."""
    taking: list[_Taker] = []
    rows: list[Unmeasured] = []
    for taker in takers:
        if error := _out_of_range(taker.home, size):
            rows.append(Unmeasured(taker.subject, size, error))
        else:
            taking.append(taker)
    if not taking:
        return (), tuple(rows)
    found, failed = measure_pools(
        [taker.opened for taker in taking],
        [pool_of(taker.home, size) for taker in taking],
        batch=size,
        effort=effort,
        steps=steps,
    )
    homes = {taker.subject: taker.home for taker in taking}
    for measured in found:
        homes[measured.subject].keep("benchmark", measured.subject, measured.as_dict())
    return found, (*rows, *failed)


def _check(paths: Sequence[str | Path], batches: Sequence[int]) -> None:
    if not paths or not batches:
        raise UsageError("a benchmark needs a bundle and a batch", hint="cnnx bench BUNDLE --batch 1")
    if len({os.path.realpath(path) for path in paths}) < len(paths):
        raise UsageError("a bundle is named twice", hint="name each once")


def check_effort(seconds: float, percentile: float) -> None:
    """Refuse, before any work, what cannot be measured.

    Raises:
        UsageError: no time, or a percentile that is none.
    """
    if not 0 < seconds < math.inf:
        raise UsageError(f"measuring for {seconds} seconds makes no sense", hint="--seconds 3")
    if not 50 <= percentile < 100:
        raise UsageError(f"--percentile is in percent, from 50 to below 100, not {percentile:g}")


def _check_ranges(bundles: Sequence[Bundle], batches: Sequence[int]) -> None:
    """Refuse what would come to nothing but rows of reasons."""
    errors = [_out_of_range(one, size) for one in bundles for size in batches]
    if all(errors) and errors[0]:
        raise errors[0]


def _check_sensors(power: PowerPass, subjects: Sequence[OpenSubject]) -> None:
    """Refuse, before minutes are spent, where no sensor sees any of the devices."""
    errors = [_unseen(power, device) for device in dict.fromkeys(one.subject.on for one in subjects)]
    if all(errors) and errors[0]:
        raise errors[0]


def _unseen(power: PowerPass, device: Device) -> EnvironmentLacks | None:
    try:
        choose_sampler(power, device)
    except EnvironmentLacks as error:
        return error
    return None


def _out_of_range(bundle: Bundle, size: int) -> UsageError | None:
    low, high = bundle.manifest.batch
    if low <= size <= high:
        return None
    return UsageError(
        f"the graph takes batches of {low} to {high}, not {size}",
        hint=f"export it with --batch {min(low, size)}..{max(high, size)}",
    )


def pool_of(bundle: Bundle, size: int) -> NDArray[np.float32]:
    """Pictures to measure on, normalised, (M, C, H, W)."""
    pixels = bundle.reference().crops[: max(size, POOL)]
    return normalize(pixels, recipe_of(bundle.manifest).preprocessing)


def _energies(
    takers: Sequence[_Taker],
    measured: Sequence[Measurement],
    power: PowerPass,
    steps: Steps,
) -> tuple[tuple[EnergyUse, ...], tuple[Unmeasured, ...]]:
    """One pass after another: two at a time would each count the other's energy. One that fails is a row."""
    latencies = {(one.subject, one.latency.batch): one for one in measured}
    passes = [
        (taker.home, taker.opened, one)
        for taker in takers
        for one in latencies.values()
        if one.subject == taker.subject
    ]
    uses: list[EnergyUse] = []
    failed: list[Unmeasured] = []
    for number, (bundle, subject, one) in enumerate(passes, start=1):
        batch = one.latency.batch
        which = f" {number} of {len(passes)}: {one.subject.precision}, batch {batch}"
        title = f"energy{which if len(passes) > 1 else ''}"
        try:
            chosen = choose_sampler(power, one.subject.on)
            uses.append(energy_of(bundle, subject, one, power=power, chosen=chosen, steps=steps, title=title))
        except CnnxError as error:
            failed.append(Unmeasured(one.subject, batch, error))
    return tuple(uses), tuple(failed)


def energy_of(
    bundle: Bundle,
    subject: OpenSubject,
    measured: Measurement,
    *,
    power: PowerPass,
    chosen: Chosen,
    steps: Steps,
    title: str = "energy",
) -> EnergyUse:
    """Measure the energy of what latency was measured of, in the same way, and keep the record.

    Raises:
        EnvironmentLacks: the sensor stopped, or the network does not run.
    """
    batch = measured.latency.batch
    use = measure_use(
        subject,
        pool_of(bundle, batch),
        batch=batch,
        cuda_graph=measured.conditions.cuda_graph,
        power=power,
        chosen=chosen,
        run_ns=measured.latency.mean_ns,
        remark=measured.remark,
        steps=steps,
        title=title,
    )
    bundle.keep("energy", use.subject, use.as_dict())
    return use
