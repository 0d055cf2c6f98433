"""Judges an engine or graph on images: agreement with the original, or accuracy alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cnnx.agreement import Validation, first_classes, judge, noise_floor, rate_estimate, with_gates
from cnnx.bundle import Bundle
from cnnx.bundle.manifest import recipe_of
from cnnx.data.crops import Crops
from cnnx.data.images import ImageSet
from cnnx.errors import CnnxError, UsageError
from cnnx.gates import AGREEMENT, RATES, Estimate, Gate, Limits, decided, gates_of
from cnnx.options.bundles import JudgeOptions
from cnnx.pipeline.judge.costs import cost_gates
from cnnx.pipeline.judge.demand import Demand, demand_of
from cnnx.pipeline.progress import Listener, Progress, ProgressEvent, Steps
from cnnx.pipeline.records.verified import latest_validation, records_of
from cnnx.pipeline.runs import HERE, Runs
from cnnx.pipeline.steps.images import crops_step, image_set
from cnnx.pipeline.steps.original import Original, open_reference
from cnnx.pipeline.target import Judged
from cnnx.recipe import Recipe, recipe_from_dict
from cnnx.resources import shared_folder
from cnnx.stats import Interval, Verdict, images_to_decide


@dataclass(frozen=True, slots=True)
class _Used:
    """Images used in a bundle's export, by their digests."""

    digests: tuple[str, ...]


def judge_session(
    subject: Judged,
    bundle: Bundle,
    *,
    pixels: NDArray[np.uint8],
    original: NDArray[np.float32],
    labels: NDArray[np.int64] | None,
    ids: Sequence[str],
    images: str,
    steps: Steps,
    image_set: str | None = None,
    cannot_judge: tuple[str, ...] | None = None,
    demand: Demand | None = None,
    floor: NDArray[np.float32] | None = None,
) -> Validation:
    """Run crops through a subject and judge its logits against the original's.

    `images` is the SHA-256 of the list of images, and `floor` the logits of the original's FP32 graph on the
    subject's runtime, if that was run.
    `image_set` and `cannot_judge` default to those of the bundle's own validation images, `demand` to the
    gates of its recipe.
    """
    manifest = bundle.manifest
    recipe = recipe_of(manifest)
    wanted = demand or demand_of(bundle)

    def work(progress: Progress) -> Validation:
        logits = subject.run(pixels, recipe, progress=progress)
        runtime = subject.subject.runtime
        return judge(
            original,
            logits,
            subject=subject.subject,
            limits=wanted.limits,
            labels=labels,
            ids=ids,
            images=images,
            floor=None if floor is None else noise_floor(original, floor, runtime=runtime),
            image_set=manifest.images["validation"].name if image_set is None else image_set,
            stated=wanted.stated,
            cannot_judge=manifest.cannot_judge if cannot_judge is None else cannot_judge,
            assumed_preprocessing=recipe.preprocessing.assumed,
        )

    return steps.run("validation", work)


def images_needed(limits: Limits) -> int | None:
    """The smallest number of images on which the agreement gates can pass, even with perfect agreement.

    None if no number suffices, as for a threshold of 1.
    """
    gates = [limit for key, limit in limits.set().items() if key in RATES]
    needed = [n for gate in gates if (n := images_to_decide(1.0, gate)) is not None]
    return max(needed) if len(needed) == len(gates) else None


def judge_images(
    subject: Judged,
    bundle: Bundle,
    options: JudgeOptions,
    *,
    demand: Demand,
    steps: Steps,
    listener: Listener,
    runs: Runs = HERE,
) -> Validation:
    """Judge a subject on the images that the options name; `runs` runs the original.

    Gates on costs are decided by the newest measurements of the same subject in the bundle.

    Raises:
        CnnxError: the images cannot be used, or the original cannot be run and they have no labels.
    """
    judged = _judged(subject, bundle, options, demand=demand, steps=steps, listener=listener, runs=runs)
    return with_gates(judged, cost_gates(bundle, judged.subject, demand))


