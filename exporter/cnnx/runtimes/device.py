"""Protocol for the CUDA calls that running an engine needs; `cudart` and `cuda` (pycuda) implement it.

Everything runs on the first GPU and in its primary context, which PyTorch and the CUDA runtime use, too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from numpy.typing import DTypeLike, NDArray


class Stream(Protocol):
    """A CUDA stream. Never the default stream, which cannot be captured."""

    @property
    def handle(self) -> int:
        """The cudaStream_t, for `execute_async_v3`."""
        ...

    def synchronize(self) -> None:
        """Wait until all queued work is done."""
        ...

    def free(self) -> None:
        """Destroy the stream."""
        ...


class Buffer(Protocol):
    """Device memory and page-locked host memory of the same size, allocated once.

    The host memory is page-locked because copies from pageable memory go through a staging buffer and wait
    for it.
    """

    host: NDArray[Any]
    """Flat array over the page-locked memory."""
    address: int
    """Address of the device memory."""

    def upload(self, elements: int, stream: Any) -> None:
        """Queue a copy of the first elements to the device."""
        ...

    def download(self, elements: int, stream: Any) -> None:
        """Queue a copy of the first elements to the host."""
        ...

    def free(self) -> None:
        """Free both; `host` must not be used afterwards."""
        ...


class Event(Protocol):
    """A CUDA event: records when the GPU reached it, with a resolution of about 0.5 microseconds."""

    def record(self, stream: Any) -> None:
        """Queue the event."""
        ...

    def ns_since(self, earlier: Any) -> int:
        """Nanoseconds between an earlier event and this one; the GPU must have reached both."""
        ...

    def synchronize(self) -> None:
        """Wait until the GPU has reached the event."""
        ...

    def free(self) -> None:
        """Destroy the event."""
        ...


class Graph(Protocol):
    """A CUDA graph: work captured from a stream, launched at once."""

    def launch(self, stream: Any) -> None:
        """Queue the graph."""
        ...

    def free(self) -> None:
        """Destroy the graph."""
        ...


class Cuda(Protocol):
    """CUDA, through either library. Every call except `why_not` needs a driver and a GPU.

    A call that fails raises `EnvironmentLacks` with CUDA's own message.
    """

    captures: bool
    """Whether `capture` works; pycuda does not support CUDA graphs."""
    threads: bool
    """Whether any thread may use it; pycuda's context belongs to the thread that made it current."""

    def why_not(self) -> str | None:
        """CUDA's message on why no GPU can be used; None if one can."""
        ...

    def compute_capability(self) -> int:
        """SM version of the GPU, such as 86."""
        ...

    def device_name(self) -> str:
        """Name of the GPU."""
        ...

    def stream(self) -> Stream:
        """A new stream."""
        ...

    def buffer(self, elements: int, dtype: DTypeLike) -> Buffer:
        """A new buffer."""
        ...

    def event(self) -> Event:
        """A new event with timing."""
        ...

    def read(self, address: int, nbytes: int, stream: int) -> bytes:
        """Copy device memory to the host, after all work queued on a stream; waits for it.

        Args:
            address: address of the device memory.
            nbytes: number of bytes.
            stream: the cudaStream_t.
        """
        ...

    def capture(self, stream: Any, work: Callable[[], None]) -> Graph:
        """Capture the work that `work` queues on the stream, instead of running it.

        Raises:
            EnvironmentLacks: `work` does something that cannot be captured.
        """
        ...
