"""Measures one batch: memory in separate processes, latency in alternating turns, and its validity."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from cnnx import runtimes
from cnnx.errors import CnnxError, EnvironmentLacks
from cnnx.machine.state import MachineState, read_state
from cnnx.measure.footprint import Footprint, measure_footprint
from cnnx.measure.latency import OnShareDone, measure_side_by_side
from cnnx.measure.validity import judge_validity
from cnnx.pipeline.bench.measurement import (
    Conditions,
    LayerProfile,
    Measurement,
    Prediction,
    Unmeasured,
)
from cnnx.pipeline.bench.prediction import predict_graph
from cnnx.pipeline.progress import Progress, Steps
from cnnx.pipeline.target import OpenSubject
from cnnx.runtimes import Images

CPU_REMARK = (
    "A Q/DQ graph runs unfused on the CPU, with every rounding simulated: its latency here predicts "
    "nothing for a GPU."
)
# Number of images that latency is measured on, in turn; more would only fill memory.
POOL = 32
_LAYER_RUNS = 50


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure: until both minimums are reached, or for `max_seconds`.

    Attributes:
        min_seconds: minimum total time of each subject's samples.
        min_samples: minimum number of samples of each subject.
        max_seconds: maximum time for all subjects together.
        percentile: percentile to report, in percent.
        cuda_graph: launch an engine's kernels as one CUDA graph; None: where possible.
        layers: also time layers, in a separate session.
    """

    min_seconds: float
    min_samples: int
    max_seconds: float
    percentile: float = 99.0
    cuda_graph: bool | None = None
    layers: bool = False


@dataclass(frozen=True, slots=True)
class _Opened:
    subject: OpenSubject
    session: runtimes.Session
    cuda_graph: bool | None
    remark: str


def measure(
    subjects: Sequence[OpenSubject],
    pools: Sequence[Images],
    *,
    batch: int,
    effort: Effort,
    steps: Steps,
) -> tuple[Measurement, ...]:
    """Like `measure_pools`; raises the first failure."""
    measured, failed = measure_pools(subjects, pools, batch=batch, effort=effort, steps=steps)
    if failed:
        raise failed[0].error
    return measured


def measure_pools(
    subjects: Sequence[OpenSubject],
    pools: Sequence[Images],
    *,
    batch: int,
    effort: Effort,
    steps: Steps,
) -> tuple[tuple[Measurement, ...], tuple[Unmeasured, ...]]:
    """Measure the memory of each subject, then all latencies side by side.

    Args:
        subjects: what to measure.
        pools: M images for each subject, as its graph takes them.
        batch: images per run.
        effort: how long to measure.
        steps: runs the steps.

    Returns:
        measurements, and subjects that could not be opened or run.
    """

    def work(progress: Progress) -> tuple[tuple[Measurement, ...], tuple[Unmeasured, ...]]:
        # Before any is opened here, as a small board has no memory for two copies of a network.
        footprints = [
            _footprint(subject, batch_from(pool, batch), effort.cuda_graph)
            for subject, pool in zip(subjects, pools, strict=True)
        ]
        opened, failed = _open_all(subjects, pools, batch, effort.cuda_graph)
        try:
            measured = _measured(
                opened,
                pools=[pools[index] for index in opened],
                footprints=[footprints[index] for index in opened],
                batch=batch,
                effort=effort,
                progress=lambda share: progress(round(share * 100), 100),
            )
        finally:
            for one in opened.values():
                one.session.close()
        return measured, failed

    measured, failed = steps.run("latency and memory", work, timed=True)
    if effort.layers:
        measured = tuple(_with_layers(subjects, pools, one, steps) for one in measured)
    return measured, failed


def _open_all(
    subjects: Sequence[OpenSubject],
    pools: Sequence[Images],
    batch: int,
    cuda_graph: bool | None,
) -> tuple[dict[int, _Opened], tuple[Unmeasured, ...]]:
    tried = [
        _try_open(subject, batch_from(pool, batch), cuda_graph)
        for subject, pool in zip(subjects, pools, strict=True)
    ]
    opened = {index: one for index, one in enumerate(tried) if isinstance(one, _Opened)}
    return opened, tuple(one for one in tried if isinstance(one, Unmeasured))


def _try_open(subject: OpenSubject, images: Images, cuda_graph: bool | None) -> _Opened | Unmeasured:
    try:
        return _open(subject, images, cuda_graph)
    except CnnxError as error:
        return Unmeasured(subject.subject, len(images), error)


