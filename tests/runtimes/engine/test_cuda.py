"""CUDA through an imitation of pycuda.driver, and the search for the CUDA runtime.

The imitation follows pycuda's documentation ("Device Interface") for Device, Stream, Event, mem_alloc,
pagelocked_empty and memcpy_*_async; its device memory is host memory.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import inspect
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from cnnx.errors import EnvironmentLacks, MissingExtra
from cnnx.runtimes import BuildOptions, BuildRequest, RunOptions, device
from cnnx.runtimes.engine import cuda, cudart
from cnnx.runtimes.engine.cuda import PycudaRuntime
from cnnx.runtimes.trt.runtime import TrtRuntime
from tests.doubles.imitated_trt import ImitatedBindings


class Driver:
    """pycuda.driver on a machine with one GPU; `room` is the maximum size of an allocation, in bytes."""

    class Error(Exception):
        pass

    class MemoryError(Error):  # noqa: A001
        pass

    def __init__(self, *, devices: int = 1, room: int = 1 << 20) -> None:
        self.contexts: list[str] = []
        self.ready = False
        self.queue: list = []
        self.now_ms = 0.0
        self.held: dict[int, object] = {}
        driver = self

        class Context:
            @staticmethod
            def synchronize():
                for work in driver.queue:
                    work()
                driver.queue.clear()

            def push(self):
                driver.contexts.append("primary")

            def pop(self):
                driver.contexts.pop()

        class Device:
            def __init__(self, number):
                assert driver.ready and number == 0

            @staticmethod
            def count():
                return devices

            def name(self):
                return "host"

            def compute_capability(self):
                return (8, 7)

            def retain_primary_context(self):
                """Unlike make_context, this does not make the context current."""
                return Context()

        class Stream:
            def __init__(self):
                assert driver.contexts
                self.handle = id(self)
                driver.held[self.handle] = None

            def synchronize(self):
                for work in driver.queue:
                    work()
                    driver.now_ms += 1e-3
                driver.queue.clear()

        class Event:
            def record(self, stream=None):
                vars(self).pop("passed", None)
                driver.queue.append(lambda: setattr(self, "passed", driver.now_ms))
                return self

            def synchronize(self):
                while not hasattr(self, "passed"):
                    driver.queue.pop(0)()
                    driver.now_ms += 1e-3

            def time_since(self, event):
                """Milliseconds; works only after the GPU has reached both events."""
                return self.passed - event.passed

        class DeviceAllocation:
            def __init__(self, nbytes):
                assert nbytes > 0  # CUDA: an allocation of nothing is an invalid value
                if nbytes > room:
                    raise Driver.MemoryError("cuMemAlloc failed: out of memory")
                self._memory = ctypes.create_string_buffer(nbytes)
                driver.held[int(self)] = self

            def __int__(self):
                return ctypes.addressof(self._memory)

            def free(self):
                del driver.held[int(self)]

        self.Context = Context
        self.Device, self.Stream, self.Event, self.mem_alloc = Device, Stream, Event, DeviceAllocation

    def init(self):
        self.ready = True

    def pagelocked_empty(self, shape, dtype):
        assert shape > 0
        held = ctypes.create_string_buffer(shape * np.dtype(dtype).itemsize)
        key = ctypes.addressof(held)
        self.held[key] = held
        array = np.frombuffer(held, dtype)
        # numpy arrays have their owner as `base`; the owner in pycuda has free().
        owner = types.SimpleNamespace(free=lambda: self.held.pop(key))

        class View:
            base = owner

            def __getitem__(self, part):
                return array[part]

        return View()

    def memcpy_htod_async(self, dest, src, stream):
        self.queue.append(lambda: ctypes.memmove(int(dest), src.ctypes.data, src.nbytes))

    def memcpy_dtoh_async(self, dest, src, stream):
        self.queue.append(lambda: ctypes.memmove(dest.ctypes.data, int(src), dest.nbytes))

    def memcpy_dtoh(self, dest, src):
        """Waits for the copy, but not for work queued on other streams."""
        ctypes.memmove(dest.ctypes.data, int(src), dest.nbytes)

    def enqueue(self, work):
        self.queue.append(lambda: work(self.now_ms))


class WithPycuda(ImitatedBindings):
    """Imitated TensorRT whose kernels are queued on pycuda's streams."""

    def __init__(self, driver: Driver) -> None:
        super().__init__()
        self.pycuda = PycudaRuntime(driver)
        self.device.held, self.device.enqueue = driver.held, driver.enqueue

    def cuda(self):
        return self.pycuda


