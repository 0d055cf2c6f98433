"""Which type the result of a record is checked by, kind by kind."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

from cnnx.record import RecordKind

RESULTS: Mapping[RecordKind, str] = {
    "validation": "cnnx.agreement:Validation",
    "judgement": "cnnx.agreement:Validation",
    "selftest": "cnnx.selftest:SelfTest",
    "benchmark": "cnnx.pipeline.records.benchmark:Benchmark",
    "diagnosis": "cnnx.pipeline.records.diagnosis:Diagnosis",
    "energy": "cnnx.pipeline.records.energy:Energy",
}
"""Kind of a record -> module and type of its result, imported on use: judging loads no power sensor."""


def result_type(kind: RecordKind) -> type:
    """The type of the result of a kind of record."""
    module, _, name = RESULTS[kind].partition(":")
    found: type = getattr(importlib.import_module(module), name)
    return found
