"""Memory use of a network, measured in a separate process.

In a process that has already measured a network, allocators reuse memory, so a second network appears to need
none. Each network is therefore opened and run once in a new Python process.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cnnx import runtimes
from cnnx.machine.isolated import python_process
from cnnx.machine.nvml import first_gpu
from cnnx.measure.memory import MemoryUse, peak_memory, resident_bytes
from cnnx.runtimes import Images

_ROOT = Path("/")
_TIME_LIMIT_S = 600
_RUNS_TOGETHER = 5
# The first PID namespace has a fixed number: PROC_PID_INIT_INO of Linux's include/linux/proc_ns.h.
_HOSTS_PIDS = f"pid:[{0xEFFFFFFC}]"
# Jetson's allocations by process, readable by root: "user  python3  4242  204800K", as jetson_stats reads it
# (jtop/core/processes.py). Not tested on hardware.
_NVMAP = "sys/kernel/debug/nvmap/iovmm/maps"


@dataclass(frozen=True, slots=True)
class GpuMemory:
    """GPU memory at one moment, in bytes; None if unknown, never 0.

    Attributes:
        process: memory of this process from NVML; None if not reported, as in a container or on Jetson.
        device: memory used by all processes, from NVML; None on Jetson, which shares the CPU's memory.
        available: MemAvailable of a Jetson, whose CPU and GPU share memory; None elsewhere.
        nvmap: memory of this process from Jetson's nvmap; None unless root.
    """

    process: int | None
    device: int | None
    available: int | None
    nvmap: int | None


@dataclass(frozen=True, slots=True)
class Footprint:
    """Memory of a network in a separate process, in bytes; None if unknown, never 0.

    Attributes:
        host: host memory of the process while the network is opened and run, after libraries and CUDA's
            context are loaded.
        libraries_bytes: host memory of the runtime's libraries and CUDA's context.
        context_bytes: GPU memory of CUDA's context and library code before the network is loaded; None for
            ONNX Runtime, which creates its context with the session.
        gpu_bytes: GPU memory of the whole process including CUDA's context: from NVML's list of processes,
            from nvmap, or else the increase of the memory in use on the device.
        shared_bytes: decrease of MemAvailable on Jetson: CPU and GPU together, and other system activity.
        scratch_bytes: activations of all execution contexts, as reported by the engine.
        io_bytes: inputs and outputs on the device, as reported by the sessions.
        failed: why the measuring process failed; all values are unknown then.
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
        """The footprint as flat plain data."""
        data = dataclasses.asdict(self)
        return {**data.pop("host"), "added_bytes": self.host.added_bytes, **data}

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Footprint:
        """Create a footprint from the output of `as_dict`."""
        host = MemoryUse(*(data[f.name] for f in dataclasses.fields(MemoryUse)))
        rest = [f.name for f in dataclasses.fields(Footprint) if f.name != "host"]
        return Footprint(host, **{name: data[name] for name in rest})


def measure_footprint(runtime: str, file: Path, images: Images, options: runtimes.RunOptions) -> Footprint:
    """Measure the memory of a network in a new process that opens it and runs it once.

    Args:
        runtime: name in `cnnx.runtimes.NAMES`.
        file: file that the runtime opens; the caller must have checked its hash.
        images: a batch of the shape and type to run; its values do not matter.
        options: options of `Runtime.open`.

    Returns:
        The footprint. If the process fails, as when memory is too small for a second copy, all values are
        unknown and `failed` has the reason.
    """
    return measure_footprints(runtime, file, images, options, streams=1)[0]


def measure_footprints(
    runtime: str, file: Path, images: Images, options: runtimes.RunOptions, *, streams: int
) -> tuple[Footprint, ...]:
    """Measure the memory of 1, 2 and so on sessions on one loaded network, in one new process.

    The sessions are siblings (`cnnx.runtimes.Session.sibling`) and run at the same time.

    Args:
        streams: largest number of sessions.

    Returns:
        A footprint for each number of sessions. If the process fails, also when the system ends it for lack
        of memory, the last one is that of the number at which it failed, as in `measure_footprint`.
    """
    how = dataclasses.asdict(options)
    request = {"runtime": runtime, "file": str(file), "options": how, "streams": streams}
    request |= {"shape": images.shape, "dtype": str(images.dtype)}
    printed, why = _asked(request)
    # Without a line that was not completed.
    lines = printed[: printed.rfind("\n") + 1].splitlines()
    try:
        found = [Footprint.from_dict(json.loads(line)) for line in lines]
    except (ValueError, KeyError) as error:
        found, why = [], f"the output of the process cannot be read: {error}"
    if len(found) < streams:
        found.append(Footprint(MemoryUse(None, None, None), failed=why or "it measured nothing"))
    return tuple(found)