def _open(subject: OpenSubject, images: Images, cuda_graph: bool | None) -> _Opened:
    """Open the subject and run it once, as a CUDA graph that cannot be captured fails only then."""
    if not subject.captures:
        return _Opened(subject, _run_once(subject, images, bool(cuda_graph)), None, "")
    if cuda_graph is False:
        return _Opened(subject, _run_once(subject, images, False), False, "")
    try:
        return _Opened(subject, _run_once(subject, images, True), True, "")
    except EnvironmentLacks as error:
        if cuda_graph:
            raise
        remark = f"Measured without a CUDA graph: {error.what}."
        return _Opened(subject, _run_once(subject, images, False), False, remark)


def _run_once(subject: OpenSubject, images: Images, cuda_graph: bool) -> runtimes.Session:
    session = subject.open(cuda_graph=cuda_graph)
    try:
        getattr(session, "timed_run", session.run)(images)
    except CnnxError:
        session.close()
        raise
    return session


def _measured(
    opened: dict[int, _Opened],
    *,
    pools: Sequence[Images],
    footprints: Sequence[Footprint],
    batch: int,
    effort: Effort,
    progress: OnShareDone,
) -> tuple[Measurement, ...]:
    if not opened:
        return ()
    states: list[MachineState] = []
    latencies = measure_side_by_side(
        {str(index): one.session for index, one in opened.items()},
        {str(index): pool for index, pool in zip(opened, pools, strict=True)},
        batch=batch,
        min_seconds=effort.min_seconds,
        min_samples=effort.min_samples,
        max_seconds=effort.max_seconds,
        progress=progress,
        look=lambda: states.append(read_state()),
    )
    together = uuid.uuid4().hex if len(opened) > 1 else ""
    found = []
    for one, latency, footprint in zip(opened.values(), latencies.values(), footprints, strict=True):
        _, tuned_for, largest = one.subject.batch or (None, None, None)
        found.append(
            Measurement(
                subject=one.subject.subject,
                latency=latency,
                memory=footprint,
                remark=_remark(one, footprint),
                conditions=Conditions(
                    cuda_graph=one.cuda_graph,
                    percentile=effort.percentile,
                    min_seconds=effort.min_seconds,
                    side_by_side=len(opened),
                    tuned_for=tuned_for,
                    largest=largest,
                    together=together,
                ),
                predicted=_prediction(one.subject, batch, footprint),
                validity=judge_validity(
                    latency,
                    on_gpu=one.subject.subject.device_kind == "gpu",
                    states=states,
                    cuda_graph=bool(one.cuda_graph),
                    percentiles=(50.0, 90.0, 99.0, effort.percentile),
                ),
                states=tuple(states),
            )
        )
    return tuple(found)


def _footprint(subject: OpenSubject, images: Images, cuda_graph: bool | None) -> Footprint:
    """Memory with a CUDA graph if latency will use one, else, or if that fails, without."""
    wanted = subject.captures and cuda_graph is not False
    measured = partial(measure_footprint, subject.runtime.name, subject.file, images)
    found = measured(subject.wanted(cuda_graph=wanted))
    return measured(subject.options) if found.failed and wanted and not cuda_graph else found


def _prediction(subject: OpenSubject, batch: int, footprint: Footprint) -> Prediction:
    """Memory as the engine reports it, or predicted from the graph."""
    if subject.subject.artefact == "engine":
        size = subject.file.stat().st_size
        return Prediction("engine", size, footprint.scratch_bytes, footprint.io_bytes)
    return predict_graph(subject.file, batch)


def _with_layers(
    subjects: Sequence[OpenSubject],
    pools: Sequence[Images],
    measured: Measurement,
    steps: Steps,
) -> Measurement:
    """Add layer times to a measurement; if layers cannot be timed, a remark with the reason."""
    index = next(i for i, one in enumerate(subjects) if one.subject == measured.subject)
    subject, images = subjects[index], batch_from(pools[index], measured.latency.batch)
    times = partial(subject.runtime.layer_times, subject.file, images, options=subject.options)
    try:
        found = steps.run("layers", lambda _: times(runs=_LAYER_RUNS), timed=True)
    except CnnxError as error:
        remark = f"{measured.remark} Layers could not be timed: {error.what}.".lstrip()
        return dataclasses.replace(measured, remark=remark)
    return dataclasses.replace(measured, layers=LayerProfile(_LAYER_RUNS, found))


def batch_from(pool: Images, batch: int) -> Images:
    """One batch of a pool; images are repeated if the pool is too small."""
    return pool[:batch] if len(pool) >= batch else np.resize(pool, (batch, *pool.shape[1:]))


def _remark(one: _Opened, footprint: Footprint) -> str:
    """What a reader must know in addition to the figures."""
    subject = one.subject.subject
    on_cpu = subject.artefact == "graph" and subject.device_kind == "cpu"
    return " ".join(
        (
            *([CPU_REMARK] if subject.precision == "int8" and on_cpu else []),
            *one.subject.remarks,
            *([one.remark] if one.remark else []),
            *([f"Memory is unknown, as its process failed: {footprint.failed}."] if footprint.failed else []),
        )
    )
