"""Reads the kernels of an engine from the files that its builder left beside it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from cnnx.runtimes.kernels import Kernel
from cnnx.runtimes.rtx import build_log
from cnnx.runtimes.trt import inspector

READERS: Mapping[str, Callable[[str, Collection[str]], tuple[Kernel, ...]]] = {
    "inspector.json": inspector.parse_kernels,
    "layers.log": build_log.parse_kernels,
}
"""Name of a file -> what reads the kernels in it."""


def kernels_in(evidence: Mapping[str, str], names: Collection[str] = ()) -> tuple[Kernel, ...]:
    """Kernels of an engine in execution order; empty if no file reports them.

    Args:
        evidence: name of a file -> its text.
        names: names of the graph's nodes; see `cnnx.runtimes.kernels.nodes_in`.
    """
    return next((read(evidence[name], names) for name, read in READERS.items() if name in evidence), ())
