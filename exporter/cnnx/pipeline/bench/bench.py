"""`bench`: compares bundles side by side, batch by batch, with a separate energy pass for each."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
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
from cnnx.report.result import Result
from cnnx.report.table import Block

# Number of samples needed for an interval of the ratio of two networks: ten turns of ten.
_TO_COMPARE = 100


@dataclass(frozen=True, slots=True, repr=False)
class BenchResult(Result):
    """Measurements of one run, side by side.

    Attributes:
        bundles: bundles in the given order.
        measurements: latency and memory, batch by batch.
        unmeasured: what was requested and could not be measured, with the reason.
        advice: INT8 compared with FP16, where both were measured on a GPU.
        steps: time of each step.
        energy: energy by bundle, engine and batch; empty unless requested.
        energy_unmeasured: measurements whose energy could not be measured, with the reason.
        energy_ratios: ratios of INT8's energy to FP16's.
    """

    bundles: tuple[Bundle, ...]
    measurements: tuple[Measurement, ...]
    unmeasured: tuple[Unmeasured, ...]
    advice: tuple[Advice, ...]
    steps: tuple[StepTime, ...]
    energy: tuple[EnergyUse, ...] = ()
    energy_unmeasured: tuple[Unmeasured, ...] = ()
    energy_ratios: tuple[EnergyRatio, ...] = ()

    def blocks(self, *, verbose: bool = False) -> Iterable[Block]:
        """What the command prints."""
        from cnnx.pipeline.shown import bench_blocks

        return bench_blocks(self, verbose=verbose)

    @property
    def subjects(self) -> tuple[Subject, ...]:
        """Everything that was compared, including what could not be measured."""
        measured = [one.subject for one in self.measurements]
        return tuple(dict.fromkeys([*measured, *(row.subject for row in self.unmeasured)]))

    @property
    def exit_code(self) -> int:
        """6 if a measurement is invalid, as its figures decide nothing; else 0.

        If a subject was measured at no batch, or no energy was measured at all, the code of that error.
        """
        measured = {one.subject for one in self.measurements}
        for row in self.unmeasured:
            if row.subject not in measured:
                return row.error.exit_code
        if self.energy_unmeasured and not self.energy:
            return self.energy_unmeasured[0].error.exit_code
        return 0 if all(measured.validity.valid for measured in self.measurements) else 6


@dataclass(frozen=True, slots=True)
class _Entry:
    """An engine or graph to measure, and its bundle."""

    bundle: Bundle
    opened: OpenSubject

    @property
    def subject(self) -> Subject:
        """What is measured."""
        return self.opened.subject


@takes(BenchOptions)
def bench(
    bundle: str | Path | Sequence[str | Path], options: BenchOptions, *, listener: Listener = silent
) -> BenchResult:
    """Measure latency and memory on the self-test's images, and energy if requested.

    Bundles and engines take turns, so that drift of the machine affects all of them equally, and FP16 and
    INT8 of a network can be compared. Each measurement is kept as a record in its bundle's runs/. Energy is
    measured after latency, in a separate pass for each subject and batch. A pass that fails is reported
    with its reason.

    Args:
        bundle: a bundle's folder, or several.
        options: options as an object; each can also be given by keyword. If engines are named, those in
            each bundle are measured; otherwise see `open_subject`. `power` may be a `PowerPass`.
        listener: receives progress events.

    Raises:
        UsageError: an option is invalid, a named engine does not exist, or no bundle takes any of the
            batches.
        EnvironmentLacks: energy is requested and no sensor measures the device; raised before any
            measurement.
        WriteFailed: records cannot be written; raised before any measurement.

    Examples:
        >>> result = cnnx.bench("lenet5-int8", seconds=0.2)
        >>> [measurement.latency.batch for measurement in result.measurements]
        [1]
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
    entries = _entries(bundles, options.target, engines)
    _check_ranges(bundles, batches)
    if power:
        _check_sensors(power, [entry.opened for entry in entries])
        passes = sum(not _out_of_range(entry.bundle, size) for entry in entries for size in batches)
        listener(
            ProgressEvent(f"Energy is measured after latency: {how_long(power.plan, passes)}.", note=True)
        )
    effort = Effort(
        options.seconds,
        min_samples=max(samples_needed(options.percentile / 100), _TO_COMPARE if len(entries) > 1 else 1),
        max_seconds=max(60.0, 3 * options.seconds) * len(entries),
        percentile=options.percentile,
        cuda_graph=options.cuda_graph,
        layers=options.layers,
    )
    measured: list[Measurement] = []
    unmeasured: list[Unmeasured] = []
    for size in batches:
        found, failed = _measure_batch(size, entries, effort, steps)
        measured += found
        unmeasured += failed
    if not measured:
        raise unmeasured[0].error
    uses, without = _energies(entries, measured, power, steps) if power else ((), ())
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


