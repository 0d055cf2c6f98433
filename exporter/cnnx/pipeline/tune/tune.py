"""`tune`: chooses on the device where Q/DQ go, by measured latency under the accuracy gates."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cnnx import runtimes
from cnnx.agreement import Likeness, Validation, compare
from cnnx.bundle import Bundle
from cnnx.bundle.engine import Engine
from cnnx.bundle.writing import refuse_place
from cnnx.errors import BuildFailed, BundleError, UsageError
from cnnx.gates import Limits
from cnnx.options import part_of, takes
from cnnx.options.bundles import BuildOptions, TuneOptions
from cnnx.pipeline.bench.latency import POOL
from cnnx.pipeline.build import keep_engine, no_builder, with_timing_cache
from cnnx.pipeline.judge.demand import Demand, demand_of
from cnnx.pipeline.judge.images import judge_session
from cnnx.pipeline.preconditions.refusals import refuse_unwritable_cache
from cnnx.pipeline.progress import Listener, Progress, Steps, silent
from cnnx.pipeline.search.repair import REPAIR_IMAGES, would_pass
from cnnx.pipeline.search.trials import Trials
from cnnx.pipeline.sign.trust import open_bundle
from cnnx.pipeline.source import Source, read_source
from cnnx.pipeline.steps.artefacts import read_built
from cnnx.pipeline.steps.inference import RUNNER, ran_by
from cnnx.pipeline.target import choose_runtime, open_subject
from cnnx.pipeline.tune.device import Built, TargetDevice
from cnnx.pipeline.tune.findings import Tuning
from cnnx.pipeline.tune.images import TuningImages, images_of, original_logits
from cnnx.pipeline.tune.journal import read_ledger, save_ledger
from cnnx.pipeline.tune.network import TunedNetwork
from cnnx.pipeline.tune.publish import write_tuned
from cnnx.pipeline.tune.result import TuneResult
from cnnx.pipeline.tune.summary import tuning_of
from cnnx.quant.repair import Outcome
from cnnx.quant.tuning.device import Budget, Ledger, Placement, Refused
from cnnx.quant.tuning.search import Found, OutOfTime, Search
from cnnx.store.digests import digest_of
from cnnx.store.files import scratch_folder
from cnnx.store.own_code import own_code

BUILDS = 96
"""Maximum number of engines."""


@dataclass(frozen=True, slots=True)
class _Job:
    """A search with everything checked."""

    bundle: Bundle
    out: Path
    runtime: runtimes.Runtime
    batch: tuple[int, int, int]
    demand: Demand
    source: Source
    network: TunedNetwork
    images: TuningImages
    options: TuneOptions
    steps: Steps


@takes(TuneOptions)
def tune(bundle: str | Path, options: TuneOptions, *, listener: Listener = silent) -> TuneResult:
    """Choose on this device which layers and shortcuts carry Q/DQ, and write a new bundle.

    Engines are built with the real scales and measured in turns with FP16. The fastest placement whose
    agreement on selection images would pass the gates is written, with the engine that was measured, and
    judged on the validation images. The bundle itself stays as it is. A search that was stopped resumes.

    Args:
        bundle: the folder of an INT8 bundle that was exported with its source.
        options: options as an object; each can also be given by keyword.
        listener: receives progress events.

    Raises:
        UsageError: the bundle is not in INT8, or an option is invalid.
        BundleError: the bundle holds no source, is damaged, or `out` has other content.
        EnvironmentLacks: the target cannot run here.
        ImageError: no usable image.
        BuildFailed: the network cannot be built without Q/DQ.
        WriteFailed: the new bundle cannot be written; raised before any work.

    Examples:
        >>> result = cnnx.tune("resnet20-int8", target="ort", budget=5)  # doctest: +SKIP
        >>> result.tuning.in_role("chosen").ratio  # doctest: +SKIP
    """
    if not 0 < options.budget < math.inf:
        raise UsageError(
            f"invalid --budget {options.budget:g}: expected minutes above 0", hint="give --budget 30"
        )
    opened = open_bundle(Path(bundle), options.require_signature)
    job = _prepared(opened, options, Steps(listener))
    with scratch_folder() as folder:
        device = _device(job, folder)
        try:
            return _tuned(job, device)
        finally:
            device.close()


def _prepared(bundle: Bundle, options: TuneOptions, steps: Steps) -> _Job:
    """Check everything before any work."""
    precision = bundle.manifest.precision
    if precision != "int8":
        raise UsageError(
            f"the bundle is in {precision}, so no layer is quantized",
            where=bundle.path,
            hint="give a bundle that was exported with --int8 --with-source",
        )
    if not bundle.manifest.has_source:
        raise BundleError(
            "the bundle does not hold its source, from which other placements are made",
            where=bundle.path,
            hint=f"export it again: cnnx export {bundle.manifest.recipe['name']} --int8 --with-source",
        )
    own = bundle.path.absolute()
    out = own.with_name(f"{own.name}-tuned") if options.out is None else Path(options.out)
    if out.resolve() == bundle.path.resolve():
        raise UsageError(
            "--out is the bundle itself, which stays as it is", where=out, hint="choose another --out"
        )
    demand = demand_of(bundle, options.gates)
    refuse_place(out, force=options.force)
    refuse_unwritable_cache()
    runtime = choose_runtime(options.target, ())
    if options.target == "auto" and runtime.engine_suffix is None:
        raise no_builder(runtime, options.target, instead="to tune for ONNX Runtime here: --target ort")
    if reason := runtime.cannot_run():
        raise reason
    source = read_source(bundle)
    network = TunedNetwork(source, steps)
    if not network.sites:
        raise UsageError(
            "the bundle has no layer that could carry Q/DQ",
            where=bundle.path,
            hint=f"see why: cnnx inspect {bundle.path}",
        )
    batch = _batch(bundle, options.batch)
    images = images_of(bundle, options, steps)
    return _Job(bundle, out, runtime, batch, demand, source, network, images, options, steps)


def _batch(bundle: Bundle, wanted: int | None) -> tuple[int, int, int]:
    """Smallest, tuned and largest batch."""
    low, high = bundle.manifest.batch
    batch = high if wanted is None else wanted
    if not low <= batch <= high:
        raise UsageError(
            f"invalid --batch {batch}: the graph takes batches from {low} to {high}",
            where=bundle.path,
            hint=f"give --batch {min(max(batch, low), high)}, or export again with a different --batch",
        )
    return low, batch, high


def _device(job: _Job, folder: Path) -> TargetDevice:
    return TargetDevice(
        job.network,
        job.runtime,
        batch=job.batch,
        options=with_timing_cache(part_of(job.options, BuildOptions)),
        pixels=job.images.selection.pixels[: max(POOL, job.batch[1])],
        folder=folder,
    )


def _tuned(job: _Job, device: TargetDevice) -> TuneResult:
    original = original_logits(job.source, job.images, job.options, job.steps)
    inputs = _inputs(job)
    store = job.steps.store
    journal, trials_journal = (store.partial(kind, inputs) for kind in ("tune", "tune-trials"))
    ledger = read_ledger(journal)
    if ledger.tried:
        job.steps.note(f"Resuming a search that built {len(ledger.tried)} engines.")
    network, limits = job.network, job.demand.limits
    trials = Trials(
        network.quantizer,
        network.calibration,
        job.images.selection.pixels,
        layers=network.problem.names,
        journal=trials_journal,
    )
    budget = Budget(job.options.budget * 60, BUILDS)

    def judge(placement: Placement) -> Outcome:
        likeness = trials(placement)
        return Outcome(likeness.divergence, _passes(likeness, limits, job.images))

    def work(progress: Progress) -> Found[Built] | None:
        def said(done: int, _: int) -> None:
            share = max(done / budget.builds, ledger.seconds / budget.seconds)
            progress(round(100 * min(1.0, share)), 100)

        search = Search(
            network.problem,
            device,
            judge,
            given=network.given,
            ledger=ledger,
            budget=budget,
            clock=time.monotonic,
            canonical=network.canonical,
            save=lambda: save_ledger(ledger, journal),
            progress=said,
        )
        return search.run()

    try:
        found = job.steps.run("search", work, timed=True)
    except Refused as refusal:
        raise BuildFailed(
            f"the network cannot be built without Q/DQ: {refusal}",
            where=job.runtime.name,
            hint="build an FP16 bundle of it for details: cnnx build",
        ) from refusal
    except OutOfTime:
        undecided = (
            f"{job.options.budget:g} minutes ended before the bundle's own placement was compared with FP16. "
            "What was measured is kept: run the same command with a larger --budget"
        )
        return _unwritten(job, ledger, trials, undecided=undecided)
    except KeyboardInterrupt:
        job.steps.note("Stopped. The same command resumes the search.")
        raise
    if found is None:
        result = _unwritten(job, ledger, trials)
    else:
        result = _written(job, device, found, ledger, trials, original)
    for each in (journal, trials_journal):
        each.remove()
    return result


def _passes(likeness: Likeness, limits: Limits, images: TuningImages) -> bool:
    return would_pass(likeness, limits, images=max(len(images.validation), REPAIR_IMAGES))


def _unwritten(job: _Job, ledger: Ledger, trials: Trials, *, undecided: str = "") -> TuneResult:
    """The result if the gates cannot be reached, or if that was not decided."""
    ended = undecided or "not even the network without Q/DQ passes its gates on the selection images"
    tuning = _tuning(job, ledger, trials, None, ended=ended)
    return TuneResult(str(job.bundle.path), None, (), tuning, None, undecided, tuple(job.steps.times))


def _written(
    job: _Job,
    device: TargetDevice,
    found: Found[Built],
    ledger: Ledger,
    trials: Trials,
    original: NDArray[np.float32],
) -> TuneResult:
    """Write the new bundle with the engine that was measured, and judge it."""
    pixels, steps = job.images.selection.pixels, job.steps
    own = steps.run(
        "chosen engine on the selection images",
        lambda _: compare(trials.original, device.logits(found.engine, pixels)),
    )
    notes: list[str] = []
    if not _passes(own, job.demand.limits, job.images):
        notes.append(
            f"The chosen engine itself agrees less than its graph: {own.top1_agreement:.1%} top-1 agreement "
            f"and a divergence of {own.divergence:.2g} nats on the selection images, which fail the gates."
        )
    bundle = steps.run(
        "bundle",
        lambda _: write_tuned(
            job.bundle,
            job.network,
            found.chosen.placement,
            model=found.engine.model,
            used=job.images.selection.digests,
            out=job.out,
            force=job.options.force,
        ),
    )
    engines: tuple[Engine, ...] = ()
    if job.runtime.engine_suffix is not None:
        file = found.engine.file
        engines = (keep_engine(bundle, job.runtime.name, file, read_built(file.parent), batch=job.batch),)
    validation = _judged(job, bundle, engines, original)
    tuning = _tuning(job, ledger, trials, found, ended=found.ended, engine=own, notes=notes)
    bundle.keep("validation", validation.subject, validation.as_dict())
    bundle.keep("tuning", validation.subject, tuning.as_dict())
    return TuneResult(str(job.bundle.path), bundle, engines, tuning, validation, "", tuple(job.steps.times))


def _tuning(
    job: _Job,
    ledger: Ledger,
    trials: Trials,
    found: Found[Built] | None,
    *,
    ended: str,
    engine: Likeness | None = None,
    notes: Sequence[str] = (),
) -> Tuning:
    return tuning_of(
        job.network,
        ledger,
        trials,
        found,
        images=job.images,
        batch=job.batch[1],
        base=job.bundle.manifest.scales,
        budget_seconds=job.options.budget * 60,
        ended=ended,
        engine=engine,
        notes=(*job.images.notes, *_notes(job), *notes),
    )


def _judged(
    job: _Job, bundle: Bundle, engines: tuple[Engine, ...], original: NDArray[np.float32]
) -> Validation:
    """The verdict on the validation images: of the engine, or of the graph if the target runs graphs."""
    crops = job.images.validation
    subject = open_subject(bundle, job.runtime.name, engine=engines[0].identity if engines else None)
    return judge_session(
        subject,
        bundle,
        pixels=crops.pixels,
        original=original,
        labels=crops.labels,
        ids=crops.ids,
        images=crops.list_digest,
        image_set=crops.name,
        cannot_judge=bundle.manifest.cannot_judge_on(synthetic=crops.synthetic),
        demand=job.demand,
        steps=job.steps,
    )


def _notes(job: _Job) -> Iterator[str]:
    """What the user should know about this device."""
    if job.runtime.engine_suffix is None and job.bundle.manifest.scales == "fp16":
        yield (
            "ONNX Runtime's CPU provider computes FP16 in FP32, with casts around every layer. To tune for "
            "it, export with --scales fp32."
        )
    built = {engine.runtime for engine in job.bundle.engines()}
    if built and job.runtime.name not in built:
        yield (
            f"The bundle's engines are for {', '.join(sorted(built))}, but this search measured "
            f"{job.runtime.name} on {job.runtime.device()}. On another target, tune again."
        )


def _inputs(job: _Job) -> dict[str, object]:
    """What measurements of a search depend on; not its budget, so that a larger one resumes it."""
    build = vars(part_of(job.options, BuildOptions))
    return {
        "graph": job.source.graph.key,
        "calibration": digest_of(job.network.calibration.to_json()),
        "statistics": job.network.quantizer.statistics.key,
        "policy": dataclasses.asdict(job.network.recipe.precision),
        "input": str(job.network.recipe.input_format),
        "given": sorted(job.network.given),
        "scales": job.bundle.manifest.scales,
        "gates": job.demand.limits.set(),
        "selection": job.images.selection.key,
        "validation": len(job.images.validation),
        "runtime": [job.runtime.name, job.runtime.version(), str(job.runtime.device())],
        "batch": job.batch,
        "build": {key: value for key, value in build.items() if key != "timing_cache_folder"},
        "code": own_code(__name__, RUNNER, runtimes.NAMES[job.runtime.name]),
        **ran_by(),
    }