@pytest.fixture
def built(net, tmp_path):
    def build(driver):
        bindings = WithPycuda(driver)
        asked = BuildRequest("fp32", {}, batch=(1, 2, 4), options=BuildOptions())
        (engine,) = TrtRuntime(bindings).build(net("fp32", batch="N"), asked)
        (tmp_path / "model.engine").write_bytes(engine.plan)
        return bindings

    return build


def test_an_engine_runs_in_the_primary_context(built, tmp_path, images):
    driver = Driver()
    runtime = TrtRuntime(built(driver))
    session = runtime.open(tmp_path / "model.engine")
    before = len(driver.held)
    first = session.run(images)["logits"]
    times = session.timed_run(images[:3])
    assert (times.h2d_ns, times.compute_ns, times.d2h_ns) == pytest.approx((2000, 2000, 2000), abs=2)
    np.testing.assert_array_equal(session.run(images)["logits"], first)
    assert len(driver.held) == before
    session.close()
    assert driver.contexts == ["primary"]  # retained once, and no other context
    assert set(driver.held.values()) == {None}  # streams are freed with their last reference


def test_cuda_graphs_are_not_supported(built, tmp_path):
    runtime = TrtRuntime(built(Driver()))
    with pytest.raises(EnvironmentLacks, match="pycuda does not support them"):
        runtime.open(tmp_path / "model.engine", RunOptions(cuda_graph=True))
    with pytest.raises(EnvironmentLacks, match="pycuda does not support CUDA graphs"):
        PycudaRuntime(Driver()).capture(None, lambda: None)


def test_device_memory_is_read_after_all_that_is_queued(built):
    """On any stream: pycuda wraps none that it did not make."""
    driver = Driver()
    cuda = PycudaRuntime(driver)
    buffer, stream = cuda.buffer(3, np.float32), cuda.stream()
    buffer.host[:] = (1, 2, 3)
    buffer.upload(3, stream)
    found = np.frombuffer(cuda.read(buffer.address, 12, 7), np.float32)
    np.testing.assert_array_equal(found, (1, 2, 3))


def test_too_little_memory_has_a_hint(built, tmp_path):
    bindings = built(Driver(room=64))
    with pytest.raises(EnvironmentLacks, match="out of memory") as caught:
        TrtRuntime(bindings).open(tmp_path / "model.engine")
    assert "smaller batch" in caught.value.hint


def test_a_failed_host_allocation_frees_the_device_memory():
    class Small(Driver):
        def pagelocked_empty(self, shape, dtype):
            raise self.MemoryError("cuMemHostAlloc failed: out of memory")

    driver = Small()
    with pytest.raises(EnvironmentLacks, match="out of memory"):
        PycudaRuntime(driver).buffer(10, np.float32)
    assert not driver.held


def test_a_buffer_may_be_of_nothing():
    driver = Driver()
    buffer = PycudaRuntime(driver).buffer(0, np.float32)
    assert buffer.host.size == 0
    buffer.free()
    assert not driver.held


