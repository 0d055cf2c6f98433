"""The result of an export."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cnnx.agreement import Validation
from cnnx.bundle import Bundle
from cnnx.bundle.engine import Engine
from cnnx.pipeline.bench.measurement import Measurement
from cnnx.pipeline.progress import StepTime
from cnnx.pipeline.search.method import Candidate
from cnnx.quant.repair import Repair
from cnnx.report.result import JudgedResult
from cnnx.report.table import Block
from cnnx.stats import Verdict


@dataclass(frozen=True, slots=True, repr=False)
class ExportResult(JudgedResult):
    """The result of an export.

    Attributes:
        bundle: the bundle.
        engines: engines in the bundle.
        validation: the validation and its verdict.
        judged: date of the validation.
        measurements: latency and memory; empty if `unchanged`.
        unchanged: the bundle existed, was made from exactly these inputs, and was validated before.
        notes: notes for the user.
        steps: time of each step.
        seconds: total time.
        peak_bytes: peak memory of the process.
        candidates: all methods compared, the chosen one first; empty unless the method is "auto".
        repair: layers that repair moved back to FP16, and the effect; None unless requested.
        int8_share: share of the MACs whose inputs are INT8; None unless the precision is INT8.
    """

    bundle: Bundle
    engines: tuple[Engine, ...]
    validation: Validation
    judged: str
    measurements: tuple[Measurement, ...]
    unchanged: bool
    notes: tuple[str, ...]
    steps: tuple[StepTime, ...]
    seconds: float
    peak_bytes: int
    candidates: tuple[Candidate, ...] = ()
    repair: Repair | None = None
    int8_share: float | None = None

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """The overall verdict, and that of each gate."""
        return (self.validation.verdict, *(gate.verdict for gate in self.validation.gates))

    def blocks(self, *, verbose: bool = False) -> Iterable[Block]:
        """What the command prints."""
        from cnnx.pipeline.shown import export_blocks

        return export_blocks(self, verbose=verbose)
