"""Probes of CUDA: what is here, how runs are timed, what errors say and what they leave behind."""

from __future__ import annotations

import ctypes
import itertools
import platform
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

import cnnx
from cnnx import runtimes
from cnnx.errors import CnnxError, EnvironmentLacks
from cnnx.machine.environment import detect_gpu, installed_version
from cnnx.runtimes import BuildRequest, RunOptions, RunTimes, TimedSession
from cnnx.runtimes.engine.cudart import CudaRuntime
from tools.check.probes import copies, graphs
from tools.check.probes.probe import Machine, Tell, last_error, words_of

_NUMBERS = 1 << 20
# Far more than any GPU has.
_TOO_MUCH = 1 << 46
_SHAPES = ((1, 3, 32, 32), (1, 3, 224, 224), (32, 3, 224, 224))
# Copies in a run, of about 20 us each.
_LOADS, _COPY_NS = (1, 5, 20, 100), 20_000
_RUNS = 200
# From here on, a time of the host that is left in the time of the GPU would be a fault.
_JUDGED_NS, _BIAS = 300_000, 0.03
_OUT_OF_MEMORY, _FORBIDDEN = "out of memory", "not permitted when stream is capturing"


def smoke(machine: Machine, tell: Tell) -> None:
    """Whether CUDA and NVML speak of the same GPU, and a copy there and back is the same."""
    cuda = machine.cuda()
    name, capability = cuda.device_name(), cuda.compute_capability()
    tell("GPU", name)
    tell("compute capability", capability)
    for function in ("cudaRuntimeGetVersion", "cudaDriverGetVersion"):
        tell(function, _integer(cuda, function))
    gpu = detect_gpu(machine.nvml)
    said = gpu and {"name": gpu.name, "capability": gpu.compute_capability, "remark": gpu.remark}
    same = None if gpu is None else (gpu.name, gpu.compute_capability) == (name, capability)
    tell("NVML's GPU", said, holds=same, expected="CUDA's")
    tell("driver", gpu and {"version": gpu.driver, "cuda": gpu.cuda})
    tell("a copy there and back", returned := _returns(cuda), holds=returned, expected="the same numbers")
    packages = ("onnx", "onnxruntime", "tensorrt", "tensorrt_rtx")
    versions = {"python": platform.python_version(), "numpy": np.__version__, "cnnx": cnnx.__version__}
    tell("versions", versions | {package: installed_version(package) for package in packages})
    for runtime in runtimes.NAMES:
        tell(f"{runtime} runs here", str(runtimes.get(runtime).cannot_run() or "yes"))


def _integer(cuda: CudaRuntime, function: str) -> int | str:
    found = ctypes.c_int()
    return words_of(lambda: cuda.call(function, ctypes.byref(found))) or found.value


def _returns(cuda: CudaRuntime) -> bool:
    """Whether numbers are the same after a copy to the device and back."""
    numbers = np.random.default_rng(0).random(_NUMBERS, np.float32)
    buffer, stream = cuda.buffer(_NUMBERS, np.float32), cuda.stream()
    buffer.host[:] = numbers
    buffer.upload(_NUMBERS, stream)
    stream.synchronize()
    buffer.host[:] = 0
    buffer.download(_NUMBERS, stream)
    stream.synchronize()
    same = bool((buffer.host == numbers).all())
    buffer.free()
    stream.free()
    return same


def queueing(machine: Machine, tell: Tell) -> None:
    """How much of the host's time is in the time of the GPU, alone and with runs queued two deep."""
    cuda = machine.cuda()
    unit = copies.of_time(cuda, _COPY_NS, most=machine.most_bytes)
    runs = max(10, int(_RUNS / machine.speed))
    tell("a copy", {"bytes": unit.nbytes, "us": unit.ns(100) / 1e3})
    for count in _LOADS:
        known = unit.ns(1000) * count
        for shape, graph in itertools.product(_SHAPES, (False, True)):
            images = np.zeros(shape, np.float32)
            queue = _queue(unit, count)
            with copies.session(cuda, queue, shape, cuda_graph=graph) as session:
                found = _timed(session, images, runs)
            biases = {how: found[how]["median_us"] * 1e3 / known - 1 for how in ("alone", "queued")}
            how = "as a CUDA graph" if graph else "launched"
            judged = None if known < _JUDGED_NS else abs(biases["queued"]) <= _BIAS
            tell(
                f"{count} copies, {'x'.join(map(str, shape))}, {how}",
                {"us": known / 1e3, "bias": biases, **found},
                holds=judged,
                expected=f"queued: within {_BIAS:.0%} of many in a row",
            )
    unit.free()
    for name in ("tensorrt", "rtx"):
        _engine(runtimes.get(name), runs, tell)


