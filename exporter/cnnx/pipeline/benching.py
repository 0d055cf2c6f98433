"""Measuring what of a finished bundle runs here: latency, memory, and in a pass of its own energy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cnnx import runtimes
from cnnx.bundle import Bundle
from cnnx.data.normalize import normalize
from cnnx.errors import UsageError
from cnnx.measure.latency import measure_side_by_side
from cnnx.measure.memory import peak_memory
from cnnx.measure.samples import samples_needed
from cnnx.pipeline.energy import Chosen, PowerPass, choose_sampler, measure_use
from cnnx.pipeline.energy_use import EnergyUse
from cnnx.pipeline.finished import keep, recipe_of
from cnnx.pipeline.progress import Listener, Progress, Steps, silent
from cnnx.pipeline.results import BenchResult, Measurement
from cnnx.pipeline.running import OpenSubject, open_subject
from cnnx.recipe import Preprocessing
from cnnx.record import Subject

CPU_REMARK = (
    "A Q/DQ graph runs unfused on the CPU, with every rounding simulated: its latency here predicts "
    "nothing for a GPU."
)


# Pictures that latency is measured on, in turn: more would only fill memory.
_POOL = 32


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure: both minimums, unless `max_seconds` ends it."""

    min_seconds: float
    min_samples: int
    max_seconds: float


def bench(
    bundle: str | Path,
    *,
    target: str = "auto",
    batch: int = 1,
    seconds: float = 3.0,
    power: PowerPass | None = None,
    listener: Listener = silent,
) -> BenchResult:
    """Measure latency and host memory of what runs here, on the self-test's pictures; energy if asked.

    Args:
        bundle: its folder.
        target: "auto" or a runtime's name.
        batch: pictures a run.
        seconds: the least time to measure for.
        power: how to measure energy, in a pass of its own after latency; None: not.
        listener: told of progress.

    Raises:
        EnvironmentLacks: energy is asked for and no sensor sees the device; told before anything is measured.
    """
    opened = Bundle.open(Path(bundle))
    steps = Steps(listener)
    low, high = opened.manifest.batch
    if not low <= batch <= high:
        raise UsageError(
            f"the graph takes batches of {low} to {high}, not {batch}", mend="export it with --batch"
        )
    if not 0 < seconds < math.inf:
        raise UsageError(f"measuring for {seconds} seconds makes no sense", mend="--seconds 3")
    subject = open_subject(opened, target)
    chosen = choose_sampler(power, subject.subject.device) if power else None
    measurements = measure(
        [subject],
        pixels=opened.reference().crops,
        preprocessing=recipe_of(opened.manifest).preprocessing,
        batch=batch,
        effort=Effort(seconds, min_samples=samples_needed(0.99), max_seconds=max(60.0, 3 * seconds)),
        steps=steps,
    )
    for measurement in measurements:
        keep(opened, "benchmark", measurement.subject, measurement.as_dict())
    energy = None
    if power and chosen:
        energy = _energy(opened, subject, measurements[0], power=power, chosen=chosen, steps=steps)
        keep(opened, "energy", energy.subject, energy.as_dict())
    return BenchResult(opened, measurements, tuple(steps.times), energy)


def _energy(
    bundle: Bundle,
    subject: OpenSubject,
    measured: Measurement,
    *,
    power: PowerPass,
    chosen: Chosen,
    steps: Steps,
) -> EnergyUse:
    batch = measured.latency.batch
    pixels = bundle.reference().crops[: max(batch, _POOL)]
    return measure_use(
        subject.subject,
        subject.opener,
        normalize(pixels, recipe_of(bundle.manifest).preprocessing),
        batch=batch,
        power=power,
        chosen=chosen,
        run_ns=measured.latency.mean_ns,
        remark=measured.remark,
        steps=steps,
    )


def measure(
    subjects: Sequence[OpenSubject],
    *,
    pixels: NDArray[np.uint8],
    preprocessing: Preprocessing,
    batch: int,
    effort: Effort,
    steps: Steps,
) -> tuple[Measurement, ...]:
    """The memory each subject takes when it is opened and run, then latencies in alternating rounds."""

    def work(progress: Progress) -> tuple[Measurement, ...]:
        pool = normalize(pixels[: max(batch, _POOL)], preprocessing)
        sessions, memory = {}, []
        for index, subject in enumerate(subjects):
            sessions[str(index)], used = peak_memory(partial(_open_and_run, subject, pool[:batch]))
            memory.append(used)
        latencies = measure_side_by_side(
            sessions,
            pool,
            batch=batch,
            min_seconds=effort.min_seconds,
            min_samples=effort.min_samples,
            max_seconds=effort.max_seconds,
            progress=lambda share: progress(round(share * 100), 100),
        )
        for session in sessions.values():
            session.close()
        return tuple(
            Measurement(subject.subject, latency, used, _remark(subject.subject))
            for subject, latency, used in zip(subjects, latencies.values(), memory, strict=True)
        )

    return steps.run("latency and memory", work)


def _open_and_run(subject: OpenSubject, images: NDArray[np.float32]) -> runtimes.Session:
    session = subject.opener()
    session.run(images)
    return session


def _remark(subject: Subject) -> str:
    on_cpu = subject.artefact == "graph" and subject.device.startswith("CPU: ")
    return CPU_REMARK if subject.precision == "int8" and on_cpu else ""
