from __future__ import annotations

from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from cnnx.machine import environment
from cnnx.measure.power import PolledSensor, Unsupported
from cnnx.measure.power.sensors.nvml import FIELD_AVERAGE, FIELD_INSTANT, NAMES, find_nvml

NOT_SUPPORTED = 3  # nvml.h: NVML_ERROR_NOT_SUPPORTED


class NVMLError(Exception):
    pass


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
            value = values[field] if self.fields and self.supported else None
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


def sensors(nvml: FakeNvml) -> dict[str, PolledSensor | Unsupported]:
    return dict(zip(NAMES, find_nvml(nvml=nvml, clock=lambda: 5), strict=True))


def test_power_and_energy_are_read_in_their_units():
    nvml = FakeNvml()
    found = sensors(nvml)
    values = {name: one.read().values for name, one in found.items() if isinstance(one, PolledSensor)}
    assert values == {
        "nvml-instant": (41_000,),
        "nvml-average": (40_000,),
        "nvml-usage": (41_000,),
        "nvml-energy": (123_456,),
    }
    for one in found.values():
        assert isinstance(one, PolledSensor)
        assert one.info.total.rails == ("GPU board",)
        one.close()
    assert nvml.initialized == 0  # every nvmlInit has its nvmlShutdown


def test_on_an_orin_nvml_starts_and_nothing_is_supported():
    nvml = FakeNvml(name="Orin (nvgpu)", supported=False)
    found = sensors(nvml)
    assert all(isinstance(one, Unsupported) for one in found.values())
    assert {one.reason for one in found.values() if isinstance(one, Unsupported)} == {
        "NVML: Not Supported",
        "NVML: field 186 returned the error code 3",
        "NVML: field 185 returned the error code 3",
    }
    assert nvml.initialized == 0


@pytest.mark.parametrize(
    "name, architecture, capability, window_ns",
    [
        ("Tesla V100", 5, (7, 0), 0),
        ("NVIDIA A100-SXM4-80GB", 7, (8, 0), 0),  # GA100: instantaneous
        ("NVIDIA A30", 7, (8, 0), 0),  # GA100 too
        ("NVIDIA GeForce RTX 3090", 7, (8, 6), 1_000_000_000),
        ("NVIDIA GeForce RTX 4090", 8, (8, 9), 1_000_000_000),
        ("NVIDIA H100 80GB HBM3", 9, (9, 0), 1_000_000_000),
        ("unknown", 0xFFFFFFFF, (0, 0), 0),
    ],
)
def test_what_power_usage_means_depends_on_the_generation(name, architecture, capability, window_ns):
    usage = sensors(FakeNvml(name=name, architecture=architecture, capability=capability))["nvml-usage"]
    assert isinstance(usage, PolledSensor)
    assert usage.info.window_ns == window_ns
    part_time = any("quarter of the time" in note for note in usage.info.notes)
    assert part_time == ("100" in name and "V100" not in name)  # arXiv 2312.02741: A100 and H100


def test_each_question_is_unsupported_on_its_own():
    found = sensors(FakeNvml(average_mw=None, energy_mj=None))
    supported = {name for name, one in found.items() if isinstance(one, PolledSensor)}
    assert supported == {"nvml-instant", "nvml-usage"}
    assert isinstance(sensors(FakeNvml(fields=False))["nvml-usage"], PolledSensor)


def test_without_a_driver_or_a_gpu_the_reason_is_nvmls():
    reasons = {one.reason for one in sensors(FakeNvml(driver=False)).values() if isinstance(one, Unsupported)}
    assert reasons == {"NVML: NVML Shared Library Not Found"}
    nvml = FakeNvml(gpus=False)
    assert [one.reason for one in find_nvml(nvml=nvml) if isinstance(one, Unsupported)] == [
        "NVML: Invalid Argument"
    ] * 4
    assert nvml.initialized == 0


def test_power_is_of_the_gpu_that_cuda_takes(monkeypatch):
    """A T400 before an RTX 4090 on the bus: CUDA takes the faster one."""
    monkeypatch.setattr(environment, "device_0_bus_id", lambda: "0000:02:00.0")
    usage = sensors(TwoGpus())["nvml-usage"]
    assert isinstance(usage, PolledSensor)
    assert usage.info.notes[0] == "NVIDIA GeForce RTX 4090" and usage.read().values == (300_000,)
    monkeypatch.setattr(environment, "device_0_bus_id", lambda: None)
    usage = sensors(TwoGpus())["nvml-usage"]
    assert isinstance(usage, PolledSensor)
    assert usage.info.notes[0] == "NVIDIA T400" and "could not determine which" in usage.info.notes[1]


def test_a_gpu_that_falls_off_the_bus_gives_none():
    nvml = FakeNvml()
    usage = sensors(nvml)["nvml-usage"]
    assert isinstance(usage, PolledSensor)
    nvml.supported = False
    assert usage.read().values == (None,)
