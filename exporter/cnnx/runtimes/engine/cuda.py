"""CUDA through pycuda, in the device's primary context: an alternative to `cudart`, all of pycuda here.

Calls as in pycuda's documentation ("Device Interface"). Its own context (`pycuda.autoinit`) would be a
second one beside PyTorch's and TensorRT's, where neither's memory nor streams are valid.
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
    """pycuda's driver on the first GPU; satisfies `device.Cuda`.

    Args:
        driver: the module pycuda.driver; None: imported.

    Raises:
        MissingExtra: pycuda is absent.
        EnvironmentLacks: it does not import, as without the driver's libcuda, or CUDA reports an error.
    """

    captures = False

    def __init__(self, driver: Any = None) -> None:
        self._driver = _import() if driver is None else driver

    def why_not(self) -> str | None:
        """CUDA's own words for why no GPU can be used, or None where one can."""
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
        """A new event that keeps time."""
        return Event(self)

    def capture(self, stream: Stream, work: Callable[[], None]) -> NoReturn:  # noqa: ARG002
        """Refuse: pycuda has no CUDA graphs.

        Raises:
            EnvironmentLacks: always.
        """
        raise EnvironmentLacks("pycuda has no CUDA graphs", hint="run without one, or with the CUDA runtime")

    def call(self, function: str, *arguments: Any) -> Any:
        """Call a function of pycuda.driver by name, in the primary context."""
        _ = self._device
        with self.translated(function):
            return getattr(self._driver, function)(*arguments)

    @functools.cached_property
    def _device(self) -> Any:
        """The first GPU, its primary context made current until the process ends."""
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
        """pycuda's errors as ours, for the length of a with block."""
        try:
            yield
        except self._driver.Error as error:
            raise EnvironmentLacks(
                f"{what} failed: {error}",
                hint="free GPU memory (other programs), or run a smaller batch"
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
        """For `execute_async_v3`."""
        return int(self.raw.handle)

    def synchronize(self) -> None:
        """Wait until everything queued is done."""
        with self._cuda.translated("synchronizing"):
            self.raw.synchronize()

    def free(self) -> None:
        """pycuda destroys a stream with its last reference."""
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
        """Give both back; `host` must not be touched afterwards."""
        self.host = np.empty(0)
        self._device.free()
        self._pinned.base.free()


class Event:
    """`device.Event`."""

    def __init__(self, cuda: PycudaRuntime) -> None:
        self._cuda = cuda
        self.raw: Any = cuda.call("Event")

    def record(self, stream: Stream) -> None:
        """Queue the mark."""
        with self._cuda.translated("recording an event"):
            self.raw.record(stream.raw)

    def ns_since(self, earlier: Event) -> int:
        """Nanoseconds from an earlier event; pycuda counts in milliseconds."""
        with self._cuda.translated("reading an event"):
            return round(1e6 * float(self.raw.time_since(earlier.raw)))

    def free(self) -> None:
        """pycuda destroys an event with its last reference."""
        self.raw = None


def _import() -> Any:
    if reason := missing():
        raise reason
    try:
        import pycuda.driver as driver
    except ImportError as error:
        raise EnvironmentLacks(
            f"pycuda is installed and does not load: {error}", hint="install the GPU's driver"
        ) from error
    return driver
