"""Runs engines of TensorRT and TensorRT for RTX; the caller passes the loaded bindings.

All calls used are the same in TensorRT 10.3 to 11 and TensorRT for RTX (NVIDIA's Python API reference).
"""

from __future__ import annotations

import contextlib
import copy
import math
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from cnnx.device import Device
from cnnx.errors import BundleError, CnnxError, EnvironmentLacks, UsageError
from cnnx.runtimes import USUAL, Emission, RunOptions, RunSeries, RunTimes
from cnnx.runtimes.batches import Images, check_images, run_in_batches
from cnnx.runtimes.device import Buffer, Cuda, Event, Graph
from cnnx.runtimes.engine.emission import listening, make_listener
from cnnx.runtimes.engine.network import tells_no_memory
from cnnx.runtimes.engine.profiler import make_profiler
from cnnx.runtimes.engine.specialization import can_be_captured, create_context
from cnnx.runtimes.layer_times import LayerTime
from cnnx.runtimes.layout import Layout

_WARMING_RUNS = 5
# Runs in the queue at a time, as trtexec has them.
_DEPTH = 2


class _Events(NamedTuple):
    """Events around the parts of a run."""

    start: Event
    uploaded: Event
    computed: Event
    done: Event


class _Pending(NamedTuple):
    """A run that is queued: its events, and the host time to queue its kernels."""

    events: _Events
    enqueue_ns: int


class Log(Protocol):
    """The process's only TensorRT logger: an ILogger that keeps its last errors."""

    def clear(self) -> None:
        """Drop the logged messages."""
        ...

    def said(self) -> str:
        """The last errors, in one line."""
        ...