def _judged(
    subject: Judged,
    bundle: Bundle,
    options: JudgeOptions,
    *,
    demand: Demand,
    steps: Steps,
    listener: Listener,
    runs: Runs,
) -> Validation:
    """The verdict without gates on costs."""
    recipe = _recipe_for(bundle, options)
    needed = images_needed(demand.limits)
    labels = None if options.labels is None else Path(options.labels)
    images = image_set(recipe, recipe.validation.data, "validation", labels)
    if bundle.manifest.reference is None:
        original = _original(bundle, options, labels, steps, runs)
    else:
        original = _reference(bundle, recipe, options)
        origin = bundle.manifest.reference["origin"]
        listener(ProgressEvent(f"Judged by the reference {origin} instead of the network itself.", note=True))
    if isinstance(original, CnnxError) and any(item.label is None for item in images):
        raise original
    count = options.validation_images or max(needed or 0, recipe.validation.images)
    crops = _crops(bundle, recipe, images, count, steps)
    for remark in _remarks(crops, needed):
        listener(ProgressEvent(remark, note=True))
    if isinstance(original, CnnxError):
        return _accuracy_alone(
            subject, bundle, crops, original, demand=demand, steps=steps, listener=listener
        )
    logits = runs.original(steps, original, crops, recipe)
    floor = None
    if has_floor(subject, recipe):
        graph = runs.graph(steps, original, batch=bundle.manifest.batch)
        floor = runs.floor(steps, graph, crops, recipe)
    return judge_session(
        subject,
        bundle,
        pixels=crops.pixels,
        original=logits,
        floor=floor,
        labels=crops.labels,
        ids=crops.ids,
        images=crops.list_digest,
        image_set=crops.name,
        cannot_judge=bundle.manifest.cannot_judge_on(synthetic=crops.synthetic),
        demand=demand,
        steps=steps,
    )


def refuse_no_images(options: JudgeOptions) -> None:
    """Raise if the number of images is below 1.

    Raises:
        UsageError: it is.
    """
    if options.validation_images is not None and options.validation_images < 1:
        raise UsageError(
            f"invalid --validation-images {options.validation_images}: expected at least 1",
            hint="drop --validation-images to use as many as the gates need",
        )


def has_floor(subject: Judged, recipe: Recipe) -> bool:
    """Whether the original's FP32 graph on the subject's runtime is a measure of that runtime's noise.

    Only for graphs, as an engine's runtime would need an engine of it. Not for FP32, which is that graph, and
    not for a user's ONNX file, whose original is run by the same runtime.
    """
    of = subject.subject
    return of.artefact == "graph" and of.precision != "fp32" and not recipe.is_onnx


def _recipe_for(bundle: Bundle, options: JudgeOptions) -> Recipe:
    """The bundle's recipe, with the user's images as validation data."""
    from cnnx.pipeline.diagnose.rebuild import with_own_names

    plain = bundle.manifest.recipe
    shipped = shared_folder("recipes") / f"{plain['name']}.toml"
    recipe = recipe_from_dict(plain, where=Path(options.model) if options.model else shipped)
    recipe = with_own_names(bundle, recipe)
    data = str(options.validation_data)
    return dataclasses.replace(recipe, validation=dataclasses.replace(recipe.validation, data=data))


def _crops(bundle: Bundle, recipe: Recipe, images: ImageSet, count: int, steps: Steps) -> Crops:
    used = _Used(bundle.reference().used)
    return crops_step(steps, images, recipe, count=count, role="validation", apart_from=[used])


def _remarks(crops: Crops, needed: int | None) -> list[str]:
    remarks = []
    if crops.excluded:
        remarks.append(
            f"{crops.excluded} of these images were excluded: export used them for calibration or selection."
        )
    if needed is None:
        remarks.append(
            "An agreement gate has a threshold that no number of images can show, so it cannot pass."
        )
    elif len(crops) < needed:
        remarks.append(
            f"{len(crops)} images are too few to pass the agreement gates: {needed} are needed even if every "
            "image agrees. The gates can still fail."
        )
    if crops.skipped:
        first = ", ".join(f"{each.id} ({each.reason})" for each in crops.skipped[:3])
        remarks.append(f"{len(crops.skipped)} images of {crops.name} were skipped: {first}")
    return remarks


