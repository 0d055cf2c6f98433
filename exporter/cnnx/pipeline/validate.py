"""`validate`: runs the self-test of an engine or graph, or validates it on the user's images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cnnx.agreement import Validation
from cnnx.bundle import REFERENCE, Bundle
from cnnx.bundle.manifest import recipe_of
from cnnx.errors import BundleError, UsageError
from cnnx.options import takes
from cnnx.options.bundles import ValidateOptions
from cnnx.pipeline.judge.again import Again, judge_again
from cnnx.pipeline.judge.demand import demand_of
from cnnx.pipeline.judge.images import judge_images, refuse_no_images
from cnnx.pipeline.progress import Listener, Progress, ProgressEvent, Steps, StepTime, silent
from cnnx.pipeline.sign.trust import open_bundle
from cnnx.pipeline.target import OpenSubject, open_subject
from cnnx.record import Record
from cnnx.report.result import Result
from cnnx.report.table import Block
from cnnx.selftest import SelfTest, self_test
from cnnx.stats import Verdict


@dataclass(frozen=True, slots=True, repr=False)
class ValidateResult(Result):
    """A self-test, a validation, or records judged again; the others are None.

    Attributes:
        bundle: the bundle.
        self_test: the self-test.
        validation: the validation.
        record: record of the self-test or validation; None for records judged again.
        steps: time of each step.
        again: records judged again.
    """

    bundle: Bundle
    self_test: SelfTest | None
    validation: Validation | None
    record: Record | None
    steps: tuple[StepTime, ...]
    again: Again | None = None

    @property
    def outcome(self) -> SelfTest | Validation | Again:
        """The self-test, the validation or the records judged again, whichever there is."""
        outcome = self.self_test or self.validation or self.again
        assert outcome is not None
        return outcome

    @property
    def verdict(self) -> Verdict:
        """The verdict of the outcome."""
        return self.outcome.verdict

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """The verdict of the outcome, and of each of its gates."""
        judged = self.validation or self.again
        gates = judged.gates if judged else ()
        return (self.verdict, *(gate.verdict for gate in gates))

    def blocks(self, *, verbose: bool = False) -> Iterable[Block]:
        """What the command prints."""
        from cnnx.pipeline.shown import validate_blocks

        return validate_blocks(self, verbose=verbose)


@takes(ValidateOptions)
def validate(bundle: str | Path, options: ValidateOptions, *, listener: Listener = silent) -> ValidateResult:
    """Run the self-test on the bundle's engine if one can run here, else on its graph.

    The self-test checks that an engine computes what was validated at export (`cnnx.selftest`). It needs only
    the bundle. With `validation_data`, agreement with the original is judged again on these images, as by
    export. This runs the original, so it needs PyTorch and the weights, or the ONNX file. If those are
    missing and the images are labelled, only accuracy is compared with export's record, and agreement is
    reported as not judged. Gates on latency, memory and energy are decided by the newest measurements of the
    same engine or graph in runs/. The outcome is kept as a record there, and never replaces export's verdict.

    With `run`, nothing runs and nothing is written: the gates are decided by that record, or by the newest
    records in a folder.

    Args:
        bundle: the bundle's folder.
        options: options as an object; each can also be given by keyword. Without an engine see
            `open_subject`. Without a number of images, the larger number of the recipe's and the gates' is
            used. Images used for calibration or selection are excluded.
        listener: receives progress events.

    Raises:
        UsageError: the bundle has no engine of that identity, or an option has no effect.
        GateError: the file of gates is invalid.
        RecordError: the run cannot be read, or is not about the bundle.
        BundleError: the bundle or its self-test is damaged.
        WeightsError: the weights are not the bundle's.
        ImageError: no usable image.
        EnvironmentLacks: the original cannot run here, and the images have no labels.
        WriteFailed: the record cannot be written; raised before any work.

    Examples:
        >>> cnnx.validate("lenet5-int8").verdict.value
        'passed'
    """
    names = ("validation_images", "labels", "model", "weights", "reference", "trust_recipe", "gates")
    idle = [name for name in names if getattr(options, name) not in (None, False)]
    if options.run is not None:
        return _again(Path(bundle), options, [name for name in idle if name != "gates"])
    if options.validation_data is None and idle:
        flag = f"--{idle[0].replace('_', '-')}"
        raise UsageError(f"{flag} has no effect on the self-test", hint="add --validation-data")
    opened = open_bundle(Path(bundle), options.require_signature)
    opened.check_place("runs")
    refuse_no_images(options)
    steps = Steps(listener)
    subject = open_subject(opened, options.target, engine=options.engine)
    for remark in subject.remarks:
        listener(ProgressEvent(remark, note=True))
    if options.validation_data is None:
        tested = run_self_test(subject, opened, steps=steps)
        record = opened.keep("selftest", tested.subject, tested.as_dict())
        return ValidateResult(opened, tested, None, record, tuple(steps.times))
    demand = demand_of(opened, options.gates)
    judged = judge_images(subject, opened, options, demand=demand, steps=steps, listener=listener)
    record = opened.keep("judgement", judged.subject, judged.as_dict())
    return ValidateResult(opened, None, judged, record, tuple(steps.times))


def _again(bundle: Path, options: ValidateOptions, idle: Sequence[str]) -> ValidateResult:
    idle = [*idle, *(name for name in ("validation_data", "engine") if getattr(options, name) is not None)]
    if idle:
        flag = f"--{idle[0].replace('_', '-')}"
        raise UsageError(f"{flag} has no effect with --from, which runs nothing", hint=f"drop {flag}")
    opened = open_bundle(bundle, options.require_signature)
    found = judge_again(opened, Path(str(options.run)), demand_of(opened, options.gates))
    return ValidateResult(opened, None, None, None, (), found)


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
    recipe = recipe_of(manifest)

    def work(progress: Progress) -> SelfTest:
        return self_test(
            reference.graph,
            subject.run(reference.crops, recipe, progress=progress),
            original=reference.original,
            precision=manifest.precision,
            subject=subject.subject,
            ids=reference.ids,
            image_set=manifest.images["validation"].name,
        )

    return steps.run("self-test", work)
