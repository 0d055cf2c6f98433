"""The passes after latency: streams, energy and soaks, one after another for each subject and batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from cnnx.bundle import Bundle
from cnnx.bundle.manifest import recipe_of
from cnnx.data.network_input import network_input
from cnnx.errors import CnnxError, UsageError
from cnnx.measure.samples import samples_needed
from cnnx.options.bundles import BenchOptions
from cnnx.pipeline.bench.energy import Chosen, PowerPass, choose_sampler, measure_use
from cnnx.pipeline.bench.energy_use import EnergyUse
from cnnx.pipeline.bench.latency import POOL
from cnnx.pipeline.bench.load.soak import SoakMeasurement, measure_soaked, soak_seconds
from cnnx.pipeline.bench.load.stream_counts import StreamsMeasurement
from cnnx.pipeline.bench.load.streams import StreamsPass, measure_stream_counts
from cnnx.pipeline.bench.measurement import Measurement, Unmeasured
from cnnx.pipeline.progress import Steps
from cnnx.pipeline.target import OpenSubject
from cnnx.record import RecordKind, Subject
from cnnx.report.words import duration
from cnnx.runtimes import Images


@dataclass(frozen=True, slots=True)
class Passed:
    """An engine or graph whose latency was measured, its bundle, and the title of its next step."""

    bundle: Bundle
    opened: OpenSubject
    measured: Measurement
    title: str = ""

    @property
    def batch(self) -> int:
        """Images per run."""
        return self.measured.latency.batch

    @property
    def pool(self) -> Images:
        """Images to run on."""
        return pool_of(self.bundle, self.batch)


class _Found(Protocol):
    @property
    def subject(self) -> Subject: ...

    def as_dict(self) -> dict[str, Any]: ...


_Result = TypeVar("_Result", bound=_Found)
Results = tuple[tuple[_Result, ...], tuple[Unmeasured, ...]]
"""What was measured, and what could not be, with the reason."""


def pool_of(bundle: Bundle, size: int) -> Images:
    """M images to measure on, as the bundle's graph takes them."""
    recipe = recipe_of(bundle.manifest)
    pixels = bundle.reference().crops[: max(size, POOL)]
    return network_input(pixels, recipe.preprocessing, recipe.input_format)


def check_loads(options: BenchOptions) -> None:
    """Raise, before any work, for an invalid number of streams, frame rate or duration of a soak.

    Raises:
        UsageError: one of them is invalid, or a frame rate is given without streams.
    """
    if options.soak is not None:
        soak_seconds(options.soak)
    if options.streams is not None and options.streams < 1:
        what = f"invalid --streams {options.streams}: expected 1 or more"
        raise UsageError(what, hint="give the largest number of streams, such as --streams 4")
    if options.fps is None:
        return
    if options.streams is None:
        raise UsageError("--fps has no effect without --streams", hint="add --streams 4, for example")
    if not 0 < options.fps < math.inf:
        what = f"invalid --fps {options.fps:g}: expected a finite number above 0"
        raise UsageError(what, hint="give the frame rate of a camera, such as --fps 30")


def streams_pass(options: BenchOptions) -> StreamsPass | None:
    """The streams pass that the options request; None if they request none."""
    if options.streams is None:
        return None
    return StreamsPass(
        most=options.streams,
        fps=options.fps,
        percentile=options.percentile,
        seconds=options.seconds,
        min_samples=samples_needed(options.percentile / 100),
        max_seconds=max(60.0, 3 * options.seconds),
    )


@dataclass(frozen=True, slots=True)
class Later:
    """What the passes measured, and what could not be measured."""

    streams: tuple[StreamsMeasurement, ...] = ()
    streams_unmeasured: tuple[Unmeasured, ...] = ()
    energy: tuple[EnergyUse, ...] = ()
    energy_unmeasured: tuple[Unmeasured, ...] = ()
    soaks: tuple[SoakMeasurement, ...] = ()
    soaks_unmeasured: tuple[Unmeasured, ...] = ()


