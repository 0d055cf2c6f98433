"""Samples a power sensor in a separate process, so that the load does not delay it.

The process, `cnnx.measure.power.sampler_process`, writes one JSON value per line to a file: the sensor, then
[stamp_ns, value, ...] for each sample. Timestamps are from CLOCK_MONOTONIC, which all processes share.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Protocol

from cnnx.errors import EnvironmentLacks, UsageError
from cnnx.machine.isolated import python_process
from cnnx.measure.power.sensors.sensor import Clock, Sample, Sensor, SensorInfo, monotonic_ns
from cnnx.measure.power.trace import Trace
from cnnx.schema import from_plain
from cnnx.store.files import scratch_folder, writing

LEAST_HZ = 10.0
# Coprime to the rates of cameras and displays, so that samples cover all phases of a frame within a second.
# At 50 Hz, 2 of 5 instead of 3 of 10 samples would hit a load in the first 10 ms of each frame at 30 Hz.
DEFAULT_HZ = 47.0


class Sampler(Protocol):
    """Records a sensor in the background for the duration of a with block."""

    def __enter__(self) -> Sampler:
        """Start, and wait for the first sample."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        """Stop, also after an error."""

    def check(self) -> None:
        """Raise EnvironmentLacks if sampling has ended. Takes microseconds."""

    def trace(self) -> Trace:
        """The samples recorded so far; raises EnvironmentLacks if sampling has ended."""


def sample(
    sensor: Sensor,
    write: Callable[[str], object],
    *,
    rate_hz: float,
    wait: Callable[[float], bool],
    clock: Clock = monotonic_ns,
) -> None:
    """Read a sensor at a fixed rate until `wait` returns True.

    Samples are due at multiples of the period from the start, so delays do not add up. Missed samples are
    skipped and appear as a gap.

    Args:
        write: writes one line, including its line break.
        rate_hz: samples per second.
        wait: waits for a number of seconds, and returns whether to stop.
        clock: monotonic clock in nanoseconds.
    """
    write(json.dumps(sensor.info.as_dict()) + "\n")
    period = int(1e9 / rate_hz)
    due = clock()
    stop = False
    while not stop:
        one = sensor.read()
        write(json.dumps([one.stamp_ns, *one.values]) + "\n")
        late = clock() - due
        due += max(1, -(-late // period)) * period
        stop = wait(max(0, due - clock()) / 1e9)


class SamplerProcess:
    """A sampler that runs `cnnx.measure.power.sampler_process`.

    Args:
        sensor: sensor name, such as "ina"; the process opens it by name.
        rate_hz: sampling rate, at least 10.
        root: root of the file system.
        patience_s: time limit for the first sample and for the exit of the process.

    Raises:
        UsageError: the rate is below 10 Hz.
        EnvironmentLacks: on entry, the sensor is not supported or the process returned no sample.
    """

    def __init__(
        self, sensor: str, *, rate_hz: float = DEFAULT_HZ, root: Path = Path("/"), patience_s: float = 60.0
    ) -> None:
        if rate_hz < LEAST_HZ:
            what = f"the sampling rate {rate_hz:g} Hz is too low for power"
            raise UsageError(what, hint=f"use {LEAST_HZ:g} Hz or more")
        self._sensor, self._rate_hz, self._root, self._patience_s = sensor, rate_hz, root, patience_s
        self._process: subprocess.Popen[bytes] | None = None
        self._stack = contextlib.ExitStack()
        self._folder = Path()

    @property
    def pid(self) -> int | None:
        """Process ID; None before entry."""
        return self._process.pid if self._process else None

    def __enter__(self) -> SamplerProcess:
        self._folder = self._stack.enter_context(scratch_folder("cnnx-power-"))
        where = (self._sensor, str(self._rate_hz), str(self._root), str(self._folder / "samples"))
        command, environment = python_process("cnnx.measure.power.sampler_process", *where)
        try:
            with writing(self._folder / "errors"):
                errors = self._stack.enter_context((self._folder / "errors").open("wb"))
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                env=environment,
            )
            self._wait_for_a_sample()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        process = self._process
        if process is not None:
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                process.communicate(timeout=None if process.poll() is not None else self._patience_s)
            if process.poll() is None:
                process.kill()
                process.wait()
        self._stack.close()

    def check(self) -> None:
        """Raise EnvironmentLacks if the process has ended unexpectedly."""
        if self._process is None:
            raise UsageError("the sampler was not started", hint="use it in a with block")
        if (code := self._process.poll()) is not None:
            printed = (self._folder / "errors").read_text(errors="replace").strip()
            raise EnvironmentLacks(
                f"the power sampler ended during the measurement (exit code {code})",
                where=printed[-2000:] or f"power sensor {self._sensor}",
                hint="measure again; if the process was killed for lack of memory, free some memory",
            )

    def trace(self) -> Trace:
        """The samples recorded so far.

        Raises:
            EnvironmentLacks: the process has ended unexpectedly, or has recorded nothing.
        """
        self.check()
        return self._recorded()

    def _recorded(self) -> Trace:
        try:
            text = (self._folder / "samples").read_text()
        except OSError:
            text = ""
        # The last line may be incomplete; it is read next time.
        lines = [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
        if not lines:
            where, hint = f"power sensor {self._sensor}", "measure again, or choose another sensor"
            raise EnvironmentLacks("the power sampler has recorded nothing", where=where, hint=hint)
        info, *rows = lines
        samples = tuple(Sample(stamp, tuple(values)) for stamp, *values in rows)
        sensor = from_plain(SensorInfo, info, where="the power sampler", error=EnvironmentLacks)
        return Trace(sensor, self._rate_hz, samples)

    def _wait_for_a_sample(self) -> None:
        end = time.monotonic() + self._patience_s
        while time.monotonic() < end:
            self.check()
            with contextlib.suppress(EnvironmentLacks):
                if self._recorded().samples:
                    return
            time.sleep(0.01)
        raise EnvironmentLacks(
            f"the power sampler returned no sample within {self._patience_s:g} s",
            where=f"power sensor {self._sensor}",
            hint="try again with less load on the machine, or choose another sensor (cnnx doctor lists them)",
        )
