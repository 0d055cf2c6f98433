"""Parser for tegrastats from L4T r32 to r39, for a cross-check of sampled power.

Unknown tokens are skipped, never read as 0. Lines are truncated when the program is stopped, tokens differ
between releases, and some releases print rails only for root.
"""

from __future__ import annotations

import itertools
import re
import statistics
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from cnnx.machine.isolated import environment
from cnnx.measure.power.sensors.sensor import Span, Unsupported
from cnnx.store.files import scratch_folder

T = TypeVar("T")

# Time limit for the program to stop.
_PATIENCE_S = 5.0
# Five seconds of its lines have a fortieth of that.
_MOST_TEXT = 1_000_000

# Printed by a sensor that is off, such as that of an idle core.
_OFF_C = -256.0

# Tokens are separated by spaces. A rail is a name followed by milliwatts: "1750/1628" (JetPack 4),
# "2763mW/2846mW" (5, 6), "7006mW/7006mW/7006mW" (L4T r39: current, average, maximum). AGX Xavier uses the
# names GPU and CPU for rails and for temperatures, whose tokens contain an "@".
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_MW, _C = r"(-?[0-9]{1,9})(mW)?", r"(-?[0-9]{1,4}(?:\.[0-9]{1,9})?)C"
_POWER = re.compile(rf"{_MW}/{_MW}(?:/{_MW})?")
_TEMPERATURE = re.compile(rf"([A-Za-z][A-Za-z0-9_]*)@{_C}(?:/{_C})?")
_PERCENT = re.compile(r"([0-9]{1,3})%(?:@.*)?")
_CLOCK = re.compile(r"\d\d-\d\d-\d{4} \d\d:\d\d:\d\d(?= )")
_NOT_CONNECTED = "NC"


@dataclass(frozen=True, slots=True)
class RailPower:
    """Power of one rail in one line, in mW; may be negative.

    Attributes:
        power_mw: current power.
        average_mw: average since tegrastats started.
        maximum_mw: maximum since tegrastats started; None before L4T r39.
    """

    power_mw: int
    average_mw: int
    maximum_mw: int | None = None


@dataclass(frozen=True, slots=True)
class TegrastatsLine:
    """Values parsed from one line.

    Attributes:
        clock: local time with a resolution of 1 s and without time zone; None on old releases.
        rails: power by rail name; empty if none is printed.
        temperatures_c: temperatures by name; None for a sensor that is off.
        gpu_percent: GPU utilization; None if not printed, which is not 0 %.
        memory_percent: utilization of the memory controller (EMC); None if not printed.
    """

    clock: str | None
    rails: Mapping[str, RailPower]
    temperatures_c: Mapping[str, float | None]
    gpu_percent: int | None
    memory_percent: int | None


@dataclass(frozen=True, slots=True)
class Beside:
    """Readings of tegrastats under a load, for comparison with our own readings of the same span.

    Attributes:
        span: span of the load.
        lines: number of lines that tegrastats printed.
        power_mw: mean power of each rail.
        reason: why there are no readings; empty if there are.
    """

    span: Span
    lines: int
    power_mw: Mapping[str, float]
    reason: str

    @staticmethod
    def of(span: Span, printed: Sequence[TegrastatsLine] | Unsupported) -> Beside:
        """Create the readings from the output of `during` over a span."""
        if isinstance(printed, Unsupported):
            return Beside(span, 0, {}, printed.reason)
        power = mean_power_mw(printed)
        # Some releases print rails only for root.
        return Beside(span, len(printed), power, "" if power else "tegrastats printed no rails")


def parse_line(text: str) -> TegrastatsLine:
    """Parse one line; a truncated or unknown line gives what can be parsed, possibly nothing.

    A line without a line break may be truncated in its last token ("4660mW/46" for "4660mW/4667mW"), which is
    skipped. So is the first: it is the date or RAM, or may be truncated, too ("GPU" for "VDD_GPU").
    """
    clock = _CLOCK.match(text)
    _, *tokens = text.split() or [""]
    if not text.endswith(("\n", "\r")):
        tokens = tokens[:-1]
    return TegrastatsLine(
        clock=clock[0] if clock else None,
        rails=_rails(tokens),
        temperatures_c=_temperatures(tokens),
        gpu_percent=_percent(tokens, "GR3D_FREQ"),
        memory_percent=_percent(tokens, "EMC_FREQ"),
    )


def during(run: Callable[[], T], *, program: Sequence[str]) -> tuple[T, list[TegrastatsLine] | Unsupported]:
    """Call a function while tegrastats is running.

    Args:
        run: function to call, such as a steady load.
        program: command line, such as tegrastats --interval 100, which prints until it is stopped.

    Returns:
        The result of `run`, and the lines printed meanwhile or the reason why there are none.
    """
    # Use a file, as a full pipe would block the program until it is read.
    with scratch_folder() as folder, (folder / "printed").open("w+", errors="replace") as printed:
        try:
            process = subprocess.Popen(program, stdin=subprocess.DEVNULL, stdout=printed, env=environment())
        except OSError as error:
            return run(), Unsupported("tegrastats", f"{program[0]}: {error.strerror}")
        try:
            result = run()
        finally:
            _stop(process)
        printed.seek(0)
        text = printed.read(_MOST_TEXT)
    lines = [parse_line(line) for line in text.splitlines(keepends=True)]
    return result, lines or Unsupported("tegrastats", f"{program[0]} printed nothing")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def mean_power_mw(lines: Iterable[TegrastatsLine]) -> dict[str, float]:
    """Mean of the current power of each rail over the lines that contain it."""
    values: dict[str, list[int]] = {}
    for line in lines:
        for name, rail in line.rails.items():
            values.setdefault(name, []).append(rail.power_mw)
    return {name: statistics.fmean(of) for name, of in values.items()}


def cross_check(ours_mw: Mapping[str, float], theirs_mw: Mapping[str, float]) -> dict[str, float]:
    """Relative deviation of tegrastats from our means, (theirs - ours) / |ours|, for common rails.

    Rails whose mean is 0 are omitted. Use means of a steady load, as tegrastats has a resolution of seconds.
    """
    return {
        name: (theirs_mw[name] - ours) / abs(ours)
        for name, ours in ours_mw.items()
        if name in theirs_mw and ours
    }


def _rails(tokens: list[str]) -> dict[str, RailPower]:
    rails: dict[str, RailPower] = {}
    for name, value in itertools.pairwise(tokens):
        power = _POWER.fullmatch(value)
        if power is None or name == _NOT_CONNECTED or not _NAME.fullmatch(name):
            continue
        units = {power[2], power[4]} | ({power[6]} if power[5] is not None else set())
        if len(units) > 1:
            continue  # damaged, as either all values have the unit or none has
        maximum = int(power[5]) if power[5] is not None else None
        rails[name] = RailPower(int(power[1]), int(power[3]), maximum)
    return rails


def _temperatures(tokens: list[str]) -> dict[str, float | None]:
    found = (_TEMPERATURE.fullmatch(token) for token in tokens)
    return {one[1]: None if float(one[2]) == _OFF_C else float(one[2]) for one in found if one}


def _percent(tokens: list[str], key: str) -> int | None:
    """Percentage after a token; None if missing or followed only by a clock ("@[1574,1574,1574]")."""
    following = (_PERCENT.fullmatch(value) for name, value in itertools.pairwise(tokens) if name == key)
    found = next(following, None)
    return int(found[1]) if found else None
