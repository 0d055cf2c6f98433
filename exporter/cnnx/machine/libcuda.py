"""One question to the CUDA driver: where on the PCI bus its device 0 is, which NVML cannot know.

CUDA puts the fastest GPU first and honours CUDA_VISIBLE_DEVICES and CUDA_DEVICE_ORDER; NVML counts by the bus
and ignores them. Asked through libcuda, which the driver brings: no package is needed and no context is made.
Names and meaning as in NVIDIA's CUDA Driver API reference.
"""

from __future__ import annotations

import ctypes
import functools
from ctypes import byref, c_char_p, c_int, c_uint
from typing import Any

# "domain:bus:device.function": 12 characters and the end of the string; room for a longer domain.
_ID_BYTES = 32


@functools.cache
def device_0_bus_id() -> str | None:
    """PCI bus id of CUDA's device 0, such as "0000:01:00.0"; None where the driver does not say.

    CUDA reads its environment variables once in a process, so the answer is kept.
    """
    try:
        return bus_id_by(ctypes.CDLL("libcuda.so.1"))
    except OSError:
        return None


def bus_id_by(library: Any) -> str | None:
    """Ask a loaded libcuda.

    Args:
        library: it, or an imitation.
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
    except AttributeError:  # a library that is none
        return None
    return None if refused else name.value.decode()