def run_passes(
    passed: Sequence[Passed], options: BenchOptions, power: PowerPass | None, steps: Steps
) -> Later:
    """Run the passes that the options request, soaks last, as they heat the device.

    Ctrl-C in streams or a soak ends that pass with what it has, and skips the others.
    """
    streams = streams_pass(options)
    counts = _streams(passed, streams, steps) if streams else ((), ())
    if any(map(is_interrupted, counts[0])):
        return Later(*counts)
    energies = _energies(passed, power, steps) if power else ((), ())
    seconds = None if options.soak is None else soak_seconds(options.soak)
    soaks = _soaks(passed, seconds, options.sensor, steps) if seconds else ((), ())
    return Later(*counts, *energies, *soaks)


def _streams(passed: Sequence[Passed], streams: StreamsPass, steps: Steps) -> Results[StreamsMeasurement]:

    def work(one: Passed) -> StreamsMeasurement:
        return steps.run(
            one.title,
            lambda progress: measure_stream_counts(
                one.opened,
                one.pool,
                batch=one.batch,
                cuda_graph=one.measured.conditions.cuda_graph,
                run_ns=one.measured.latency.mean_ns,
                remark=one.measured.remark,
                streams=streams,
                progress=progress,
            ),
            timed=True,
        )

    longest = sum(streams.at_most_s(one.measured.latency.mean_ns) for one in passed)
    steps.note(f"Streams: 1 to {streams.most} at the same time, for at most {duration(longest)}.")
    return _each("streams", passed, work)


def _soaks(
    passed: Sequence[Passed], seconds: float, sensor: str | None, steps: Steps
) -> Results[SoakMeasurement]:

    def work(one: Passed) -> SoakMeasurement:
        return steps.run(
            one.title,
            lambda progress: measure_soaked(
                one.opened,
                one.pool,
                batch=one.batch,
                cuda_graph=one.measured.conditions.cuda_graph,
                remark=one.measured.remark,
                seconds=seconds,
                sensor=sensor,
                progress=progress,
            ),
            timed=True,
        )

    each = f"{len(passed)} of {duration(seconds)}" if len(passed) > 1 else duration(seconds)
    steps.note(f"Soak: {each}. Ctrl-C ends it early and keeps what was measured.")
    return _each("soak", passed, work)


def _energies(passed: Sequence[Passed], power: PowerPass, steps: Steps) -> Results[EnergyUse]:

    def work(one: Passed) -> EnergyUse:
        chosen = choose_sampler(power, one.measured.subject.on)
        return _use(one, power=power, chosen=chosen, steps=steps)

    return _each("energy", passed, work)


def _each(kind: RecordKind, passed: Sequence[Passed], work: Callable[[Passed], _Result]) -> Results[_Result]:
    """Do the work for one after another, as each would disturb the other, and keep the records.

    What fails becomes a row.
    """
    found: list[_Result] = []
    failed: list[Unmeasured] = []
    for number, one in enumerate(passed, start=1):
        subject = one.measured.subject
        which = f" {number} of {len(passed)}: {subject.precision}, batch {one.batch}"
        title = f"{kind}{which if len(passed) > 1 else ''}"
        try:
            found.append(work(Passed(one.bundle, one.opened, one.measured, title)))
        except CnnxError as error:
            failed.append(Unmeasured(subject, one.batch, error))
            continue
        one.bundle.keep(kind, found[-1].subject, found[-1].as_dict())
        if is_interrupted(found[-1]):
            break
    return tuple(found), tuple(failed)


def is_interrupted(found: object) -> bool:
    """Whether Ctrl-C ended a measurement."""
    return getattr(found, "ended", "") == "interrupted"


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
    use = _use(Passed(bundle, subject, measured, title), power=power, chosen=chosen, steps=steps)
    bundle.keep("energy", use.subject, use.as_dict())
    return use


def _use(one: Passed, *, power: PowerPass, chosen: Chosen, steps: Steps) -> EnergyUse:
    return measure_use(
        one.opened,
        one.pool,
        batch=one.batch,
        cuda_graph=one.measured.conditions.cuda_graph,
        power=power,
        chosen=chosen,
        run_ns=one.measured.latency.mean_ns,
        remark=one.measured.remark,
        steps=steps,
        title=one.title,
    )
