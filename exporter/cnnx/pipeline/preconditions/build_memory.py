"""Predicts the peak memory of a build, so that it can be warned about before it fails on a small board.

Measured with TensorRT for RTX 1.7.1, which builds without a GPU: without its libraries, a build adds 6.2
times the size of a graph of 24 MiB to the process, 3.3 times that of 263 MiB and 3.2 times that of 527 MiB:
about 3.1 times and 80 MiB. The parser, the network and the plan each hold the weights. On a device, the
plan's weights and what the largest batch needs come on top. The kernels that are tried, and CUDA's context,
are not known, so that the prediction is too low rather than too high.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cnnx.graph.footprint import GraphMemory

_COPIES, _FIXED = 3.1, 80 * 2**20
_MIB = 2**20


@dataclass(frozen=True, slots=True)
class BuildMemory:
    """Predicted peak of a build, in bytes, at least.

    Attributes:
        host: of the process, without the runtime's libraries.
        device: on the GPU; 0 if the build is for a GPU that is not here.
    """

    host: int
    device: int


@dataclass(frozen=True, slots=True)
class FreeMemory:
    """Memory that is free, in bytes; None if unknown.

    Attributes:
        host: of the machine.
        device: of the GPU's own; None also if it shares the machine's.
        shared: whether CPU and GPU share the machine's memory, as on a Jetson.
    """

    host: int | None
    device: int | None
    shared: bool = False


def predict_build(graph: GraphMemory, file: Path, *, workspace: int | None, here: bool) -> BuildMemory:
    """Predict the memory of a build.

    Args:
        graph: predicted memory of the graph at its largest batch.
        file: its file.
        workspace: limit of the workspace, in bytes; None: unlimited, of which nothing is known.
        here: whether it is built on the GPU that will run it.
    """
    size = file.stat().st_size
    host = int(_COPIES * size) + _FIXED
    if not here:
        return BuildMemory(host, 0)
    return BuildMemory(host, size + graph.scratch_bytes + graph.io_bytes + (workspace or 0))


def memory_warning(needed: BuildMemory, free: FreeMemory) -> str:
    """One sentence and a hint if a build may not fit; empty if it does, or if nothing is known."""
    wanted = {"memory": (needed.host + needed.device if free.shared else needed.host, free.host)}
    if not free.shared:
        wanted["GPU memory"] = (needed.device, free.device)
    short = [
        f"{size // _MIB:,} MiB of {what}, and {have // _MIB:,} MiB are free"
        for what, (size, have) in wanted.items()
        if have is not None and size > have
    ]
    if not short:
        return ""
    return (
        f"The build is predicted to need at least {'; '.join(short)}: it may fail. Close other programs, on "
        "a board also the desktop; set or lower --workspace; or export with a smaller --batch."
    )
