"""`fleet calibrate`: INT8 ranges from images that are sharded over the nodes of a fleet."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cnnx.agreement.sharding import Sharding
from cnnx.options import part_of, takes
from cnnx.options.fleet import FleetCalibrateOptions
from cnnx.options.networks import CalibrateOptions
from cnnx.pipeline.export.calibrate import CalibrateResult, calibrate_by
from cnnx.pipeline.fleet.connect import open_pool
from cnnx.pipeline.fleet.shards.fleet import Fleet, JobsLost, LostJob
from cnnx.pipeline.fleet.shards.runs import FleetRuns
from cnnx.pipeline.fleet.shards.statistics import FleetStatistics
from cnnx.pipeline.fleet.work.job import EXPORT, Pool
from cnnx.pipeline.progress import Listener, silent
from cnnx.report.result import Result
from cnnx.report.table import Block, Remark
from cnnx.stats import Verdict
from cnnx.store.cache import Store


@dataclass(frozen=True, slots=True, repr=False)
class FleetCalibrateResult(Result):
    """A calibration on the nodes of a fleet, or the jobs that were lost.

    Attributes:
        calibration: ranges of all methods; None if jobs were lost.
        sharding: how images were spread; None if jobs were lost, or the cache had all statistics.
        kept: whether a later export here reuses the statistics.
        notes: notes on that.
        lost: jobs that no node could do.
    """

    calibration: CalibrateResult | None
    sharding: Sharding | None
    kept: bool
    notes: tuple[str, ...]
    lost: tuple[LostJob, ...]

    @property
    def exit_code(self) -> int:
        """0, or 6 if jobs were lost."""
        return Verdict.NOT_JUDGED.exit_code if self.lost else 0

    def blocks(self, *, verbose: bool = False) -> Iterable[Block]:
        """What the command prints."""
        from cnnx.report.tables.shards import lost_blocks, sharding_blocks

        yield from lost_blocks(self.lost)
        if self.calibration:
            yield from self.calibration.blocks(verbose=verbose)
        if self.sharding:
            yield from sharding_blocks(self.sharding)
        yield from (Remark(note, "note", "open") for note in self.notes)


@takes(FleetCalibrateOptions)
def fleet_calibrate(
    model: str | Path, options: FleetCalibrateOptions, *, listener: Listener = silent
) -> FleetCalibrateResult:
    """Compute the ranges that INT8 would use, with calibration images sharded over nodes.

    Statistics are merged exactly: the result is that of one node. Images are chosen and decoded here, as by
    `calibrate`, and equalization runs its few images here too, so this machine needs ONNX Runtime. A later
    export here with the same images reuses the statistics, if this machine computes the first batch as the
    nodes do, or with `keep_unequal`. If a shard is lost, there are no ranges; the others are kept, and the
    same command resumes.

    Args:
        model: a recipe's name, a recipe file, or an ONNX file.
        options: options as an object; each can also be given by keyword.
        listener: receives progress events, also of each node (`NodeEvent`).

    Raises:
        UsageError: an option is invalid, or the fleet does not have the device.
        EnvironmentLacks: no node can be reached, or none has PyTorch.
        CnnxError: see `cnnx.errors`; each class has its exit code.

    Examples:
        >>> cnnx.fleet_calibrate("vgg16", calibration_images=50_000)  # doctest: +SKIP
    """
    with open_pool(options, listener=listener) as pool:
        return calibrate_on(pool, model, options, listener=listener)


def calibrate_on(
    pool: Pool, model: str | Path, options: FleetCalibrateOptions, *, listener: Listener = silent
) -> FleetCalibrateResult:
    """Do the work of `fleet_calibrate` on the nodes of a pool."""
    fleet = Fleet(pool, options, store=Store(), listener=listener)
    needs = EXPORT if options.on is None and fleet.offering(EXPORT) else fleet.device(options.on)
    statistics = FleetStatistics(fleet, needs, keep_unequal=options.keep_unequal)
    runs = FleetRuns(fleet, needs, statistics)
    try:
        found = calibrate_by(runs, model, part_of(options, CalibrateOptions), listener=listener)
    except JobsLost as error:
        return FleetCalibrateResult(None, None, False, (), error.lost)
    return FleetCalibrateResult(found, statistics.sharding, statistics.kept, statistics.notes, ())
