"""Reads what NVIDIA's trtexec measured: its log, or the times that it exports.

Both are as TensorRT's samples/common/sampleReporting.cpp and sampleOptions.cpp of 10.3 and 11.1 write them.
"""

from __future__ import annotations

import json
import math
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnnx.errors import InputRefused
from cnnx.limits import JSON_BYTES
from cnnx.store.reading import read_bytes

# trtexec's names -> those of `Latency.series` and of a breakdown.
_NAMES = {
    "GPU Compute Time": "GPU compute",
    "Latency": "with transfers",
    "Enqueue Time": "enqueue",
    "H2D Latency": "H2D",
    "D2H Latency": "D2H",
}
_NUMBER = r"([0-9]{1,15}(?:\.[0-9]{1,15})?(?:e[+-]?[0-9]{1,2})?)"
_LINE = re.compile(rf"({'|'.join(_NAMES)}): min = .*?\bmedian = {_NUMBER} ms")
_THROUGHPUT = re.compile(rf"Throughput: {_NUMBER} qps")
_RELEASE = re.compile(r"TensorRT version: ([0-9.]+[0-9])")
_HINT = "give the output of trtexec, or the file of its --exportTimes"
# Member of an exported time -> name; the enqueue time is a difference.
_MEMBERS: Mapping[str, Callable[[Mapping[str, Any]], float]] = {
    "GPU compute": lambda run: float(run["computeMs"]),
    "with transfers": lambda run: float(run["latencyMs"]),
    "enqueue": lambda run: float(run["endEnqMs"]) - float(run["startEnqMs"]),
    "H2D": lambda run: float(run["h2dMs"]),
    "D2H": lambda run: float(run["d2hMs"]),
}


@dataclass(frozen=True, slots=True)
class Trtexec:
    """Figures of trtexec.

    Attributes:
        medians_ms: "GPU compute", "with transfers", "enqueue", "H2D" and "D2H" -> median.
        queries_per_second: throughput in runs, not images; None: not in exported times.
        cuda_graph: whether it launched a CUDA graph; None: not in exported times.
        transfers: whether it copied inputs and outputs; None: not in exported times.
        release: version of TensorRT; empty: not in exported times.
    """

    medians_ms: Mapping[str, float]
    queries_per_second: float | None = None
    cuda_graph: bool | None = None
    transfers: bool | None = None
    release: str = ""


def read_trtexec(file: Path) -> Trtexec:
    """Read a log, or exported times.

    Raises:
        InputRefused: the file cannot be read, or has no times.
    """
    try:
        text = read_bytes(file, most=JSON_BYTES).decode("utf-8", "replace")
    except OSError as error:
        raise InputRefused(f"cannot read it: {error.strerror}", where=file, hint=_HINT) from None
    return _exported(text, file) if re.match(r"\s*\[\s*\{", text) else _logged(text, file)


def _logged(text: str, file: Path) -> Trtexec:
    medians = {_NAMES[name]: float(median) for name, median in _LINE.findall(text)}
    if "GPU compute" not in medians:
        raise InputRefused("it has no performance summary of trtexec", where=file, hint=_HINT)
    throughput, release = _THROUGHPUT.search(text), _RELEASE.search(text)
    return Trtexec(
        medians,
        float(throughput[1]) if throughput else None,
        _enabled(text, "CUDA Graph"),
        _enabled(text, "Data transfers"),
        release[1] if release else "",
    )


def _exported(text: str, file: Path) -> Trtexec:
    try:
        runs: Sequence[Mapping[str, Any]] = json.loads(text)
        medians = {name: statistics.median(map(of, runs)) for name, of in _MEMBERS.items()}
        if not all(map(math.isfinite, medians.values())):
            raise ValueError("a time is not finite")
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        raise InputRefused("it has no times as trtexec exports them", where=file, hint=_HINT) from None
    return Trtexec(medians)


def _enabled(text: str, what: str) -> bool | None:
    found = re.search(rf"{what}: (Enabled|Disabled)", text)
    return None if found is None else found[1] == "Enabled"
