"""`bench`: compares bundles side by side, batch by batch, with a separate energy pass for each."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cnnx.bundle import Bundle
from cnnx.device import Device
from cnnx.errors import EnvironmentLacks, UsageError
from cnnx.measure.samples import samples_needed
from cnnx.measure.trtexec import read_trtexec
from cnnx.options import takes
from cnnx.options.bundles import BenchOptions
from cnnx.pipeline.bench.energy import PowerPass, choose_sampler, how_long, power_pass
from cnnx.pipeline.bench.energy_use import EnergyRatio, EnergyUse, ratios_of
from cnnx.pipeline.bench.explaining import explained
from cnnx.pipeline.bench.latency import Effort, measure_pools
from cnnx.pipeline.bench.load.soak import SoakMeasurement
from cnnx.pipeline.bench.load.stream_counts import StreamsMeasurement
from cnnx.pipeline.bench.measurement import Advice, Measurement, Unmeasured, advice_of
from cnnx.pipeline.bench.passes import Passed, check_loads, is_interrupted, pool_of, run_passes
from cnnx.pipeline.bench.trtexec import TrtexecComparison, compare_trtexec
from cnnx.pipeline.progress import Listener, ProgressEvent, Steps, StepTime, silent
from cnnx.pipeline.sign.trust import open_bundle
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
        streams: numbers of concurrent streams; empty unless requested.
        streams_unmeasured: measurements whose streams could not be measured, with the reason.
        soaks: soaks; empty unless requested.
        soaks_unmeasured: measurements without a soak, with the reason.
        trtexec: the measurement compared with trtexec's; None unless requested.
    """

    bundles: tuple[Bundle, ...]
    measurements: tuple[Measurement, ...]
    unmeasured: tuple[Unmeasured, ...]
    advice: tuple[Advice, ...]
    steps: tuple[StepTime, ...]
    energy: tuple[EnergyUse, ...] = ()
    energy_unmeasured: tuple[Unmeasured, ...] = ()
    energy_ratios: tuple[EnergyRatio, ...] = ()
    streams: tuple[StreamsMeasurement, ...] = ()
    streams_unmeasured: tuple[Unmeasured, ...] = ()
    soaks: tuple[SoakMeasurement, ...] = ()
    soaks_unmeasured: tuple[Unmeasured, ...] = ()
    trtexec: TrtexecComparison | None = None

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
        """6 if a measurement is invalid, as its figures decide nothing; 130 if Ctrl-C cut one short; else 0.

        If a subject was measured at no batch, or no energy was measured at all, or streams or a soak could
        not be measured, the code of that error; 4 if a soak failed after a while.
        """
        if any(map(is_interrupted, (*self.streams, *self.soaks))):
            return 130
        measured = {one.subject for one in self.measurements}
        for row in self.unmeasured:
            if row.subject not in measured:
                return row.error.exit_code
        if self.energy_unmeasured and not self.energy:
            return self.energy_unmeasured[0].error.exit_code
        if any(one.ended == "failed" for one in self.soaks):
            return EnvironmentLacks.exit_code
        for row in (*self.streams_unmeasured, *self.soaks_unmeasured):
            return row.error.exit_code
        validities = [
            *(one.validity for one in self.measurements),
            *(each.validity for one in self.streams for each in one.counts),
            *(one.validity for one in self.soaks),
        ]
        return 0 if all(validity.valid for validity in validities) else 6


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
    """Measure latency and memory on the self-test's images; if requested, streams, energy and a soak.

    Bundles and engines take turns, so that drift of the machine affects all of them equally, and FP16 and
    INT8 of a network can be compared. Each measurement is kept as a record in its bundle's runs/. Streams,
    energy and soaks are measured after latency, in a separate pass for each subject and batch. A pass that
    fails is reported with its reason. Ctrl-C ends streams and soaks early: what they measured is kept and
    returned.

    Args:
        bundle: a bundle's folder, or several.
        options: options as an object; each can also be given by keyword. If engines are named, those in
            each bundle are measured; otherwise see `open_subject`. `power` may be a `PowerPass`.
        listener: receives progress events.

    Raises:
        InputRefused: the file to compare with has no times of trtexec.
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
    check_loads(options)
    theirs = read_trtexec(Path(options.compare_trtexec)) if options.compare_trtexec else None
    power = power_pass(options)
    steps = Steps(listener)
    bundles = [open_bundle(Path(path), options.require_signature) for path in paths]
    for opened in bundles:
        opened.check_place("runs")
    entries = _entries(bundles, options.target, engines)
    _check_ranges(bundles, batches)
    if theirs:
        _check_alone(entries, batches)
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
    passed = [
        Passed(entry.bundle, entry.opened, one)
        for entry in entries
        for one in measured
        if one.subject == entry.subject
    ]
    later = run_passes(passed, options, power, steps)
    return BenchResult(
        bundles=tuple(bundles),
        measurements=tuple(measured),
        unmeasured=tuple(unmeasured),
        advice=advice_of(measured),
        steps=tuple(steps.times),
        energy=later.energy,
        energy_unmeasured=later.energy_unmeasured,
        energy_ratios=ratios_of(later.energy),
        streams=later.streams,
        streams_unmeasured=later.streams_unmeasured,
        soaks=later.soaks,
        soaks_unmeasured=later.soaks_unmeasured,
        trtexec=compare_trtexec(measured[0], theirs) if theirs else None,
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
    found = tuple(explained(measured, bundles[measured.subject]) for measured in found)
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


def _check_alone(entries: Sequence[_Entry], batches: Sequence[int]) -> None:
    """Raise unless a single engine is measured at one batch, as a log of trtexec is about one."""
    if len(entries) > 1 or len(batches) > 1 or entries[0].subject.artefact != "engine":
        raise UsageError(
            "--compare-trtexec compares one engine at one batch",
            hint="give one bundle with an engine, one --batch, and at most one --engine",
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
