"""A CUDA runtime whose device memory is host memory, for sessions without a GPU.

It imitates the library, libcudart, so that `CudaRuntime` calls it as it does the real one. It does what
NVIDIA's "CUDA Runtime API" documents for the functions used:

- Copies and kernels are queued on a stream, and nothing has happened before it is synchronized.
- While a stream is capturing, what is queued goes to the graph and does not run. A call that is not allowed
  then returns cudaErrorStreamCaptureUnsupported and invalidates the capture; ending it returns
  cudaErrorStreamCaptureInvalidated and no graph ("CUDA Graphs", programming guide).
- Each function returns an error, which is also the thread's last error until cudaGetLastError returns it. A
  sticky error is returned by every later call, and is not cleared.
- Any thread may call it, as it may the library. Here one call waits for another, and streams share a queue.
- An event's time is that of its place in the queue. The host needs `launch_us` to queue an item, and the
  device `kernel_us` for a kernel and 1 us for others; it starts an item when the host has queued it and the
  one before has ended.
"""

from __future__ import annotations

import ctypes
import threading

from cnnx.runtimes.engine.cudart import _SIGNATURES, CudaRuntime

INVALID_VALUE, OUT_OF_MEMORY, ILLEGAL_ADDRESS = 1, 2, 700
CAPTURE_UNSUPPORTED, CAPTURE_INVALIDATED = 900, 901
WORDS = {
    INVALID_VALUE: b"invalid argument",
    OUT_OF_MEMORY: b"out of memory",
    ILLEGAL_ADDRESS: b"an illegal memory access was encountered",
    CAPTURE_UNSUPPORTED: b"operation not permitted when stream is capturing",
    CAPTURE_INVALIDATED: b"operation failed due to a previous error during capture",
}


class Refused(Exception):
    """A function returns this error code."""


class HostCuda(CudaRuntime):
    """Keeps account of what is allocated.

    Args:
        room: bytes that can be allocated.
        launch_us: time of the host to queue an item.
        kernel_us: time of the device for a kernel.

    Attributes:
        name: of the GPU.
        held: address -> memory, of all that is allocated.
        captured: work of the capture in progress; None: none is.
        launches: number of graphs launched.
        last_error: as cudaGetLastError would return it.
        sticky: error that every call returns; 0: none.
    """

    def __init__(self, room: int = 1 << 20, *, launch_us: float = 0.0, kernel_us: float = 1.0) -> None:
        self.held: dict[int, object] = {}
        self.room, self.launch_us, self.kernel_us = room, launch_us, kernel_us
        self.name = "host"
        self.queue: list = []
        self.captured: list | None = None
        self.invalidated = False
        self.graphs: dict[int, list] = {}
        self.launches = self.last_error = self.sticky = 0
        self.host_us = self.device_us = 0.0
        self._passed: dict[int, float] = {}
        self._library = self
        self._lock = threading.RLock()

    def why_not(self):
        return None

    def device_name(self) -> str:
        return self.name

    def compute_capability(self) -> int:
        return 87

    def enqueue(self, work) -> None:
        """Queue work, as a kernel launch does."""
        with self._lock:
            self._add(work, self.kernel_us)

    def _add(self, work, took: float) -> None:
        if self.captured is not None:
            self.captured.append((work, took))
        else:
            self.host_us += self.launch_us
            self._put(work, took)

    def cudaGetErrorString(self, code):  # noqa: N802
        return WORDS[code]

    def cudaGetLastError(self):  # noqa: N802
        code, self.last_error = self.last_error, self.sticky
        return code

    def _put(self, work, us: float) -> None:
        self.device_us = max(self.device_us, self.host_us) + us
        at = self.device_us
        self.queue.append(lambda: work(at))

    def _answer(self, function, arguments) -> int:
        """Return code of a function, which is the last error unless it is 0."""
        with self._lock:
            return self._answered(function, arguments)

    def _answered(self, function, arguments) -> int:
        code = self.sticky
        if not code:
            try:
                getattr(self, f"_{function}")(*arguments)
            except Refused as refusal:
                (code,) = refusal.args
        self.last_error = code or self.last_error
        return code

    def _allocate(self, pointer, nbytes, *_):
        if self.captured is not None:
            self.invalidated = True
            raise Refused(CAPTURE_UNSUPPORTED)
        self._make(pointer, nbytes)

    def _make(self, pointer, nbytes):
        if nbytes > self.room:
            raise Refused(OUT_OF_MEMORY)
        self.room -= nbytes
        memory = ctypes.create_string_buffer(b"\xff" * nbytes, nbytes)
        pointer._obj.value = ctypes.addressof(memory)
        self.held[pointer._obj.value] = memory

    def _free(self, pointer):
        if pointer.value not in self.held:
            raise Refused(INVALID_VALUE)
        self.room += len(self.held.pop(pointer.value))
        self.graphs.pop(pointer.value, None)

    _cudaMalloc = _cudaHostAlloc = _allocate  # noqa: N815
    _cudaFree = _cudaFreeHost = _cudaStreamDestroy = _cudaEventDestroy = _free  # noqa: N815
    _cudaGraphDestroy = _cudaGraphExecDestroy = _free  # noqa: N815

    def _cudaStreamCreate(self, pointer):  # noqa: N802
        self._make(pointer, 1)

    _cudaEventCreate = _cudaStreamCreate  # noqa: N815

    def _cudaMemcpyAsync(self, to, source, nbytes, kind, stream):  # noqa: N802
        assert stream.value in self.held
        target, origin = to.value, source.value
        self._add(lambda _at: ctypes.memmove(target, origin, nbytes), 1.0)

    def _cudaEventRecord(self, event, stream):  # noqa: N802
        assert stream.value in self.held
        handle = event.value
        self._passed.pop(handle, None)
        self._add(lambda at: self._passed.__setitem__(handle, at), 1.0)

    def _cudaEventElapsedTime(self, milliseconds, start, end):  # noqa: N802
        milliseconds._obj.value = (self._passed[end.value] - self._passed[start.value]) / 1e3

    def _cudaEventSynchronize(self, event):  # noqa: N802
        while event.value not in self._passed:
            self.queue.pop(0)()
        self.host_us = max(self.host_us, self._passed[event.value])

    def _cudaStreamSynchronize(self, stream):  # noqa: N802
        if self.captured is not None:
            self.invalidated = True
            raise Refused(CAPTURE_UNSUPPORTED)
        for work in self.queue:
            work()
        self.queue.clear()
        self.host_us = max(self.host_us, self.device_us)

    def _cudaStreamBeginCapture(self, stream, mode):  # noqa: N802
        assert self.captured is None
        assert not self.queue, "what was queued before would not be in the graph"
        self.captured, self.invalidated = [], False

    def _cudaStreamEndCapture(self, stream, graph):  # noqa: N802
        work, self.captured = self.captured, None
        if self.invalidated:
            raise Refused(CAPTURE_INVALIDATED)
        self._make(graph, 1)
        self.graphs[graph._obj.value] = work

    def _cudaGraphInstantiateWithFlags(self, executable, graph, flags):  # noqa: N802
        assert flags == 0
        self._make(executable, 1)
        self.graphs[executable._obj.value] = self.graphs[graph.value]

    def _cudaGraphLaunch(self, executable, stream):  # noqa: N802
        self.launches += 1
        self.host_us += self.launch_us
        for work, us in self.graphs[executable.value]:
            self._put(work, us)


def _function(name):
    return lambda self, *arguments: self._answer(name, arguments)


for _name in _SIGNATURES.keys() - {"cudaGetLastError"}:
    setattr(HostCuda, _name, _function(_name))