def test_the_context_is_released_when_the_process_ends(monkeypatch):
    at_the_end = []
    monkeypatch.setattr(cuda.atexit, "register", at_the_end.append)
    driver = Driver()
    runtime = PycudaRuntime(driver)
    assert (runtime.compute_capability(), runtime.device_name()) == (87, "host")
    assert driver.contexts == ["primary"]
    for work in at_the_end:
        work()
    assert driver.contexts == []


def test_no_gpu_and_no_driver():
    assert PycudaRuntime(Driver()).why_not() is None
    assert "no CUDA-capable device" in PycudaRuntime(Driver(devices=0)).why_not()

    class Broken(Driver):
        def init(self):
            raise self.Error("cuInit failed: no CUDA-capable device is detected")

    assert "cuInit failed" in PycudaRuntime(Broken()).why_not()


@pytest.mark.skipif(importlib.util.find_spec("pycuda") is not None, reason="pycuda is installed here")
def test_without_pycuda_the_extra_is_named():
    assert isinstance(cuda.missing(), MissingExtra)
    with pytest.raises(MissingExtra, match="pycuda"):
        PycudaRuntime()


def test_a_pycuda_that_does_not_load_is_reported(monkeypatch):
    monkeypatch.setattr(cuda, "missing", lambda: None)
    monkeypatch.setitem(sys.modules, "pycuda", None)
    with pytest.raises(EnvironmentLacks, match="installed but does not load"):
        PycudaRuntime()


@pytest.mark.parametrize("library", [cudart, cuda])
@pytest.mark.parametrize("what", ["Stream", "Buffer", "Event", "Cuda"])
def test_both_libraries_have_the_signatures_of_the_protocol(library, what):
    theirs = {("cudart", "Cuda"): "CudaRuntime", ("cuda", "Cuda"): "PycudaRuntime"}
    kind = getattr(library, theirs.get((library.__name__.rpartition(".")[2], what), what))
    for name, member in vars(getattr(device, what)).items():
        if not name.startswith("_") and callable(member):
            ours = list(inspect.signature(getattr(kind, name)).parameters)
            assert ours == list(inspect.signature(member).parameters), name


class Library:
    """Imitates libcudart (CUDA Runtime API, device and error handling)."""

    def __init__(self, *, devices: int = 1, fails: int = 0) -> None:
        for name in cudart._SIGNATURES:  # each accepts `argtypes`, like ctypes functions
            setattr(self, name, functools.partial(lambda *_: fails))

        def count(pointer):
            pointer._obj.value = devices
            return fails

        def attribute(pointer, which, device):
            assert device == 0  # and 75, 76: cudaDevAttrComputeCapabilityMajor, -Minor
            pointer._obj.value = {75: 8, 76: 7}[which]
            return fails

        def properties(pointer, device):
            ctypes.memmove(pointer, b"Orin\0rest", 9)
            return fails

        self.cudaGetDeviceCount, self.cudaDeviceGetAttribute = count, attribute
        self.cudaGetDeviceProperties = properties
        words = {2: b"out of memory", 35: b"driver too old", 700: b"illegal address"}
        self.cudaGetErrorString = functools.partial(lambda code: words.get(code, b"another error"))


def test_device_and_errors_as_reported_by_the_library(monkeypatch):
    def loaded(**how):
        monkeypatch.setattr(cudart.ctypes, "CDLL", lambda *_, **__: Library(**how))
        return cudart.CudaRuntime(Path("libcudart.so"))

    good = loaded()
    assert (good.why_not(), good.compute_capability(), good.device_name()) == (None, 87, "Orin")
    assert loaded(devices=0).why_not() == "no CUDA-capable device is detected"
    assert loaded(fails=35).why_not() == "driver too old"
    for code, words, hint in (
        (2, "out of memory", "smaller batch"),
        (35, "driver too old", "dmesg"),
        (700, "illegal address", "start it again"),
    ):
        with pytest.raises(EnvironmentLacks, match=f"cudaStreamCreate failed: {words}") as caught:
            loaded(fails=code).stream()
        assert hint in caught.value.hint
    monkeypatch.setattr(cudart.ctypes, "CDLL", lambda *_, **__: object())
    with pytest.raises(EnvironmentLacks, match="not a CUDA runtime, or is too old"):
        cudart.CudaRuntime(Path("libcudart.so"))


