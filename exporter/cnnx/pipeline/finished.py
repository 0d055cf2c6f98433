"""The verbs on a finished bundle: build, validate, bench, inspect. None of them needs PyTorch."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cnnx import runtimes
from cnnx.agreement import Validation, judge, validation_from_dict
from cnnx.bundle import Bundle, Engine, Manifest
from cnnx.data.normalize import normalize
from cnnx.environment import detect
from cnnx.errors import BundleError, UsageError
from cnnx.graph.inspect import Layer, expected_types, layers
from cnnx.graph.load import load_model
from cnnx.measure.latency import measure_side_by_side
from cnnx.measure.memory import peak_memory
from cnnx.measure.samples import samples_needed
from cnnx.pipeline.progress import Listener, Progress, Steps, silent
from cnnx.pipeline.results import BenchResult, BuildResult, Measurement, ValidateResult
from cnnx.pipeline.running import OpenSubject, choose_runtime, open_subject
from cnnx.pipeline.steps import BUILT, engine_step, logits_of
from cnnx.recipe import Preprocessing, Recipe, recipe_from_dict
from cnnx.record import Record, Subject
from cnnx.store import cache_folder, digest_of_file

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


def build(
    bundle: str | Path,
    *,
    target: str = "auto",
    sm: Sequence[int] = (),
    listener: Listener = silent,
) -> BuildResult:
    """Build engines from a bundle's graph and keep them in the bundle.

    Args:
        bundle: its folder.
        target: "auto" or a runtime's name.
        sm: GPU architectures to build for, such as 86; none: this machine's GPU.
        listener: told of progress.

    Raises:
        BundleError: the bundle is not whole.
        UsageError: the target builds nothing, or not for these GPUs.
        EnvironmentLacks: what the target needs is absent.
        BuildFailed: it was refused, or the asked precision was not reached.
    """
    opened = Bundle.open(Path(bundle))
    steps = Steps(listener)
    runtime = choose_runtime(target, sm)
    if runtime.engine_suffix is None:
        raise UsageError(
            f"{runtime.name} runs the bundle's graph as it is and builds no engine",
            mend="name a builder and a GPU: --target rtx --sm 86",
        )
    engines = build_into(opened, runtime, sm, steps)
    return BuildResult(opened, engines, tuple(steps.times))


def validate(
    bundle: str | Path,
    *,
    target: str = "auto",
    listener: Listener = silent,
) -> ValidateResult:
    """Judge what runs here on the bundle's self-test: the engine where it can run, else the graph.

    The verdict is kept as a record under runs/.

    Args:
        bundle: its folder.
        target: "auto" or a runtime's name.
        listener: told of progress.
    """
    opened = Bundle.open(Path(bundle))
    steps = Steps(listener)
    reference = opened.reference()
    validation = judge_session(
        open_subject(opened, target),
        opened,
        pixels=reference.crops,
        original=reference.logits,
        labels=reference.labels,
        ids=reference.ids,
        steps=steps,
    )
    record = keep(opened, "validation", validation.subject, validation.as_dict())
    return ValidateResult(opened, validation, record, tuple(steps.times))


def bench(
    bundle: str | Path,
    *,
    target: str = "auto",
    batch: int = 1,
    seconds: float = 3.0,
    listener: Listener = silent,
) -> BenchResult:
    """Measure latency and host memory of what runs here, on the self-test's pictures.

    Args:
        bundle: its folder.
        target: "auto" or a runtime's name.
        batch: pictures a run.
        seconds: the least time to measure for.
        listener: told of progress.
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
    measurements = measure(
        [open_subject(opened, target)],
        pixels=opened.reference().crops,
        preprocessing=_recipe(opened.manifest).preprocessing,
        batch=batch,
        effort=Effort(seconds, min_samples=samples_needed(0.99), max_seconds=max(60.0, 3 * seconds)),
        steps=steps,
    )
    for measurement in measurements:
        keep(opened, "benchmark", measurement.subject, measurement.as_dict())
    return BenchResult(opened, measurements, tuple(steps.times))


@dataclass(frozen=True, slots=True)
class Inspection:
    """A bundle read, verified and laid open.

    Attributes:
        layers: the graph's layers as they are written.
        engines: built engines, hashes checked.
        records: every verdict and measurement, oldest first.
        verdict: of the latest validation of this graph, in words.
    """

    bundle: Bundle
    layers: tuple[Layer, ...]
    engines: tuple[Engine, ...]
    records: tuple[Record, ...]
    verdict: str


