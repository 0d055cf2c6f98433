"""The CUDA runtime through ctypes: the calls that running an engine needs, without a Python package.

Names and meanings follow NVIDIA's CUDA Runtime API reference. The enum values used here have not changed
since CUDA 8.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
from collections.abc import Callable, Iterator
from ctypes import POINTER, byref, c_char_p, c_float, c_int, c_size_t, c_uint, c_ulonglong, c_void_p
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from cnnx.errors import EnvironmentLacks

_HOST_TO_DEVICE, _DEVICE_TO_HOST = 1, 2
_OUT_OF_MEMORY = 2
# Errors that end the context ("This leaves the process in an inconsistent state and any further CUDA work
# will return the same error"; CUDA Runtime API, cudaError): uncorrectable ECC error, illegal address, launch
# timeout, hardware stack error, illegal instruction, misaligned address, invalid address space, invalid PC,
# launch failure, contained error.
_STICKY = {214, 700, 702, 714, 715, 716, 717, 718, 719, 721}
# cudaStreamCaptureModeThreadLocal: other threads may still make calls that are forbidden during a capture.
_THREAD_LOCAL = 1
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76
# cudaDeviceProp starts with char name[256]. The rest differs between releases; the total is under 2 KiB.
_NAME_BYTES, _PROPERTIES_BYTES = 256, 8192

_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "cudaGetLastError": (),
    "cudaGetDeviceCount": (POINTER(c_int),),
    "cudaDeviceGetAttribute": (POINTER(c_int), c_int, c_int),
    "cudaGetDeviceProperties": (c_void_p, c_int),
    "cudaMalloc": (POINTER(c_void_p), c_size_t),
    "cudaFree": (c_void_p,),
    "cudaHostAlloc": (POINTER(c_void_p), c_size_t, c_uint),
    "cudaFreeHost": (c_void_p,),
    "cudaMemcpyAsync": (c_void_p, c_void_p, c_size_t, c_int, c_void_p),
    "cudaStreamCreate": (POINTER(c_void_p),),
    "cudaStreamSynchronize": (c_void_p,),
    "cudaStreamDestroy": (c_void_p,),
    "cudaStreamBeginCapture": (c_void_p, c_int),
    "cudaStreamEndCapture": (c_void_p, POINTER(c_void_p)),
    # Not cudaGraphInstantiate, whose signature CUDA 12 changed. This function has been unchanged since it was
    # introduced in CUDA 11.4.
    "cudaGraphInstantiateWithFlags": (POINTER(c_void_p), c_void_p, c_ulonglong),
    "cudaGraphLaunch": (c_void_p, c_void_p),
    "cudaGraphDestroy": (c_void_p,),
    "cudaGraphExecDestroy": (c_void_p,),
    "cudaEventCreate": (POINTER(c_void_p),),
    "cudaEventRecord": (c_void_p, c_void_p),
    "cudaEventSynchronize": (c_void_p,),
    "cudaEventElapsedTime": (POINTER(c_float), c_void_p, c_void_p),
    "cudaEventDestroy": (c_void_p,),
}
# Newest first. CUDA 13 for TensorRT 10.13 and later on Jetson, 12 for JetPack 6.
_SONAMES = ("libcudart.so.13", "libcudart.so.12", "libcudart.so")
# Folders in NVIDIA's wheels (CUDA 13's; cuda-runtime-cu12), under the namespace package "nvidia".
_IN_WHEELS = ("cu13/lib", "cuda_runtime/lib")


class CudaRuntime:
    """A loaded libcudart; satisfies `device.Cuda`. Loading works without a driver.

    Args:
        library: path of libcudart, or a file name for the system's loader to find. It is loaded with
            RTLD_GLOBAL because libraries loaded later need it.

    Raises:
        EnvironmentLacks: the library does not load; in any call: CUDA reports an error.
    """

    captures = threads = True

    def __init__(self, library: Path) -> None:
        try:
            self._library = ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
        except OSError as error:
            raise EnvironmentLacks(
                f"the CUDA runtime does not load: {error}",
                where=library.name,
                hint="let the loader find CUDA's runtime library (LD_LIBRARY_PATH), or set CUDA_HOME",
            ) from error
        try:
            for name, arguments in _SIGNATURES.items():
                getattr(self._library, name).argtypes = arguments
        except AttributeError as error:
            raise EnvironmentLacks(
                f"the library is not a CUDA runtime, or is too old: {error}",
                where=library.name,
                hint="install CUDA 11.4 or newer",
            ) from error
        self._library.cudaGetErrorString.restype = c_char_p

    def why_not(self) -> str | None:
        """CUDA's message on why no GPU can be used; None if one can."""
        count = c_int()
        code: int = self._library.cudaGetDeviceCount(byref(count))
        if code:
            return self._words(code)
        return None if count.value else "no CUDA-capable device is detected"

    def compute_capability(self) -> int:
        """SM version of device 0, such as 86."""
        major, minor = c_int(), c_int()
        self.call("cudaDeviceGetAttribute", byref(major), _CAPABILITY_MAJOR, 0)
        self.call("cudaDeviceGetAttribute", byref(minor), _CAPABILITY_MINOR, 0)
        return 10 * major.value + minor.value

    def device_name(self) -> str:
        """Name of device 0."""
        properties = ctypes.create_string_buffer(_PROPERTIES_BYTES)
        self.call("cudaGetDeviceProperties", properties, 0)
        return properties.raw[:_NAME_BYTES].split(b"\0")[0].decode()

    def call(self, function: str, *arguments: Any) -> None:
        """Call a function of the library by name and check its return code.

        A failure is also the thread's last error, which the next call to check it would take for its own. It
        is cleared, as the caller gets it as an exception.
        """
        if code := getattr(self._library, function)(*arguments):
            self._library.cudaGetLastError()
            raise EnvironmentLacks(f"{function} failed: {self._words(code)}", hint=_hint(code))

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
        """Copy device memory to the host, after all work queued on a stream."""
        host = ctypes.create_string_buffer(nbytes)
        to, source = c_void_p(ctypes.addressof(host)), c_void_p(address)
        self.call("cudaMemcpyAsync", to, source, nbytes, _DEVICE_TO_HOST, c_void_p(stream))
        self.call("cudaStreamSynchronize", c_void_p(stream))
        return host.raw

    def capture(self, stream: Stream, work: Callable[[], None]) -> Graph:
        """Capture the work that `work` queues on the stream, instead of running it.

        Raises:
            EnvironmentLacks: `work` does something that cannot be captured, such as allocating memory.
        """
        return Graph(self, stream, work)

    def _words(self, code: int) -> str:
        words: bytes = self._library.cudaGetErrorString(code)
        return words.decode()


