"""The whole way: from a recipe to a judged bundle with engines beside it."""

from __future__ import annotations

import dataclasses
import resource
import time
from collections.abc import Sequence
from pathlib import Path

from cnnx import runtimes
from cnnx.agreement import Validation
from cnnx.bundle import Bundle
from cnnx.bundle.engine import Engine
from cnnx.bundle.writing import left_beside, refuse_place
from cnnx.errors import UsageError
from cnnx.pipeline.bench.latency import Effort, measure
from cnnx.pipeline.bench.measurement import Measurement
from cnnx.pipeline.build import build_into
from cnnx.pipeline.export.options import check_calibrator, with_options
from cnnx.pipeline.export.parts import Job, Parts, images_to_choose_by, make_parts, repaired
from cnnx.pipeline.export.publish import publish
from cnnx.pipeline.export.result import ExportResult
from cnnx.pipeline.preconditions.ahead import Ahead
from cnnx.pipeline.preconditions.refusals import open_checked
from cnnx.pipeline.progress import Listener, Steps, silent
from cnnx.pipeline.records.verified import latest_validation, records_of
from cnnx.pipeline.steps.definition import resolve
from cnnx.pipeline.steps.images import few_ranges, remarks
from cnnx.pipeline.steps.original import Batch
from cnnx.pipeline.target import OpenSubject, choose_runtime, open_subject
from cnnx.pipeline.validate import judge_session
from cnnx.recipe import Precision, Scales
from cnnx.record import Subject
from cnnx.stats import Verdict

# An export measures long enough to show a median; cnnx bench measures properly.
_GLANCE = Effort(min_seconds=0.5, min_samples=30, max_seconds=10.0)
# Share of the multiply-adds in INT8 below which the user is told what keeps the rest out.
_MOSTLY = 0.95


def export(
    model: str,
    *,
    precision: Precision | None = None,
    target: str = "auto",
    sm: Sequence[int] = (),
    weights: str = "pretrained",
    out: str | Path | None = None,
    calibration_data: str | None = None,
    calibration_images: int | None = None,
    validation_data: str | None = None,
    validation_images: int | None = None,
    labels: str | Path | None = None,
    method: str | None = None,
    equalize: bool | None = None,
    repair: bool = False,
    repair_trials: int | None = None,
    scales: Scales = "fp16",
    batch: Batch = (1, 1),
    trust_recipe: bool = False,
    force: bool = False,
    listener: Listener = silent,
) -> ExportResult:
    """Take a network to a bundle: export, calibrate, type, lint, build, validate, measure.

    Steps whose inputs did not change are reused from the cache. A bundle that already stands at `out`,
    made from exactly these inputs, is left as it is.

    Args:
        model: a recipe's name, a recipe file, or an ONNX file.
        precision: "fp32", "fp16" or "int8"; the recipe's default otherwise.
        target: "auto" or a runtime's name.
        sm: GPU architectures to build engines for, such as 86.
        weights: "pretrained", "standin", or a checkpoint.
        out: the bundle's folder; <name>-<precision> here by default.
        calibration_data: a built-in set, a folder, or a list of files; the recipe's otherwise.
        calibration_images: how many of them at most.
        validation_data: likewise, for the pictures that judge.
        validation_images: how many of them at most.
        labels: for a flat validation folder, the file that gives each picture's class.
        method: how ranges are chosen, or "auto": by pictures that are held out for it; the recipe's
            otherwise.
        equalize: whether channels are scaled first, for INT8; the recipe's otherwise.
        repair: put INT8 layers back into FP16 until the gates would pass on held-out pictures.
        repair_trials: how many networks that search may try; 200 otherwise.
        scales: "fp16", or "fp32" to keep everything that is not INT8 in FP32.
        batch: smallest and largest batch.
        trust_recipe: let the recipe's own Python code run.
        force: put the bundle into `out` though that is a folder with other files; all of them stay there.
        listener: told of progress.

    Raises:
        CnnxError: see `cnnx.errors`; each kind has its exit code.
    """
    started = time.perf_counter()
    steps = Steps(listener)
    recipe = with_options(
        resolve(model, trust_recipe=trust_recipe),
        calibration=(calibration_data, calibration_images),
        validation=(validation_data, validation_images),
        equalize=equalize,
    )
    chosen: Precision = precision or recipe.precision.default
    for_int8 = {"--method": method, "--equalize/--no-equalize": equalize, "--repair": repair or None}
    _refuse_idle([option for option, value in for_int8.items() if value is not None], chosen)
    trials, typed, sizes = _trials(repair, repair_trials), _scales(scales), _batch(batch)
    place = Path(out) if out else Path(f"{recipe.name}-{chosen}")
    refuse_place(place, force=force)
    runtime = choose_runtime(target, sm)
    how = method or recipe.calibration.method
    check_calibrator(how)
    listed = None if labels is None else Path(labels)
    source = open_checked(
        Ahead(
            recipe=recipe,
            weights=weights,
            precision=chosen,
            batch=sizes,
            selects=images_to_choose_by(chosen, how, trials),
            labels=listed,
            out=place,
        ),
        steps,
        trust_recipe=trust_recipe,
    )
    job = Job(
        recipe=recipe,
        precision=chosen,
        scales=typed,
        batch=source.batch(sizes),
        method=how,
        out=place,
        runtime=runtime,
        sm=tuple(sm),
        repair_trials=trials,
    )
    parts = make_parts(job, source, steps, labels=listed)
    found = None
    if job.repair_trials:
        job, parts, found = repaired(job, parts)
    bundle, unchanged = publish(job, parts, steps, force=force)
    engines = _engines(job, bundle, steps)
    before = latest_validation(records_of(bundle).verified) if unchanged else None
    measurements: tuple[Measurement, ...] = ()
    if before:
        judged, validation = before[0].date, before[1]
    else:
        validation = _judge(bundle, parts, steps)
        judged = bundle.keep("validation", validation.subject, validation.as_dict()).date
        measurements = _measure(job, bundle, parts, steps)
        for measured in measurements:
            bundle.keep("benchmark", measured.subject, measured.as_dict())
    return ExportResult(
        bundle=bundle,
        engines=engines,
        validation=validation,
        judged=judged,
        measurements=measurements,
        unchanged=before is not None,
        notes=(
            *_notes(job, parts),
            *left_beside(bundle),
            *_no_engine(target, job),
            *_advice(job, validation),
        ),
        candidates=parts.candidates,
        repair=found,
        int8_share=parts.described["int8_share"] if job.precision == "int8" else None,
        steps=tuple(steps.times),
        seconds=time.perf_counter() - started,
        peak_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        over_budget=_over_budget(job, bundle),
    )


