"""`validate`: the self-test of what runs here, or a new judgement on images of the user's."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
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
from cnnx.pipeline.steps.original import Original
from cnnx.pipeline.target import OpenSubject, open_subject
from cnnx.recipe import Recipe, Thresholds, recipe_from_dict
from cnnx.record import Record
from cnnx.resources import shared_folder
from cnnx.selftest import SelfTest, self_test
from cnnx.stats import Interval, Verdict, images_to_decide, wilson


@dataclass(frozen=True, slots=True)
class ValidateResult:
    """A self-test or a new validation, the other being None, and the record that keeps it."""

    bundle: Bundle
    self_test: SelfTest | None
    validation: Validation | None
    record: Record
    steps: tuple[StepTime, ...]

    @property
    def outcome(self) -> SelfTest | Validation:
        """The one that was run."""
        outcome = self.self_test or self.validation
        assert outcome is not None
        return outcome

    @property
    def verdict(self) -> Verdict:
        """Its verdict."""
        return self.outcome.verdict


@dataclass(frozen=True, slots=True)
class _Used:
    """Images that a bundle was made with, by their digests."""

    digests: tuple[str, ...]


@takes(ValidateOptions)
def validate(bundle: str | Path, options: ValidateOptions, *, listener: Listener = silent) -> ValidateResult:
    """Run the self-test on what runs here: the engine where it can run, else the graph.

    The self-test asks whether an engine computes what was judged at export (`cnnx.selftest`); it needs the
    bundle alone. With `validation_data` agreement is judged anew instead, as export does it. That runs the
    original: it needs PyTorch and the weights, or the ONNX file. Where they are not here and the images are
    labelled, accuracy alone is held to what export recorded, and agreement is reported as not judged.
    The outcome is kept as a record under runs/, beside export's verdict and never in its place.

    Args:
        bundle: its folder.
        options: as an object; each can be given by keyword, too. No engine: see `open_subject`. No number of
            images: as many as the recipe and the gates ask for. Images that the bundle was calibrated on
            are left out.
        listener: told of progress.

    Raises:
        UsageError: the bundle holds no engine of that identity, or options that do nothing.
        BundleError: the bundle or its self-test is damaged.
        WeightsError: these are not the bundle's weights.
        ImageError: no usable image.
        EnvironmentLacks: the original cannot run here and the images have no labels.
        WriteFailed: the record cannot be kept; found before any work.
    """
    names = ("validation_images", "labels", "model", "weights", "trust_recipe")
    idle = [name for name in names if getattr(options, name) not in (None, False)]
    if options.validation_data is None and idle:
        flag = f"--{idle[0].replace('_', '-')}"
        raise UsageError(f"the self-test takes no {flag}", hint="give --validation-data, too")
    opened = Bundle.open(Path(bundle))
    opened.check_place("runs")
    if options.validation_images is not None and options.validation_images < 1:
        raise UsageError(f"--validation-images is {options.validation_images}", hint="give at least 1")
    steps = Steps(listener)
    subject = open_subject(opened, options.target, engine=options.engine)
    for remark in subject.remarks:
        listener(ProgressEvent(remark, note=True))
    if options.validation_data is None:
        tested = run_self_test(subject, opened, steps=steps)
        record = opened.keep("selftest", tested.subject, tested.as_dict())
        return ValidateResult(opened, tested, None, record, tuple(steps.times))
    judged = _judge_anew(subject, opened, options, steps, listener)
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


def run_self_test(subject: OpenSubject, bundle: Bundle, *, steps: Steps) -> SelfTest:
    """Run the self-test's images through a subject and hold its logits to the graph's.

    Raises:
        BundleError: the self-test is damaged, or the graph itself gave logits that are not finite.
    """
    reference = bundle.reference()
    if not np.isfinite(reference.graph).all():
        raise BundleError(
            "the bundle's own graph gave logits that are not finite when it was exported",
            where=bundle.path / REFERENCE,
            hint="see export's verdict (cnnx inspect); nothing can be held to such logits",
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
    """Images on which the gates of agreement can pass at all: on fewer, perfect agreement stays open.

    None where no number would do, as for a threshold of 1.
    """
    gates = (thresholds.top1_agreement, thresholds.top1_in_top5, thresholds.top5_agreement)
    needed = [n for gate in gates if (n := images_to_decide(1.0, gate)) is not None]
    return max(needed) if len(needed) == len(gates) else None


def _judge_anew(
    subject: OpenSubject, bundle: Bundle, options: ValidateOptions, steps: Steps, listener: Listener
) -> Validation:
    recipe = _recipe_for(bundle, options)
    needed = images_needed(recipe.acceptance.of(bundle.manifest.precision))
    labels = None if options.labels is None else Path(options.labels)
    images = image_set(recipe, recipe.validation.data, "validation", labels)
    original = _original(bundle, options, labels, steps)
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
    """The bundle's recipe, with the new images to validate on."""
    plain = bundle.manifest.recipe
    shipped = shared_folder("recipes") / f"{plain['name']}.toml"
    recipe = recipe_from_dict(plain, where=Path(options.model) if options.model else shipped)
    if recipe.labels_file is not None and not recipe.labels_file.is_file():
        recipe = dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, labels=""))
    data = str(options.validation_data)
    return dataclasses.replace(recipe, validation=dataclasses.replace(recipe.validation, data=data))


