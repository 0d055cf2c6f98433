"""`export`: from a network to a validated bundle with engines."""

from __future__ import annotations

import dataclasses
import os
import resource
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cnnx.agreement import Validation, with_gates
from cnnx.bundle import Bundle
from cnnx.bundle.engine import Engine
from cnnx.bundle.manifest import recipe_of
from cnnx.bundle.signature import SIGNATURE, is_signature
from cnnx.bundle.writing import about_signature, left_beside, refuse_place
from cnnx.data.network_input import network_input
from cnnx.data.normalize import normalize
from cnnx.errors import UsageError
from cnnx.gates import SIZES, gates_of
from cnnx.options import takes
from cnnx.options.bundles import EngineOptions
from cnnx.options.networks import ExportOptions
from cnnx.pipeline.bench.latency import POOL, Effort, measure
from cnnx.pipeline.bench.measurement import Measurement
from cnnx.pipeline.build import build_into
from cnnx.pipeline.export.job import (
    ExportArtefacts,
    Job,
    images_to_choose_by,
    make_artefacts,
    remedied,
    repaired,
)
from cnnx.pipeline.export.module import module_file
from cnnx.pipeline.export.options import check_calibrator, check_options, with_method, with_options
from cnnx.pipeline.export.preprocessing import assumption, with_explicit_format
from cnnx.pipeline.export.publish import publish
from cnnx.pipeline.export.result import ExportResult
from cnnx.pipeline.judge.costs import size_estimates, size_keys
from cnnx.pipeline.judge.demand import demand_of
from cnnx.pipeline.judge.images import has_floor, judge_session
from cnnx.pipeline.preconditions.fine_tuned import fitted
from cnnx.pipeline.preconditions.refusals import open_checked
from cnnx.pipeline.preconditions.request import Request
from cnnx.pipeline.progress import Listener, Steps, silent
from cnnx.pipeline.records.verified import latest_validation, records_of
from cnnx.pipeline.search.method import AUTO
from cnnx.pipeline.search.repair import stated
from cnnx.pipeline.steps.definition import resolve
from cnnx.pipeline.steps.floor import floor_step
from cnnx.pipeline.steps.images import few_ranges, remarks
from cnnx.pipeline.steps.original import Original
from cnnx.pipeline.steps.raw_input import raw_input_step
from cnnx.pipeline.target import OpenSubject, choose_runtime, open_subject
from cnnx.quant.methods import FILE
from cnnx.runtimes import Images
from cnnx.stats import Verdict

# An export measures just long enough for a median; cnnx bench measures properly.
_GLANCE = Effort(min_seconds=0.5, min_samples=30, max_seconds=10.0)
_REPAIR_TRIALS = 200
# If a smaller share of the MACs is in INT8, a note gives the causes that keep at least the second share out.
_MOSTLY, _NAMED = 0.95, 0.001


@takes(ExportOptions)
def export(
    model: str | Path | Any, options: ExportOptions, *, example: Any = None, listener: Listener = silent
) -> ExportResult:
    """Export a network to a bundle: calibrate, type, lint, build, validate and measure it.

    Steps whose inputs have not changed are reused from the cache. A bundle at `out` that was made from
    exactly these inputs is left unchanged.

    Args:
        model: a recipe's name, a recipe file, an ONNX file, or a `torch.nn.Module`.
        options: options as an object; each can also be given by keyword.
        example: for a module, a batch of its input, (N, C, H, W): a tensor or an array.
        listener: receives progress events.

    Raises:
        CnnxError: see `cnnx.errors`; each class has its exit code.

    Examples:
        >>> result = cnnx.export("lenet5", precision="int8", out="again", force=True)
        >>> result.validation.verdict.value
        'passed'
        >>> result.bundle.path.name
        'again'
        >>> sum(layer["precision"] == "int8" for layer in result.bundle.manifest.layers)
        5
    """
    started = time.perf_counter()
    steps = Steps(listener)
    if not isinstance(model, str | os.PathLike):
        model = module_file(model, example, options.batch)
    elif example is not None:
        raise UsageError("only a torch.nn.Module takes an example", hint="drop `example`")
    job, source = _prepared(str(model), options, steps)
    artefacts = make_artefacts(job, source, steps)
    job, artefacts = remedied(job, artefacts, steps)
    found = None
    if job.repair_trials:
        job, artefacts, found = repaired(job, artefacts)
    artefacts, differences = _with_input(job, artefacts, steps)
    was_signed = is_signature(job.out / SIGNATURE)
    bundle, unchanged = publish(job, artefacts, steps, force=options.force)
    engines = _engines(job, bundle, steps)
    records = records_of(bundle).verified if unchanged else ()
    before = latest_validation(records)
    measurements: tuple[Measurement, ...] = ()
    if before:
        judged, validation = before[0].date, _with_sizes(bundle, before[1])
    else:
        validation = _with_sizes(bundle, _judge(bundle, artefacts, steps))
        judged = bundle.keep("validation", validation.subject, validation.as_dict()).date
    # An earlier export may have been stopped after its verdict. The latency of the original is written first.
    if not any(each.kind == "benchmark" and each.subject.artefact != "original" for each in records):
        measurements = _measure(job, bundle, artefacts, steps)
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
            *_notes(job, artefacts),
            *differences,
            *left_beside(bundle),
            *about_signature(bundle, engines, was_signed=was_signed),
            *_no_engine(options.target, job),
            *_advice(job, validation),
        ),
        candidates=artefacts.candidates,
        repair=found,
        int8_share=artefacts.described["int8_share"] if job.precision == "int8" else None,
        steps=tuple(steps.times),
        seconds=time.perf_counter() - started,
        peak_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    )


