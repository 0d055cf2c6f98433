"""CUDA through pycuda, as an alternative to `cudart`; the only module that uses pycuda.

Calls follow pycuda's documentation ("Device Interface"). Everything runs in the device's primary context:
pycuda's own context (`pycuda.autoinit`) would be separate from that of PyTorch and TensorRT, whose memory
and streams are not valid there.
"""

from __future__ import annotations

import atexit
import functools
import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import numpy as np
from numpy.typing import DTypeLike, NDArray

from cnnx.errors import CnnxError, EnvironmentLacks, MissingExtra


def missing() -> CnnxError | None:
    """`MissingExtra` without pycuda."""
    if importlib.util.find_spec("pycuda") is None:
        return MissingExtra("pycuda", "pycuda", purpose="running CUDA through pycuda")
    return None


class PycudaRuntime:
    """CUDA through pycuda, on the first GPU; satisfies `device.Cuda`.

    Args:
        driver: the module pycuda.driver; None: import it.

    Raises:
        MissingExtra: pycuda is not installed.
        EnvironmentLacks: it cannot be imported (for example without the driver's libcuda), or CUDA reports
            an error.
    """

    captures = threads = False

    def __init__(self, driver: Any = None) -> None:
        self._driver = _import() if driver is None else driver

    def why_not(self) -> str | None:
        """CUDA's message on why no GPU can be used; None if one can."""
        try:
            with self.translated("cuInit"):
                self._driver.init()
                count = self._driver.Device.count()
        except EnvironmentLacks as error:
            return error.what
        return None if count else "no CUDA-capable device is detected"

    def compute_capability(self) -> int:
        """SM version of the GPU, such as 86."""
        major, minor = self._device.compute_capability()
        return int(10 * major + minor)

    def device_name(self) -> str:
        """Name of the GPU."""
        return str(self._device.name())

    def stream(self) -> Stream:
        """A new stream."""
        return Stream(self)

    def buffer(self, elements: int, dtype: DTypeLike) -> Buffer:
        """A new buffer."""
        return Buffer(self, elements=elements, dtype=dtype)

    def event(self) -> Event:
        """A new event with timing."""
        return Event(self)

    def read(self, address: int, nbytes: int, stream: int) -> bytes:
        """Copy device memory to the host, after all queued work: pycuda wraps no foreign stream."""
        host = np.empty(nbytes, np.uint8)
        with self.translated("synchronizing"):
            self._driver.Context.synchronize()
        self.call("memcpy_dtoh", host, address)
        return host.tobytes()

    def capture(self, stream: Stream, work: Callable[[], None]) -> NoReturn:
        """Raise: pycuda does not support CUDA graphs.

        Raises:
            EnvironmentLacks: always.
        """
        raise EnvironmentLacks(
            "pycuda does not support CUDA graphs", hint="run without a CUDA graph, or use the CUDA runtime"
        )

    def call(self, function: str, *arguments: Any) -> Any:
        """Call a function of pycuda.driver by name, in the primary context."""
        _ = self._device
        with self.translated(function):
            return getattr(self._driver, function)(*arguments)

    @functools.cached_property
    def _device(self) -> Any:
        """The first GPU, with its primary context current until the process ends."""
        with self.translated("retaining the primary context"):
            self._driver.init()
            device = self._driver.Device(0)
            context = device.retain_primary_context()
            context.push()
        # A context still on the stack when pycuda is unloaded aborts the process.
        atexit.register(context.pop)
        return device

    @contextmanager
    def translated(self, what: str) -> Iterator[None]:
        """Context manager that turns pycuda's errors into cnnx's."""
        try:
            yield
        except self._driver.Error as error:
            raise EnvironmentLacks(
                f"{what} failed: {error}",
                hint="free GPU memory (close other programs), or run a smaller batch"
                if isinstance(error, self._driver.MemoryError)
                else "see the driver's log: dmesg",
            ) from error


class Stream:
    """`device.Stream`."""

    def __init__(self, cuda: PycudaRuntime) -> None:
        self._cuda = cuda
        self.raw: Any = cuda.call("Stream")

    @property
    def handle(self) -> int:
        """The cudaStream_t, for `execute_async_v3`."""
        return int(self.raw.handle)

    def synchronize(self) -> None:
        """Wait until all queued work is done."""
        with self._cuda.translated("synchronizing"):
            self.raw.synchronize()

    def free(self) -> None:
        """Drop the last reference, with which pycuda destroys the stream."""
        self.raw = None


class Buffer:
    """`device.Buffer`: mem_alloc and pagelocked_empty."""

    def __init__(self, cuda: PycudaRuntime, *, elements: int, dtype: DTypeLike) -> None:
        self._cuda = cuda
        nbytes = max(1, elements * np.dtype(dtype).itemsize)
        self._device: Any = cuda.call("mem_alloc", nbytes)
        self.address = int(self._device)
        try:
            self._pinned: Any = cuda.call("pagelocked_empty", max(1, elements), np.dtype(dtype))
        except EnvironmentLacks:
            self._device.free()
            raise
        self.host: NDArray[Any] = self._pinned[:elements]

    def upload(self, elements: int, stream: Stream) -> None:
        """Queue a copy of the first elements to the device."""
        self._cuda.call("memcpy_htod_async", self._device, self.host[:elements], stream.raw)

    def download(self, elements: int, stream: Stream) -> None:
        """Queue a copy of the first elements to the host."""
        self._cuda.call("memcpy_dtoh_async", self.host[:elements], self._device, stream.raw)

    def free(self) -> None:
        """Free both; `host` must not be used afterwards."""
        self.host = np.empty(0)
        self._device.free()
        self._pinned.base.free()


class Event:
    """`device.Event`."""

    def __init__(self, cuda: PycudaRuntime) -> None:
        self._cuda = cuda
        self.raw: Any = cuda.call("Event")

    def record(self, stream: Stream) -> None:
        """Queue the event."""
        with self._cuda.translated("recording an event"):
            self.raw.record(stream.raw)

    def ns_since(self, earlier: Event) -> int:
        """Nanoseconds since an earlier event; pycuda reports milliseconds."""
        with self._cuda.translated("reading an event"):
            return round(1e6 * float(self.raw.time_since(earlier.raw)))

    def synchronize(self) -> None:
        """Wait until the GPU has reached the event."""
        with self._cuda.translated("waiting for an event"):
            self.raw.synchronize()

    def free(self) -> None:
        """Drop the last reference, with which pycuda destroys the event."""
        self.raw = None


def _import() -> Any:
    if reason := missing():
        raise reason
    try:
        import pycuda.driver as driver
    except ImportError as error:
        raise EnvironmentLacks(
            f"pycuda is installed but does not load: {error}", hint="install the GPU's driver"
        ) from error
    return driver