def _queue(unit: copies.Copies, count: int) -> Callable[[int], None]:
    return lambda stream: unit.queue(stream, count)


def _timed(session: TimedSession, images: Any, runs: int) -> dict[str, Any]:
    """Times of the GPU for runs that are alone in the queue, and for runs that are not."""
    alone = [session.timed_run(images) for _ in range(runs)]
    return {"alone": _summary(alone), "queued": _summary(session.timed_series(images, runs).runs)}


def _summary(times: Sequence[RunTimes]) -> dict[str, float]:
    """Median, and how far times are apart: all of them (of the mean), and the middle nine tenths."""
    compute = np.array([each.compute_ns for each in times]) / 1e3
    median = float(np.median(compute))
    low, high = np.percentile(compute, (5, 95))
    return {
        "median_us": median,
        "variation": float(compute.std() / compute.mean()),
        "p5_to_p95": float((high - low) / median),
        "enqueue_us": statistics.median(each.enqueue_ns for each in times) / 1e3,
        "h2d_us": statistics.median(each.h2d_ns for each in times) / 1e3,
    }


def _engine(runtime: runtimes.Runtime, runs: int, tell: Tell) -> None:
    """The same with an engine of a small network, and whether it computes what ONNX defines."""
    if (reason := runtime.cannot_run()) is not None:
        tell(f"an engine of {runtime.name}", str(reason))
        return
    images = np.random.default_rng(0).random(graphs.SHAPE, np.float32)
    with tempfile.TemporaryDirectory() as folder:
        graph = graphs.write(Path(folder) / "model.onnx")
        (built,) = runtime.build(graph, BuildRequest("fp32", dict.fromkeys(graphs.LAYERS, "fp32")))
        file = Path(folder) / built.file_name
        file.write_bytes(built.plan)
        for captured in (False, True):
            with closing(runtime.open(file, RunOptions(cuda_graph=captured))) as session:
                assert runtimes.queues(session), "engines queue runs"
                logits = session.run(images)["logits"]
                far = float(np.abs(logits - graphs.logits(images)).max() / np.abs(logits).max())
                how = "as a CUDA graph" if captured else "launched"
                found = {"furthest": far, **_timed(session, images, runs)}
                words = "outputs within 1 % of ONNX's reference"
                tell(f"an engine of {runtime.name}, {how}", found, holds=far < 0.01, expected=words)


def errors(machine: Machine, tell: Tell) -> None:
    """What CUDA's errors say, and that work goes on after them."""
    cuda = machine.cuda()
    unit = copies.Copies(cuda, 1 << 16)
    queue = _queue(unit, 3)

    def after(what: str) -> None:
        tell(f"last error after {what}", last_error(cuda), holds=not last_error(cuda), expected="none")
        tell(f"a copy after {what}", returned := _returns(cuda), holds=returned, expected="the same numbers")

    _refused(tell, "too much memory", lambda: cuda.buffer(_TOO_MUCH, np.uint8), _OUT_OF_MEMORY)
    after("too much memory")
    stream = cuda.stream()

    def allocate() -> None:
        cuda.buffer(1, np.uint8).free()

    for what, work in (("an allocation", allocate), ("a wait", stream.synchronize)):
        _refused(tell, f"{what} in a capture", lambda work=work: cuda.capture(stream, work), _FORBIDDEN)
        after(f"{what} in a capture")
    stream.free()

    def forbidden(handle: int) -> None:
        queue(handle)
        if capturing:
            allocate()

    images, capturing = np.zeros(_SHAPES[0], np.float32), False
    with copies.session(cuda, forbidden, images.shape, cuda_graph=True) as session:
        capturing = True
        _refused(tell, "a session that cannot be captured", lambda: session.run(images), "CUDA graph")
    after("a session that cannot be captured")
    capturing = False
    for graph in (False, True):
        with copies.session(cuda, queue, images.shape, cuda_graph=graph) as session:
            said = words_of(lambda session=session: session.timed_series(images, 10))
        how = "with" if graph else "without"
        tell(f"a session after all of them, {how} a CUDA graph", said, holds=not said, expected="runs")
    unit.free()


