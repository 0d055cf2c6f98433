"""CUDA through pycuda, over an imitation of pycuda.driver, and finding the CUDA runtime.

The imitation does what pycuda's documentation ("Device Interface") says of Device, Stream, Event, mem_alloc,
pagelocked_empty and memcpy_*_async; its device memory is host memory.
"""

from __future__ import annotations

import ctypes
import importlib.util
import inspect
import types

import numpy as np
import pytest
from imitated_trt import ImitatedBindings

from cnnx.errors import EnvironmentLacks, MissingExtra
from cnnx.runtimes import BuildOptions, BuildRequest, RunOptions, device
from cnnx.runtimes.engine import cuda, cudart
from cnnx.runtimes.engine.cuda import PycudaRuntime
from cnnx.runtimes.trt.runtime import TrtRuntime


class Driver:
    """pycuda.driver on a machine with one GPU; `room` bytes are the most that one allocation gets."""

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
                """Unlike make_context, it is not made current."""
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
                driver.queue.append(lambda: setattr(self, "passed", driver.now_ms))
                return self

            def time_since(self, event):
                """In milliseconds; only where both events have passed."""
                return self.passed - event.passed

        class DeviceAllocation:
            def __init__(self, nbytes):
                if nbytes > room:
                    raise Driver.MemoryError("cuMemAlloc failed: out of memory")
                self._memory = ctypes.create_string_buffer(nbytes)
                driver.held[int(self)] = self

            def __int__(self):
                return ctypes.addressof(self._memory)

            def free(self):
                del driver.held[int(self)]

        self.Device, self.Stream, self.Event, self.mem_alloc = Device, Stream, Event, DeviceAllocation

    def init(self):
        self.ready = True

    def pagelocked_empty(self, shape, dtype):
        held = ctypes.create_string_buffer(shape * np.dtype(dtype).itemsize)
        key = ctypes.addressof(held)
        self.held[key] = held
        array = np.frombuffer(held, dtype)
        # numpy's arrays refer to their owner as base; pycuda's owner has free().
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

    def enqueue(self, work):
        self.queue.append(work)


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
    assert driver.contexts == ["primary"]  # retained once, and never another
    assert set(driver.held.values()) == {None}  # streams go with their last reference


def test_graphs_are_not_to_be_had(built, tmp_path):
    runtime = TrtRuntime(built(Driver()))
    with pytest.raises(EnvironmentLacks, match="pycuda has none"):
        runtime.open(tmp_path / "model.engine", RunOptions(cuda_graph=True))
    with pytest.raises(EnvironmentLacks, match="no CUDA graphs"):
        PycudaRuntime(Driver()).capture(None, lambda: None)


def test_too_little_memory_is_ours_to_say(built, tmp_path):
    bindings = built(Driver(room=64))
    with pytest.raises(EnvironmentLacks, match="out of memory") as caught:
        TrtRuntime(bindings).open(tmp_path / "model.engine")
    assert "smaller batch" in caught.value.mend


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


@pytest.mark.parametrize("library", [cudart, cuda])
@pytest.mark.parametrize("what", ["Stream", "Buffer", "Event", "Cuda"])
def test_both_libraries_offer_what_the_protocol_asks(library, what):
    theirs = {("cudart", "Cuda"): "CudaRuntime", ("cuda", "Cuda"): "PycudaRuntime"}
    kind = getattr(library, theirs.get((library.__name__.rpartition(".")[2], what), what))
    for name, member in vars(getattr(device, what)).items():
        if not name.startswith("_") and callable(member):
            ours = list(inspect.signature(getattr(kind, name)).parameters)
            assert ours == list(inspect.signature(member).parameters), name


def test_a_cuda_runtime_that_is_not_there_is_asked_for(monkeypatch, tmp_path):
    """Every place is looked at, and the words of the loader are kept."""
    monkeypatch.setattr(cudart, "_SONAMES", ("libcudart.so.no-such",))
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    found = [str(place) for place in cudart._candidates()]
    if found == ["libcudart.so.no-such"]:
        with pytest.raises(EnvironmentLacks, match=r"no CUDA runtime.*no-such") as caught:
            cudart.load_cudart()
        assert "LD_LIBRARY_PATH" in caught.value.mend
    (tmp_path / "lib64").mkdir()
    (tmp_path / "lib64/libcudart.so").write_bytes(b"")
    assert tmp_path / "lib64/libcudart.so" in list(cudart._candidates())
