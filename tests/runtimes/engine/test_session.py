"""The engine session without a GPU, with imitated bindings and a CUDA runtime that uses host memory.

The bindings follow NVIDIA's "TensorRT Python API" for ICudaEngine and IExecutionContext: kernels are queued
on a stream, a shape outside the profile returns False, and a plan that cannot be read returns None. The CUDA
runtime is in host_cuda.py. tests/gpu runs the real ones.
"""

from __future__ import annotations

import contextlib
import ctypes
import types

import numpy as np
import pytest

from cnnx.device import Device
from cnnx.errors import BundleError, EnvironmentLacks, ImageError, UsageError
from cnnx.runtimes import RunOptions
from cnnx.runtimes.engine.session import EngineSession
from tests.doubles.host_cuda import HostCuda


class Log:
    def clear(self):
        pass

    def said(self):
        return "the log"


def bindings(cuda: HostCuda, *, batch: tuple[int, int] | None, dtype=np.float32, room=True):
    """A `trt` with one engine that sums each image's channels.

    `batch` is the smallest and largest batch; None is a fixed batch of 2. Without `room`, the engine is read
    but its context is None.
    """

    class Context:
        def __init__(self):
            self.addresses, self.size, self.ran = {}, -1, 0

        def set_input_shape(self, name, shape):
            low, high = batch or (2, 2)
            if not low <= shape[0] <= high:
                return False
            self.size = shape[0]
            return True

        def get_tensor_shape(self, name):
            return (self.size, 3, 4) if name == "input" else (self.size, 3)

        def set_tensor_address(self, name, address):
            self.addresses[name] = address
            return True

        def execute_async_v3(self, stream_handle):
            def view(name, kind):
                shape = self.get_tensor_shape(name)
                nbytes = int(np.prod(shape)) * np.dtype(kind).itemsize
                memory = (ctypes.c_byte * nbytes).from_address(self.addresses[name])
                return np.frombuffer(memory, kind).reshape(shape)

            assert stream_handle in cuda.held
            self.ran += 1
            logits, images = view("logits", dtype), view("input", np.float32)
            cuda.enqueue(lambda: np.copyto(logits, images.sum(axis=2)))
            return True

    class Engine:
        num_io_tensors = 2

        def get_tensor_name(self, index):
            return ("input", "logits")[index]

        def get_tensor_mode(self, name):
            return name

        def get_tensor_dtype(self, name):
            return np.float32 if name == "input" else dtype

        def get_tensor_shape(self, name):
            return (-1 if batch else 2, 3, 4)

        def get_tensor_profile_shape(self, name, profile_index):
            low, high = batch
            return [(low, 3, 4), (low, 3, 4), (high, 3, 4)]

        def create_execution_context(self):
            return Context() if room else None

    class Runtime:
        engine_host_code_allowed = False

        def __init__(self, log):
            pass

        def deserialize_cuda_engine(self, plan):
            return Engine() if plan == b"good" else None

    mode = types.SimpleNamespace(INPUT="input")
    return types.SimpleNamespace(Runtime=Runtime, TensorIOMode=mode, nptype=lambda t: t, __version__="9.9")


@pytest.fixture
def opened(tmp_path):
    (tmp_path / "model.engine").write_bytes(b"good")

    def open_(cuda, *, cuda_graph=False, **how):
        trt = bindings(cuda, **how)
        engine = tmp_path / "model.engine"
        return EngineSession(
            engine, trt, cuda=cuda, log=Log(), runtime="rtx", options=RunOptions(cuda_graph=cuda_graph)
        )

    return open_


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("batch", [None, (1, 4), (3, 4)])
def test_any_number_of_images(opened, batch, dtype):
    cuda = HostCuda()
    session = opened(cuda, batch=batch, dtype=dtype)
    assert (session.runtime, session.runtime_version, session.device) == ("rtx", "9.9", Device("gpu", "host"))
    assert session.output_names == ("logits",)
    images = np.random.default_rng(0).integers(-9, 9, (11, 3, 4)).astype(np.float32)
    held = dict(cuda.held)
    earlier = session.run(images[:1])["logits"]
    for count in (11, 2, 1, 4):
        found = session.run(images[:count])["logits"]
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, images[:count].sum(axis=2))
    np.testing.assert_array_equal(earlier, images[:1].sum(axis=2))
    assert cuda.held == held  # runs allocate nothing
    session.close()
    session.close()
    assert not cuda.held
    with pytest.raises(UsageError, match="closed"):
        session.run(images)


def test_a_cuda_graph_runs_what_the_engine_runs_and_is_captured_anew_for_each_batch(opened):
    """Captured once a batch size, after a run that warms up; nothing is left of it at the end."""
    cuda = HostCuda()
    session = opened(cuda, batch=(1, 4), cuda_graph=True)
    images = np.random.default_rng(0).integers(-9, 9, (4, 3, 4)).astype(np.float32)
    executed = []
    for count in (4, 4, 4, 2, 2, 4):
        found = session.run(images[:count])["logits"]
        np.testing.assert_array_equal(found, images[:count].sum(axis=2))
        executed.append(session._context.ran)
    # Each capture needs two runs: the warm-up and the run that is captured.
    assert executed == [2, 2, 2, 4, 4, 6]
    assert cuda.launches == 6
    session.close()
    assert not cuda.held


