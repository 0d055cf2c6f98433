"""Sampling a sensor in a process of its own, so that the load does not hold it up.

The process, `cnnx.measure.power.sampler_process`, writes one JSON value a line to a file: the sensor, then
[stamp_ns, value, ...] for each sample. Stamps are CLOCK_MONOTONIC's, which all processes share.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import tempfile
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

LEAST_HZ = 10.0
# Coprime to the rates of cameras and displays: within a second samples fall on all phases of a frame. At
# 50 Hz, 2 of 5 samples would hit a load that takes the first 10 ms of a frame at 30 Hz, not 3 of 10.
DEFAULT_HZ = 47.0


class Sampler(Protocol):
    """Records a sensor in the background. Used as a context: it runs from start to end of the block."""

    def __enter__(self) -> Sampler:
        """Start; the first sample is there when this returns."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        """Stop, whatever happened."""

    def check(self) -> None:
        """Raise EnvironmentLacks if it no longer samples. Costs microseconds."""

    def trace(self) -> Trace:
        """What was recorded so far; raises EnvironmentLacks if it no longer samples."""


def sample(
    sensor: Sensor,
    write: Callable[[str], object],
    *,
    rate_hz: float,
    wait: Callable[[float], bool],
    clock: Clock = monotonic_ns,
) -> None:
    """Read a sensor at a steady rate until told to stop.

    Moments are multiples of the period from the start, so lateness does not add up; those missed are
    left out, and seen later as a gap.

    Args:
        write: takes one line, its line break included.
        rate_hz: samples a second.
        wait: waits that many seconds and says whether to stop.
        clock: nanoseconds, monotonic.
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
        sensor: its name, such as "ina"; found again by the process.
        rate_hz: at least 10.
        root: where the file system starts.
        patience_s: how long the process may take to give its first sample, and to end.

    Raises:
        UsageError: a rate below 10 Hz.
        EnvironmentLacks: when entered, the sensor is unsupported or the process gave no sample.
    """

    def __init__(
        self, sensor: str, *, rate_hz: float = DEFAULT_HZ, root: Path = Path("/"), patience_s: float = 60.0
    ) -> None:
        if rate_hz < LEAST_HZ:
            raise UsageError(f"power is sampled at {LEAST_HZ:g} Hz or faster, not {rate_hz:g}")
        self._sensor, self._rate_hz, self._root, self._patience_s = sensor, rate_hz, root, patience_s
        self._process: subprocess.Popen[bytes] | None = None
        self._stack = contextlib.ExitStack()
        self._folder = Path()

    @property
    def pid(self) -> int | None:
        """Of the process; None before it is entered."""
        return self._process.pid if self._process else None

    def __enter__(self) -> SamplerProcess:
        self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="cnnx-power-")))
        where = (self._sensor, str(self._rate_hz), str(self._root), str(self._folder / "samples"))
        command, environment = python_process("cnnx.measure.power.sampler_process", *where)
        errors = self._stack.enter_context((self._folder / "errors").open("wb"))
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            env=environment,
        )
        try:
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
        """Raise EnvironmentLacks if the process has ended by itself."""
        if self._process is None:
            raise UsageError("the sampler was not started")
        if (code := self._process.poll()) is not None:
            said = (self._folder / "errors").read_text(errors="replace").strip()
            raise EnvironmentLacks(
                f"the power sampler ended while it should measure (exit code {code})",
                where=said[-2000:] or None,
                mend="measure again; if its process was killed for memory, free some",
            )

    def trace(self) -> Trace:
        """What was recorded so far.

        Raises:
            EnvironmentLacks: the process has ended by itself, or has recorded nothing.
        """
        self.check()
        return self._recorded()

    def _recorded(self) -> Trace:
        try:
            text = (self._folder / "samples").read_text()
        except OSError:
            text = ""
        # The last line may be half written; it will be whole next time.
        lines = [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
        if not lines:
            raise EnvironmentLacks("the power sampler has recorded nothing")
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
        raise EnvironmentLacks(f"the power sampler gave no sample within {self._patience_s:g} s")
