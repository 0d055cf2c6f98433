"""What running an engine asks of CUDA: one small Protocol, which `cudart` and `cuda` (pycuda) keep to.

Everything is on the first GPU and in its primary context, the one that PyTorch and the CUDA runtime use.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from numpy.typing import DTypeLike, NDArray


class Stream(Protocol):
    """A queue of work on the GPU, done in order. Not the default stream, which cannot be captured."""

    @property
    def handle(self) -> int:
        """The cudaStream_t, for `execute_async_v3`."""
        ...

    def synchronize(self) -> None:
        """Wait until everything queued is done."""
        ...

    def free(self) -> None:
        """Destroy the stream."""
        ...


class Buffer(Protocol):
    """Device memory and a page-locked copy on the host, of one size, allocated once.

    Page-locked because copies from pageable memory go through a staging buffer and wait for it.
    """

    host: NDArray[Any]
    """Flat, over the page-locked memory."""
    address: int
    """Of the device memory."""

    def upload(self, elements: int, stream: Any) -> None:
        """Queue a copy of the first elements to the device."""
        ...

    def download(self, elements: int, stream: Any) -> None:
        """Queue a copy of the first elements to the host."""
        ...

    def free(self) -> None:
        """Give both back; `host` must not be touched afterwards."""
        ...


class Event(Protocol):
    """A mark in a stream that remembers when the GPU passed it, to about half a microsecond."""

    def record(self, stream: Any) -> None:
        """Queue the mark."""
        ...

    def ns_since(self, earlier: Any) -> int:
        """Nanoseconds from an earlier event to this one, both of which have passed."""
        ...

    def free(self) -> None:
        """Destroy the event."""
        ...


class Graph(Protocol):
    """Work captured from a stream, launched as one."""

    def launch(self, stream: Any) -> None:
        """Queue all of it."""
        ...

    def free(self) -> None:
        """Destroy the graph."""
        ...


class Cuda(Protocol):
    """CUDA, by whichever library. Every call but `why_not` needs a driver and a GPU.

    Every call raises `EnvironmentLacks` with CUDA's own words where it fails.
    """

    captures: bool
    """Whether `capture` works: pycuda has no CUDA graphs."""

    def why_not(self) -> str | None:
        """CUDA's own words for why no GPU can be used, or None where one can."""
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
        """A new event that keeps time."""
        ...

    def capture(self, stream: Any, work: Callable[[], None]) -> Graph:
        """Capture what `work` queues on the stream, instead of running it.

        Raises:
            EnvironmentLacks: it does something that cannot be captured.
        """
        ...
