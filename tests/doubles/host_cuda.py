"""A CUDA runtime whose device memory is host memory, for sessions without a GPU.

It does what NVIDIA's "CUDA Runtime API" documents for the calls used (memory, streams, events, graphs):
copies and kernels are queued on a stream and nothing has happened before it is synchronized; while a stream
is capturing, what is queued goes to the graph and does not run; an event's time is that of its place in the
queue. Each thing queued takes a microsecond on this device's clock.
"""

from __future__ import annotations

import ctypes

from cnnx.errors import EnvironmentLacks
from cnnx.runtimes.engine.cudart import CudaRuntime


class HostCuda(CudaRuntime):
    """Keeps account of what is allocated; `room` bytes are all there is."""

    def __init__(self, room: int = 1 << 20) -> None:
        self.held: dict[int, object] = {}
        self.room = room
        self.queue: list = []
        self.captured: list | None = None
        self.graphs: dict[int, list] = {}
        self.launches = 0
        self._now_ms = 0.0
        self._passed: dict[int, float] = {}

    def why_not(self):
        return None

    def device_name(self) -> str:
        return "host"

    def compute_capability(self) -> int:
        return 87

    def call(self, function, *arguments):
        does = {
            "cudaMalloc": self._allocate,
            "cudaHostAlloc": self._allocate,
            "cudaStreamCreate": lambda pointer: self._allocate(pointer, 1),
            "cudaEventCreate": lambda pointer: self._allocate(pointer, 1),
            "cudaFree": self._free,
            "cudaFreeHost": self._free,
            "cudaStreamDestroy": self._free,
            "cudaEventDestroy": self._free,
            "cudaMemcpyAsync": self._copy,
            "cudaStreamSynchronize": self._synchronize,
            "cudaEventRecord": self._record,
            "cudaEventElapsedTime": self._elapsed,
            "cudaStreamBeginCapture": self._begin,
            "cudaStreamEndCapture": self._end,
            "cudaGraphInstantiateWithFlags": self._instantiate,
            "cudaGraphLaunch": self._launch,
            "cudaGraphDestroy": self._free,
            "cudaGraphExecDestroy": self._free,
        }
        does[function](*arguments)

    def enqueue(self, work) -> None:
        """Queue work, as a kernel launch does."""
        (self.queue if self.captured is None else self.captured).append(work)

    def _allocate(self, pointer, nbytes, *_):
        if nbytes > self.room:
            raise EnvironmentLacks("cudaMalloc failed: out of memory")
        self.room -= nbytes
        memory = ctypes.create_string_buffer(b"\xff" * nbytes, nbytes)
        pointer._obj.value = ctypes.addressof(memory)
        self.held[pointer._obj.value] = memory

    def _free(self, pointer):
        self.room += len(self.held.pop(pointer.value))
        self.graphs.pop(pointer.value, None)

    def _copy(self, to, source, nbytes, kind, stream):
        assert stream.value in self.held
        target, origin = to.value, source.value
        self.enqueue(lambda: ctypes.memmove(target, origin, nbytes))

    def _record(self, event, stream):
        assert stream.value in self.held
        handle = event.value
        self.enqueue(lambda: self._passed.__setitem__(handle, self._now_ms))

    def _elapsed(self, milliseconds, start, end):
        milliseconds._obj.value = self._passed[end.value] - self._passed[start.value]

    def _synchronize(self, stream):
        assert self.captured is None, "synchronizing is not allowed while capturing"
        for work in self.queue:
            work()
            self._now_ms += 1e-3
        self.queue.clear()

    def _begin(self, stream, mode):
        assert self.captured is None
        assert not self.queue, "what was queued before would not be in the graph"
        self.captured = []

    def _end(self, stream, graph):
        work, self.captured = self.captured, None
        self._allocate(graph, 1)
        self.graphs[graph._obj.value] = work

    def _instantiate(self, executable, graph, flags):
        assert flags == 0
        self._allocate(executable, 1)
        self.graphs[executable._obj.value] = self.graphs[graph.value]

    def _launch(self, executable, stream):
        self.launches += 1
        for work in self.graphs[executable.value]:
            self.enqueue(work)