def _crops(bundle: Bundle, recipe: Recipe, images: ImageSet, count: int, steps: Steps) -> Crops:
    used = _Used(bundle.reference().used)
    return crops_step(steps, images, recipe, count=count, role="validation", apart_from=[used])


def _remarks(crops: Crops, needed: int | None) -> list[str]:
    remarks = []
    if crops.excluded:
        remarks.append(f"{crops.excluded} of these images set ranges or methods at export: left out.")
    if needed is None:
        remarks.append(
            "A gate of agreement asks for more than any number of images can show: it cannot pass."
        )
    elif len(crops) < needed:
        remarks.append(
            f"{len(crops)} images can fail the gates of agreement and cannot pass them: that takes {needed} "
            "even if every image agrees."
        )
    if crops.skipped:
        first = ", ".join(f"{each.id} ({each.reason})" for each in crops.skipped[:3])
        remarks.append(f"{len(crops.skipped)} images of {crops.name} were skipped: {first}")
    return remarks


def _original(
    bundle: Bundle, options: ValidateOptions, labels: Path | None, steps: Steps
) -> Original | CnnxError:
    """The original, its weights held to the bundle's; or why it is not here, where nobody named it.

    Raises:
        CnnxError: it was named, and cannot be found or run here.
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
    """Without the original: accuracy against what export recorded; it can fail, and nothing can pass."""
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
    reasons = [f"agreement was not judged, as the original is not here: {reason.what}{hint}"]
    reasons += bundle.manifest.cannot_judge_on(synthetic=crops.synthetic)
    gates: tuple[Gate, ...] = ()
    said = f"Accuracy is {right.mean():.4f} on these {len(right)} images"
    if len(reasons) > 1 or before is None or recorded is None or recorded.original == 0:
        said += "; there is none recorded at export to compare with"
    else:
        threshold = recipe.acceptance.of(bundle.manifest.precision).accuracy_ratio
        gate = _against_recorded(right, recorded.original, threshold)
        # Other images may be harder: only those that export judged on can tell that accuracy fell.
        same = crops.name == before[1].image_set
        gates = (gate,) if same or gate.verdict is not Verdict.FAILED else ()
        said += (
            f"; export recorded {recorded.original:.4f} for the original, on {before[1].images} images of "
            f"{before[1].image_set}"
        )
    listener(ProgressEvent(f"{said}.", note=True))
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
    )


def _against_recorded(right: NDArray[np.bool_], original: float, threshold: float) -> Gate:
    rate = float(right.mean())
    interval = wilson(rate, len(right))
    ratio = Interval(interval.low / original, interval.high / original)
    return Gate("accuracy / original's", rate / original, ratio, threshold, ratio.against(threshold))
