"""What an export gives back."""

from __future__ import annotations

from dataclasses import dataclass, field

from cnnx.agreement import Validation
from cnnx.bundle import Bundle
from cnnx.bundle.engine import Engine
from cnnx.pipeline.bench.measurement import Measurement
from cnnx.pipeline.progress import StepTime
from cnnx.pipeline.search.method import Candidate
from cnnx.quant.repair import Repair
from cnnx.stats import Verdict


@dataclass(frozen=True, slots=True)
class ExportResult:
    """All that an export did.

    Attributes:
        validation: the verdict, with the date it was passed.
        unchanged: the bundle stood there already, made from exactly these inputs, and was judged then.
        notes: what the user should know of how the bundle came to be.
        peak_bytes: the most memory the process held.
        candidates: what the method was chosen from, the chosen one first; empty unless it was "auto".
        repair: what `repair` put back into FP16 and what that changed; None unless it was asked.
        int8_share: share of the multiply-adds whose operands arrive as INT8; None unless that was asked.
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
    over_budget: tuple[str, ...] = field(default=())

    @property
    def exit_code(self) -> int:
        """0 unless a gate failed (1) or is inconclusive (6). "Not judged" is no failure of an export."""
        if self.over_budget:
            return 1
        verdict = self.validation.verdict
        return 0 if verdict is Verdict.NOT_JUDGED else verdict.exit_code
