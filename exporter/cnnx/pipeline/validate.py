"""`validate`: runs the self-test of an engine or graph, or validates it on the user's images."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cnnx.agreement import Gate, Validation, judge, top_k
from cnnx.bundle import REFERENCE, Bundle
from cnnx.bundle.manifest import recipe_of
from cnnx.data.crops import Crops
from cnnx.data.images import ImageSet
from cnnx.errors import BundleError, CnnxError, UsageError
from cnnx.options import takes
from cnnx.options.bundles import ValidateOptions
from cnnx.pipeline.progress import Listener, Progress, ProgressEvent, Steps, StepTime, silent
from cnnx.pipeline.records.verified import latest_validation, records_of
from cnnx.pipeline.steps.images import crops_step, image_set
from cnnx.pipeline.steps.inference import logits_of, refuse_nonfinite
from cnnx.pipeline.steps.original import Original, open_reference
from cnnx.pipeline.target import OpenSubject, open_subject
from cnnx.recipe import Recipe, Thresholds, recipe_from_dict
from cnnx.record import Record
from cnnx.report.result import Result
from cnnx.report.table import Block
from cnnx.resources import shared_folder
from cnnx.selftest import SelfTest, self_test
from cnnx.stats import Interval, Verdict, images_to_decide, wilson


@dataclass(frozen=True, slots=True, repr=False)
class ValidateResult(Result):
    """A self-test or a validation, the other being None, and its record."""

    bundle: Bundle
    self_test: SelfTest | None
    validation: Validation | None
    record: Record
    steps: tuple[StepTime, ...]

    @property
    def outcome(self) -> SelfTest | Validation:
        """The self-test or the validation, whichever was run."""
        outcome = self.self_test or self.validation
        assert outcome is not None
        return outcome

    @property
    def verdict(self) -> Verdict:
        """The verdict of the outcome."""
        return self.outcome.verdict

    def blocks(self, *, verbose: bool = False) -> Iterable[Block]:
        """What the command prints."""
        from cnnx.pipeline.shown import validate_blocks

        return validate_blocks(self, verbose=verbose)


@dataclass(frozen=True, slots=True)
class _Used:
    """Images used in a bundle's export, by their digests."""

    digests: tuple[str, ...]


@takes(ValidateOptions)
def validate(bundle: str | Path, options: ValidateOptions, *, listener: Listener = silent) -> ValidateResult:
    """Run the self-test on the bundle's engine if one can run here, else on its graph.

    The self-test checks that an engine computes what was validated at export (`cnnx.selftest`). It needs only
    the bundle. With `validation_data`, agreement with the original is judged again on these images, as by
    export. This runs the original, so it needs PyTorch and the weights, or the ONNX file. If those are
    missing and the images are labelled, only accuracy is compared with export's record, and agreement is
    reported as not judged. The outcome is kept as a record in runs/, and never replaces export's verdict.

    Args:
        bundle: the bundle's folder.
        options: options as an object; each can also be given by keyword. Without an engine see
            `open_subject`. Without a number of images, the larger number of the recipe's and the gates' is
            used. Images used for calibration or selection are excluded.
        listener: receives progress events.

    Raises:
        UsageError: the bundle has no engine of that identity, or an option has no effect.
        BundleError: the bundle or its self-test is damaged.
        WeightsError: the weights are not the bundle's.
        ImageError: no usable image.
        EnvironmentLacks: the original cannot run here, and the images have no labels.
        WriteFailed: the record cannot be written; raised before any work.

    Examples:
        >>> cnnx.validate("lenet5-int8").verdict.value
        'passed'
    """
    names = ("validation_images", "labels", "model", "weights", "reference", "trust_recipe")
    idle = [name for name in names if getattr(options, name) not in (None, False)]
    if options.validation_data is None and idle:
        flag = f"--{idle[0].replace('_', '-')}"
        raise UsageError(f"{flag} has no effect on the self-test", hint="add --validation-data")
    opened = Bundle.open(Path(bundle))
    opened.check_place("runs")
    if options.validation_images is not None and options.validation_images < 1:
        raise UsageError(
            f"invalid --validation-images {options.validation_images}: expected at least 1",
            hint="drop --validation-images to use as many as the gates need",
        )
    steps = Steps(listener)
    subject = open_subject(opened, options.target, engine=options.engine)
    for remark in subject.remarks:
        listener(ProgressEvent(remark, note=True))
    if options.validation_data is None:
        tested = run_self_test(subject, opened, steps=steps)
        record = opened.keep("selftest", tested.subject, tested.as_dict())
        return ValidateResult(opened, tested, None, record, tuple(steps.times))
    judged = _judge_images(subject, opened, options, steps, listener)
    record = opened.keep("judgement", judged.subject, judged.as_dict())
    return ValidateResult(opened, None, judged, record, tuple(steps.times))


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

    `image_set` and `cannot_judge` default to those of the bundle's own validation images.
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
            assumed_preprocessing=recipe.preprocessing.assumed,
        )

    return steps.run("validation", work)


def run_self_test(subject: OpenSubject, bundle: Bundle, *, steps: Steps) -> SelfTest:
    """Run the self-test's images through a subject and compare its logits with the graph's.

    Raises:
        BundleError: the self-test is damaged, or the graph's own logits are not finite.
    """
    reference = bundle.reference()
    if not np.isfinite(reference.graph).all():
        raise BundleError(
            "the logits of the bundle's own graph were not finite at export, so nothing can be compared",
            where=bundle.path / REFERENCE,
            hint=f"see export's verdict: cnnx inspect {bundle.path}; then export again",
        )
    manifest = bundle.manifest
    preprocessing = recipe_of(manifest).preprocessing

    def work(progress: Progress) -> SelfTest:
        session = subject.open()
        logits = logits_of(session, reference.crops, preprocessing, progress=progress)
        session.close()
        return self_test(
            reference.graph,
            logits,
            original=reference.original,
            precision=manifest.precision,
            subject=subject.subject,
            ids=reference.ids,
            image_set=manifest.images["validation"].name,
        )

    return steps.run("self-test", work)