def inspect(bundle: str | Path) -> Inspection:
    """Read a bundle, every hash checked.

    Raises:
        BundleError: it is not whole, or a byte changed.
    """
    opened = Bundle.open(Path(bundle))
    engines = opened.engines()
    for engine in engines:
        opened.engine_file(engine)
    records = opened.records()
    latest = latest_validation(opened, records)
    verdict = (
        f"{latest[1].verdict.value} ({latest[1].subject}, {latest[0].date})"
        if latest
        else "not validated yet"
    )
    return Inspection(opened, layers(load_model(opened.model)), engines, records, verdict)


def latest_validation(bundle: Bundle, records: Sequence[Record]) -> tuple[Record, Validation] | None:
    """The newest verdict on this bundle's graph or an engine made from it; None where there is none."""
    ours = {bundle.manifest.files["model.onnx"], *(engine.digest for engine in bundle.engines())}
    for record in reversed(records):
        if record.kind == "validation" and record.subject.digest in ours:
            return record, validation_from_dict(record.result)
    return None


def build_into(
    bundle: Bundle, runtime: runtimes.Runtime, sm: Sequence[int], steps: Steps
) -> tuple[Engine, ...]:
    """Build a bundle's graph with a runtime and keep the engines in the bundle."""
    manifest = bundle.manifest
    low, high = manifest.batch
    request = runtimes.BuildRequest(
        precision=manifest.precision,
        expected=expected_types(load_model(bundle.model)),
        batch=(low, high, high),
        compute_capabilities=tuple(sm),
        options=runtimes.BuildOptions(timing_cache_folder=str(cache_folder() / "timing-caches")),
    )
    entry = engine_step(steps, bundle.model, runtime=runtime, request=request)
    environment = detect().as_dict()
    standing = {engine.identity: engine for engine in bundle.engines()}
    engines = []
    for place in sorted(path for path in entry.folder.iterdir() if path.is_dir()):
        said = json.loads((place / BUILT).read_text(encoding="utf-8"))
        digest = digest_of_file(place / said["file"])
        known = standing.get(said["identity"])
        if known is not None and known.digest == digest and _is_intact(bundle, known):
            engines.append(known)
            continue
        engine = Engine(
            **said,
            digest=digest,
            runtime=runtime.name,
            precision=manifest.precision,
            graph_digest=manifest.files["model.onnx"],
            environment=environment,
        )
        bundle.add_engine(engine, place / engine.file)
        engines.append(engine)
    return tuple(engines)


def _is_intact(bundle: Bundle, engine: Engine) -> bool:
    try:
        bundle.engine_file(engine)
    except BundleError:
        return False
    return True


def judge_session(
    subject: OpenSubject,
    bundle: Bundle,
    *,
    pixels: NDArray[np.uint8],
    original: NDArray[np.float32],
    labels: NDArray[np.int64] | None,
    ids: Sequence[str],
    steps: Steps,
) -> Validation:
    """Run crops through a subject and judge its logits against the original's."""
    manifest = bundle.manifest
    recipe = _recipe(manifest)

    def work(progress: Progress) -> Validation:
        session = subject.opener()
        logits = logits_of(session, pixels, recipe.preprocessing, progress=progress)
        session.close()
        return judge(
            original,
            logits,
            subject=subject.subject,
            thresholds=recipe.acceptance.of(manifest.precision),
            labels=labels,
            ids=ids,
            image_set=manifest.images["validation"].name,
            cannot_judge=manifest.cannot_judge,
        )

    return steps.run("validation", work)


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


def keep(
    bundle: Bundle,
    kind: Literal["validation", "benchmark", "diagnosis"],
    subject: Subject,
    result: dict[str, Any],
) -> Record:
    """Write what was judged, measured or diagnosed into the bundle's runs/."""
    record = Record(kind, subject, detect().as_dict(), result)
    bundle.add_record(record)
    return record


def _recipe(manifest: Manifest) -> Recipe:
    return recipe_from_dict(manifest.recipe, where=Path("manifest.json"))


def load(bundle: str | Path, *, target: str = "auto") -> runtimes.Session:
    """Open what of a bundle runs here, every hash checked first.

    Returns:
        A session; `run` takes (N, C, H, W) float32, preprocessed as the manifest says.
    """
    return open_subject(Bundle.open(Path(bundle)), target).opener()
