"""Runtimes, which build engines and run networks, and the Protocols they satisfy.

A runtime is a module with a `RUNTIME` that satisfies `Runtime`; it is imported on first use. `NAMES` is the
whole registry: a new runtime is one folder and one line here, and the conformance tests cover it
automatically. Code that chooses a runtime checks what it can do, never its name.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, TypeGuard

import numpy as np
from numpy.typing import NDArray

from cnnx.device import Device
from cnnx.errors import CnnxError, UsageError
from cnnx.options.bundles import BuildOptions as BuildOptions
from cnnx.runtimes.batches import Images as Images
from cnnx.runtimes.layer_times import LayerTime
from cnnx.runtimes.layout import Layout

NAMES = {
    "tensorrt": "cnnx.runtimes.trt.runtime",
    "rtx": "cnnx.runtimes.rtx.runtime",
    "ort": "cnnx.runtimes.ort.runtime",
}
"""Every runtime and its module, in the order in which "auto" tries them."""
GRAPHS = "ort"
"""Runs ONNX graphs without a build. Calibration and validation use it, and "auto" falls back to it."""

Reach = Literal["compute_capability", "gpu", "ampere_plus"]
"""GPUs that can run an engine: its compute capability, only its GPU model, or Ampere and newer."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How to open an engine or a graph.

    Attributes:
        cuda_graph: launch the engine's kernels as one CUDA graph. It is captured after a warm-up run, and
            again whenever the batch changes: a graph is tied to the shapes it was captured with.
        host_code: let a version-compatible engine run the CPU code that it contains. This needs no additional
            trust: every plan is native code (TensorRT's guide, Security), and its hash is always checked.
        dla_core: DLA core to run on, for an engine that was built for one.
        fuse_qdq: let ONNX Runtime fuse Q/DQ of a graph into integer kernels, which round differently. By
            default it computes what the graph states. Engines are always fused.
        threads: CPU threads of a graph; None: all physical cores that this process may use.
    """

    cuda_graph: bool = False
    host_code: bool = False
    dla_core: int | None = None
    fuse_qdq: bool = False
    threads: int | None = None


USUAL = RunOptions()
"""Options for a graph, or for an engine that was built without options."""


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """The engine to build.

    Attributes:
        precision: "fp32", "fp16" or "int8"; the precision of the graph.
        expected: ONNX node name of each weighted layer -> expected type of its input data ("int8", "fp16",
            "fp32"); compared with the built engine.
        batch: smallest, optimal and largest batch of the optimization profile.
        compute_capabilities: SM versions such as 86, for builders that cross-build; empty: this device.
        emits: let the engine emit the tensors that fusion leaves; only if `Runtime.emits`.
        options: TensorRT build options.
    """

    precision: str
    expected: dict[str, str]
    batch: tuple[int, int, int] = (1, 1, 1)
    compute_capabilities: tuple[int, ...] = ()
    emits: bool = False
    options: BuildOptions = field(default_factory=BuildOptions)

    @property
    def tuning(self) -> tuple[str, ...]:
        """Suffix of the engine's identity for its optimal batch; empty if that is the largest batch."""
        return (f"opt{self.batch[1]}",) if self.batch[1] != self.batch[2] else ()


@dataclass(frozen=True, slots=True)
class BuiltEngine:
    """One engine file and its properties. `identity` names its folder under engines/.

    Attributes:
        reach: GPUs that can run it.
        version_compatible: whether releases other than the one that built it can run it.
        dla_core: DLA core that it was built for; None: GPU only.
        on_gpu: names of the network's layers that the DLA cannot run and the GPU does.
        timing_cache: SHA-256 of the timing cache after the build; empty: none was kept.
        remarks: notes on a successful build, one sentence each.
        evidence: file name, of `cnnx.bundle.EVIDENCE`, -> text: what the builder reported, to be kept beside
            the engine.
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
    evidence: dict[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class RunTimes:
    """Times of one batch by part, in nanoseconds.

    The GPU's times are measured by CUDA events.

    Attributes:
        enqueue_ns: host time to queue the kernels. If it is close to `compute_ns` or larger, the GPU waited
            for the host, and `compute_ns` includes the wait; in a single run it always includes some.
        h2d_ns: GPU time to copy the input to the device.
        compute_ns: GPU time of the kernels.
        d2h_ns: GPU time to copy the outputs to the host.
    """

    enqueue_ns: int
    h2d_ns: int
    compute_ns: int
    d2h_ns: int

    @property
    def latency_ns(self) -> int:
        """GPU time of one batch: copies and kernels (trtexec's "Latency")."""
        return self.h2d_ns + self.compute_ns + self.d2h_ns


@dataclass(frozen=True, slots=True)
class RunSeries:
    """Runs of one batch, each queued while the GPU was busy with the one before.

    Attributes:
        runs: times of each run, without the first, for which nothing was queued before.
        wall_ns: host time from the end of that first run to the end of the last, so that images per second
            are images over this time.
    """

    runs: tuple[RunTimes, ...]
    wall_ns: int


@dataclass(frozen=True, slots=True)
class Emission:
    """What an engine emitted during one run.

    Attributes:
        outputs: its outputs, as `Session.run` returns them.
        tensors: tensors by the engine's names, in the type that they have there.
        unread: name -> reason, of tensors whose values could not be read.
    """

    outputs: dict[str, NDArray[np.float32]]
    tensors: dict[str, NDArray[Any]]
    unread: dict[str, str]


class Session(Protocol):
    """A network ready to run. Sessions are not thread-safe; close them when done.

    For several threads, give each a `sibling`.
    """

    runtime: str
    runtime_version: str
    device: Device
    output_names: tuple[str, ...]

    def run(self, images: Images) -> dict[str, NDArray[np.float32]]:
        """Run one batch.

        Args:
            images: a batch as the network's input takes it, C-contiguous.

        Returns:
            Outputs by name, batch axis first; float outputs as float32.
        """
        ...

    def sibling(self) -> Session:
        """Open a further session on the same loaded network, which may run in another thread meanwhile.

        The weights are in memory once. An engine's siblings each have an execution context, a CUDA stream and
        buffers of their own. The network is freed with the last of them.

        Raises:
            EnvironmentLacks: there is not enough memory, or the runtime cannot be used by several threads.
            UsageError: the session is closed.
        """
        ...

    def close(self) -> None:
        """Free the memory. Running afterwards is an error."""
        ...


class TimedSession(Session, Protocol):
    """A session that can time the parts of a run."""

    def timed_run(self, images: Images) -> RunTimes:
        """Run one batch and time its parts; see `engine.EngineSession`."""
        ...

    def timed_series(self, images: Images, runs: int) -> RunSeries:
        """Run one batch repeatedly, queued two deep, and time each run; see `engine.EngineSession`."""
        ...


class EmittingSession(Session, Protocol):
    """A session of an engine that was built to emit its tensors."""

    def emitted(self, images: Images, layouts: Mapping[str, Layout]) -> Emission:
        """Run one batch and keep the tensors that it emits.

        Args:
            images: one batch, as for `run`.
            layouts: name of a tensor -> how it lies in memory; others lie row by row.
        """
        ...


def queues(session: Session) -> TypeGuard[TimedSession]:
    """Whether a session can queue runs and time their parts."""
    return hasattr(session, "timed_series")


def is_emitting(session: Session) -> TypeGuard[EmittingSession]:
    """Whether a session can emit its tensors."""
    return hasattr(session, "emitted")


class Runtime(Protocol):
    """A vendor's runtime: reports whether it can be used here, builds engines and opens sessions."""

    name: str
    engine_suffix: str | None
    """Suffix of the files it builds, such as ".engine"; None if it runs ONNX files directly."""
    builds_without_gpu: bool
    """Whether it can build for a GPU that is not present, given the compute capability."""

    def version(self) -> str | None:
        """Installed version; None if not installed."""
        ...

    def missing(self) -> CnnxError | None:
        """Why this runtime cannot be used here at all (such as a `MissingExtra`), or None."""
        ...

    def cannot_run(self) -> CnnxError | None:
        """Why it cannot *run* a network here (no GPU, no driver), or None. Includes `missing`."""
        ...

    def device(self) -> Device:
        """Device on which `open` runs a network.

        Raises:
            EnvironmentLacks: the runtime cannot run here.
        """
        ...

    def load(self) -> None:
        """Load what the first network of a process needs in addition: libraries, the CUDA context.

        Raises:
            EnvironmentLacks: the runtime cannot run here.
        """
        ...

    def check_capabilities(self, capabilities: Sequence[int]) -> None:
        """Reject GPU architectures that it cannot build for, before any work is done.

        Raises:
            UsageError: one of them is unknown, the runtime does not build engines, or none is given on a
                machine without a GPU.
        """
        ...

    def emits(self) -> bool:
        """Whether an engine can emit the tensors that fusion leaves, without a change of fusion."""
        ...

    def build(self, onnx_file: Path, request: BuildRequest) -> list[BuiltEngine]:
        """Build one engine per requested compute capability, or a single engine if none is given.

        Raises:
            BuildFailed: the parser or builder failed, or the requested precision was not reached.
            UsageError: this runtime builds nothing.
        """
        ...

    def open(self, file: Path, options: RunOptions = USUAL) -> Session:
        """Open a built engine, or the ONNX file if `engine_suffix` is None.

        Args:
            file: file to open; the caller has checked its hash.
            options: how to open it; for an ONNX file only `cuda_graph` and `fuse_qdq` matter.

        Raises:
            UsageError: a CUDA graph is requested for an ONNX file.
        """
        ...

    def layer_times(
        self, file: Path, images: Images, *, runs: int = 50, options: RunOptions = USUAL
    ) -> tuple[LayerTime, ...]:
        """Time a network layer by layer, in a separate session because profiling slows down runs.

        Args:
            file: as for `open`.
            images: (N, C, H, W), normalized, one batch.
            runs: number of timed runs, after the warm-up runs.
            options: as for `open`.
        """
        ...


def get(name: str) -> Runtime:
    """Runtime of this name, whether or not it can be used here.

    Raises:
        UsageError: no runtime has this name.
    """
    if name not in NAMES:
        raise UsageError(f"unknown runtime {name!r}", hint=f"choose one of: auto, {', '.join(NAMES)}")
    runtime: Runtime = importlib.import_module(NAMES[name]).RUNTIME
    return runtime


def builders() -> Iterator[Runtime]:
    """Runtimes that build engines, in the order of `NAMES`, whether or not they can be used here."""
    return (runtime for runtime in map(get, NAMES) if runtime.engine_suffix is not None)
