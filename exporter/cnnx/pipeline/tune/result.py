"""The result of `tune`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cnnx.agreement import Validation
from cnnx.bundle import Bundle
from cnnx.bundle.engine import Engine
from cnnx.pipeline.progress import StepTime
from cnnx.pipeline.tune.findings import Tuning
from cnnx.report.result import JudgedResult
from cnnx.report.table import Block
from cnnx.stats import Verdict


@dataclass(frozen=True, slots=True, repr=False)
class TuneResult(JudgedResult):
    """The result of a search.

    Attributes:
        source: path of the bundle that was tuned.
        bundle: the new bundle; None if none was written.
        engines: the engine that was measured, now in the new bundle; empty if the target runs graphs.
        tuning: what was found.
        validation: verdict on the validation images; None if nothing was written.
        undecided: why nothing was written although the gates may be reachable; empty otherwise.
        steps: time of each step.
    """

    source: str
    bundle: Bundle | None
    engines: tuple[Engine, ...]
    tuning: Tuning
    validation: Validation | None
    undecided: str
    steps: tuple[StepTime, ...]

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """The verdict and that of each gate; failed or inconclusive if nothing was written."""
        if self.validation is None:
            return (Verdict.INCONCLUSIVE if self.undecided else Verdict.FAILED,)
        return (self.validation.verdict, *(gate.verdict for gate in self.validation.gates))

    def blocks(self, *, verbose: bool = False) -> Iterable[Block]:
        """What the command prints."""
        from cnnx.report.tables.tune import tune_blocks

        return tune_blocks(self, verbose=verbose)
