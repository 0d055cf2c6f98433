"""Lines of tegrastats, of every release from L4T r32 to r39, for a cross-check of the power that we sample.

What is not understood is left out, never read as 0: lines are torn when the program is stopped, tokens
come and go with releases, and rails are absent without root on some.
"""

from __future__ import annotations

import itertools
import re
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from cnnx.machine.isolated import environment
from cnnx.measure.power.sensors.sensor import Span, Unsupported

T = TypeVar("T")

# How long it may take to stop when it is asked to.
_PATIENCE_S = 5.0

# A sensor that is switched off (such as an idle core's) prints this.
_OFF_C = -256.0

# Tokens are parted by blanks. A rail is a name and then its milliwatts: "1750/1628" (JetPack 4),
# "2763mW/2846mW" (5, 6), "7006mW/7006mW/7006mW" (L4T r39: current, average, maximum). AGX Xavier's rails
# are named as its temperatures are, GPU and CPU; those have an "@" inside the token.
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_POWER = re.compile(r"(-?\d+)(mW)?/(-?\d+)(mW)?(?:/(-?\d+)(mW)?)?")
_TEMPERATURE = re.compile(r"([A-Za-z][A-Za-z0-9_]*)@(-?\d+(?:\.\d+)?)C(?:/(-?\d+(?:\.\d+)?)C)?")
_PERCENT = re.compile(r"(\d+)%(?:@.*)?")
_CLOCK = re.compile(r"\d\d-\d\d-\d{4} \d\d:\d\d:\d\d(?= )")
_NOT_CONNECTED = "NC"


@dataclass(frozen=True, slots=True)
class RailPower:
    """One rail of one line, in mW; may be negative.

    Attributes:
        power_mw: at the moment.
        average_mw: since tegrastats started.
        maximum_mw: since then; None before L4T r39.
    """

    power_mw: int
    average_mw: int
    maximum_mw: int | None = None


@dataclass(frozen=True, slots=True)
class TegrastatsLine:
    """What was understood of one line.

    Attributes:
        clock: local time with a resolution of 1 s and no zone; None on old releases.
        rails: power by name; empty where none is printed.
        temperatures_c: by name; None: that sensor is off.
        gpu_percent: utilisation; None: not printed, which is not 0 %.
        memory_percent: utilisation of the memory controller (EMC); None: not printed.
    """

    clock: str | None
    rails: Mapping[str, RailPower]
    temperatures_c: Mapping[str, float | None]
    gpu_percent: int | None
    memory_percent: int | None


@dataclass(frozen=True, slots=True)
class Beside:
    """What tegrastats said while a load ran, to be held against our own readings of the same span.

    Attributes:
        span: of the load.
        lines: that it printed.
        power_mw: mean of each rail.
        reason: why there is none; empty where there is one.
    """

    span: Span
    lines: int
    power_mw: Mapping[str, float]
    reason: str

    @staticmethod
    def of(span: Span, printed: Sequence[TegrastatsLine] | Unsupported) -> Beside:
        """What `during` gave over a span."""
        if isinstance(printed, Unsupported):
            return Beside(span, 0, {}, printed.reason)
        power = mean_power_mw(printed)
        # Without root some releases print no rails.
        return Beside(span, len(printed), power, "" if power else "tegrastats printed no rail")


def parse_line(text: str) -> TegrastatsLine:
    """Read one line; a torn or foreign one gives what can be read in it, at worst nothing.

    A line that does not end in a line break may be torn within its last token ("4660mW/46" for
    "4660mW/4667mW"), and one that starts neither with the time nor with RAM within its first ("GPU" for
    "VDD_GPU"): such tokens are left out.
    """
    clock = _CLOCK.match(text)
    tokens = text.split()
    if not text.endswith(("\n", "\r")):
        tokens = tokens[:-1]
    if not clock and not text.startswith("RAM "):
        tokens = tokens[1:]
    return TegrastatsLine(
        clock=clock[0] if clock else None,
        rails=_rails(tokens),
        temperatures_c=_temperatures(tokens),
        gpu_percent=_percent(tokens, "GR3D_FREQ"),
        memory_percent=_percent(tokens, "EMC_FREQ"),
    )


def during(run: Callable[[], T], *, program: Sequence[str]) -> tuple[T, list[TegrastatsLine] | Unsupported]:
    """Do something while tegrastats runs beside it.

    Args:
        run: the work, such as a load in its plateau.
        program: the command line, such as tegrastats --interval 100; it prints until it is stopped.

    Returns:
        what `run` returned, and the lines printed meanwhile, or why there are none.
    """
    # A file, not a pipe: a full pipe would stop the program until somebody reads.
    with tempfile.TemporaryFile("w+", errors="replace") as printed:
        try:
            process = subprocess.Popen(program, stdin=subprocess.DEVNULL, stdout=printed, env=environment())
        except OSError as error:
            return run(), Unsupported("tegrastats", f"{program[0]}: {error.strerror}")
        try:
            result = run()
        finally:
            _stop(process)
        printed.seek(0)
        text = printed.read()
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
    """Mean of each rail's momentary power over lines that print it."""
    values: dict[str, list[int]] = {}
    for line in lines:
        for name, rail in line.rails.items():
            values.setdefault(name, []).append(rail.power_mw)
    return {name: statistics.fmean(of) for name, of in values.items()}


def cross_check(ours_mw: Mapping[str, float], theirs_mw: Mapping[str, float]) -> dict[str, float]:
    """How far tegrastats is from our own means: (theirs - ours) / |ours|, for rails both have.

    Rails of which ours is 0 are left out. tegrastats knows seconds only, so means of a steady load are
    wanted.
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
            continue  # all values have the unit or none has: this one is damaged
        maximum = int(power[5]) if power[5] is not None else None
        rails[name] = RailPower(int(power[1]), int(power[3]), maximum)
    return rails


def _temperatures(tokens: list[str]) -> dict[str, float | None]:
    found = (_TEMPERATURE.fullmatch(token) for token in tokens)
    return {one[1]: None if float(one[2]) == _OFF_C else float(one[2]) for one in found if one}


def _percent(tokens: list[str], key: str) -> int | None:
    """The share after a token; None where it is missing or only a clock ("@[1574,1574,1574]") follows."""
    following = (_PERCENT.fullmatch(value) for name, value in itertools.pairwise(tokens) if name == key)
    found = next(following, None)
    return int(found[1]) if found else None
