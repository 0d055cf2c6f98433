"""PCI bus ID of CUDA device 0, which NVML does not know.

CUDA lists the fastest GPU first and honors CUDA_VISIBLE_DEVICES and CUDA_DEVICE_ORDER. NVML uses bus order
and ignores them. libcuda comes with the driver, so no package is needed, and no context is created. Names and
semantics are those of NVIDIA's CUDA Driver API reference.
"""

from __future__ import annotations

import ctypes
import functools
from ctypes import byref, c_char_p, c_int, c_uint
from typing import Any

# "domain:bus:device.function" has 12 characters and a terminator; leave room for a longer domain.
_ID_BYTES = 32


@functools.cache
def device_0_bus_id() -> str | None:
    """PCI bus ID of CUDA device 0, such as "0000:01:00.0"; None if the driver does not report it.

    The result is cached, as CUDA reads its environment variables only once per process.
    """
    try:
        return bus_id_by(ctypes.CDLL("libcuda.so.1"))
    except OSError:
        return None


def bus_id_by(library: Any) -> str | None:
    """PCI bus ID of device 0 according to a loaded libcuda.

    Args:
        library: libcuda, or a test double.
    """
    device, name = c_int(), ctypes.create_string_buffer(_ID_BYTES)
    try:
        library.cuInit.argtypes = (c_uint,)
        library.cuDeviceGet.argtypes = (ctypes.POINTER(c_int), c_int)
        library.cuDeviceGetPCIBusId.argtypes = (c_char_p, c_int, c_int)
        refused = (
            library.cuInit(0)
            or library.cuDeviceGet(byref(device), 0)
            or library.cuDeviceGetPCIBusId(name, _ID_BYTES, device)
        )
    except AttributeError:  # not a CUDA library
        return None
    return None if refused else name.value.decode()
