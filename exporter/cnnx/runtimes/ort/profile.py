"""Reads times of layers from the events of ONNX Runtime's profiler."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cnnx.errors import EnvironmentLacks
from cnnx.runtimes.layer_times import LayerTime, kind_of_operator

_KERNEL = "_kernel_time"


@dataclass(slots=True)
class _Node:
    """Times of each run of a node, in microseconds: of the host, and of the kernels that it launched."""

    host: list[int] = field(default_factory=list)
    gpu: list[list[int]] = field(default_factory=list)


def read_profile(events: Path, runs: int, *, on_gpu: bool = False) -> tuple[LayerTime, ...]:
    """Median time of each node over the last runs. Resolution: microseconds.

    A node has an event {"cat": "Node", "name": "conv1_kernel_time", "dur": 12, "args": {"op_name": "Conv"}}.
    On CUDA that is the time to launch its kernels. Their events, {"cat": "Kernel", "name": <the kernel>,
    "dur": 33}, follow it ("Profiling tools", ONNX Runtime's documentation), if ONNX Runtime was built with
    --enable_cuda_profiling. Not tested on hardware.

    Args:
        events: the file that ONNX Runtime wrote.
        runs: number of runs to evaluate.
        on_gpu: whether the graph ran on CUDA. A node without kernels ran on the CPU.

    Raises:
        EnvironmentLacks: it ran on CUDA, and there are no events of kernels.
    """
    nodes = _nodes(json.loads(events.read_text(encoding="utf-8")))
    if on_gpu and not any(any(node.gpu) for node in nodes.values()):
        raise EnvironmentLacks(
            "this ONNX Runtime reports no times of CUDA kernels, only of their launch",
            hint="build an engine and time its layers; or use an ONNX Runtime built with "
            "--enable_cuda_profiling",
        )
    return tuple(
        LayerTime(name, op, kind_of_operator(op), 1000 * statistics.median(_times(node)[-runs:]))
        for (name, op), node in nodes.items()
    )


def _nodes(events: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], _Node]:
    nodes: dict[tuple[str, str], _Node] = defaultdict(_Node)
    last: _Node | None = None
    for event in events:
        name = event.get("name", "")
        if event.get("cat") == "Kernel":
            if last is not None:
                last.gpu[-1].append(event["dur"])
        elif name.endswith(_KERNEL):
            last = nodes[name.removesuffix(_KERNEL), event["args"]["op_name"]]
            last.host.append(event["dur"])
            last.gpu.append([])
    return nodes


def _times(node: _Node) -> list[int]:
    return [sum(kernels) for kernels in node.gpu] if any(node.gpu) else node.host