def _entries(bundles: Sequence[Bundle], target: str, engines: Sequence[str] | None) -> list[_Entry]:
    """The named engines of each bundle, or its default subject if none are named.

    Raises:
        UsageError: a bundle has none of the named engines, or a named engine is in no bundle; see
            `open_subject`.
    """
    found = []
    for bundle in bundles:
        held = {engine.identity for engine in bundle.engines()}
        own = [name for name in dict.fromkeys(engines or ()) if name in held]
        names: list[str | None] = [*own] or [engines[0] if engines else None]
        found += [_Entry(bundle, open_subject(bundle, target, engine=name)) for name in names]
    taken = {entry.subject.engine for entry in found}
    for name in engines or ():
        if name not in taken:
            open_subject(bundles[0], target, engine=name)  # raises
    return found


def _measure_batch(
    size: int, entries: Sequence[_Entry], effort: Effort, steps: Steps
) -> tuple[tuple[Measurement, ...], tuple[Unmeasured, ...]]:
    """Measure all entries that take this batch side by side; the others become rows with a reason."""
    fitting: list[_Entry] = []
    rows: list[Unmeasured] = []
    for entry in entries:
        if error := _out_of_range(entry.bundle, size):
            rows.append(Unmeasured(entry.subject, size, error))
        else:
            fitting.append(entry)
    if not fitting:
        return (), tuple(rows)
    found, failed = measure_pools(
        [entry.opened for entry in fitting],
        [pool_of(entry.bundle, size) for entry in fitting],
        batch=size,
        effort=effort,
        steps=steps,
    )
    bundles = {entry.subject: entry.bundle for entry in fitting}
    for measured in found:
        bundles[measured.subject].keep("benchmark", measured.subject, measured.as_dict())
    return found, (*rows, *failed)


def _check(paths: Sequence[str | Path], batches: Sequence[int]) -> None:
    if not paths or not batches:
        raise UsageError("a benchmark needs a bundle and a batch", hint="cnnx bench BUNDLE --batch 1")
    if len({os.path.realpath(path) for path in paths}) < len(paths):
        raise UsageError("a bundle is named twice", hint="name each bundle once")


def check_effort(seconds: float, percentile: float) -> None:
    """Raise, before any work, for an invalid duration or percentile.

    Raises:
        UsageError: one of them is invalid.
    """
    if not 0 < seconds < math.inf:
        raise UsageError(
            f"invalid --seconds {seconds:g}: expected a finite number above 0",
            hint="give --seconds 3, for example",
        )
    if not 50 <= percentile < 100:
        raise UsageError(
            f"invalid --percentile {percentile:g}: expected at least 50 and less than 100",
            hint="give --percentile 99, for example",
        )


def _check_ranges(bundles: Sequence[Bundle], batches: Sequence[int]) -> None:
    """Raise if no bundle takes any of the batches."""
    errors = [_out_of_range(one, size) for one in bundles for size in batches]
    if all(errors) and errors[0]:
        raise errors[0]


def _check_sensors(power: PowerPass, subjects: Sequence[OpenSubject]) -> None:
    """Raise, before minutes are spent, if no sensor measures any of the devices."""
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
        f"the graph takes batches from {low} to {high}, not {size}",
        where=bundle.path,
        hint=f"export it again with --batch {min(low, size)}..{max(high, size)}",
    )


def pool_of(bundle: Bundle, size: int) -> NDArray[np.float32]:
    """Images to measure on, normalized, (M, C, H, W)."""
    pixels = bundle.reference().crops[: max(size, POOL)]
    return normalize(pixels, recipe_of(bundle.manifest).preprocessing)


def _energies(
    entries: Sequence[_Entry],
    measured: Sequence[Measurement],
    power: PowerPass,
    steps: Steps,
) -> tuple[tuple[EnergyUse, ...], tuple[Unmeasured, ...]]:
    """Run one energy pass after another, as concurrent passes would count each other's energy.

    A pass that fails becomes a row with its reason.
    """
    latencies = {(one.subject, one.latency.batch): one for one in measured}
    passes = [
        (entry.bundle, entry.opened, one)
        for entry in entries
        for one in latencies.values()
        if one.subject == entry.subject
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
    """Measure energy under the conditions of a latency measurement, and keep the record.

    Raises:
        EnvironmentLacks: the sensor stopped, or the network cannot run.
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
