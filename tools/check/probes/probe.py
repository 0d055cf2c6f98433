"""What every probe of tools/check/gpu.py gets: the machine, and where to tell what it finds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from cnnx.errors import CnnxError
from cnnx.machine.isolated import environment
from cnnx.measure.power.sampler import DEFAULT_HZ, Sampler, SamplerProcess
from cnnx.runtimes.engine.cudart import CudaRuntime, load_cudart
from tools import ROOT

_CHILD_S = 20.0


class Tell(Protocol):
    """Keeps a finding as soon as it is known."""

    def __call__(self, what: str, value: Any, *, holds: bool | None = None, expected: str = "") -> None:
        """Keep one finding.

        Args:
            what: what was looked at.
            value: what was found, as plain data.
            holds: whether it is as expected; None: there is nothing to expect.
            expected: what was expected, in words.
        """


def in_child(name: str, variables: Mapping[str, str] | None = None) -> dict[str, Any]:
    """What a process of its own finds; see `tools.check.probes.child`. Its failure is {"error": words}."""
    command = [sys.executable, "-m", "tools.check.probes.child", name]
    variables = {**environment(), "PYTHONPATH": os.environ.get("PYTHONPATH", ""), **(variables or {})}
    try:
        ended = subprocess.run(
            command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=_CHILD_S, check=False
        )
    except subprocess.TimeoutExpired:
        return {"error": f"did not end within {_CHILD_S:g} s"}
    if ended.returncode:
        said = ended.stderr.strip().splitlines() or ["nothing was printed"]
        return {"error": f"exit code {ended.returncode}: {said[-1]}"}
    return json.loads(ended.stdout.splitlines()[-1])


def sampler_of(sensor: str) -> Sampler:
    """A sampler process at the rate of an energy measurement."""
    return SamplerProcess(sensor, rate_hz=DEFAULT_HZ)


@dataclass(frozen=True)
class Machine:
    """This machine; tests pass an imitation.

    Attributes:
        cuda: loads CUDA's runtime.
        nvml: module with pynvml's functions; None for pynvml.
        child: finds something in a process of its own, with more variables in its environment.
        sampler: a sampler of a sensor.
        clock: monotonic clock in nanoseconds.
        sleep: waits for a number of seconds.
        speed: how much shorter everything that takes a set time is.
        most_bytes: most memory to copy at once.
        root: root of the file system.
    """

    cuda: Callable[[], CudaRuntime] = load_cudart
    nvml: Any = None
    child: Callable[[str, Mapping[str, str]], dict[str, Any]] = in_child
    sampler: Callable[[str], Sampler] = sampler_of
    clock: Callable[[], int] = time.monotonic_ns
    sleep: Callable[[float], object] = time.sleep
    speed: float = 1.0
    most_bytes: int = 1 << 26
    root: Path = field(default=Path("/"))

    def questions(self) -> Any:
        """The module with pynvml's functions."""
        if self.nvml is not None:
            return self.nvml
        import pynvml

        return pynvml


def words_of(work: Callable[[], object]) -> str:
    """What cnnx says when `work` fails; empty if it does not."""
    try:
        work()
    except CnnxError as error:
        return str(error)
    return ""


def last_error(cuda: CudaRuntime) -> str:
    """The last error that CUDA holds for this thread; empty if none."""
    return words_of(lambda: cuda.call("cudaGetLastError"))
