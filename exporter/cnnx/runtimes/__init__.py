"""What builds an engine and what runs one: two Protocols, one vendor a file, imported on use.

A runtime is a module with a `RUNTIME` that satisfies `Runtime`. `NAMES` is the whole registry: a new runtime
is one folder and one line here, and the conformance tests take it in by themselves. Who chooses among
runtimes asks for what they can do, never for their names.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from cnnx.device import Device
from cnnx.errors import CnnxError, UsageError
from cnnx.options.bundles import BuildOptions as BuildOptions
from cnnx.runtimes.layer_times import LayerTime

NAMES = {
    "tensorrt": "cnnx.runtimes.trt.runtime",
    "rtx": "cnnx.runtimes.rtx.runtime",
    "ort": "cnnx.runtimes.ort.runtime",
}
"""Every runtime and its module, in the order in which "auto" takes them."""
GRAPHS = "ort"
"""Runs ONNX graphs as they are: by it activations are observed and graphs judged, and "auto" ends with it."""

Reach = Literal["compute_capability", "gpu", "ampere_plus"]
"""GPUs that run an engine: all of its compute capability, those of its model alone, or Ampere and newer."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How something is opened: what follows from how it was built, and what is wanted of it.

    Attributes:
        cuda_graph: launch an engine's kernels as one CUDA graph. It is captured after a run has warmed the
            engine up, and anew whenever the batch changes: a graph holds the shapes it was captured with.
        host_code: let a version compatible engine run the CPU code it brings along. Every plan is native code
            (TensorRT's guide, Security), and its hash is checked like any other's: this asks for no more
            trust.
        dla_core: the DLA core to run on, for an engine that was built for one.
    """

    cuda_graph: bool = False
    host_code: bool = False
    dla_core: int | None = None


USUAL = RunOptions()
"""Of an engine built without options, or a graph."""


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """What an engine is asked to be.

    Attributes:
        precision: "fp32", "fp16" or "int8", as the graph was typed.
        expected: name of each weighted layer's ONNX node -> the type its data should arrive in
            ("int8", "fp16", "fp32"); compared with what was built.
        batch: smallest, best and largest batch of the optimization profile.
        compute_capabilities: SM versions such as 86, for builders that cross-build; empty: this device.
        options: how TensorRT builds.
    """

    precision: str
    expected: dict[str, str]
    batch: tuple[int, int, int] = (1, 1, 1)
    compute_capabilities: tuple[int, ...] = ()
    options: BuildOptions = field(default_factory=BuildOptions)

    @property
    def tuning(self) -> tuple[str, ...]:
        """What an engine's identity says of the batch it is tuned for: nothing where that is the largest."""
        return (f"opt{self.batch[1]}",) if self.batch[1] != self.batch[2] else ()


@dataclass(frozen=True, slots=True)
class BuiltEngine:
    """One engine file and what is known of it. `identity` names its folder under engines/.

    Attributes:
        reach: which GPUs run it.
        version_compatible: whether other releases than the one that built it do.
        dla_core: that it was built for; None: for the GPU alone.
        on_gpu: layers that this DLA cannot run and the GPU does, as the network names them.
        timing_cache: SHA-256 of the timing cache as the build left it; empty: none was kept.
        remarks: what the build has to say beside success, a sentence each.
    """

    identity: str
    file_name: str
    plan: bytes = field(repr=False)
    runtime: str = ""
    runtime_version: str = ""
    target: str = ""
    layer_types: dict[str, str] = field(default_factory=dict)
    reach: Reach = "compute_capability"
    version_compatible: bool = False
    dla_core: int | None = None
    on_gpu: tuple[str, ...] = ()
    timing_cache: str = ""
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RunTimes:
    """Where the time of one batch went, in nanoseconds.

    Attributes:
        enqueue_ns: the host's, queueing the kernels. Where it exceeds `compute_ns`, or nearly, the GPU
            waited for the host, and the wait is in `compute_ns`.
        h2d_ns: the GPU's, by CUDA events: input to the device.
        compute_ns: likewise, kernels.
        d2h_ns: likewise, outputs to the host.
    """

    enqueue_ns: int
    h2d_ns: int
    compute_ns: int
    d2h_ns: int

    @property
    def latency_ns(self) -> int:
        """Copies and kernels, the GPU's view of one batch (trtexec's "Latency")."""
        return self.h2d_ns + self.compute_ns + self.d2h_ns


class Session(Protocol):
    """A network ready to run. Sessions are not thread-safe; close them when done."""

    runtime: str
    runtime_version: str
    device: Device
    output_names: tuple[str, ...]

    def run(self, images: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Run one batch.

        Args:
            images: (N, C, H, W), normalised, C-contiguous.

        Returns:
            Every output by name, each with N first; float outputs as float32.
        """
        ...

    def close(self) -> None:
        """Give memory back. Running afterwards is an error."""
        ...


class TimedSession(Session, Protocol):
    """A session that can tell where the time of a batch goes."""

    def timed_run(self, images: NDArray[np.float32]) -> RunTimes:
        """Run one batch, its parts timed; see `engine.EngineSession`."""
        ...


class Runtime(Protocol):
    """A vendor's runtime: says whether it is here, builds where it builds, opens where it runs."""

    name: str
    engine_suffix: str | None
    """Ending of the files it builds, such as ".engine"; None where it runs ONNX as it is."""
    builds_without_gpu: bool
    """Whether it builds for a GPU that is not here, by its compute capability."""

    def version(self) -> str | None:
        """Version of what is installed; None where nothing is."""
        ...

    def missing(self) -> CnnxError | None:
        """Why this runtime cannot be used here at all (a `MissingExtra`, say), or None."""
        ...

    def cannot_run(self) -> CnnxError | None:
        """Why it cannot *run* a network here (no GPU, no driver), or None. Implies `missing`."""
        ...

    def device(self) -> Device:
        """Where `open` puts a network.

        Raises:
            EnvironmentLacks: it cannot run here.
        """
        ...

    def load(self) -> None:
        """Load what the first network of a process takes beside itself: libraries, CUDA's context.

        Raises:
            EnvironmentLacks: it cannot run here.
        """
        ...

    def check_capabilities(self, capabilities: Sequence[int]) -> None:
        """Refuse GPU architectures it does not build for, before any work is done for them.

        Raises:
            UsageError: it does not know one of them, or builds nothing; or none is named and no GPU is here.
        """
        ...

    def build(self, onnx_file: Path, request: BuildRequest) -> list[BuiltEngine]:
        """Build engines, one for each compute capability asked (one in all where none is named).

        Raises:
            BuildFailed: the parser or builder refused, or the asked precision was not reached.
            UsageError: this runtime builds nothing.
        """
        ...

    def open(self, file: Path, options: RunOptions = USUAL) -> Session:
        """Open a built engine, or the ONNX file where `engine_suffix` is None.

        Args:
            file: what is opened: the caller has checked its hash.
            options: how; all but `cuda_graph` say nothing of an ONNX file.

        Raises:
            UsageError: a CUDA graph is asked of what has none.
        """
        ...

    def layer_times(
        self, file: Path, images: NDArray[np.float32], *, runs: int = 50, options: RunOptions = USUAL
    ) -> tuple[LayerTime, ...]:
        """Time what `open` opens layer by layer, in a session of its own: profiling slows runs.

        Args:
            file: as for `open`.
            images: (N, C, H, W), normalised, one batch.
            runs: that count, after some to warm up.
            options: as for `open`.
        """
        ...


def get(name: str) -> Runtime:
    """The runtime of that name, without asking whether it can work here.

    Raises:
        UsageError: no runtime has this name.
    """
    if name not in NAMES:
        raise UsageError(f"no runtime is called {name!r}", hint=f"choose one of: auto, {', '.join(NAMES)}")
    runtime: Runtime = importlib.import_module(NAMES[name]).RUNTIME
    return runtime


def builders() -> Iterator[Runtime]:
    """Runtimes that build engines, in the order of `NAMES`, without asking whether they can here."""
    return (runtime for runtime in map(get, NAMES) if runtime.engine_suffix is not None)
