"""Asks NVML about the GPU that CUDA uses. A question that is refused is answered with None and never raises.

Names and values are those of NVIDIA's NVML API reference and nvml.h.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cnnx.machine.libcuda import device_0_bus_id

# NVML_SUCCESS, NVML_DEVICE_MIG_ENABLE.
_SUCCESS, _MIG_ENABLED = 0, 1
# nvmlValueType_t -> member of nvmlValue_t.
_MEMBERS = {0: "dVal", 1: "uiVal", 2: "ulVal", 3: "ullVal", 4: "sllVal", 5: "siVal", 6: "usVal"}


def errors_of(nvml: Any) -> tuple[type[BaseException], ...]:
    """Exceptions of pynvml. Some functions that a driver lacks raise one that is not an NVMLError."""
    mismatch = getattr(nvml, "NVMLLibraryMismatchError", None)
    return (nvml.NVMLError, mismatch) if mismatch else (nvml.NVMLError,)


class NvmlGpu:
    """A GPU listed by NVML, queried by the names of NVML functions.

    Args:
        nvml: initialized module with pynvml's functions.
        handle: handle of the GPU; None for system queries only.
        remark: why it may not be the GPU that CUDA uses.
    """

    def __init__(self, nvml: Any, handle: Any, remark: str = "") -> None:
        self._nvml, self._handle = nvml, handle
        self.remark = remark
        self._errors = errors_of(nvml)

    def ask(self, function: str, *arguments: Any) -> Any:
        """Result of an NVML function for the GPU; None if refused, or missing in this pynvml."""
        return self.ask_system(function, self._handle, *arguments)

    def ask_system(self, function: str, *arguments: Any) -> Any:
        """Result of an NVML function without a GPU argument; None if refused or missing."""
        question = getattr(self._nvml, function, None)
        if question is None:
            return None
        try:
            answer = question(*arguments)
        except self._errors:
            return None
        # Old releases of pynvml return bytes.
        return answer.decode() if isinstance(answer, bytes) else answer

    def field(self, number: int) -> Any:
        """Value of a field of nvml.h (NVML_FI_DEV_*); None if refused.

        A successful call may still refuse a field; the type of the value comes with it.
        """
        answers = self.ask("nvmlDeviceGetFieldValues", [number])
        if not answers or answers[0].nvmlReturn != _SUCCESS:
            return None
        member = _MEMBERS.get(getattr(answers[0], "valueType", 1))
        return None if member is None else getattr(answers[0].value, member)


@contextmanager
def first_gpu(nvml: Any = None) -> Iterator[NvmlGpu | None]:
    """CUDA's first GPU for the duration of a with block; None if NVML does not start or lists no GPU.

    Args:
        nvml: module with pynvml's functions; None for pynvml.
    """
    if nvml is None:
        import pynvml

        nvml = pynvml
    try:
        nvml.nvmlInit()
    except errors_of(nvml):
        yield None
        return
    try:
        try:
            gpu = NvmlGpu(nvml, *cudas_handle(nvml))
        except errors_of(nvml):
            gpu = None
        yield gpu
    finally:
        nvml.nvmlShutdown()


def cudas_handle(nvml: Any) -> tuple[Any, str]:
    """NVML's handle of CUDA device 0, which may differ from NVML's first GPU.

    Args:
        nvml: initialized module with pynvml's functions.

    Returns:
        The handle, and a remark if it may be the wrong GPU.

    Raises:
        nvml.NVMLError: NVML lists no GPU.
    """
    system = NvmlGpu(nvml, None)
    count = system.ask_system("nvmlDeviceGetCount") or 1
    if count == 1:
        return _with_mig(nvml, nvml.nvmlDeviceGetHandleByIndex(0))
    bus_id = device_0_bus_id()
    handle = system.ask_system("nvmlDeviceGetHandleByPciBusId", bus_id) if bus_id else None
    if handle is not None:
        return _with_mig(nvml, handle)
    remark = f"could not determine which of {count} GPUs CUDA uses; this is the first in NVML's order"
    return nvml.nvmlDeviceGetHandleByIndex(0), remark


def _with_mig(nvml: Any, handle: Any) -> tuple[Any, str]:
    """The handle, and a remark if the GPU is partitioned: CUDA then uses an instance, NVML the whole GPU."""
    mode = NvmlGpu(nvml, handle).ask("nvmlDeviceGetMigMode")
    if not mode or mode[0] != _MIG_ENABLED:
        return handle, ""
    return handle, "MIG is enabled: NVML's figures are those of the whole GPU, not of the instance CUDA uses"