def _address(pointer: c_void_p) -> int:
    """Address as a number; NULL is None in ctypes."""
    return pointer.value or 0


class Stream:
    """`device.Stream`: a cudaStream_t."""

    def __init__(self, cuda: CudaRuntime) -> None:
        self._cuda, self._handle = cuda, c_void_p()
        cuda.call("cudaStreamCreate", byref(self._handle))

    @property
    def handle(self) -> int:
        """The cudaStream_t, for `execute_async_v3`."""
        return _address(self._handle)

    def synchronize(self) -> None:
        """Wait until all queued work is done."""
        self._cuda.call("cudaStreamSynchronize", self._handle)

    def free(self) -> None:
        """Destroy the stream."""
        self._cuda.call("cudaStreamDestroy", self._handle)


class Buffer:
    """`device.Buffer`: cudaMalloc and cudaHostAlloc."""

    def __init__(self, cuda: CudaRuntime, *, elements: int, dtype: DTypeLike) -> None:
        self._cuda = cuda
        self._item = np.dtype(dtype).itemsize
        nbytes = max(1, elements * self._item)
        self._device, self._pinned = c_void_p(), c_void_p()
        cuda.call("cudaMalloc", byref(self._device), nbytes)
        try:
            cuda.call("cudaHostAlloc", byref(self._pinned), nbytes, 0)
        except EnvironmentLacks:
            cuda.call("cudaFree", self._device)
            raise
        memory = (ctypes.c_byte * nbytes).from_address(_address(self._pinned))
        self.host: NDArray[Any] = np.ctypeslib.as_array(memory).view(dtype)[:elements]
        self.address = _address(self._device)

    def upload(self, elements: int, stream: Stream) -> None:
        """Queue a copy of the first elements to the device."""
        self._copy(self._device, self._pinned, elements, _HOST_TO_DEVICE, stream)

    def download(self, elements: int, stream: Stream) -> None:
        """Queue a copy of the first elements to the host."""
        self._copy(self._pinned, self._device, elements, _DEVICE_TO_HOST, stream)

    def free(self) -> None:
        """Free both; `host` must not be used afterwards."""
        self.host = np.empty(0)
        try:
            self._cuda.call("cudaFree", self._device)
        finally:
            self._cuda.call("cudaFreeHost", self._pinned)

    def _copy(self, to: c_void_p, source: c_void_p, elements: int, kind: int, stream: Stream) -> None:
        self._cuda.call("cudaMemcpyAsync", to, source, elements * self._item, kind, c_void_p(stream.handle))


