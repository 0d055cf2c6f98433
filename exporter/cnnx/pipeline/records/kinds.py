"""Maps each kind of record to the type of its result."""

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
    "tensors": "cnnx.pipeline.records.tensors:Tensors",
    "energy": "cnnx.pipeline.records.energy:Energy",
    "streams": "cnnx.pipeline.records.load:Streams",
    "soak": "cnnx.pipeline.records.load:Soak",
    "tuning": "cnnx.pipeline.records.tuning:PlainTuning",
}
"""Kind of record -> module and type of its result. Imported on use, as most commands need only some."""


def result_type(kind: RecordKind) -> type:
    """The result type for a kind of record."""
    module, _, name = RESULTS[kind].partition(":")
    found: type = getattr(importlib.import_module(module), name)
    return found
