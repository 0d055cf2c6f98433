"""Memory that one network takes, measured in a process that does nothing else.

In a process that has measured before, allocators keep what they were given and hand it out again: a second
network seems to take nothing. So each is opened and run once in a Python of its own.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cnnx import runtimes
from cnnx.machine.environment import first_gpu
from cnnx.machine.isolated import python_process
from cnnx.measure.memory import MemoryUse, peak_memory, resident_bytes

_ROOT = Path("/")
_TIME_LIMIT_S = 600
# Jetson's allocations by process, for root: "user  python3  4242  204800K", as jetson_stats reads it
# (jtop/core/processes.py). Not seen on hardware by us.
_NVMAP = "sys/kernel/debug/nvmap/iovmm/maps"


@dataclass(frozen=True, slots=True)
class GpuMemory:
    """Memory of the GPU at one moment, in bytes; None: not known, never 0.

    Attributes:
        process: this process's, by NVML; None where NVML does not tell, as in a container or on Jetson.
        device: in use by all on the device, by NVML; None on Jetson, whose memory is the CPU's.
        available: MemAvailable of a Jetson, whose CPU and GPU share memory; None elsewhere.
        nvmap: this process's, by Jetson's nvmap; None unless root.
    """

    process: int | None
    device: int | None
    available: int | None
    nvmap: int | None


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a network takes in a process of its own, in bytes; None: not known, never 0.

    Attributes:
        host: of the process, once libraries (and CUDA's context) were there, while the network was opened
            and run.
        libraries_bytes: the host's, that the runtime's libraries and CUDA's context took before.
        context_bytes: the GPU's, of CUDA's context and the libraries' code before any network was there; None
            for ONNX Runtime, which makes its context with the session.
        gpu_bytes: the GPU's, of the whole process with CUDA's context: by NVML's list of processes, by
            nvmap, else by what the device had more in use afterwards.
        shared_bytes: on Jetson, by how much MemAvailable fell: CPU and GPU together, and whatever else
            the system did meanwhile.
        scratch_bytes: activations of one context, as the engine tells it.
        io_bytes: inputs and outputs on the device, likewise.
        failed: why the process that was to measure did not come to its end; nothing is known then.
    """

    host: MemoryUse
    libraries_bytes: int | None = None
    context_bytes: int | None = None
    gpu_bytes: int | None = None
    shared_bytes: int | None = None
    scratch_bytes: int | None = None
    io_bytes: int | None = None
    failed: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Plain data, flat."""
        data = dataclasses.asdict(self)
        return {**data.pop("host"), "added_bytes": self.host.added_bytes, **data}

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Footprint:
        """What `as_dict` described."""
        host = MemoryUse(*(data[f.name] for f in dataclasses.fields(MemoryUse)))
        rest = [f.name for f in dataclasses.fields(Footprint) if f.name != "host"]
        return Footprint(host, **{name: data[name] for name in rest})


def measure_footprint(
    runtime: str, file: Path, shape: tuple[int, ...], options: runtimes.RunOptions
) -> Footprint:
    """Open and run a network once in a process of its own.

    Args:
        runtime: its name in `cnnx.runtimes.NAMES`.
        file: what the runtime opens: the caller has checked its hash.
        shape: of one batch, (N, C, H, W).
        options: as for `Runtime.open`.

    Returns:
        where that process fails, as where memory does not suffice for a second copy, all unknown and why.
    """
    how = dataclasses.asdict(options)
    request = {"runtime": runtime, "file": str(file), "shape": shape, "options": how}
    command, environment = python_process("cnnx.measure.footprint_process", json.dumps(request))
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=_TIME_LIMIT_S,
            env=environment,
            check=True,
        )
        return Footprint.from_dict(json.loads(done.stdout))
    except subprocess.CalledProcessError as error:
        said = error.stderr.strip().splitlines()
        # A negative status is the signal that ended it: 9 from a kernel that is out of memory.
        why = (
            f"signal {-error.returncode}" if error.returncode < 0 else said[-1] if said else "no reason given"
        )
    except subprocess.TimeoutExpired:
        why = f"it took longer than {_TIME_LIMIT_S} s"
    except (OSError, ValueError, KeyError) as error:
        why = f"its answer cannot be read: {error}"
    return Footprint(MemoryUse(None, None, None), failed=why)


def footprint_here(request: Mapping[str, Any]) -> Footprint:
    """Do what `measure_footprint` asks, in this process, which should not have done anything else."""
    images = np.zeros(request["shape"], np.float32)
    start, before = resident_bytes(), gpu_memory()
    runtime = runtimes.get(request["runtime"])
    runtime.load()
    loaded = gpu_memory()

    def work() -> runtimes.Session:
        session = runtime.open(Path(request["file"]), runtimes.RunOptions(**request["options"]))
        getattr(session, "timed_run", session.run)(images)
        return session

    session, host = peak_memory(work)
    after = gpu_memory()
    scratch, io = (getattr(session, name, None) for name in ("scratch_bytes", "io_bytes"))
    session.close()
    then = host.before_bytes
    return Footprint(
        host=host,
        libraries_bytes=None if start is None or then is None else then - start,
        context_bytes=_of_gpu(before, loaded),
        gpu_bytes=_of_gpu(before, after),
        shared_bytes=_difference(before.available, after.available),
        scratch_bytes=scratch,
        io_bytes=io,
    )


def gpu_memory(root: Path = _ROOT, *, nvml: Any = None, pid: int | None = None) -> GpuMemory:
    """Look at the GPU's memory now. Raises nothing.

    Args:
        root: where the file system starts; tests give a tree of their own.
        nvml: a module with pynvml's functions; None: pynvml.
        pid: of the process; None: this one.
    """
    own = os.getpid() if pid is None else pid
    with first_gpu(nvml) as gpu:
        info = gpu.ask("nvmlDeviceGetMemoryInfo") if gpu else None
        questions = ("nvmlDeviceGetComputeRunningProcesses", "nvmlDeviceGetGraphicsRunningProcesses")
        listed = [one for question in questions for one in ((gpu and gpu.ask(question)) or ())]
    # One that computes and draws is in both lists, with the same memory.
    mine = [one.usedGpuMemory for one in listed if one.pid == own and one.usedGpuMemory]
    jetson = (root / "etc/nv_tegra_release").exists()
    available = _found(root / "proc/meminfo", r"^MemAvailable:\s*(\d+) kB") if jetson else None
    nvmap = _found(root / _NVMAP, rf"^\s*\S+\s+\S+\s+{own}\s+(\d+)K\s*$")
    return GpuMemory(
        process=max(mine, default=None),
        device=int(info.used) if info else None,
        available=available,
        nvmap=nvmap,
    )


def _of_gpu(before: GpuMemory, after: GpuMemory) -> int | None:
    if after.process is not None:
        return after.process
    if after.nvmap is not None:
        return after.nvmap
    return _difference(after.device, before.device)


def _difference(more: int | None, less: int | None) -> int | None:
    """None where nothing can be said: below nothing, others gave memory back meanwhile."""
    return more - less if more is not None and less is not None and more > less else None


def _found(file: Path, pattern: str) -> int | None:
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    found = re.search(pattern, text, re.MULTILINE)
    return int(found[1]) * 1024 if found else None