class EngineSession:
    """An engine on the first GPU. Memory is allocated once; its copies and kernels share one stream.

    Satisfies `cnnx.runtimes.TimedSession`. `run` includes the copies to and from the device.

    Args:
        file: path of the engine. It is native code: the caller must have checked its hash.
        trt: the bindings' module.
        cuda: CUDA, in the context that the bindings use.
        log: logger for TensorRT, which provides the messages when it fails.
        runtime: name in `cnnx.runtimes.NAMES`.
        options: how to open the engine.

    Raises:
        BundleError: the engine is damaged, or from a different release or for a different GPU.
        EnvironmentLacks: there is not enough memory, CUDA reports an error, or does not support CUDA graphs.
    """

    def __init__(
        self,
        file: Path,
        trt: Any,
        *,
        cuda: Cuda,
        log: Log,
        runtime: str,
        options: RunOptions = USUAL,
    ) -> None:
        if options.cuda_graph and not cuda.captures:
            raise EnvironmentLacks(
                "a CUDA graph was requested, but pycuda does not support them",
                hint="run without a CUDA graph, or use the CUDA runtime",
            )
        self.runtime, self.runtime_version = runtime, str(trt.__version__)
        self.device = Device("gpu", cuda.device_name())
        self._trt, self._file = trt, file
        self._cuda, self._log, self._cuda_graph = cuda, log, options.cuda_graph
        log.clear()
        self._trt_runtime: Any = make_trt_runtime(trt, log, options)
        self._engine: Any = self._trt_runtime.deserialize_cuda_engine(file.read_bytes())
        if self._engine is None:
            raise _rejected(runtime, log.said(), file)
        self._describe(trt, file)
        self._open_context()

    def _open_context(self) -> None:
        """Create the execution context, the stream and the buffers, which no other session may use."""
        self._context: Any = create_context(self._trt, self._engine)
        if self._context is None:
            raise _out_of_memory(self.runtime, self._log.said(), self._file)
        self._graph: Graph | None = None
        self._buffers: dict[str, Buffer] = {}
        self._events: list[_Events] = []
        self._stream = self._cuda.stream()
        try:
            self._allocate()
        except CnnxError:
            self.close()
            raise

    def run(self, images: Images) -> dict[str, NDArray[np.float32]]:
        """Run N images, in slices of the engine's largest batch, padded to its smallest.

        Args:
            images: (N, C, H, W), normalized.

        Raises:
            ImageError: the images do not fit the input.
            EnvironmentLacks: CUDA or TensorRT reports an error.
        """
        self._check(images)
        return run_in_batches(self._run, images, size=self._shape[0], least=self._least)

    def timed_run(self, images: Images) -> RunTimes:
        """Run one batch and time its parts; the outputs are copied to the host but not returned.

        GPU compute includes the host's time to launch, as nothing is queued before; see `timed_series`.
        The times exclude filling the page-locked memory and capturing a CUDA graph, which happen before.

        Args:
            images: (N, C, H, W), normalized; N within the engine's range of batches.

        Raises:
            ImageError: the images do not fit the input.
            UsageError: they are not one batch of this engine.
            EnvironmentLacks: CUDA or TensorRT reports an error.
        """
        self._check_batch(images)
        self._prepare(images)
        return self._ended(self._queued(0, images.size))

    def timed_series(self, images: Images, runs: int) -> RunSeries:
        """Run one batch repeatedly and time each run, with the next run queued before one has ended.

        trtexec queues two deep as well. The GPU then finds the kernels queued when it has recorded the event
        before them, so that GPU compute holds no time of the host. The images are copied into page-locked
        memory once. One run more than asked for comes first and is not counted: nothing is queued before it.

        Args:
            images: as for `timed_run`.
            runs: number of runs to count.

        Raises:
            ImageError, UsageError, EnvironmentLacks: as `timed_run`.
        """
        self._check_batch(images)
        self._prepare(images)
        times: list[RunTimes] = []
        pending: deque[_Pending] = deque()
        start = 0
        for number in range(runs + 1):
            pending.append(self._queued(number % _DEPTH, images.size))
            if len(pending) == _DEPTH:
                times.append(self._ended(pending.popleft()))
                start = start or time.perf_counter_ns()
        times += [self._ended(each) for each in pending]
        return RunSeries(tuple(times[1:]), time.perf_counter_ns() - start)

    def _queued(self, slot: int, elements: int) -> _Pending:
        """Queue a run with its events; runs in different slots may be queued at the same time."""
        while len(self._events) <= slot:
            self._events.append(_Events(*(self._cuda.event() for _ in range(4))))
        events = self._events[slot]
        events.start.record(self._stream)
        self._upload(elements)
        events.uploaded.record(self._stream)
        before = time.perf_counter_ns()
        self._enqueue()
        enqueue_ns = time.perf_counter_ns() - before
        events.computed.record(self._stream)
        self._download()
        events.done.record(self._stream)
        return _Pending(events, enqueue_ns)

    def _ended(self, run: _Pending) -> RunTimes:
        """Wait for a queued run and read its times."""
        events = run.events
        events.done.synchronize()
        return RunTimes(
            enqueue_ns=run.enqueue_ns,
            h2d_ns=events.uploaded.ns_since(events.start),
            compute_ns=events.computed.ns_since(events.uploaded),
            d2h_ns=events.done.ns_since(events.computed),
        )

    def emitted(self, images: Images, layouts: Mapping[str, Layout]) -> Emission:
        """Run one batch and keep the tensors that the engine emits; it must have been built to emit them.

        Args:
            images: as for `timed_run`.
            layouts: name of a tensor -> how it lies in memory; others lie row by row.

        Raises:
            ImageError, UsageError, EnvironmentLacks: as `timed_run`.
        """
        self._check_batch(images)
        listener = make_listener(self._trt, self._cuda, layouts)
        with listening(self._context, listener):
            outputs = self._run(images)
        if listener.failure is not None:
            raise listener.failure
        return Emission(outputs, listener.tensors, listener.unread)

    @property
    def scratch_bytes(self) -> int:
        """Device memory of the context for activations, as reported by the engine."""
        return int(self._engine.device_memory_size_v2)

    @property
    def io_bytes(self) -> int:
        """Device memory of inputs and outputs at the largest batch, equal to the page-locked host memory."""
        return sum(int(buffer.host.nbytes) for buffer in self._buffers.values())

    def layer_times(self, images: Images, *, runs: int) -> tuple[LayerTime, ...]:
        """Time one batch layer by layer. All later runs are profiled, too: close the session afterwards.

        Args:
            images: (N, C, H, W), normalized; N within the engine's range of batches.
            runs: number of timed runs, after the warm-up runs.

        Raises:
            EnvironmentLacks: CUDA or TensorRT reports an error.
        """
        self._check(images)
        self._prepare(images)
        self._upload(images.size)
        self._context.profiler = profiler = make_profiler(self._trt)
        for run in range(_WARMING_RUNS + runs):
            if run == _WARMING_RUNS:
                profiler.clear()
            self._execute()
            self._stream.synchronize()
        layers: tuple[LayerTime, ...] = profiler.layers()
        return layers

    def sibling(self) -> EngineSession:
        """Open a further execution context of the engine, with a stream and buffers of its own.

        Since TensorRT 10, contexts that run at the same time may use one optimization profile
        (PreviewFeature.PROFILE_SHARING_0806 is on by default). Captured CUDA graphs are not shared.

        Raises:
            EnvironmentLacks: there is not enough memory, or CUDA is used through pycuda.
            UsageError: the session is closed.
        """
        self._check_open()
        if not self._cuda.threads:
            raise EnvironmentLacks(
                "several streams were requested, and pycuda's context belongs to one thread",
                hint="use the CUDA runtime: install libcudart, or set CUDA_HOME",
            )
        self._log.clear()
        other = copy.copy(self)
        other._open_context()
        return other

    def close(self) -> None:
        """Free the engine and its memory. After an error of CUDA, what cannot be freed is left."""
        if self._context is None:
            return
        for free in (
            self._drop_graph,
            *(event.free for events in self._events for event in events),
            *(buffer.free for buffer in self._buffers.values()),
            self._stream.free,
        ):
            with contextlib.suppress(CnnxError):
                free()
        # The order matters: a context must not outlive its engine, nor an engine its runtime.
        self._context = None
        self._engine = None
        self._trt_runtime = None

    def _describe(self, trt: Any, file: Path) -> None:
        """Read names and types of inputs and outputs, and the smallest and largest batch."""
        engine = self._engine
        self._names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        inputs = [name for name in self._names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        if len(inputs) != 1:
            raise BundleError(
                f"a classifier has one input, this engine has {len(inputs)}",
                where=file,
                hint="build the engine again from the bundle's graph: cnnx build BUNDLE",
            )
        self._input: str = inputs[0]
        self.output_names: tuple[str, ...] = tuple(name for name in self._names if name not in inputs)
        self._dtypes = {name: np.dtype(trt.nptype(engine.get_tensor_dtype(name))) for name in self._names}
        shape = tuple(engine.get_tensor_shape(self._input))
        if shape[0] == -1:
            smallest, _, largest = map(tuple, engine.get_tensor_profile_shape(self._input, 0))
        else:
            smallest = largest = shape
        self._least: int = smallest[0]
        self._shape: tuple[int, ...] = largest

    def _allocate(self) -> None:
        """Allocate the buffers for the largest batch."""
        self._set_batch(self._shape[0])
        for name in self._names:
            elements = math.prod(self._context.get_tensor_shape(name))
            self._buffers[name] = self._cuda.buffer(elements, self._dtypes[name])
            self._context.set_tensor_address(name, self._buffers[name].address)

    def _set_batch(self, size: int) -> None:
        if not self._context.set_input_shape(self._input, (size, *self._shape[1:])):
            raise UsageError(
                f"the engine does not take a batch of {size}: {self._log.said()}",
                hint="use a batch in the range that the engine was built for",
            )
        self._drop_graph()
        self._batch = size
        self._shapes = {name: tuple(self._context.get_tensor_shape(name)) for name in self.output_names}

    def _check_open(self) -> None:
        if self._context is None:
            raise UsageError("the session is closed", hint="open the engine again")

    def _check(self, images: Images) -> None:
        self._check_open()
        check_images(images, ("N", *self._shape[1:]), self._dtypes[self._input])

    def _check_batch(self, images: Images) -> None:
        self._check(images)
        least, most = self._least, self._shape[0]
        if not least <= len(images) <= most:
            raise UsageError(
                f"{len(images)} images are not one batch of this engine",
                hint=f"pass {most} images" if least == most else f"pass {least} to {most} images",
            )

    def _prepare(self, images: Images) -> None:
        """Set the batch, fill the host memory, and capture a CUDA graph if one is requested and missing."""
        if len(images) != self._batch:
            self._set_batch(len(images))
        self._buffers[self._input].host[: images.size] = images.reshape(-1)
        if self._cuda_graph and self._graph is None:
            # The first run after a change of shapes updates the context, which must not be captured
            # (TensorRT's guide, "CUDA Graphs"). This run uses whatever data is in device memory.
            self._execute()
            self._stream.synchronize()
            self._graph = self._captured()

    def _captured(self) -> Graph:
        if not can_be_captured(self._context, self._stream.handle):
            raise EnvironmentLacks(
                f"{self.runtime} reports that the engine cannot be captured as a CUDA graph",
                hint="run it without a CUDA graph",
            )
        try:
            return self._cuda.capture(self._stream, self._execute)
        except EnvironmentLacks as refusal:
            raise EnvironmentLacks(
                f"the engine cannot be captured as a CUDA graph: {refusal.what}",
                hint="run it without a CUDA graph",
            ) from refusal

    def _run(self, images: Images) -> dict[str, NDArray[np.float32]]:
        self._prepare(images)
        self._upload(images.size)
        self._enqueue()
        self._download()
        self._stream.synchronize()
        return {name: self._read(name, shape) for name, shape in self._shapes.items()}

    def _upload(self, elements: int) -> None:
        self._buffers[self._input].upload(elements, self._stream)

    def _enqueue(self) -> None:
        if self._graph is None:
            self._execute()
        else:
            self._graph.launch(self._stream)

    def _execute(self) -> None:
        if not self._context.execute_async_v3(self._stream.handle):
            raise EnvironmentLacks(
                f"{self.runtime} did not run the engine: {self._log.said()}",
                hint="see the driver's log (dmesg); free GPU memory, or run a smaller batch",
            )

    def _download(self) -> None:
        for name, shape in self._shapes.items():
            self._buffers[name].download(math.prod(shape), self._stream)

    def _drop_graph(self) -> None:
        graph, self._graph = self._graph, None
        if graph is not None:
            graph.free()

    def _read(self, name: str, shape: Sequence[int]) -> NDArray[np.float32]:
        """Copy of an output (the next run overwrites the buffer), with FP16 widened to FP32."""
        values = self._buffers[name].host[: math.prod(shape)].reshape(shape)
        return values.astype(np.float32) if values.dtype == np.float16 else values.copy()


def make_trt_runtime(trt: Any, log: Log, options: RunOptions) -> Any:
    """Create a trt.Runtime with these options, which must be set before it deserializes an engine."""
    trt_runtime = trt.Runtime(log)
    trt_runtime.engine_host_code_allowed = options.host_code
    if options.dla_core is not None:
        trt_runtime.DLA_core = options.dla_core
    return trt_runtime


def _rejected(runtime: str, said: str, file: Path) -> CnnxError:
    """Error for a plan that TensorRT does not deserialize."""
    if tells_no_memory(said):
        return _out_of_memory(runtime, said, file)
    return BundleError(
        f"{runtime} does not accept the engine: {said}",
        where=file,
        hint="it uses a plugin, and cnnx does not load plugins: build it from a graph of standard operators"
        if "plugin" in said.lower()
        else "build it again with this release and for this GPU",
    )


def _out_of_memory(runtime: str, said: str, file: Path) -> EnvironmentLacks:
    """Error for an engine that does not fit into memory; its release and GPU are right."""
    return EnvironmentLacks(
        f"{runtime} does not have enough memory for the engine: {said}",
        where=file,
        hint="free GPU memory (close other programs), or export and build with a smaller --batch",
    )
