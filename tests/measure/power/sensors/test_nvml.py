from __future__ import annotations

import pytest

from cnnx.machine import nvml as machine_nvml
from cnnx.measure.power import PolledSensor, Unsupported
from cnnx.measure.power.sensors.nvml import NAMES, find_nvml
from tests.doubles.nvml import FakeNvml, TwoGpus


def sensors(nvml: FakeNvml) -> dict[str, PolledSensor | Unsupported]:
    found = find_nvml(nvml=nvml, clock=lambda: 5)
    assert {_name(one) for one in found} == set(NAMES)
    return {_name(one): one for one in found}


def _name(one: PolledSensor | Unsupported) -> str:
    return one.info.name if isinstance(one, PolledSensor) else one.sensor


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
        assert str(one.info.uncertainty) == "within 5%, in steps of 1 mW"
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
        ("NVIDIA H200", 9, (9, 0), 1_000_000_000),
        ("unknown", 0xFFFFFFFF, (0, 0), 0),
    ],
)
def test_what_power_usage_means_depends_on_the_generation(name, architecture, capability, window_ns):
    found = sensors(FakeNvml(name=name, architecture=architecture, capability=capability))
    usage, first = found["nvml-usage"], next(iter(found))
    assert isinstance(usage, PolledSensor)
    assert usage.info.window_ns == window_ns
    averaged = {
        key: "each value is the mean of the last second" in one.info.notes for key, one in found.items()
    }
    assert averaged == {**dict.fromkeys(NAMES, False), "nvml-average": True, "nvml-usage": bool(window_ns)}
    part_time = any("quarter of the time" in note for note in usage.info.notes)
    assert part_time == (capability in ((8, 0), (9, 0)))  # arXiv 2312.02741: A100 and H100
    assert first == ("nvml-energy" if part_time else "nvml-instant")


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
    monkeypatch.setattr(machine_nvml, "device_0_bus_id", lambda: "0000:02:00.0")
    usage = sensors(TwoGpus())["nvml-usage"]
    assert isinstance(usage, PolledSensor)
    assert usage.info.notes[0] == "NVIDIA GeForce RTX 4090" and usage.read().values == (300_000,)
    monkeypatch.setattr(machine_nvml, "device_0_bus_id", lambda: None)
    usage = sensors(TwoGpus())["nvml-usage"]
    assert isinstance(usage, PolledSensor)
    assert usage.info.notes[0] == "NVIDIA T400" and "could not determine which" in usage.info.notes[1]


def test_a_gpu_that_falls_off_the_bus_gives_none():
    nvml = FakeNvml()
    usage = sensors(nvml)["nvml-usage"]
    assert isinstance(usage, PolledSensor)
    nvml.supported = False
    assert usage.read().values == (None,)
