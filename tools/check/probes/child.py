"""What a probe finds in a process of its own: python -m tools.check.probes.child NAME prints it as JSON.

`present`: why CUDA cannot be used, or null. `seen`: the GPU, as cnnx finds it. `illegal`: what an error says
that ends all CUDA work of the process.
"""

from __future__ import annotations

import ctypes
import json
import sys
from collections.abc import Callable
from typing import Any

from cnnx.errors import CnnxError, EnvironmentLacks
from cnnx.machine.libcuda import device_0_bus_id
from cnnx.runtimes.engine.cudart import load_cudart
from tools.check.probes import cuda

# Stores a number at address 16, which no allocation has. sm_75: the oldest that CUDA 13 compiles for.
_KERNEL = b"""
.version 6.3
.target sm_75
.address_size 64
.visible .entry store()
{
    .reg .b64 %address;
    .reg .b32 %number;
    mov.u64 %address, 16;
    mov.u32 %number, 1;
    st.global.u32 [%address], %number;
    ret;
}
"""


def _kernel() -> Callable[[int], None]:
    """Queues the kernel on a stream of this thread's context (CUDA Driver API, module management)."""
    driver = ctypes.CDLL("libcuda.so.1")
    module, function = ctypes.c_void_p(), ctypes.c_void_p()
    _check("cuModuleLoadData", driver.cuModuleLoadData(ctypes.byref(module), _KERNEL))
    _check("cuModuleGetFunction", driver.cuModuleGetFunction(ctypes.byref(function), module, b"store"))

    def launch(stream: int) -> None:
        shape = [ctypes.c_uint(each) for each in (1, 1, 1, 1, 1, 1, 0)]
        code = driver.cuLaunchKernel(function, *shape, ctypes.c_void_p(stream), None, None)
        _check("cuLaunchKernel", code)

    return launch


def _check(function: str, code: int) -> None:
    if code:
        raise EnvironmentLacks(f"{function} returned {code}", hint="see CUresult in cuda.h")


def present() -> dict[str, Any]:
    """Why CUDA cannot be used here; None if it can."""
    try:
        return {"why_not": load_cudart().why_not()}
    except CnnxError as error:
        return {"why_not": error.what}


def seen() -> dict[str, Any]:
    """The GPU as cnnx finds it."""
    return cuda.seen(load_cudart(), bus_id=device_0_bus_id())


def illegal() -> dict[str, Any]:
    """What an illegal address leads to."""
    runtime = load_cudart()
    runtime.stream().free()  # creates the context
    return cuda.illegal(runtime, _kernel())


FINDERS = {each.__name__: each for each in (present, seen, illegal)}

if __name__ == "__main__":
    print(json.dumps(FINDERS[sys.argv[1]]()))