def _asked(request: Mapping[str, Any]) -> tuple[str, str]:
    """What the process printed, and why it failed; empty if it did not."""
    command, environment = python_process("cnnx.measure.footprint_process", json.dumps(request))
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=_TIME_LIMIT_S,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired as expired:
        return (expired.stdout or b"").decode(
            errors="replace"
        ), f"the process took longer than {_TIME_LIMIT_S} s"
    except OSError as error:
        return "", f"the process cannot be started: {error}"
    if done.returncode == 0:
        return done.stdout, ""
    said = done.stderr.strip().splitlines()
    # A negative status is the signal that ended it, such as 9 if the kernel is out of memory.
    why = f"signal {-done.returncode}" if done.returncode < 0 else said[-1] if said else "no message"
    return done.stdout, why


def footprints_here(request: Mapping[str, Any]) -> Iterator[Footprint]:
    """Run the request of `measure_footprints` in this process, which should not have done anything else."""
    images = np.zeros(request["shape"], request["dtype"])
    start, before = resident_bytes(), gpu_memory()
    runtime = runtimes.get(request["runtime"])
    runtime.load()
    loaded = gpu_memory()
    sessions: list[runtimes.Session] = []

    def work() -> None:
        options = runtimes.RunOptions(**request["options"])
        one = sessions[0].sibling() if sessions else runtime.open(Path(request["file"]), options)
        sessions.append(one)
        getattr(one, "timed_run", one.run)(images)
        if len(sessions) > 1:
            _run_together(sessions, images)

    first: MemoryUse | None = None
    while len(sessions) < request["streams"]:
        _, host = peak_memory(work)
        after = gpu_memory()
        first = first or host
        then = first.before_bytes
        yield Footprint(
            host=dataclasses.replace(host, before_bytes=then),
            libraries_bytes=None if start is None or then is None else then - start,
            context_bytes=_of_gpu(before, loaded),
            gpu_bytes=_of_gpu(before, after),
            shared_bytes=_difference(before.available, after.available),
            scratch_bytes=_sum(sessions, "scratch_bytes"),
            io_bytes=_sum(sessions, "io_bytes"),
        )
    for each in sessions:
        each.close()


def _run_together(sessions: Sequence[runtimes.Session], images: Images) -> None:
    """Run all sessions at the same time for a moment, as some allocate memory for each run in progress."""

    def work(session: runtimes.Session) -> None:
        for _ in range(_RUNS_TOGETHER):
            session.run(images)

    with ThreadPoolExecutor(len(sessions)) as pool:
        for done in [pool.submit(work, session) for session in sessions]:
            done.result()


def _sum(sessions: Sequence[runtimes.Session], name: str) -> int | None:
    """Sum over the sessions; None if they do not report it."""
    found = [getattr(session, name, None) for session in sessions]
    known = [value for value in found if value is not None]
    return sum(known) if known else None


def gpu_memory(root: Path = _ROOT, *, nvml: Any = None, pid: int | None = None) -> GpuMemory:
    """Read the current GPU memory. Never raises.

    Args:
        root: root of the file system; tests pass their own tree.
        nvml: module with pynvml's functions; None for pynvml.
        pid: process ID; None for this process.
    """
    own = os.getpid() if pid is None else pid
    with first_gpu(nvml) as gpu:
        info = gpu.ask("nvmlDeviceGetMemoryInfo") if gpu else None
        questions = ("nvmlDeviceGetComputeRunningProcesses", "nvmlDeviceGetGraphicsRunningProcesses")
        listed = [one for question in questions for one in ((gpu and gpu.ask(question)) or ())]
    # A process that computes and draws is in both lists, with the same memory.
    mine = [one.usedGpuMemory for one in listed if one.pid == own and one.usedGpuMemory]
    if _has_own_pids(root):
        mine = []
    jetson = (root / "etc/nv_tegra_release").exists()
    available = _found(root / "proc/meminfo", r"^MemAvailable:\s*([0-9]{1,15}) kB") if jetson else None
    nvmap = _found(root / _NVMAP, rf"^\s*\S+\s+\S+\s+{own}\s+([0-9]{{1,15}})K\s*$")
    return GpuMemory(
        process=max(mine, default=None),
        device=int(info.used) if info else None,
        available=available,
        nvmap=nvmap,
    )


def _has_own_pids(root: Path) -> bool:
    """Whether process IDs here differ from the host's, which NVML lists; ours may be another process."""
    try:
        return str((root / "proc/self/ns/pid").readlink()) != _HOSTS_PIDS
    except OSError:
        return False


def _of_gpu(before: GpuMemory, after: GpuMemory) -> int | None:
    if after.process is not None:
        return after.process
    if after.nvmap is not None:
        return after.nvmap
    return _difference(after.device, before.device)


def _difference(more: int | None, less: int | None) -> int | None:
    """The difference; None if unknown or not positive, as when other processes freed memory meanwhile."""
    return more - less if more is not None and less is not None and more > less else None


def _found(file: Path, pattern: str) -> int | None:
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    found = re.search(pattern, text, re.MULTILINE)
    return int(found[1]) * 1024 if found else None