def _prepared(model: str, options: ExportOptions, steps: Steps) -> tuple[Job, Original]:
    """Check the options, and return the job and the original with its weights."""
    recipe = resolve(model, trust_recipe=options.trust_recipe, logits=options.logits)
    recipe = stated(with_explicit_format(with_options(recipe, options)))
    precision = options.precision or recipe.precision.default
    check_options(options, precision)
    method = options.method or recipe.calibration.method
    trials = (options.repair_trials or _REPAIR_TRIALS) if options.repair else 0
    out = Path(options.out) if options.out else Path(f"{recipe.name}-{precision}")
    refuse_place(out, force=options.force)
    runtime = choose_runtime(options.target, options.sm)
    check_calibrator(method, recipe)
    recipe, notes = fitted(
        recipe,
        options.weights,
        trust_recipe=options.trust_recipe,
        names_given=options.class_names is not None,
    )
    job = Job(
        recipe=recipe,
        precision=precision,
        scales=options.scales,
        batch=options.batch,
        method=method,
        out=out,
        runtime=runtime,
        sm=tuple(options.sm),
        repair_trials=trials,
        with_source=options.with_source,
        labels=None if options.labels is None else Path(options.labels),
        notes=notes,
    )
    request = Request(
        recipe=recipe,
        weights=options.weights,
        precision=precision,
        batch=options.batch,
        selects=images_to_choose_by(precision, method, trials),
        labels=job.labels,
        out=out,
        with_source=options.with_source,
    )
    source = open_checked(request, steps, trust_recipe=options.trust_recipe)
    job = dataclasses.replace(job, batch=source.batch(options.batch))
    if precision == "int8":
        recipe, method = with_method(recipe, options, source)
        job = dataclasses.replace(job, recipe=recipe, method=method)
    return job, source


def _with_input(
    job: Job, artefacts: ExportArtefacts, steps: Steps
) -> tuple[ExportArtefacts, tuple[str, ...]]:
    """The artefacts with a typed graph that takes the input as the recipe states, and notes on it."""
    if not job.recipe.input_format.is_raw:
        return artefacts, ()
    typed = raw_input_step(steps, artefacts.typed, artefacts.validation, job.recipe, labels=job.labels)
    return dataclasses.replace(artefacts, typed=typed), typed.input_notes


def _engines(job: Job, bundle: Bundle, steps: Steps) -> tuple[Engine, ...]:
    if job.runtime.engine_suffix is None:
        return ()
    return build_into(bundle, job.runtime, EngineOptions(sm=job.sm), steps)


def _judge(bundle: Bundle, artefacts: ExportArtefacts, steps: Steps) -> Validation:
    crops, subject, recipe = artefacts.validation, open_subject(bundle, "auto"), recipe_of(bundle.manifest)
    floor = floor_step(steps, artefacts.graph, crops, recipe).logits if has_floor(subject, recipe) else None
    return judge_session(
        subject,
        bundle,
        floor=floor,
        pixels=crops.pixels,
        original=artefacts.logits,
        labels=crops.labels,
        ids=crops.ids,
        images=crops.list_digest,
        steps=steps,
    )


def _with_sizes(bundle: Bundle, validation: Validation) -> Validation:
    """The validation with the gates on sizes, as the files are now: engines may have been added since."""
    limits = demand_of(bundle).limits
    sizes = gates_of(limits, size_estimates(bundle, validation.subject.digest), size_keys(bundle))
    return with_gates(validation, sizes, instead_of=SIZES)


