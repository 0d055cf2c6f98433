"""Table of the slowest layers, against the roofline where it is known, and why they take their time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cnnx.report.table import Column, Figures, Remark, Table, table_of
from cnnx.report.words import Run, percent, scaled

_SHOWN = 10
_MS, _GIGA, _MB = 1e-6, 1e-9, 1e-6
SPENT = {
    "compute": "layers",
    "launch": "launches",
    "cast": "casts",
    "reformat": "reformats",
    "quantize": "Q/DQ",
    "transfer": "copies",
}
"""Kind of time -> its word in tables and charts."""


@dataclass(frozen=True, slots=True)
class _Row:
    """A layer, its share of the time, and its limits; empty limits if the profile has no explanation."""

    layer: Mapping[str, Any]
    share: float | None
    limit: Mapping[str, Any]

    def of(self, key: str, factor: float, digits: int) -> str:
        """A figure of the limits, if it is known and not zero."""
        return scaled(self.limit.get(key) or None, factor, digits)


def layer_table(run: Run, *, whole: bool = False, hint: str = "") -> Table:
    """The ten slowest layers, or all of them (`whole`); `hint` names the option that shows the rest."""
    profile = run.result["layers"]
    explanation = profile.get("explanation") or {}
    limits = explanation.get("layers") or [{}] * len(profile["layers"])
    total = sum(layer["median_ns"] for layer in profile["layers"])
    rows = [
        _Row(layer, layer["median_ns"] / total if total else None, limit)
        for layer, limit in zip(profile["layers"], limits, strict=False)
    ]
    rows.sort(key=lambda row: -row.layer["median_ns"])
    shown = rows if whole else rows[:_SHOWN]
    columns: tuple[Column[_Row], ...] = (
        Column("layer", lambda row: row.layer["name"]),
        Column("op", lambda row: row.layer["op"], known=True),
        Column("kind", lambda row: row.layer["kind"], fixed=True),
        Column("type", lambda row: row.limit.get("type") or "-", fixed=True, known=True),
        Figures("GMACs", lambda row: row.of("macs", _GIGA, 3), known=True, drop=2),
        Figures("MB", lambda row: scaled(_megabytes(row.limit), 1, 2), known=True, drop=2),
        Figures("ops/byte", lambda row: row.of("intensity", 1, 0), known=True, drop=1),
        Figures("ms", lambda row: scaled(row.layer["median_ns"], _MS, 3)),
        Figures("%", lambda row: "-" if row.share is None else f"{100 * row.share:.1f}"),
        Figures("limit ms", lambda row: row.of("limit_ns", _MS, 3), known=True, drop=3),
        Figures("attained %", lambda row: row.of("attained", 100, 0), known=True),
        Column("bound by", lambda row: row.limit.get("bound") or "-", fixed=True, known=True),
    )
    more = f"{len(rows) - len(shown)} more{hint}; " if len(shown) < len(rows) else ""
    shares = ", ".join(f"{kind} {share:.1%}" for kind, share in profile["shares"].items())
    medians = f"{more}medians of {profile['runs']} separate profiling runs"
    said = Remark(medians if explanation else f"{medians}: {shares}")
    title = f"Slowest layers of {run.full}, batch {run.result['latency']['batch']}"
    return table_of(title, columns, [shown], remarks=[*explained(explanation), said])


def explained(explanation: Mapping[str, Any]) -> Iterator[Remark]:
    """The main cause, where the time goes, and what the limits are computed from."""
    if not explanation:
        return
    yield Remark(explanation["sentence"], "cause", "open" if explanation["causes"] else "good")
    yield Remark(spent(explanation))
    if peaks := explanation["peaks"]:
        rates = ", ".join(f"{kind.upper()} {rate / 1e12:.1f}" for kind, rate in peaks["operations"].items())
        clock = f"{peaks['clock_mhz']:.0f} MHz, {'measured' if peaks['measured'] else 'as stated'}"
        yield Remark(
            f"Limits: {rates} TOPS and {peaks['bandwidth'] / 1e9:.0f} GB/s at {clock} ({peaks['source']})."
        )
    if explanation["unknown"]:
        yield Remark(f"The roofline is unknown: {explanation['unknown']}.")
    if explanation["unmatched"] > 0:
        yield Remark(
            f"The builder reported nothing of layers with {explanation['unmatched']:.1%} of the time."
        )


def spent(explanation: Mapping[str, Any]) -> str:
    """Where the time goes, in a sentence."""
    shares = ", ".join(
        f"{SPENT.get(kind, kind)} {share:.1%}" for kind, share in explanation["shares"].items() if share
    )
    attained = explanation["attained"]
    ideal = "" if attained is None else f"; the engine attains {percent(attained, 0)} of its roofline"
    return f"The time goes to {shares or 'nothing that was measured'}{ideal}."


def _megabytes(limit: Mapping[str, Any]) -> float | None:
    weights, data = limit.get("weight_bytes"), limit.get("data_bytes")
    return None if weights is None or data is None else _MB * (weights + data) or None
