"""Verdict on a measurement: the problems that make it invalid, and those worth a remark."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ValidityFinding:
    """A problem with a measurement.

    Attributes:
        rule: short name of the problem.
        reason: what was found, with the value.
        hint: hint that says how to avoid it.
    """

    rule: str
    reason: str
    hint: str


@dataclass(frozen=True, slots=True)
class PercentileVerdict:
    """Whether a percentile of the main series is valid.

    Attributes:
        percentile: in percent.
        reason: why it is not valid; empty if it is.
    """

    percentile: float
    reason: str = ""

    @property
    def valid(self) -> bool:
        """Whether there is no reason against it."""
        return not self.reason


@dataclass(frozen=True, slots=True)
class Validity:
    """Verdict on a measurement.

    Attributes:
        findings: problems that make it invalid; empty if it is valid.
        remarks: problems that do not make it invalid. On a CPU all problems are remarks, as desktops and
            laptops are never quiet enough for rules made for GPUs.
        percentiles: verdict on each reported percentile, in a measurement without findings. Interruptions by
            the host change a high percentile and not the median. Empty on a CPU.
    """

    findings: tuple[ValidityFinding, ...]
    remarks: tuple[ValidityFinding, ...]
    percentiles: tuple[PercentileVerdict, ...] = ()

    @property
    def valid(self) -> bool:
        """Whether there are no findings."""
        return not self.findings

    def as_dict(self) -> dict[str, Any]:
        """The verdict as plain data for JSON."""

        def plain(findings: tuple[ValidityFinding, ...]) -> list[dict[str, str]]:
            return [{"rule": f.rule, "reason": f.reason, "hint": f.hint} for f in findings]

        return {
            "valid": self.valid,
            "findings": plain(self.findings),
            "remarks": plain(self.remarks),
            "percentiles": [{"percentile": p.percentile, "reason": p.reason} for p in self.percentiles],
        }
