"""Power and energy of an NVIDIA GPU from NVML. Support is determined by reading a value.

On a Jetson Orin, NVML starts and names the GPU, but returns NotSupported for power and energy
(JetPack 7.2.1, driver 595.78).

Sources: NVML API reference, nvmlDeviceGetPowerUsage, nvmlDeviceGetTotalEnergyConsumption and
NVML_FI_DEV_POWER_*; "Part-time Power Measurements" (arXiv 2312.02741).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cnnx.machine.nvml import cudas_handle, errors_of
from cnnx.measure.power.sensors.sensor import (
    Channel,
    Clock,
    PolledSensor,
    Quantity,
    Rail,
    SensorInfo,
    Total,
    Uncertainty,
    Unsupported,
    monotonic_ns,
)

# Constants from nvml.h, which are the same for every binding.
FIELD_AVERAGE = 185
FIELD_INSTANT = 186
_SUCCESS = 0
_ARCH_AMPERE = 7
_ARCH_UNKNOWN = 0xFFFFFFFF
_GA100 = (8, 0)
_GH100 = (9, 0)
_SECOND_NS = 1_000_000_000

NAMES = ("nvml-instant", "nvml-average", "nvml-usage", "nvml-energy")

_UNCERTAINTY = Uncertainty(
    0.05, 1.0, "NVML: within 5 % on Fermi and Kepler; assumed for later GPUs, for which NVIDIA states none"
)
# A100, A800, A30 and H100, H200, H800, GH200 share the chips GA100 and GH100.
_PART_TIME = (
    "this chip measures power only a quarter of the time (arXiv 2312.02741: A100 and H100): a load that "
    "repeats in step with this is measured wrongly"
)
_DEVICE = "GPU board: GPU, memory and voltage regulators"


def find_nvml(*, nvml: Any = None, clock: Clock = monotonic_ns) -> list[PolledSensor | Unsupported]:
    """A sensor for each of `NAMES` on the GPU that CUDA uses, best first, or why it is not supported.

    Args:
        nvml: module with pynvml's functions; None for pynvml. Tests pass their own object.
        clock: clock of the readings.
    """
    if nvml is None:
        import pynvml

        nvml = pynvml
    try:
        nvml.nvmlInit()
    except errors_of(nvml) as error:
        return [Unsupported(name, f"NVML: {error}") for name in NAMES]
    try:
        return _sensors(_Gpu(nvml, *cudas_handle(nvml)), nvml, clock)
    except errors_of(nvml) as error:
        return [Unsupported(name, f"NVML: {error}") for name in NAMES]
    finally:
        nvml.nvmlShutdown()


def _sensors(gpu: _Gpu, nvml: Any, clock: Clock) -> list[PolledSensor | Unsupported]:
    channels: list[tuple[str, Quantity, int, Channel]] = [
        ("nvml-instant", "power_mw", 0, gpu.field(FIELD_INSTANT)),
        ("nvml-average", "power_mw", _SECOND_NS, gpu.field(FIELD_AVERAGE)),
        ("nvml-usage", "power_mw", gpu.usage_window_ns(), gpu.function(nvml.nvmlDeviceGetPowerUsage)),
        ("nvml-energy", "energy_mj", 0, gpu.function(nvml.nvmlDeviceGetTotalEnergyConsumption)),
    ]
    if gpu.measures_part_time:
        channels.insert(0, channels.pop())  # the counter misses nothing
    return [gpu.sensor(*channel, clock=clock) for channel in channels]


class _Gpu:
    """A GPU. Its last NVML error is kept as the reason."""

    def __init__(self, nvml: Any, handle: Any, remark: str) -> None:
        self._nvml, self._handle, self._remark = nvml, handle, remark
        self._refusal = "no value"
        self._errors = errors_of(nvml)
        self._capability = tuple(self._ask(nvml.nvmlDeviceGetCudaComputeCapability) or ())

    @property
    def measures_part_time(self) -> bool:
        """Whether power is measured only a quarter of the time."""
        return self._capability in (_GA100, _GH100)

    def sensor(
        self, name: str, quantity: Quantity, window_ns: int, channel: Channel, *, clock: Clock
    ) -> PolledSensor | Unsupported:
        """A sensor with one rail, or the reason why it returns no value."""
        if channel() is None:
            return Unsupported(name, f"NVML: {self._refusal}")
        info = SensorInfo(
            name=name,
            quantity=quantity,
            rails=(Rail("GPU board", _DEVICE),),
            total=Total(("GPU board",), _DEVICE),
            rate_hz=None,
            window_ns=window_ns,
            uncertainty=_UNCERTAINTY,
            notes=self._notes(window_ns),
        )
        # NVML counts references (nvmlInit_v2), and each sensor holds one.
        self._nvml.nvmlInit()
        return PolledSensor(info, [channel], clock=clock, close=self._nvml.nvmlShutdown)

    def function(self, question: Callable[[Any], int]) -> Channel:
        """Channel that calls an NVML function, in mW or mJ."""

        def channel() -> float | None:
            try:
                return float(question(self._handle))
            except self._errors as error:
                self._refusal = str(error)
                return None

        return channel

    def field(self, number: int) -> Channel:
        """Channel that reads an NVML field, in mW. A successful call may still refuse the field."""

        def channel() -> float | None:
            try:
                (value,) = self._nvml.nvmlDeviceGetFieldValues(self._handle, [number])
            except self._errors as error:
                self._refusal = str(error)
                return None
            if value.nvmlReturn != _SUCCESS:
                self._refusal = f"field {number} returned the error code {value.nvmlReturn}"
                return None
            return float(value.value.uiVal)

        return channel

    def usage_window_ns(self) -> int:
        """Averaging window of nvmlDeviceGetPowerUsage: 1 s on Ampere and later, except GA100."""
        architecture = self._ask(self._nvml.nvmlDeviceGetArchitecture)
        averages = architecture not in (None, _ARCH_UNKNOWN) and architecture >= _ARCH_AMPERE
        return _SECOND_NS if averages and self._capability != _GA100 else 0

    def _notes(self, window_ns: int) -> tuple[str, ...]:
        name = self._ask(self._nvml.nvmlDeviceGetName)
        name = name.decode() if isinstance(name, bytes) else name
        notes = [note for note in (name, self._remark) if note]
        if self.measures_part_time:
            notes.append(_PART_TIME)
        if window_ns:
            notes.append("each value is the mean of the last second")
        return tuple(notes)

    def _ask(self, question: Callable[[Any], Any]) -> Any:
        try:
            return question(self._handle)
        except self._errors:
            return None