def _refuse_idle(for_int8: Sequence[str], precision: Precision) -> None:
    """Options that would do nothing."""
    if for_int8 and precision != "int8":
        raise UsageError(f"{for_int8[0]} is for INT8, this export is in {precision}", mend="give --int8, too")


def _trials(repair: bool, trials: int | None) -> int:
    if not repair and trials is not None:
        raise UsageError("--repair-trials says how long --repair searches", mend="give --repair, too")
    if trials is not None and trials < 1:
        raise UsageError(f"a search in {trials} trials finds nothing", mend="--repair-trials 200")
    return (trials or 200) if repair else 0


def _scales(scales: Scales) -> Scales:
    if scales not in ("fp16", "fp32"):
        raise UsageError(f"scales are written in fp16 or fp32, not {scales!r}", mend="--scales fp16")
    return scales


def _batch(batch: Batch) -> Batch:
    if not 1 <= batch[0] <= batch[1]:
        raise UsageError(
            f"a batch of {batch[0]} to {batch[1]} makes no sense", mend="--batch 4, or --batch 1..8"
        )
    return batch


def _engines(job: Job, bundle: Bundle, steps: Steps) -> tuple[Engine, ...]:
    if job.runtime.engine_suffix is None:
        return ()
    return build_into(bundle, job.runtime, job.sm, steps)


def _judge(bundle: Bundle, parts: Parts, steps: Steps) -> Validation:
    crops = parts.validation
    return judge_session(
        open_subject(bundle, "auto"),
        bundle,
        pixels=crops.pixels,
        original=parts.logits,
        labels=crops.labels,
        ids=crops.ids,
        steps=steps,
    )


def _measure(job: Job, bundle: Bundle, parts: Parts, steps: Steps) -> tuple[Measurement, ...]:
    """The bundle's subject and, beside it, the original's FP32 graph where that runs on the same runtime."""
    subjects = [open_subject(bundle, "auto")]
    if subjects[0].subject.artefact == "graph":
        subjects.insert(0, _original_graph(bundle, parts, subjects[0].subject))
    return measure(
        subjects,
        pixels=parts.validation.pixels,
        preprocessing=job.recipe.preprocessing,
        batch=job.batch[0],
        effort=_GLANCE,
        steps=steps,
    )


def _original_graph(bundle: Bundle, parts: Parts, beside: Subject) -> OpenSubject:
    file = parts.graph.model
    digest = bundle.manifest.weights["digest"]
    subject = dataclasses.replace(beside, artefact="original", precision="fp32", digest=digest)
    return OpenSubject(subject, runtimes.get("ort"), file)


def _notes(job: Job, parts: Parts) -> tuple[str, ...]:
    notes = [*parts.graph.notes]
    if parts.original.weights.kind == "standin":
        notes.append("Stand-in weights: agreement proves nothing, latency and memory hold.")
    if job.recipe.is_onnx:
        notes.append(f"Preprocessing is assumed ({job.recipe.preprocessing}); a recipe states its own.")
    described = parts.described
    if job.precision == "int8" and described["int8_share"] < _MOSTLY:
        notes.append(
            f"{described['int8_share']:.1%} of the multiply-adds are in INT8; "
            f"what keeps most of the rest out: {described['left_out']}"
        )
    if job.precision == "int8" and parts.calibration:
        notes += few_ranges(parts.calibration)
    notes += remarks(parts.calibration, parts.selection, parts.validation)
    return tuple(notes)


def _no_engine(target: str, job: Job) -> tuple[str, ...]:
    """Said to who left the target open, not to who asked for the graph alone."""
    if target != "auto" or job.runtime.engine_suffix is not None:
        return ()
    return ("No engine was built: name a builder and a GPU (--target rtx --sm 86).",)


def _advice(job: Job, validation: Validation) -> tuple[str, ...]:
    """What to try where INT8 failed."""
    if job.precision != "int8" or validation.verdict is not Verdict.FAILED or job.repair_trials:
        return ()
    equalizes = "" if job.recipe.precision.equalize else "leave out --no-equalize, or "
    return (
        f"INT8 failed its gate: {equalizes}try --method auto; --repair puts what it harms back into FP16.",
    )


def _over_budget(job: Job, bundle: Bundle) -> tuple[str, ...]:
    """Files larger than the recipe allows."""
    budgets = job.recipe.budgets
    files = [(bundle.model, budgets.onnx_mib)]
    files += [(bundle.path / "engines" / e.identity / e.file, budgets.engine_mib) for e in bundle.engines()]
    return tuple(
        f"{file.relative_to(bundle.path)} has {size:.1f} MiB, its budget is {limit:g} MiB"
        for file, limit in files
        if limit and (size := file.stat().st_size / 2**20) > limit
    )