def test_a_failed_capture_is_reported_and_frees_the_stream(opened):
    cuda = HostCuda()
    session = opened(cuda, batch=None, cuda_graph=True)
    execute, calls = session._context.execute_async_v3, []

    def once(handle):
        calls.append(handle)
        return len(calls) != 2 and execute(handle)

    session._context.execute_async_v3 = once
    with pytest.raises(EnvironmentLacks, match=r"cannot be captured.*did not run"):
        session.run(np.zeros((2, 3, 4), np.float32))
    assert cuda.captured is None
    session.run(np.zeros((2, 3, 4), np.float32))


def test_a_cuda_graph_with_a_library_that_does_not_support_them(opened):
    cuda = HostCuda()
    cuda.captures = False
    with pytest.raises(EnvironmentLacks, match="pycuda does not support them"):
        opened(cuda, batch=None, cuda_graph=True)


@pytest.mark.parametrize("cuda_graph", [False, True])
def test_the_parts_of_a_run_are_timed_separately(opened, cuda_graph):
    """On this device, each queued operation takes a microsecond, including events."""
    cuda = HostCuda()
    session = opened(cuda, batch=(1, 4), cuda_graph=cuda_graph)
    images = np.ones((3, 3, 4), np.float32)
    times = [session.timed_run(images) for _ in range(3)]
    held = dict(cuda.held)
    times.append(session.timed_run(images))
    assert cuda.held == held  # events are created once
    for found in times:
        # Between two events: the event itself and one copy or kernel.
        assert (found.h2d_ns, found.compute_ns, found.d2h_ns) == pytest.approx((2000, 2000, 2000), abs=2)
        assert found.latency_ns == found.h2d_ns + found.compute_ns + found.d2h_ns
        assert found.enqueue_ns > 0
    np.testing.assert_array_equal(session.run(images)["logits"], images.sum(axis=2))
    session.close()
    assert not cuda.held


def test_a_timed_run_is_one_batch(opened):
    ranged, fixed = opened(HostCuda(), batch=(2, 4)), opened(HostCuda(), batch=None)
    for session, count, hint in (
        (ranged, 5, "2 to 4"),
        (ranged, 1, "2 to 4"),
        (fixed, 1, "2"),
        (fixed, 3, "2"),
    ):
        with pytest.raises(UsageError, match="not one batch") as caught:
            session.timed_run(np.zeros((count, 3, 4), np.float32))
        assert caught.value.hint == f"pass {hint} images"
    with pytest.raises(ImageError):
        fixed.timed_run(np.zeros((2, 3, 5), np.float32))
    fixed.close()
    with pytest.raises(UsageError, match="closed"):
        fixed.timed_run(np.zeros((2, 3, 4), np.float32))


def test_images_and_batches_that_do_not_fit(opened):
    session = opened(HostCuda(), batch=(2, 4))
    with pytest.raises(ImageError):
        session.run(np.zeros((2, 3, 5), np.float32))
    with pytest.raises(UsageError, match="batch of 1: the log"):
        session.layer_times(np.zeros((1, 3, 4), np.float32), runs=1)


def test_an_engine_that_needs_a_plugin(opened, tmp_path, monkeypatch):
    (tmp_path / "model.engine").write_bytes(b"bad")
    monkeypatch.setattr(Log, "said", lambda _: "IPluginCreator not found in Plugin Registry")
    with pytest.raises(BundleError, match="IPluginCreator") as caught:
        opened(HostCuda(), batch=None)
    assert "plugin" in caught.value.hint


@pytest.mark.parametrize(
    "plan, room, said",
    [
        (b"good", False, "the log"),
        (b"bad", True, "[defaultAllocator.cpp] Error Code 1: Cuda Runtime (out of memory)"),
    ],
)
def test_too_little_memory_is_not_reported_as_a_foreign_engine(
    opened, tmp_path, monkeypatch, plan, room, said
):
    (tmp_path / "model.engine").write_bytes(plan)
    monkeypatch.setattr(Log, "said", lambda _: said)
    cuda = HostCuda()
    with pytest.raises(EnvironmentLacks) as caught:
        opened(cuda, batch=None, room=room)
    assert said in caught.value.what and "smaller --batch" in caught.value.hint
    assert not cuda.held


def test_too_little_memory_leaks_none(opened):
    for room in range(1, 200, 8):
        cuda = HostCuda(room)
        with contextlib.suppress(EnvironmentLacks):
            opened(cuda, batch=(1, 4)).close()
        assert not cuda.held


def test_an_engine_that_is_not_accepted(opened, tmp_path):
    (tmp_path / "model.engine").write_bytes(b"bad")
    with pytest.raises(BundleError, match="does not accept the engine: the log"):
        opened(HostCuda(), batch=None)
