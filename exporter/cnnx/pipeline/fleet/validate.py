"""`fleet validate`: one exact verdict on images that are sharded over the nodes of a fleet."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cnnx.agreement import Validation
from cnnx.bundle import Bundle
from cnnx.errors import UsageError
from cnnx.options import takes
from cnnx.options.fleet import FleetValidateOptions
from cnnx.pipeline.fleet.connect import open_pool
from cnnx.pipeline.fleet.shards.fleet import Fleet, JobsLost, LostJob
from cnnx.pipeline.fleet.shards.runs import FleetRuns
from cnnx.pipeline.fleet.shards.subject import fleet_subject
from cnnx.pipeline.fleet.work.job import Pool
from cnnx.pipeline.judge.demand import demand_of
from cnnx.pipeline.judge.images import judge_images, refuse_no_images
from cnnx.pipeline.progress import Listener, Steps, StepTime, silent
from cnnx.pipeline.sign.trust import open_bundle
from cnnx.record import Record
from cnnx.report.result import Result
from cnnx.report.table import Block
from cnnx.stats import Verdict


@dataclass(frozen=True, slots=True, repr=False)
class FleetValidateResult(Result):
    """A validation on the nodes of a fleet, or the jobs that were lost.

    Attributes:
        bundle: the bundle.
        validation: the validation, which says how images were spread; None if jobs were lost.
        record: its record; None if jobs were lost.
        lost: jobs that no node could do.
        steps: time of each step.
    """

    bundle: Bundle
    validation: Validation | None
    record: Record | None
    lost: tuple[LostJob, ...]
    steps: tuple[StepTime, ...]

    @property
    def verdict(self) -> Verdict:
        """The verdict; "not judged" if jobs were lost, as some images are then missing."""
        return self.validation.verdict if self.validation else Verdict.NOT_JUDGED

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """The verdict, and that of each gate."""
        gates = self.validation.gates if self.validation else ()
        return (self.verdict, *(gate.verdict for gate in gates))

    def blocks(self, *, verbose: bool = False) -> Iterable[Block]:
        """What the command prints."""
        from cnnx.pipeline.shown import validation_blocks
        from cnnx.report.tables.shards import lost_blocks, sharding_blocks

        yield from lost_blocks(self.lost)
        if self.validation and self.validation.sharding:
            yield from validation_blocks(self.validation, self.bundle.labels, verbose=verbose)
            yield from sharding_blocks(self.validation.sharding)


@takes(FleetValidateOptions)
def fleet_validate(
    bundle: str | Path, options: FleetValidateOptions, *, listener: Listener = silent
) -> FleetValidateResult:
    """Judge a bundle on images that are sharded over nodes; the verdict is exactly that of one node.

    Images are chosen and decoded here, as by `validate`, and nodes get shards of their pixels, cut on
    boundaries of batches. Nodes with PyTorch run the original, nodes of the device run the bundle's graph, or
    its engine: if the bundle has none that fits, one node builds it and the others get the same file. Every
    node also runs the first batch, and the largest difference between nodes is part of the record: 0 for
    equal nodes. If a shard is lost, there is no verdict; the others are kept, and the same command resumes.

    Args:
        bundle: the bundle's folder.
        options: options as an object; each can also be given by keyword. `validation_data` is required.
        listener: receives progress events, also of each node (`NodeEvent`).

    Raises:
        UsageError: an option is invalid, or the fleet does not have the device.
        BundleError: the bundle is damaged.
        WeightsError: the weights are not the bundle's.
        ImageError: no usable image.
        EnvironmentLacks: no node can be reached, or none has PyTorch and the images have no labels.
        Unreachable: the head of the cluster cannot be reached.
        WriteFailed: the record or the cache cannot be written.

    Examples:
        >>> cnnx.fleet_validate("vgg16-int8", validation_data="val")  # doctest: +SKIP
    """
    _check(options)
    with open_pool(options, listener=listener) as pool:
        return validate_on(pool, bundle, options, listener=listener)


def validate_on(
    pool: Pool, bundle: str | Path, options: FleetValidateOptions, *, listener: Listener = silent
) -> FleetValidateResult:
    """Do the work of `fleet_validate` on the nodes of a pool."""
    _check(options)
    opened = open_bundle(Path(bundle), options.require_signature)
    opened.check_place("runs")
    demand = demand_of(opened, options.gates)
    steps = Steps(listener)
    fleet = Fleet(pool, options, store=steps.store, listener=listener)
    device = fleet.device(options.on)
    try:
        subject = fleet_subject(fleet, opened, options, needs=device, steps=steps)
        judged = judge_images(
            subject,
            opened,
            options,
            demand=demand,
            steps=steps,
            listener=listener,
            runs=FleetRuns(fleet, device),
        )
    except JobsLost as error:
        return FleetValidateResult(opened, None, None, error.lost, tuple(steps.times))
    judged = dataclasses.replace(judged, sharding=fleet.sharding())
    record = Record("judgement", judged.subject, subject.environment, judged.as_dict())
    opened.add_record(record)
    fleet.forget()
    return FleetValidateResult(opened, judged, record, (), tuple(steps.times))


def _check(options: FleetValidateOptions) -> None:
    if options.validation_data is None:
        raise UsageError(
            "a fleet judges a bundle on images, and none are given",
            hint="add --validation-data; for the self-test, run cnnx validate on the device",
        )
    refuse_no_images(options)
