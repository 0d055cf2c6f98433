"""Machine, date and tool versions of measurements."""

from __future__ import annotations

import datetime
from collections.abc import Iterable

from cnnx.machine.environment import cpu_model, installed_version
from tools.resumable import Record

TOOLS = ("cnnx", "onnx", "onnxruntime", "numpy")


def here_and_now() -> Record:
    """Machine, date and tool versions for a new record."""
    return {
        "machine": cpu_model(),
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "versions": {tool: installed_version(tool) for tool in TOOLS},
    }


def where_measured(records: Iterable[Record]) -> str:
    """Machines, dates and versions of records, for the last line of a page."""
    records = list(records)
    machines = "; ".join(sorted({record["machine"] for record in records}))
    dates = " to ".join(sorted({min(r["date"] for r in records), max(r["date"] for r in records)}))
    versions = sorted({f"{tool} {version}" for r in records for tool, version in r["versions"].items()})
    return f"{machines}; {dates}; {', '.join(versions)}."
