"""Lets an engine emit the tensors that fusion leaves: TensorRT's debug tensors.

`mark_unfused_tensors_as_debug_tensors` exists in TensorRT 10.13 and later, and in TensorRT for RTX 1.7. It
leaves fusion as it is; the tensors then have the names that the engine inspector reports, and there is no
guarantee that all are marked ("INetworkDefinition", TensorRT's Python API). While the engine runs, a listener
is called for each, as the work is queued: it must copy the values by the stream that it gets, and wait for
them, as they are valid only during the call ("Debug Tensors", TensorRT's developer guide).
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnnx.errors import BuildFailed, CnnxError, EnvironmentLacks
from cnnx.runtimes.device import Cuda
from cnnx.runtimes.layout import LINEAR, Layout

_MARK = "mark_unfused_tensors_as_debug_tensors"


def emits(trt: Any) -> bool:
    """Whether this release can mark the tensors that fusion leaves."""
    return hasattr(trt.INetworkDefinition, _MARK)


def let_emit(network: Any) -> None:
    """Mark the tensors that fusion will leave, before the engine is built.

    Raises:
        BuildFailed: TensorRT refuses.
    """
    if not network.mark_unfused_tensors_as_debug_tensors():
        raise BuildFailed(
            "TensorRT did not mark the tensors of the network to be emitted",
            hint="compare with the graph in ONNX Runtime instead: --target ort",
        )


def make_listener(trt: Any, cuda: Cuda, layouts: Mapping[str, Layout]) -> Any:
    """Create an IDebugListener that keeps what an engine emits.

    Args:
        trt: the bindings' module.
        cuda: CUDA, in the context that the bindings use.
        layouts: name -> how the tensor lies in memory; others are read row by row.
    """

    class Listener(trt.IDebugListener):  # type: ignore[misc]
        """Keeps tensors by name, names that could not be read, and the first error."""

        def __init__(self) -> None:
            trt.IDebugListener.__init__(self)
            self.tensors: dict[str, NDArray[Any]] = {}
            self.unread: dict[str, str] = {}
            self.failure: CnnxError | None = None

        def process_debug_tensor(
            self,
            addr: Any,
            location: Any,
            kind: Any,
            shape: Any,
            name: str,
            stream: int,
        ) -> bool:
            try:
                self._keep(address_of(addr), location, kind, tuple(shape), name, int(stream))
            except CnnxError as error:  # an exception would be printed and lost
                self.failure = self.failure or error
            except (TypeError, ValueError, KeyError) as error:  # a type that numpy lacks, such as BF16
                self.unread[name] = str(error)
            return True

        def _keep(
            self, address: int, location: Any, kind: Any, shape: tuple[int, ...], name: str, stream: int
        ) -> None:
            dtype, layout = np.dtype(trt.nptype(kind)), layouts.get(name, LINEAR)
            nbytes = layout.elements(shape) * dtype.itemsize
            on_host = location == trt.TensorLocation.HOST
            raw = ctypes.string_at(address, nbytes) if on_host else cuda.read(address, nbytes, stream)
            self.tensors[name] = layout.unpacked(np.frombuffer(raw, dtype), shape)

    return Listener()


@contextmanager
def listening(context: Any, listener: Any) -> Iterator[None]:
    """Context manager in which an execution context emits its unfused tensors to a listener.

    Raises:
        EnvironmentLacks: TensorRT refuses the listener.
    """
    if not context.set_debug_listener(listener):
        raise EnvironmentLacks(
            "TensorRT does not accept a listener for the tensors of this engine",
            hint="compare with the graph in ONNX Runtime instead: --target ort",
        )
    context.unfused_tensors_debug_state = True
    try:
        yield
    finally:
        context.unfused_tensors_debug_state = False


def address_of(pointer: Any) -> int:
    """The address in a PyCapsule, as which the bindings pass a void pointer, or the address itself."""
    if isinstance(pointer, int):
        return pointer
    api = ctypes.pythonapi
    api.PyCapsule_GetName.restype, api.PyCapsule_GetName.argtypes = ctypes.c_char_p, [ctypes.py_object]
    api.PyCapsule_GetPointer.restype = ctypes.c_void_p
    api.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    return int(api.PyCapsule_GetPointer(pointer, api.PyCapsule_GetName(pointer)) or 0)