class Event:
    """`device.Event`: a cudaEvent_t with timing."""

    def __init__(self, cuda: CudaRuntime) -> None:
        self._cuda, self._handle = cuda, c_void_p()
        cuda.call("cudaEventCreate", byref(self._handle))

    def record(self, stream: Stream) -> None:
        """Queue the event."""
        self._cuda.call("cudaEventRecord", self._handle, c_void_p(stream.handle))

    def ns_since(self, earlier: Event) -> int:
        """Nanoseconds since an earlier event; CUDA reports milliseconds, as a float."""
        milliseconds = c_float()
        self._cuda.call("cudaEventElapsedTime", byref(milliseconds), earlier._handle, self._handle)
        return round(1e6 * milliseconds.value)

    def synchronize(self) -> None:
        """Wait until the GPU has reached the event."""
        self._cuda.call("cudaEventSynchronize", self._handle)

    def free(self) -> None:
        """Destroy the event."""
        self._cuda.call("cudaEventDestroy", self._handle)


class Graph:
    """`device.Graph`: an instantiated stream capture (CUDA Runtime API, graph and stream management)."""

    def __init__(self, cuda: CudaRuntime, stream: Stream, work: Callable[[], None]) -> None:
        self._cuda, self._executable, captured = cuda, c_void_p(), c_void_p()
        cuda.call("cudaStreamBeginCapture", c_void_p(stream.handle), _THREAD_LOCAL)
        try:
            work()
        except BaseException:
            # A stream that is still capturing accepts no other work, so end the capture. Ending a broken
            # capture fails; otherwise there is a graph of what was queued before.
            with contextlib.suppress(EnvironmentLacks):
                cuda.call("cudaStreamEndCapture", c_void_p(stream.handle), byref(captured))
                cuda.call("cudaGraphDestroy", captured)
            raise
        cuda.call("cudaStreamEndCapture", c_void_p(stream.handle), byref(captured))
        try:
            cuda.call("cudaGraphInstantiateWithFlags", byref(self._executable), captured, 0)
        finally:
            cuda.call("cudaGraphDestroy", captured)

    def launch(self, stream: Stream) -> None:
        """Queue the graph."""
        self._cuda.call("cudaGraphLaunch", self._executable, c_void_p(stream.handle))

    def free(self) -> None:
        """Destroy the graph."""
        self._cuda.call("cudaGraphExecDestroy", self._executable)


def _hint(code: int) -> str:
    if code == _OUT_OF_MEMORY:
        return "free GPU memory (close other programs), or run a smaller batch"
    if code in _STICKY:
        return "this error ends all CUDA work of a process: start it again, and see the driver's log (dmesg)"
    return "see the driver's log: dmesg"


def load_cudart() -> CudaRuntime:
    """Load this machine's CUDA runtime: NVIDIA's wheels, the loader's path, CUDA_HOME, /usr/local/cuda.

    It may differ from the one that TensorRT uses: every release works in the same primary context. But a
    runtime newer than the driver does not work, so the first one that finds a GPU is used.

    Raises:
        EnvironmentLacks: no CUDA runtime is found, or none loads.
    """
    first, refused = None, []
    for candidate in _candidates():
        found = _loaded(candidate)
        if isinstance(found, EnvironmentLacks):
            refused.append(found.what)
            continue
        if found.why_not() is None:
            return found
        first = first or found
    if first is not None:
        return first
    raise EnvironmentLacks(
        f"no CUDA runtime (libcudart) was found: {refused[0]}",
        hint="install CUDA's runtime library and let the loader find it (LD_LIBRARY_PATH), or set CUDA_HOME; "
        "with pycuda, it is not needed",
    )


def _loaded(library: Path) -> CudaRuntime | EnvironmentLacks:
    try:
        return CudaRuntime(library)
    except EnvironmentLacks as error:
        return error


def _candidates() -> Iterator[Path]:
    try:
        spec = importlib.util.find_spec("nvidia")
    except (ImportError, ValueError):
        spec = None
    for root in (spec.submodule_search_locations if spec else None) or []:
        for folder in _IN_WHEELS:
            yield from sorted(Path(root, folder).glob("libcudart.so.*"))
    yield from map(Path, _SONAMES)
    for home in filter(None, (os.environ.get("CUDA_HOME"), "/usr/local/cuda")):
        # Without the development package there is only libcudart.so.12, for example.
        yield from sorted(Path(home).glob("lib64/libcudart.so*"), reverse=True)
