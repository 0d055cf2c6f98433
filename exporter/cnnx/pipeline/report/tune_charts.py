"""The rows of the chart of a search: time against divergence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cnnx.report.document import Chart, Scalar


def front_chart(tuning: Mapping[str, Any], name: str = "") -> Chart:
    """Time and divergence of each placement that was built; the Pareto front is a line.

    Args:
        tuning: result of a record of tuning.
        name: what was tuned.
    """
    base = tuning["base"].upper()
    rows: tuple[Mapping[str, Scalar], ...] = tuple(
        {
            "number": each["number"],
            "ratio": each["ratio"],
            "low": each["interval"]["low"],
            "high": each["interval"]["high"],
            "nats": each["likeness"]["divergence"],
            "agreement": each["likeness"]["top1_agreement"],
            "layers": each["layers"],
            "shortcuts": each["shortcuts"],
            "state": _state(each, base),
            "front": each["front"],
        }
        for each in tuning["placements"]
        if each["ratio"] is not None and each["interval"] is not None
    )
    chosen = next((row for row in rows if row["state"] == "chosen"), None)
    text = f"{len(rows)} placements were measured"
    if chosen is not None:
        text += f"; the chosen one takes {chosen['ratio']:.3f} of the time of {base}"
    title = f"Time against divergence{f', {name}' if name else ''}"
    return Chart("front", title, f"{text}.", rows)


def _state(placement: Mapping[str, Any], base: str) -> str:
    """One word for the legend; the chosen placement may also be the bundle's, or have no Q/DQ."""
    names = {"chosen": "chosen", "fp16": base, "given": "the bundle's"}
    role = next((name for role, name in names.items() if role in placement["roles"]), "")
    return role or ("passes" if placement["passes"] else "fails the gates")