def _measure(job: Job, bundle: Bundle, artefacts: ExportArtefacts, steps: Steps) -> tuple[Measurement, ...]:
    """Measure the bundle's engine or graph; with a graph, also the original's FP32 graph."""
    subjects = [open_subject(bundle, "auto")]
    if subjects[0].subject.artefact == "graph":
        subjects.insert(0, _original_graph(bundle, artefacts, subjects[0]))
    batch, preprocessing = job.batch[0], job.recipe.preprocessing
    pixels = artefacts.validation.pixels[: max(batch, POOL)]
    pools: list[Images] = [
        normalize(pixels, preprocessing)
        if each.subject.artefact == "original"
        else network_input(pixels, preprocessing, job.recipe.input_format)
        for each in subjects
    ]
    return measure(subjects, pools, batch=batch, effort=_GLANCE, steps=steps)


def _original_graph(bundle: Bundle, artefacts: ExportArtefacts, typed: OpenSubject) -> OpenSubject:
    file = artefacts.graph.model
    digest = bundle.manifest.weights["digest"]
    subject = dataclasses.replace(typed.subject, artefact="original", precision="fp32", digest=digest)
    return OpenSubject(subject, typed.runtime, file)


def _notes(job: Job, artefacts: ExportArtefacts) -> tuple[str, ...]:
    notes = [*job.notes, *artefacts.graph.notes, *_of_file(job, artefacts)]
    if artefacts.judge is not None:
        origin = artefacts.judge.weights.origin
        notes.append(f"Judged by the reference {origin} instead of the network itself.")
    if artefacts.original.weights.kind == "standin":
        notes.append("Stand-in weights: agreement proves nothing; latency and memory are still valid.")
    notes += assumption(job.recipe)
    if artefacts.kept:
        notes.append(artefacts.kept.note)
    if job.precision == "int8":
        notes += _rest(artefacts.described)
        if artefacts.calibration and job.method != FILE:
            notes += few_ranges(artefacts.calibration)
    notes += remarks(artefacts.calibration, artefacts.selection, artefacts.validation)
    return tuple(dict.fromkeys(notes))  # two sets of one source have the same remarks


def _rest(described: Mapping[str, Any]) -> tuple[str, ...]:
    """A note on what keeps MACs out of INT8, if many are: each cause with its share."""
    if described["int8_share"] >= _MOSTLY:
        return ()
    total = sum(macs for _, macs in described["left_out"]) / (1 - described["int8_share"])
    shares = [(cause, macs / total) for cause, macs in described["left_out"] if macs >= _NAMED * total]
    rest = "; ".join(f"{share:.1%} {cause}" for cause, share in shares)
    return (f"{described['int8_share']:.1%} of the MACs are in INT8. The rest: {rest}.",)


def _of_file(job: Job, artefacts: ExportArtefacts) -> tuple[str, ...]:
    """What became of the scales of a file with Q/DQ."""
    scales = artefacts.original.scales
    if scales is None:
        return ()
    if job.precision != "int8":
        return (f"The file has Q/DQ; in {job.precision}, the bundle has the network without them.",)
    if job.method != FILE:
        return ("The file has Q/DQ, whose scales --method replaces; --method file keeps them.",)
    judged = "" if artefacts.judge else ", and is judged by the network without Q/DQ (or by a --reference)"
    return (f"INT8 keeps the scales in the file{judged}.", *scales.notes)


def _no_engine(target: str, job: Job) -> tuple[str, ...]:
    """A note that no engine was built, if no target was named."""
    if target != "auto" or job.runtime.engine_suffix is not None:
        return ()
    return ("No engine was built: give a builder and a GPU, as in --target rtx --sm 86.",)


def _advice(job: Job, validation: Validation) -> tuple[str, ...]:
    """What to try if INT8 failed its gates."""
    if job.precision != "int8" or validation.verdict is not Verdict.FAILED or job.repair_trials:
        return ()
    if job.method == FILE:
        return (
            "INT8 failed its gates with the scales in the file: try --method mse, which calibrates instead, "
            "or --repair, which moves the layers that INT8 harms most back to FP16.",
        )
    options = [
        *([] if job.recipe.precision.equalize else ["drop --no-equalize"]),
        *([] if job.method == AUTO else ["try --method auto"]),
        "return the layers that INT8 harms most to FP16 with --repair",
    ]
    return (f"INT8 failed its gates: {', or '.join(options)}.",)