def _refused(tell: Tell, what: str, work: Callable[[], object], words: str) -> None:
    try:
        work()
        said, hint = "no error", ""
    except EnvironmentLacks as error:
        said, hint = error.what, error.hint or ""
    tell(what, {"error": said, "hint": hint}, holds=words in said, expected=words)


def sticky(machine: Machine, tell: Tell) -> None:
    """An error that ends a process's CUDA work: what it says, and that the next process has none of it."""
    found = machine.child("illegal", {})
    tell("an illegal address", found, holds="error" not in found, expected="found in a process of its own")
    if "error" not in found:
        for name in ("wait", "later"):
            right = "illegal" in found[name] and "start it again" in found[name]
            tell(f"what cnnx says: {name}", found[name], holds=right, expected="the error, and that it stays")
        tell("closing the session", found["close"], holds=not found["close"], expected="no error")
    returned = _returns(machine.cuda())
    tell("a copy in another process", returned, holds=returned, expected="the same numbers")


def visible(machine: Machine, tell: Tell) -> None:
    """What cnnx sees with CUDA_VISIBLE_DEVICES."""
    nvml = machine.questions()
    try:
        nvml.nvmlInit()
        uuid = nvml.nvmlDeviceGetUUID(nvml.nvmlDeviceGetHandleByIndex(0))
        uuid = uuid.decode() if isinstance(uuid, bytes) else uuid
    except Exception as error:
        tell("UUID", f"{type(error).__name__}: {error}")
        uuid = None
    whole = machine.child("seen", {})
    tell("as it is", whole)
    for value, sees in {"0": True, **({uuid: True} if uuid else {}), "": False, "-1": False}.items():
        found = machine.child("seen", {"CUDA_VISIBLE_DEVICES": value})
        name = found.get("name") if sees else found.get("why_not")
        right = bool(name) and "error" not in found
        expected = "a GPU" if sees else "no GPU, and why"
        tell(f"CUDA_VISIBLE_DEVICES={value}", found, holds=right, expected=expected)


def seen(cuda: CudaRuntime, *, nvml: Any = None, bus_id: str | None = None) -> dict[str, Any]:
    """What cnnx finds in this process: CUDA's GPU, or why there is none, and NVML's."""
    why_not = cuda.why_not()
    gpu = detect_gpu(nvml)
    return {
        "why_not": why_not,
        "name": None if why_not else cuda.device_name(),
        "bus": bus_id,
        "nvml": gpu and {"name": gpu.name, "remark": gpu.remark},
    }


def illegal(cuda: CudaRuntime, launch: Callable[[int], object]) -> dict[str, str]:
    """What cnnx says after a kernel that writes to an illegal address.

    Args:
        cuda: CUDA's runtime.
        launch: queues that kernel on a stream.
    """
    unit = copies.Copies(cuda, 1 << 12)
    images = np.zeros(_SHAPES[0], np.float32)
    broken = False

    def work(handle: int) -> None:
        unit.queue(handle)
        if broken:
            launch(handle)

    with copies.session(cuda, work, images.shape) as session:
        session.run(images)
        broken = True
        wait = words_of(lambda: session.run(images))
        later = words_of(lambda: cuda.buffer(1, np.uint8))
        try:
            session.close()
            close = ""
        except CnnxError as error:
            close = str(error)
    return {"wait": wait, "later": later, "close": close}


PROBES: Mapping[str, Callable[[Machine, Tell], None]] = {
    each.__name__: each for each in (smoke, queueing, errors, sticky, visible)
}
