"""Tables of a machine: hardware, software, sensors, abilities."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cnnx.report.table import UNKNOWN, Block, Cell, Column, Facts, Figures, Remark, Table, table_of
from cnnx.report.words import several, uncertainty

if TYPE_CHECKING:
    from cnnx.machine.environment import Environment
    from cnnx.machine.packages import Package
    from cnnx.machine.state import Frequency, MachineState

_GIB = 2**30
_NONE = "none found"

_Plain = Mapping[str, Any]


def machine_blocks(environment: Environment, state: MachineState, found: _Plain) -> Iterator[Block]:
    """The machine, sensors, wrong combinations and abilities; `found` is the data that `--json` prints."""
    yield Facts((*_machine(environment), *_state(state)))
    yield from _sensors(found["sensors"])
    for wrong in found["wrong_combinations"]:
        yield Remark(f"{wrong['what']}: {wrong['why']}", "incompatible", "bad", wrong["hint"])
    yield _abilities(found["abilities"])


def environment_table(environment: Environment, devices: Sequence[str]) -> Table:
    """The machine and installation of records, and the devices that were used on it."""
    columns: tuple[Column[tuple[str, str]], ...] = (
        Column("what", lambda row: row[0], fixed=True),
        Column("found", lambda row: row[1]),
    )
    return table_of(f"Environment of {', '.join(devices)}", columns, [list(_machine(environment))])


def _abilities(abilities: Sequence[_Plain]) -> Table:
    columns: tuple[Column[_Plain], ...] = (
        Column("task", lambda one: one["what"], fixed=True),
        Column("works", lambda one: Cell("yes", "good") if one["able"] else Cell("no", "open"), fixed=True),
    )
    cannot = (one for one in abilities if not one["able"])
    remarks = [Remark(one["reason"], one["what"], "open", one["hint"]) for one in cannot]
    return table_of("What cnnx can do here", columns, [abilities], remarks=remarks)


def _machine(environment: Environment) -> Iterator[tuple[str, str]]:
    """Hardware and software. Unknown values are left out, except GPU, CUDA and TensorRT."""
    memory = environment.memory_bytes
    processor = (
        environment.cpu or environment.machine,
        several(environment.cores, "core"),
        environment.cpu_governor,
        f"{memory / _GIB:.1f} GiB" if memory else None,
    )
    yield "machine", _joined(environment.board, environment.distribution, environment.system)
    yield "CPU", _joined(*processor)
    gpu = environment.gpu
    if gpu is None:
        yield "GPU", f"{_NONE} by NVML"
    else:
        capability = f"compute capability {gpu.compute_capability}" if gpu.compute_capability else None
        yield "GPU", _joined(gpu.name, capability, _size(gpu.memory_bytes))
        if gpu.remark:
            yield "", gpu.remark
        yield "driver", _joined(gpu.driver, f"for CUDA up to {gpu.cuda}" if gpu.cuda else None) or _NONE
    yield "CUDA", _packages(environment.cuda)
    yield "TensorRT", _packages(environment.tensorrt)
    if environment.l4t or environment.jetpack:
        yield "JetPack", _joined(environment.jetpack, f"Jetson Linux {environment.l4t}")
        yield "power mode", environment.power_mode or UNKNOWN
    versions = [f"{name} {version}" for name, version in environment.packages.items() if version]
    yield "python", _joined(environment.python, *versions)


def _state(state: MachineState) -> Iterator[tuple[str, str]]:
    """The current state: clocks, temperatures, throttling."""
    clocks = {"GPU": state.gpu, "GPU memory": state.gpu_memory, "CPU": state.cpu}
    current = _joined(*(f"{name} {_clock(clock)}" for name, clock in clocks.items() if clock))
    yield "clocks", current or UNKNOWN
    if state.temperatures_c:
        yield "temperature", _joined(*(f"{name} {at:.1f} C" for name, at in state.temperatures_c.items()))
    if state.throttling is not None:
        yield "throttled by", _joined(*state.throttling) or "nothing"


def _clock(clock: Frequency) -> str:
    now = "?" if clock.now_mhz is None else f"{clock.now_mhz:.0f}"
    ends = (("from", clock.least_mhz), ("to", clock.most_mhz))
    range_ = " ".join(f"{word} {end:.0f}" for word, end in ends if end is not None)
    note = "pinned" if clock.pinned else range_
    return f"{now} MHz" + (f" ({note})" if note else "")


def _packages(packages: Sequence[Package]) -> str:
    sources = {"system": "system", "wheel": "wheels"}
    found = (
        (_joined(*(f"{one.name} {one.version}" for one in packages if one.source == source)), word)
        for source, word in sources.items()
    )
    return "; ".join(f"{names} ({word})" for names, word in found if names) or _NONE


def _size(size: int | None) -> str | None:
    return f"{size / _GIB:.1f} GiB" if size else None


def _joined(*parts: str | None) -> str:
    return ", ".join(part for part in parts if part)


def _sensors(sensors: Sequence[_Plain]) -> Iterator[Block]:
    supported = [sensor for sensor in sensors if not sensor["reason"]]
    if supported:
        yield _power_table(supported)
    # NVML's sensors share their notes: merge duplicates.
    notes = [(words, "", sensor["sensor"]) for sensor in supported for words in _words(sensor)]
    notes += [(f"unsupported: {s['reason']}", s["hint"], s["sensor"]) for s in sensors if s["reason"]]
    by_note: dict[tuple[str, str], list[str]] = {}
    for words, hint, name in notes:
        by_note.setdefault((words, hint), []).append(name)
    for (words, hint), names in by_note.items():
        yield Remark(words, f"power sensor {', '.join(names)}", hint=hint)


def _power_table(sensors: Sequence[_Plain]) -> Table:
    columns: tuple[Column[tuple[str, str, float | None, str]], ...] = (
        Column("sensor", lambda row: row[0]),
        Column("rail", lambda row: row[1]),
        Figures("mW", lambda row: "-" if row[2] is None else f"{row[2]:,.0f}"),
        Column("covers", lambda row: row[3]),
    )
    return table_of("Current power", columns, [list(_rails(sensor)) for sensor in sensors])


def _rails(sensor: _Plain) -> Iterator[tuple[str, str, float | None, str]]:
    """Each rail, and the total if it differs from a single rail."""
    for rail in sensor["rails"]:
        yield sensor["sensor"], rail["rail"], rail["power_mw"], rail["covers"]
    if sensor["total_mw"] is None or len(sensor["rails"]) > 1:
        yield sensor["sensor"], "total", sensor["total_mw"], sensor["total_covers"]


def _words(sensor: _Plain) -> Iterator[str]:
    """Uncertainty, update rate and notes of a sensor."""
    if stated := sensor["uncertainty"]:
        yield f"{uncertainty(stated)} ({stated['basis']})"
    if sensor["rate_hz"] is not None:
        yield f"updated at {sensor['rate_hz']:g} Hz"
    yield from sensor["notes"]