def images_needed(thresholds: Thresholds) -> int | None:
    """The smallest number of images on which the agreement gates can pass, even with perfect agreement.

    None if no number suffices, as for a threshold of 1.
    """
    gates = (thresholds.top1_agreement, thresholds.top1_in_top5, thresholds.top5_agreement)
    needed = [n for gate in gates if (n := images_to_decide(1.0, gate)) is not None]
    return max(needed) if len(needed) == len(gates) else None


def _judge_images(
    subject: OpenSubject, bundle: Bundle, options: ValidateOptions, steps: Steps, listener: Listener
) -> Validation:
    recipe = _recipe_for(bundle, options)
    needed = images_needed(recipe.acceptance.of(bundle.manifest.precision))
    labels = None if options.labels is None else Path(options.labels)
    images = image_set(recipe, recipe.validation.data, "validation", labels)
    original = (
        _original(bundle, options, labels, steps)
        if bundle.manifest.reference is None
        else _reference(bundle, recipe, options)
    )
    if bundle.manifest.reference is not None:
        origin = bundle.manifest.reference["origin"]
        listener(ProgressEvent(f"Judged by the reference {origin} instead of the network itself.", note=True))
    if isinstance(original, CnnxError) and any(item.label is None for item in images):
        raise original
    count = options.validation_images or max(needed or 0, recipe.validation.images)
    crops = _crops(bundle, recipe, images, count, steps)
    for remark in _remarks(crops, needed):
        listener(ProgressEvent(remark, note=True))
    if isinstance(original, CnnxError):
        return _accuracy_alone(subject, bundle, crops, original, steps=steps, listener=listener)
    return judge_session(
        subject,
        bundle,
        pixels=crops.pixels,
        original=_logits(original, crops, recipe, steps),
        labels=crops.labels,
        ids=crops.ids,
        image_set=crops.name,
        cannot_judge=bundle.manifest.cannot_judge_on(synthetic=crops.synthetic),
        steps=steps,
    )


def _recipe_for(bundle: Bundle, options: ValidateOptions) -> Recipe:
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
    bundle: Bundle, options: ValidateOptions, labels: Path | None, steps: Steps
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
        original = open_checked(request, steps, trust_recipe=options.trust_recipe)
        check_weights(bundle, original)
    except CnnxError as error:
        if options.model or options.weights:
            raise
        return error
    return original


def _reference(bundle: Bundle, recipe: Recipe, options: ValidateOptions) -> Original | CnnxError:
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


def _logits(original: Original, crops: Crops, recipe: Recipe, steps: Steps) -> NDArray[np.float32]:
    def work(progress: Progress) -> NDArray[np.float32]:
        session = original.session()
        logits = logits_of(session, crops.pixels, recipe.preprocessing, progress=progress)
        session.close()
        original.release()
        refuse_nonfinite(logits, recipe)
        return logits

    return steps.run("original's logits", work)


def _accuracy_alone(
    subject: OpenSubject,
    bundle: Bundle,
    crops: Crops,
    reason: CnnxError,
    *,
    steps: Steps,
    listener: Listener,
) -> Validation:
    """Compare only accuracy with export's record, without the original. This can fail, but never pass."""
    recipe = recipe_of(bundle.manifest)
    before = latest_validation(records_of(bundle).verified)
    recorded = before[1].accuracy if before else None
    assert crops.labels is not None

    def work(progress: Progress) -> NDArray[np.float32]:
        session = subject.open()
        logits = logits_of(session, crops.pixels, recipe.preprocessing, progress=progress)
        session.close()
        return logits

    logits = steps.run("validation", work)
    finite = np.isfinite(logits).all(axis=1)
    right = (top_k(np.where(np.isfinite(logits), logits, -np.inf), 1)[:, 0] == crops.labels) & finite
    hint = f" (hint: {reason.hint})" if reason.hint else ""
    reasons = [f"agreement was not judged, as the original is not available: {reason.what}{hint}"]
    reasons += bundle.manifest.cannot_judge_on(synthetic=crops.synthetic)
    gates: tuple[Gate, ...] = ()
    remark = f"Accuracy is {right.mean():.4f} on these {len(right)} images"
    if len(reasons) > 1 or before is None or recorded is None or recorded.original == 0:
        remark += "; export recorded no accuracy to compare with"
    else:
        threshold = recipe.acceptance.of(bundle.manifest.precision).accuracy_ratio
        gate = _against_recorded(right, recorded.original, threshold)
        # Different images may be harder: only export's validation images can show that accuracy fell.
        same = crops.name == before[1].image_set
        gates = (gate,) if same or gate.verdict is not Verdict.FAILED else ()
        remark += (
            f"; export recorded {recorded.original:.4f} for the original, on {before[1].images} images of "
            f"{before[1].image_set}"
        )
    listener(ProgressEvent(f"{remark}.", note=True))
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
        nonfinite=int((~finite).sum()),
        assumed_preprocessing=recipe.preprocessing.assumed,
    )


def _against_recorded(right: NDArray[np.bool_], original: float, threshold: float) -> Gate:
    rate = float(right.mean())
    interval = wilson(rate, len(right))
    ratio = Interval(interval.low / original, interval.high / original)
    return Gate("accuracy / original's", rate / original, ratio, threshold, ratio.against(threshold))
