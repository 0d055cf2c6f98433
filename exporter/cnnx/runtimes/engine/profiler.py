"""Collects the times of single layers through TensorRT's IProfiler."""

from __future__ import annotations

import statistics
from collections import defaultdict
from typing import Any

from cnnx.runtimes.layer_times import LayerTime, kind_of_name


def make_profiler(trt: Any) -> Any:
    """Create an IProfiler; set it as `context.profiler` before the first run.

    TensorRT then times each layer of every run by events and reports the times at the end of the run
    ("IProfiler", TensorRT's Python API). This slows down runs, so latency is measured without a profiler.
    `layers()` returns the medians.
    """

    class Profiler(trt.IProfiler):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)
            self.clear()

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            self._times[layer_name].append(ms * 1e6)

        def clear(self) -> None:
            self._times: dict[str, list[float]] = defaultdict(list)

        def layers(self) -> tuple[LayerTime, ...]:
            return tuple(
                LayerTime(name, "", kind_of_name(name), statistics.median(times))
                for name, times in self._times.items()
            )

    return Profiler()
