"""What running a network costs: latency and memory; power and energy in `cnnx.measure.power`."""

from cnnx.measure.latency import measure_latency, measure_side_by_side
from cnnx.measure.memory import MemoryUse, peak_memory
from cnnx.measure.samples import Latency, samples_needed
from cnnx.measure.state import MachineState, read_state

__all__ = [
    "Latency",
    "MachineState",
    "MemoryUse",
    "measure_latency",
    "measure_side_by_side",
    "peak_memory",
    "read_state",
    "samples_needed",
]