# cudaError_t (CUDA Runtime API, data types), by whether "the process must be terminated and relaunched".
STICKY = {
    "ECCUncorrectable": 214, "IllegalAddress": 700, "LaunchTimeout": 702, "HardwareStackError": 714,
    "IllegalInstruction": 715, "MisalignedAddress": 716, "InvalidAddressSpace": 717, "InvalidPc": 718,
    "LaunchFailure": 719, "Contained": 721,
}  # fmt: skip
PASSING = {
    "InvalidValue": 1, "NvlinkUncorrectable": 220, "FileNotFound": 301, "LaunchOutOfResources": 701,
    "LaunchIncompatibleTexturing": 703, "HostMemoryNotRegistered": 713, "CooperativeLaunchTooLarge": 720,
}  # fmt: skip


@pytest.mark.parametrize("name", [*STICKY, *PASSING])
def test_only_an_error_that_ends_the_context_asks_for_a_new_process(monkeypatch, name):
    code = {**STICKY, **PASSING}[name]
    monkeypatch.setattr(cudart.ctypes, "CDLL", lambda *_, **__: Library(fails=code))
    with pytest.raises(EnvironmentLacks) as caught:
        cudart.CudaRuntime(Path("libcudart.so")).stream()
    assert ("start it again" in caught.value.hint) == (name in STICKY)


def test_a_library_that_does_not_load_is_named(tmp_path):
    (tmp_path / "libcudart.so").write_text("no library")
    with pytest.raises(EnvironmentLacks, match="the CUDA runtime does not load") as caught:
        cudart.CudaRuntime(tmp_path / "libcudart.so")
    assert caught.value.where == "libcudart.so" and "LD_LIBRARY_PATH" in caught.value.hint


@pytest.mark.parametrize(("with_gpu", "chosen"), [("second", "second"), ("none", "first")])
def test_the_first_cuda_runtime_that_finds_a_gpu_is_used_or_else_the_first(monkeypatch, with_gpu, chosen):
    """A runtime newer than the driver finds none."""
    loaded = {}

    def load(name, **_):
        if str(name) == "broken":
            raise OSError("wrong ELF class")
        loaded[str(name)] = Library(devices=int(with_gpu in str(name)))
        return loaded[str(name)]

    monkeypatch.setattr(cudart.ctypes, "CDLL", load)
    monkeypatch.setattr(cudart, "_candidates", lambda: map(Path, ("broken", "first", "second", "third")))
    assert cudart.load_cudart()._library is loaded[chosen]
    monkeypatch.setattr(cudart, "_candidates", lambda: [Path("broken")] * 2)
    with pytest.raises(EnvironmentLacks, match=r"no CUDA runtime.*was found: .*wrong ELF class") as caught:
        cudart.load_cudart()
    assert "pycuda" in caught.value.hint


def test_a_cuda_runtime_that_is_missing_is_searched_for(monkeypatch, tmp_path):
    """All folders are searched, and the error has the loader's message."""
    monkeypatch.setattr(cudart, "_SONAMES", ("libcudart.so.no-such",))
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    found = [str(path) for path in cudart._candidates()]
    assert "libcudart.so.no-such" in found
    if len(found) == 1:
        with pytest.raises(EnvironmentLacks, match=r"no CUDA runtime.*no-such") as caught:
            cudart.load_cudart()
        assert "LD_LIBRARY_PATH" in caught.value.hint
    (tmp_path / "lib64").mkdir()
    (tmp_path / "lib64/libcudart.so.12").write_bytes(b"")  # without the development package
    assert tmp_path / "lib64/libcudart.so.12" in list(cudart._candidates())
