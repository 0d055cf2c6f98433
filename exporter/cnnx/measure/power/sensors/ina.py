"""INA3221 and INA238 power monitors in sysfs: hwmon (JetPack 5 and later) and iio (JetPack 4).

Sources: Linux, Documentation/hwmon/ina3221.rst and ina238.rst; Documentation/ABI/testing/sysfs-class-hwmon.
hwmon and iio numbers change between boots, so chips are found by driver, never by number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from cnnx.measure.power.sensors.boards import board_of, covers, total_of
from cnnx.measure.power.sensors.sensor import (
    Channel,
    Clock,
    PolledSensor,
    Rail,
    Read,
    SensorInfo,
    Uncertainty,
    Unsupported,
    integer,
    label,
    leave_to_read,
    monotonic_ns,
    read_text,
)

NAME = "ina"
# Two hwmon drivers, and the iio driver of JetPack 4.
_INA3221, _INA238, _IIO = "ina3221", "ina238", "ina3221x"

# Not rails: an unconnected channel, and the monitor's sum, which is a voltage.
_NO_RAILS = frozenset({"NC", "sum of shunt voltages"})

# INA3221: a step is 8 mV on the bus and 40 uV across the shunt (NVIDIA DRIVE OS 7, Power Measurement Tool).
_SHUNT_STEP_UV = 40.0


@dataclass(frozen=True, slots=True)
class _Found:
    """A rail that returned a value.

    Attributes:
        name: name of the rail; None for an INA238 without a label.
        channel: reads the rail.
        driver: driver of the chip.
        resolution_mw: step size of a reading; None if unknown.
        interval_ms: time for the chip to convert and average all channels; a value is the mean over at most
            this time. None if unknown.
    """

    name: str | None
    channel: Channel
    driver: str
    resolution_mw: float | None = None
    interval_ms: int | None = None


def find_ina(
    root: Path = Path("/"), *, read: Read = read_text, clock: Clock = monotonic_ns
) -> PolledSensor | Unsupported:
    """All rails of the INA monitors of this machine as one sensor.

    Args:
        root: root of the file system; tests pass their own tree.
        read: returns the content of a file; raises OSError.
        clock: clock of the readings.

    Returns:
        The sensor with the rails that currently return a value, or the reason why there is none.
    """
    named = _named([rail for chip, rails in _chips(root, read) for rail in rails(chip, read)])
    if not named:
        return _why_not(root, read)
    board = board_of(named)
    interval_ms = max((rail.interval_ms or 0 for rail in named.values()), default=0)
    info = SensorInfo(
        name=NAME,
        quantity="power_mw",
        rails=tuple(Rail(name, covers(name, board)) for name in named),
        total=total_of(named),
        rate_hz=1000 / interval_ms if interval_ms else None,
        window_ns=interval_ms * 1_000_000,
        uncertainty=_uncertainty(list(named.values())),
        drivers=tuple(sorted({rail.driver for rail in named.values()})),
        notes=(
            *((f"rails of {board.name} ({board.source})",) if board else ()),
            *((f"each value is the mean of up to {interval_ms} ms",) if interval_ms else ()),
        ),
    )
    return PolledSensor(info, [rail.channel for rail in named.values()], clock=clock)


def _why_not(root: Path, read: Read) -> Unsupported:
    chips = [chip for chip, _ in _chips(root, read)]
    if not chips:
        where = root / "sys/class/hwmon"
        return Unsupported(NAME, f"no INA3221 or INA238 under {where}, and no ina3221x among the I2C drivers")
    there = "an INA3221 or INA238 was found, but none of its rails can be read"
    refused = [chip for chip in chips if any(_is_refused(read, file) for file in chip.glob("*_input"))]
    if not refused:
        return Unsupported(NAME, f"{there}: not connected")
    files = [chip / "*_input" for chip in refused]
    return Unsupported(NAME, f"{there}: {files[0]}: permission denied", leave_to_read(*files))


def _is_refused(read: Read, file: Path) -> bool:
    try:
        read(file)
    except PermissionError:
        return True
    except OSError:
        return False
    return False


def _chips(root: Path, read: Read) -> Iterator[tuple[Path, _Rails]]:
    """Folder of each chip, and the function that finds its rails."""
    for chip in sorted((root / "sys/class/hwmon").glob("hwmon*")):
        if (rails := _BY_HWMON.get(label(read, chip / "name") or "")) is not None:
            yield chip, rails
    for chip in sorted((root / "sys/bus/i2c/drivers" / _IIO).glob("*/iio:device*")):
        yield chip, _iio


def _named(found: list[_Found]) -> dict[str, _Found]:
    """Rails sorted by name, as the order of chips varies; duplicate names get a suffix."""
    board = board_of({rail.name for rail in found if rail.name is not None})
    named: dict[str, _Found] = {}
    for rail in found:
        name = rail.name or (board.ina238 if board else None) or "INA238"
        while name in named:
            name += " again"
        named[name] = rail
    return dict(sorted(named.items()))


def _ina3221(chip: Path, read: Read) -> Iterator[_Found]:
    for number in (1, 2, 3):
        name = label(read, chip / f"in{number}_label")
        if name is None or name in _NO_RAILS or integer(read, chip / f"in{number}_enable") == 0:
            continue
        voltage, current = chip / f"in{number}_input", chip / f"curr{number}_input"
        volts = integer(read, voltage)
        channel = _product(read, voltage, current)
        if channel() is not None:
            shunt = integer(read, chip / f"shunt{number}_resistor")
            yield _Found(name, channel, _INA3221, _resolution_mw(volts, shunt), _interval_ms(chip, read))


def _interval_ms(chip: Path, read: Read) -> int | None:
    return integer(read, chip / "update_interval") or None


def _resolution_mw(millivolts: int | None, shunt_uohm: int | None) -> float | None:
    """Power of one shunt voltage step at this bus voltage: 40 uV / 2 mOhm x 5 V = 100 mW.

    The step of the bus voltage is ignored, as it shifts all readings of a rail by at most 8 mV / V.
    """
    if not millivolts or not shunt_uohm:
        return None
    return _SHUNT_STEP_UV / shunt_uohm * millivolts


def _ina238(chip: Path, read: Read) -> Iterator[_Found]:
    """Rails of an INA238, which computes power itself; power1_input is in microwatts."""
    channel = _scaled(read, chip / "power1_input", 1e-3)
    if channel() is not None:
        name = label(read, chip / "label") or label(read, chip / "in1_label")
        yield _Found(name, channel, _INA238, interval_ms=_interval_ms(chip, read))


def _iio(chip: Path, read: Read) -> Iterator[_Found]:
    for number in (0, 1, 2):
        name = label(read, chip / f"rail_name_{number}")
        if name is None or name in _NO_RAILS:
            continue
        channel = _product(read, chip / f"in_voltage{number}_input", chip / f"in_current{number}_input")
        if channel() is None:
            channel = _scaled(read, chip / f"in_power{number}_input", 1.0)
        if channel() is not None:
            yield _Found(name, channel, _IIO)


_Rails = Callable[[Path, Read], Iterator[_Found]]
_BY_HWMON: Mapping[str, _Rails] = {_INA3221: _ina3221, _INA238: _ina238}


def _product(read: Read, voltage: Path, current: Path) -> Channel:
    """Power from millivolts and milliamperes, in mW; negative for a negative current (Jetson Thor, idle)."""

    def channel() -> float | None:
        millivolts, milliamperes = integer(read, voltage), integer(read, current)
        return None if millivolts is None or milliamperes is None else millivolts * milliamperes / 1000

    return channel


def _scaled(read: Read, path: Path, factor: float) -> Channel:
    def channel() -> float | None:
        value = integer(read, path)
        return None if value is None else value * factor

    return channel


def _uncertainty(found: list[_Found]) -> Uncertainty:
    steps = [rail.resolution_mw for rail in found if rail.resolution_mw is not None]
    return Uncertainty(
        relative=None,
        resolution_mw=max(steps) if steps else None,
        basis="no public specification of shunts or calibration; step of the coarsest rail",
    )
