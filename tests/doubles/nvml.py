"""NVML as its documentation describes it, on one GPU and on two."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, ClassVar

from cnnx.measure.power.sensors.nvml import FIELD_AVERAGE, FIELD_INSTANT

NOT_SUPPORTED = 3  # nvml.h: NVML_ERROR_NOT_SUPPORTED


class NVMLError(Exception):
    pass


class NVMLLibraryMismatchError(Exception):
    """Raised by pynvml for functions that the driver lacks; not an NVMLError (`throwOnVersionMismatch`)."""


class FakeNvml:
    """NVML as its documentation describes it.

    Args:
        power_mw: NVML_FI_DEV_POWER_INSTANT ("current GPU power").
        average_mw: NVML_FI_DEV_POWER_AVERAGE ("averaged over 1 sec interval; supported on Ampere (except
            GA100) or newer"); None: refused for this field alone, by its nvmlReturn.
        energy_mj: nvmlDeviceGetTotalEnergyConsumption ("since the driver was last reloaded; Volta or
            newer"); None: NotSupported.
        supported: False: a Jetson Orin, where NVML starts, lists one GPU and answers NotSupported to power
            and energy (JetPack 7.2.1, driver 595.78).
        fields: False: a driver that does not know the two fields yet.
        gpus: False: a driver without any.
    """

    NVMLError = NVMLError
    NVMLLibraryMismatchError = NVMLLibraryMismatchError

    def __init__(
        self,
        *,
        name: str = "NVIDIA RTX A2000",
        architecture: int = 7,
        capability: tuple[int, int] = (8, 6),
        power_mw: int = 41_000,
        average_mw: int | None = 40_000,
        energy_mj: int | None = 123_456,
        supported: bool = True,
        fields: bool = True,
        driver: bool = True,
        gpus: bool = True,
    ) -> None:
        self.name, self.architecture, self.capability = name, architecture, capability
        self.power_mw, self.average_mw, self.energy_mj = power_mw, average_mw, energy_mj
        self.supported, self.fields, self.driver, self.gpus = supported, fields, driver, gpus
        self.initialized = 0

    def nvmlInit(self) -> None:  # noqa: N802
        if not self.driver:
            raise NVMLError("NVML Shared Library Not Found")
        self.initialized += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.initialized -= 1

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        if index or not self.gpus:
            raise NVMLError("Invalid Argument")
        return 7

    def nvmlDeviceGetName(self, handle: int) -> str:  # noqa: N802
        return self.name

    def nvmlDeviceGetArchitecture(self, handle: int) -> int:  # noqa: N802
        return self.architecture

    def nvmlDeviceGetCudaComputeCapability(self, handle: int) -> tuple[int, int]:  # noqa: N802
        return self.capability

    def nvmlDeviceGetFieldValues(self, handle: int, fields: list[int]) -> list[Any]:  # noqa: N802
        """The call succeeds; "the nvmlReturn of each value must be checked"."""
        if not self.initialized:
            raise NVMLError("Uninitialized")
        values = {FIELD_INSTANT: self.power_mw, FIELD_AVERAGE: self.average_mw}
        answers = []
        for field in fields:
            value = values.get(field) if self.fields and self.supported else None
            code = 0 if value is not None else NOT_SUPPORTED
            answers.append(SimpleNamespace(nvmlReturn=code, value=SimpleNamespace(uiVal=value or 0)))
        return answers

    def nvmlDeviceGetPowerUsage(self, handle: int) -> int:  # noqa: N802
        if not self.supported:
            raise NVMLError("Not Supported")
        return self.power_mw

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: int) -> int:  # noqa: N802
        if not self.supported or self.energy_mj is None:
            raise NVMLError("Not Supported")
        return self.energy_mj


class TwoGpus(FakeNvml):
    """A T400 before an RTX 4090, in NVML's order, which is the bus's; handles are bus ids."""

    _GPUS: ClassVar = {
        "0000:01:00.0": ("NVIDIA T400", (7, 5), 20_000),
        "0000:02:00.0": ("NVIDIA GeForce RTX 4090", (8, 9), 300_000),
    }

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self._GPUS)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any:  # noqa: N802
        return list(self._GPUS)[index]

    def nvmlDeviceGetHandleByPciBusId(self, bus_id: str) -> Any:  # noqa: N802
        if bus_id not in self._GPUS:
            raise NVMLError("Not Found")
        return bus_id

    def nvmlDeviceGetName(self, handle: Any) -> str:  # noqa: N802
        return self._GPUS[handle][0]

    def nvmlDeviceGetCudaComputeCapability(self, handle: Any) -> tuple[int, int]:  # noqa: N802
        return self._GPUS[handle][1]

    def nvmlDeviceGetPowerUsage(self, handle: Any) -> int:  # noqa: N802
        return self._GPUS[handle][2]
