"""The verbs on a finished bundle: build, inspect, load. None of them needs PyTorch."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnnx import runtimes
from cnnx.agreement import Validation, judge, validation_from_dict
from cnnx.bundle import Bundle
from cnnx.bundle.engine import Engine
from cnnx.bundle.manifest import Manifest
from cnnx.errors import BundleError, CnnxError, EnvironmentLacks, UsageError
from cnnx.graph.inspect import Layer, expected_types, layers
from cnnx.graph.load import load_model
from cnnx.machine.environment import detect
from cnnx.pipeline.bench.measurement import Prediction
from cnnx.pipeline.bench.prediction import predict_graph
from cnnx.pipeline.preconditions.refusals import refuse_unwritable_cache
from cnnx.pipeline.progress import Listener, Progress, Steps, silent
from cnnx.pipeline.records.verified import records_of
from cnnx.pipeline.results import BuildResult
from cnnx.pipeline.steps.engine import engine_step
from cnnx.pipeline.steps.inference import logits_of
from cnnx.pipeline.target import OpenSubject, choose_runtime, open_subject
from cnnx.recipe import Recipe, recipe_from_dict
from cnnx.record import Record, RecordKind, Subject, Unverified
from cnnx.store.cache import cache_folder
from cnnx.store.files import check_place, digest_of_file


def build(
    bundle: str | Path,
    *,
    target: str = "auto",
    sm: Sequence[int] = (),
    opt_batch: int | None = None,
    options: runtimes.BuildOptions | None = None,
    listener: Listener = silent,
) -> BuildResult:
    """Build engines from a bundle's graph and keep them in the bundle.

    Args:
        bundle: its folder.
        target: "auto" or a runtime's name.
        sm: GPU architectures to build for, such as 86; none: this machine's GPU.
        opt_batch: batch that kernels are chosen for, within the graph's; None: the largest.
        options: of TensorRT's builder; None: the usual ones. A timing cache is kept beside the steps' cache
            unless they name another place.
        listener: told of progress.

    Raises:
        BundleError: the bundle is not whole.
        UsageError: the target builds nothing, or not for these GPUs or this batch.
        EnvironmentLacks: what the target needs is absent.
        BuildFailed: it was refused, or the asked precision was not reached.
        WriteFailed: an engine cannot be kept, which is told before any work.
    """
    opened = Bundle.open(Path(bundle))
    steps = Steps(listener)
    runtime = choose_runtime(target, sm)
    if runtime.engine_suffix is None:
        raise _no_builder(target)
    opened.check_place("engines")
    refuse_unwritable_cache()
    if options and options.timing_cache_folder:
        check_place(Path(options.timing_cache_folder) / "probe")
    engines = build_into(opened, runtime, sm, steps, opt_batch=opt_batch, options=options)
    return BuildResult(opened, engines, tuple(steps.times))


def _no_builder(target: str) -> CnnxError:
    """Why nothing builds here: ONNX Runtime was named, or is what "auto" was left with."""
    tensorrt = runtimes.get("tensorrt").cannot_run() if target == "auto" else None
    if tensorrt is None:
        return UsageError(
            "ONNX Runtime runs the bundle's graph as it is and builds no engine",
            mend="name a builder: --target tensorrt, or --target rtx --sm 86 for an RTX GPU",
        )
    return EnvironmentLacks(
        f"no engine can be built for this machine: {tensorrt.what}",
        mend=f"{tensorrt.mend}; or, for an RTX GPU elsewhere: --target rtx --sm 86",
    )


@dataclass(frozen=True, slots=True)
class Inspection:
    """A bundle read, verified and laid open.

    Attributes:
        layers: the graph's layers as they are written.
        engines: built engines, hashes checked.
        records: every verdict and measurement of what is in the bundle, oldest first.
        unverified: records that are damaged, or say nothing about what is in the bundle, with the reason.
        verdict: of the latest validation of this graph, in words.
        self_tests: the newest of each engine and device, in words, oldest first.
        predicted: memory that the graph will take at the smallest and at the largest batch, by batch.
    """

    bundle: Bundle
    layers: tuple[Layer, ...]
    engines: tuple[Engine, ...]
    records: tuple[Record, ...]
    unverified: tuple[Unverified, ...]
    verdict: str
    self_tests: tuple[str, ...]
    predicted: dict[int, Prediction]


def inspect(bundle: str | Path) -> Inspection:
    """Read a bundle, every hash checked. A damaged record is reported, and no reason to refuse the bundle.

    Raises:
        BundleError: it is not whole, or a byte changed.
    """
    opened = Bundle.open(Path(bundle))
    engines = opened.engines()
    for engine in engines:
        opened.engine_file(engine)
    records = records_of(opened)
    latest = latest_validation(records.verified)
    verdict = (
        f"{latest[1].verdict.value} ({latest[1].subject}, {latest[0].date})"
        if latest
        else "not validated yet"
    )
    predicted = {batch: predict_graph(opened.model, batch) for batch in opened.manifest.batch}
    return Inspection(
        bundle=opened,
        layers=layers(load_model(opened.model)),
        engines=engines,
        records=records.verified,
        unverified=records.unverified,
        verdict=verdict,
        self_tests=_self_tests(records.verified),
        predicted=predicted,
    )


def _self_tests(records: Sequence[Record]) -> tuple[str, ...]:
    newest = {
        record.subject: f"{record.result['verdict']} ({record.subject}, {record.date})"
        for record in records
        if record.kind == "selftest"
    }
    return tuple(newest.values())


def latest_validation(records: Sequence[Record]) -> tuple[Record, Validation] | None:
    """The newest verdict among verified records (`records_of`); None where there is none."""
    for record in reversed(records):
        if record.kind == "validation":
            return record, validation_from_dict(record.result)
    return None


def build_into(
    bundle: Bundle,
    runtime: runtimes.Runtime,
    sm: Sequence[int],
    steps: Steps,
    *,
    opt_batch: int | None = None,
    options: runtimes.BuildOptions | None = None,
) -> tuple[Engine, ...]:
    """Build a bundle's graph with a runtime and keep the engines in the bundle; see `build`."""
    manifest = bundle.manifest
    low, high = manifest.batch
    best = high if opt_batch is None else opt_batch
    if not low <= best <= high:
        raise UsageError(
            f"the graph takes batches of {low} to {high}, none of {best} to be tuned for",
            where=bundle.path,
            mend="choose --opt-batch among them, or export with another --batch",
        )
    asked = options or runtimes.BuildOptions()
    caches = asked.timing_cache_folder or str(cache_folder() / "timing-caches")
    request = runtimes.BuildRequest(
        precision=manifest.precision,
        expected=expected_types(load_model(bundle.model)),
        batch=(low, best, high),
        compute_capabilities=tuple(sm),
        options=dataclasses.replace(asked, timing_cache_folder=caches),
    )
    built = engine_step(steps, bundle.model, runtime=runtime, request=request)
    environment = detect().as_dict()
    standing = {engine.identity: engine for engine in bundle.engines()}
    engines = []
    for plan, said in built.read():
        digest = digest_of_file(plan)
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
            batch=request.batch,
        )
        bundle.add_engine(engine, plan)
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
    image_set: str | None = None,
    cannot_judge: tuple[str, ...] | None = None,
) -> Validation:
    """Run crops through a subject and judge its logits against the original's.

    `image_set` and `cannot_judge` are those of the bundle's own validation images unless given.
    """
    manifest = bundle.manifest
    recipe = recipe_of(manifest)

    def work(progress: Progress) -> Validation:
        session = subject.open()
        logits = logits_of(session, pixels, recipe.preprocessing, progress=progress)
        session.close()
        return judge(
            original,
            logits,
            subject=subject.subject,
            thresholds=recipe.acceptance.of(manifest.precision),
            labels=labels,
            ids=ids,
            image_set=manifest.images["validation"].name if image_set is None else image_set,
            cannot_judge=manifest.cannot_judge if cannot_judge is None else cannot_judge,
        )

    return steps.run("validation", work)


def keep(
    bundle: Bundle,
    kind: RecordKind,
    subject: Subject,
    result: dict[str, Any],
) -> Record:
    """Write what was judged, measured or diagnosed into the bundle's runs/."""
    record = Record(kind, subject, detect().as_dict(), result)
    bundle.add_record(record)
    return record


def recipe_of(manifest: Manifest) -> Recipe:
    """The recipe that a bundle was made with."""
    return recipe_from_dict(manifest.recipe, where=Path("manifest.json"))


def load(bundle: str | Path, *, target: str = "auto", engine: str | None = None) -> runtimes.Session:
    """Open what of a bundle runs here, every hash checked first.

    Args:
        bundle: its folder.
        target: "auto" or a runtime's name.
        engine: identity of the engine to open; None: see `open_subject`.

    Returns:
        A session; `run` takes (N, C, H, W) float32, preprocessed as the manifest says.
    """
    return open_subject(Bundle.open(Path(bundle)), target, engine=engine).open()
