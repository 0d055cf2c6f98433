"""A load without TensorRT: an "engine" whose kernels are copies on the device, for `EngineSession`.

A copy within the device is queued like a kernel and takes a time that its size decides, so what cnnx does
around an engine can be tried on any GPU: events, queues, CUDA graphs, errors, power.
"""

from __future__ import annotations

import contextlib
import ctypes
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from cnnx.runtimes import RunOptions
from cnnx.runtimes.device import Stream
from cnnx.runtimes.engine.cudart import Buffer, CudaRuntime
from cnnx.runtimes.engine.session import EngineSession
from tools.check.probes.probe import Machine

_ON_DEVICE = 3  # cudaMemcpyDeviceToDevice
_CLASSES = 10
_LEAST_BYTES = 1 << 12
_SPIN = 200  # copies between two looks at the clock


class Copies:
    """Copies within the device's memory.

    Args:
        cuda: CUDA's runtime.
        nbytes: size of a copy.
    """

    def __init__(self, cuda: CudaRuntime, nbytes: int) -> None:
        self.cuda, self.nbytes = cuda, nbytes
        self._source, self._target = (Buffer(cuda, elements=nbytes, dtype=np.uint8) for _ in range(2))

    def queue(self, stream: int, count: int = 1) -> None:
        """Queue copies on a stream."""
        for _ in range(count):
            to, source = ctypes.c_void_p(self._target.address), ctypes.c_void_p(self._source.address)
            self.cuda.call("cudaMemcpyAsync", to, source, self.nbytes, _ON_DEVICE, ctypes.c_void_p(stream))

    def ns(self, count: int) -> float:
        """Time of one of many copies that are queued together."""
        stream, start, end = self.cuda.stream(), self.cuda.event(), self.cuda.event()
        self.queue(stream.handle, 3)
        start.record(stream)
        self.queue(stream.handle, count)
        end.record(stream)
        end.synchronize()
        taken = end.ns_since(start) / count
        for each in (start, end, stream):
            each.free()
        return taken

    def free(self) -> None:
        """Free the memory."""
        self._source.free()
        self._target.free()


def of_time(cuda: CudaRuntime, ns: float, *, most: int) -> Copies:
    """Copies that take about a time each; less where `most` bytes take less."""
    whole = Copies(cuda, most)
    per_byte = whole.ns(20) / most
    whole.free()
    return Copies(cuda, min(most, max(_LEAST_BYTES, int(ns / per_byte))))


class _Log:
    """A logger without messages."""

    def clear(self) -> None:
        """There is nothing to drop."""

    def said(self) -> str:
        """Nothing."""
        return ""


def module(work: Callable[[int], None], shape: Sequence[int]) -> Any:
    """A stand-in for TensorRT's module, whose one engine does `work` on a stream.

    Args:
        work: queues the work on a cudaStream_t.
        shape: of the input.
    """
    shapes = {"input": tuple(shape), "logits": (shape[0], _CLASSES)}
    modes = SimpleNamespace(INPUT="input", OUTPUT="output")

    class IExecutionContext:
        def set_tensor_address(self, name: str, memory: int) -> None: ...

        def set_input_shape(self, name: str, shape: Sequence[int]) -> bool:
            return tuple(shape) == shapes[name]

        def get_tensor_shape(self, name: str) -> tuple[int, ...]:
            return shapes[name]

        def execute_async_v3(self, stream_handle: int) -> bool:
            work(stream_handle)
            return True

    class ICudaEngine:
        num_io_tensors = len(shapes)
        device_memory_size_v2 = 0

        def get_tensor_name(self, index: int) -> str:
            return list(shapes)[index]

        def get_tensor_mode(self, name: str) -> str:
            return modes.INPUT if name == "input" else modes.OUTPUT

        def get_tensor_dtype(self, name: str) -> Any:
            return np.float32

        def get_tensor_shape(self, name: str) -> tuple[int, ...]:
            return shapes[name]

        def create_execution_context(self) -> IExecutionContext:
            return IExecutionContext()

    class Runtime:
        engine_host_code_allowed = False

        def __init__(self, logger: Any) -> None: ...

        def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine:
            return ICudaEngine()

    return SimpleNamespace(
        __version__="0",
        TensorIOMode=modes,
        nptype=lambda trt_type: trt_type,
        Runtime=Runtime,
        ICudaEngine=ICudaEngine,
        IExecutionContext=IExecutionContext,
    )


@contextlib.contextmanager
def session(
    cuda: CudaRuntime, work: Callable[[int], None], shape: Sequence[int], *, cuda_graph: bool = False
) -> Iterator[EngineSession]:
    """A session of cnnx whose engine does `work`."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "engine"
        file.write_bytes(b"")
        options = RunOptions(cuda_graph=cuda_graph)
        opened = EngineSession(
            file, module(work, shape), cuda=cuda, log=_Log(), runtime="tensorrt", options=options
        )
    try:
        yield opened
    finally:
        opened.close()


@contextlib.contextmanager
def busy(machine: Machine) -> Iterator[None]:
    """Keep the GPU copying in a thread, for the duration of a with block."""
    stop, failures = threading.Event(), list[BaseException]()

    def copy() -> None:
        try:
            cuda = machine.cuda()
            copies, stream = Copies(cuda, machine.most_bytes), cuda.stream()
            while not stop.is_set():
                spin(copies, stream)
            stream.free()
            copies.free()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=copy)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    if failures:
        raise failures[0]


def spin(copies: Copies, stream: Stream) -> None:
    """Some copies one after the other, and wait for them."""
    copies.queue(stream.handle, _SPIN)
    stream.synchronize()
