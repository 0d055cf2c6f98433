"""The few calls of the CUDA runtime that running an engine takes, by ctypes: no CUDA package needed.

Names and meaning as in NVIDIA's CUDA Runtime API reference; the enum values used here have been the
same since CUDA 8.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, byref, c_char_p, c_int, c_size_t, c_uint, c_void_p
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from cnnx.errors import EnvironmentLacks

_HOST_TO_DEVICE, _DEVICE_TO_HOST = 1, 2
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76
# cudaDeviceProp starts with char name[256]; the rest differs between releases and is under 2 KiB in all.
_NAME_BYTES, _PROPERTIES_BYTES = 256, 8192

_SIGNATURES: dict[str, tuple[Any, ...]] = {
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
}


class CudaRuntime:
    """A loaded libcudart. Loading works without a driver; every call but `why_not` needs one.

    Args:
        library: path of libcudart; it is loaded for all (RTLD_GLOBAL), as libraries after it need it.

    Raises:
        EnvironmentLacks: the library does not load, or (from any call) CUDA reports an error.
    """

    def __init__(self, library: Path) -> None:
        try:
            self._library = ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
        except OSError as error:
            raise EnvironmentLacks(f"the CUDA runtime does not load: {error}", where=library.name) from error
        for name, arguments in _SIGNATURES.items():
            getattr(self._library, name).argtypes = arguments
        self._library.cudaGetErrorString.restype = c_char_p

    def why_not(self) -> str | None:
        """CUDA's own words for why no GPU can be used, or None where one can."""
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
        """Call a function of the library by name and check what it returns."""
        if code := getattr(self._library, function)(*arguments):
            raise EnvironmentLacks(
                f"{function} failed: {self._words(code)}", mend="see the driver's log: dmesg"
            )

    def _words(self, code: int) -> str:
        words: bytes = self._library.cudaGetErrorString(code)
        return words.decode()


class Stream:
    """A CUDA stream of its own."""

    def __init__(self, cuda: CudaRuntime) -> None:
        self._cuda, self._handle = cuda, c_void_p()
        cuda.call("cudaStreamCreate", byref(self._handle))

    @property
    def handle(self) -> int:
        """For `execute_async_v3`."""
        return self._handle.value or 0

    def synchronize(self) -> None:
        """Wait until everything queued is done."""
        self._cuda.call("cudaStreamSynchronize", self._handle)

    def free(self) -> None:
        """Destroy the stream."""
        self._cuda.call("cudaStreamDestroy", self._handle)


class Buffer:
    """Device memory and a page-locked copy on the host, of one size, allocated once.

    Page-locked because copies from pageable memory go through a staging buffer and wait for it.

    Attributes:
        host: flat array over the page-locked memory.
        address: of the device memory.
    """

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
        memory = (ctypes.c_byte * nbytes).from_address(self._pinned.value or 0)
        self.host: NDArray[Any] = np.ctypeslib.as_array(memory).view(dtype)[:elements]
        self.address: int = self._device.value or 0

    def upload(self, elements: int, stream: Stream) -> None:
        """Queue a copy of the first elements to the device."""
        self._copy(self._device, self._pinned, elements, _HOST_TO_DEVICE, stream)

    def download(self, elements: int, stream: Stream) -> None:
        """Queue a copy of the first elements to the host."""
        self._copy(self._pinned, self._device, elements, _DEVICE_TO_HOST, stream)

    def free(self) -> None:
        """Give both back; `host` must not be touched afterwards."""
        self.host = np.empty(0)
        self._cuda.call("cudaFree", self._device)
        self._cuda.call("cudaFreeHost", self._pinned)

    def _copy(self, to: c_void_p, source: c_void_p, elements: int, kind: int, stream: Stream) -> None:
        self._cuda.call("cudaMemcpyAsync", to, source, elements * self._item, kind, c_void_p(stream.handle))
