"""INA3221 and INA238 power monitors by sysfs: hwmon (JetPack 5 and later) and iio (JetPack 4).

Sources: Linux, Documentation/hwmon/ina3221.rst and ina238.rst; Documentation/ABI/testing/sysfs-class-hwmon.
hwmon and iio numbers change from boot to boot, so chips are found by their driver, never by number.
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
# Drivers: two of hwmon, and JetPack 4's of iio.
_INA3221, _INA238, _IIO = "ina3221", "ina238", "ina3221x"

# A channel that nothing hangs on, and the monitor's own sum, which is a voltage: no rails.
_NO_RAILS = frozenset({"NC", "sum of shunt voltages"})

# INA3221: a step is 8 mV on the bus and 40 uV across the shunt (NVIDIA DRIVE OS 7, Power Measurement Tool).
_SHUNT_STEP_UV = 40.0


@dataclass(frozen=True, slots=True)
class _Found:
    """A rail that gave a value.

    Attributes:
        name: None: an INA238 that carries no label.
        channel: reads it.
        driver: of its chip.
        resolution_mw: a reading's step; None: not known.
        interval_ms: conversions of all channels, averaged as often as the chip is told to; a value is the
            mean over at most that. None: not known.
    """

    name: str | None
    channel: Channel
    driver: str
    resolution_mw: float | None = None
    interval_ms: int | None = None


def find_ina(
    root: Path = Path("/"), *, read: Read = read_text, clock: Clock = monotonic_ns
) -> PolledSensor | Unsupported:
    """All rails of this machine's INA monitors, as one sensor.

    Args:
        root: where the file system starts; tests give a tree of their own.
        read: a file's content; raises OSError.
        clock: of the readings.

    Returns:
        the sensor, or why there is none. Only rails that gave a value just now are in it.
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
    there = "an INA3221 or INA238 is there, but no rail of it can be read"
    refused = [chip for chip in chips if any(_is_refused(read, file) for file in chip.glob("*_input"))]
    if not refused:
        return Unsupported(NAME, f"{there}: not connected")
    files = [chip / "*_input" for chip in refused]
    return Unsupported(NAME, f"{there}: {files[0]}: not allowed", leave_to_read(*files))


def _is_refused(read: Read, file: Path) -> bool:
    try:
        read(file)
    except PermissionError:
        return True
    except OSError:
        return False
    return False


def _chips(root: Path, read: Read) -> Iterator[tuple[Path, _Rails]]:
    """Folders of chips, and what finds the rails of each."""
    for chip in sorted((root / "sys/class/hwmon").glob("hwmon*")):
        if (rails := _BY_HWMON.get(label(read, chip / "name") or "")) is not None:
            yield chip, rails
    for chip in sorted((root / "sys/bus/i2c/drivers" / _IIO).glob("*/iio:device*")):
        yield chip, _iio


def _named(found: list[_Found]) -> dict[str, _Found]:
    """Rails by name, sorted: the order of chips changes with their numbers. One name twice: numbered."""
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
    """One step of the shunt's voltage at this bus voltage: 40 uV / 2 mOhm x 5 V = 100 mW.

    The bus voltage's own step is left out: it shifts all readings of a rail by at most 8 mV / V.
    """
    if not millivolts or not shunt_uohm:
        return None
    return _SHUNT_STEP_UV / shunt_uohm * millivolts


def _ina238(chip: Path, read: Read) -> Iterator[_Found]:
    """power1_input is in microwatts; the chip multiplies itself."""
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
    """Millivolts times milliamperes, in mW; negative where the current is (Jetson Thor at rest)."""

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
        basis="neither shunts nor calibration of the board are specified in public; the coarsest rail's step",
    )