def _original(
    bundle: Bundle, options: JudgeOptions, labels: Path | None, steps: Steps, runs: Runs
) -> Original | CnnxError:
    """The original with the bundle's weights, or why it is not available if the user did not name it.

    Raises:
        CnnxError: the user named it, and it cannot be found or run here.
    """
    from cnnx.pipeline.diagnose.rebuild import check_weights, recipe_of_sources, weights_of
    from cnnx.pipeline.preconditions.refusals import open_checked
    from cnnx.pipeline.preconditions.request import Request

    try:
        recipe = recipe_of_sources(bundle, options)
        weights = weights_of(bundle, recipe, options)
        request = Request(recipe, weights, precision="fp32", batch=bundle.manifest.batch, labels=labels)
        original = open_checked(
            request, steps, trust_recipe=options.trust_recipe, check_torch=runs.check_torch
        )
        check_weights(bundle, original)
    except CnnxError as error:
        if options.model or options.weights:
            raise
        return error
    return original


def _reference(bundle: Bundle, recipe: Recipe, options: JudgeOptions) -> Original | CnnxError:
    """The network that the bundle was judged by, or why it is not available if the user did not name it.

    Raises:
        CnnxError: the user named it, and it cannot be run here or is another one.
    """
    from cnnx.pipeline.diagnose.rebuild import check_reference

    if options.reference is not None:
        spec = dataclasses.replace(recipe.model, reference=str(Path(options.reference).absolute()))
        recipe = dataclasses.replace(recipe, model=spec)
    try:
        reference = open_reference(recipe)
        assert reference is not None
        check_reference(bundle, reference)
    except CnnxError as error:
        if options.reference or options.model:
            raise
        return error
    return reference


def _accuracy_alone(
    subject: Judged,
    bundle: Bundle,
    crops: Crops,
    reason: CnnxError,
    *,
    demand: Demand,
    steps: Steps,
    listener: Listener,
) -> Validation:
    """Compare only accuracy with export's record, without the original. This can fail, but never pass."""
    recipe = recipe_of(bundle.manifest)
    before = latest_validation(records_of(bundle).verified)
    recorded = before[1].accuracy if before else None
    assert crops.labels is not None

    logits = steps.run("validation", lambda progress: subject.run(crops.pixels, recipe, progress=progress))
    classes = first_classes(logits)
    right = classes == crops.labels
    hint = f" (hint: {reason.hint})" if reason.hint else ""
    reasons = [f"agreement was not judged, as the original is not available: {reason.what}{hint}"]
    reasons += bundle.manifest.cannot_judge_on(synthetic=crops.synthetic)
    gates: tuple[Gate, ...] = ()
    remark = f"Accuracy is {right.mean():.4f} on these {len(right)} images"
    if len(reasons) > 1 or before is None or recorded is None or recorded.original == 0:
        remark += "; export recorded no accuracy to compare with"
    else:
        gate = _against_recorded(right, recorded.original, demand.limits.accuracy_ratio or 0.0)
        # Different images may be harder: only export's validation images can show that accuracy fell.
        same = crops.name == before[1].image_set
        gates = (gate,) if same or gate.verdict is not Verdict.FAILED else ()
        remark += (
            f"; export recorded {recorded.original:.4f} for the original, on {before[1].images} images of "
            f"{before[1].image_set}"
        )
    listener(ProgressEvent(f"{remark}.", note=True))
    gates += _stated_alone(demand, right, judged=len(reasons) == 1)
    failed = any(gate.verdict is Verdict.FAILED for gate in gates)
    return Validation(
        subject=subject.subject,
        images=len(crops),
        image_set=crops.name,
        verdict=Verdict.FAILED if failed else Verdict.NOT_JUDGED,
        reasons=tuple(reasons),
        gates=gates,
        accuracy=None,
        flips=(),
        logit_sqnr_db=None,
        nonfinite=int((classes < 0).sum()),
        assumed_preprocessing=recipe.preprocessing.assumed,
    )


def _stated_alone(demand: Demand, right: NDArray[np.bool_], *, judged: bool) -> tuple[Gate, ...]:
    """The gates that the user stated, without an original: only accuracy can be judged."""
    found: dict[str, Estimate | str] = dict.fromkeys(AGREEMENT, "the original is not available")
    accuracy = rate_estimate(float(right.mean()), len(right))
    found["accuracy"] = accuracy if judged else "it would prove nothing here"
    return gates_of(demand.limits, found, demand.stated & found.keys() - {"accuracy_ratio"})


def _against_recorded(right: NDArray[np.bool_], original: float, threshold: float) -> Gate:
    found = rate_estimate(float(right.mean()), len(right))
    assert found.interval is not None
    ratio = Interval(found.interval.low / original, found.interval.high / original)
    return decided("accuracy_ratio", threshold, Estimate(found.value / original, ratio))
