"""Latency and memory measurements; power and energy are in `cnnx.measure.power`."""

from cnnx.machine.state import MachineState, read_state
from cnnx.measure.bootstrap import block_bootstrap
from cnnx.measure.comparing import Comparison, compare
from cnnx.measure.latency import measure_latency, measure_side_by_side
from cnnx.measure.memory import MemoryUse, peak_memory
from cnnx.measure.samples import Breakdown, Latency, samples_needed
from cnnx.measure.validity import Validity, judge_validity

__all__ = [
    "Breakdown",
    "Comparison",
    "Latency",
    "MachineState",
    "MemoryUse",
    "Validity",
    "block_bootstrap",
    "compare",
    "judge_validity",
    "measure_latency",
    "measure_side_by_side",
    "peak_memory",
    "read_state",
    "samples_needed",
]
