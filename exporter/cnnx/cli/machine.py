"""What a machine has and can do, as one screen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cnnx.cli.columns import titled

if TYPE_CHECKING:
    from cnnx.machine.environment import Environment
    from cnnx.machine.packages import Package
    from cnnx.machine.state import Frequency, MachineState
    from cnnx.pipeline.doctor.doctor import DoctorResult, SensorReading

_GIB = 2**30
_NONE = "none found"


def print_diagnosis(out: Console, diagnosis: DoctorResult) -> None:
    """The machine, its sensors, wrong combinations, and what cnnx can do."""
    facts = Table.grid(padding=(0, 2))
    for name, value in (*_machine(diagnosis.environment), *_state(diagnosis.state)):
        facts.add_row(f"[bold]{name}[/]", escape(value))
    out.print(facts)
    _print_sensors(out, diagnosis.sensors)
    for wrong in diagnosis.wrong_combinations:
        out.print(f"[red]wrong together:[/] {escape(wrong.what)}: {escape(wrong.why)}", soft_wrap=True)
        out.print(f"  mend:  {escape(wrong.mend)}", soft_wrap=True)
    table = titled("What cnnx can do here", "what", "can")
    for ability in diagnosis.abilities:
        table.add_row(ability.what, "[green]yes[/]" if ability.able else "[yellow]no[/]")
    out.print(table)
    for ability in diagnosis.abilities:
        if not ability.able:
            out.print(f"[yellow]{escape(ability.what)}:[/] {escape(ability.reason)}", soft_wrap=True)
            out.print(f"  mend:  {escape(ability.mend)}", soft_wrap=True)


def _machine(environment: Environment) -> Iterator[tuple[str, str]]:
    """What stays. What is not known is left out, but for what cnnx is for."""
    memory = environment.memory_bytes
    processor = (
        environment.cpu or environment.machine,
        f"{environment.cores} core{'s' * (environment.cores != 1)}",
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
        yield "power mode", environment.power_mode or "not known"
    versions = [f"{name} {version}" for name, version in environment.packages.items() if version]
    yield "python", _joined(environment.python, *versions)


def _state(state: MachineState) -> Iterator[tuple[str, str]]:
    """What moves."""
    clocks = {"GPU": state.gpu, "GPU memory": state.gpu_memory, "CPU": state.cpu}
    yield (
        "clocks",
        _joined(*(f"{name} {_clock(clock)}" for name, clock in clocks.items() if clock)) or "not known",
    )
    if state.temperatures_c:
        yield "temperature", _joined(*(f"{name} {at:.1f} C" for name, at in state.temperatures_c.items()))
    if state.throttling is not None:
        yield "clocks held by", _joined(*state.throttling) or "nothing"


def _clock(clock: Frequency) -> str:
    now = "?" if clock.now_mhz is None else f"{clock.now_mhz:.0f}"
    if clock.pinned:
        return f"{now} MHz (pinned)"
    bounds = [
        f"{word} {bound:.0f}"
        for word, bound in (("from", clock.least_mhz), ("to", clock.most_mhz))
        if bound is not None
    ]
    return f"{now} MHz" + (f" ({' '.join(bounds)})" if bounds else "")


def _packages(packages: Sequence[Package]) -> str:
    return (
        "; ".join(
            _joined(*(f"{one.name} {one.version}" for one in packages if one.source == source)) + f" ({word})"
            for source, word in (("system", "system"), ("wheel", "wheels"))
            if any(one.source == source for one in packages)
        )
        or _NONE
    )


def _size(size: int | None) -> str | None:
    return f"{size / _GIB:.1f} GiB" if size else None


def _joined(*parts: str | None) -> str:
    return ", ".join(part for part in parts if part)


def _print_sensors(out: Console, sensors: Sequence[SensorReading]) -> None:
    supported = [sensor for sensor in sensors if not sensor.reason]
    if supported:
        table = titled("Power just now", "sensor", "rail", "mW", "covers", right=("mW",))
        for sensor in supported:
            rows = [(rail.rail, rail.power_mw, rail.covers) for rail in sensor.rails]
            if sensor.total_mw is None or len(rows) > 1:
                rows.append(("total", sensor.total_mw, sensor.total_covers))
            for rail, power, covers in rows:
                table.add_row(sensor.sensor, escape(rail), _milliwatts(power), escape(covers))
        out.print(table)
        # NVML's sensors say the same of themselves: each thing is said once.
        told: dict[str, list[str]] = {}
        for sensor in supported:
            for words in _words(sensor):
                told.setdefault(words, []).append(sensor.sensor)
        for words, sayers in told.items():
            out.print(f"power by {', '.join(sayers)}: {escape(words)}", soft_wrap=True)
    reasons = dict.fromkeys(sensor.reason for sensor in sensors if sensor.reason)
    for reason in reasons:
        names = ", ".join(sensor.sensor for sensor in sensors if sensor.reason == reason)
        out.print(f"power by {names}: unsupported: {escape(reason)}", soft_wrap=True)
        for mend in dict.fromkeys(one.mend for one in sensors if one.reason == reason and one.mend):
            out.print(f"  mend:  {escape(mend)}", soft_wrap=True)


def _words(sensor: SensorReading) -> Iterator[str]:
    """What a reader of its figures must know."""
    if sensor.uncertainty is not None:
        yield f"{sensor.uncertainty} ({sensor.uncertainty.basis})"
    if sensor.rate_hz is not None:
        yield f"renewed at {sensor.rate_hz:g} Hz"
    yield from sensor.notes


def _milliwatts(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"
