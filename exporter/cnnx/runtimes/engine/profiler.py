"""TensorRT's IProfiler as a list of times."""

from __future__ import annotations

import statistics
from collections import defaultdict
from typing import Any

from cnnx.runtimes.layer_times import LayerTime, kind_of_name


def make_profiler(trt: Any) -> Any:
    """An IProfiler to set as `context.profiler`, before the first run.

    TensorRT then times each layer of every run by events and reports it when the run has ended ("IProfiler",
    TensorRT's Python API): runs get slower, so latency is measured without it. `layers()` gives the medians.
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
