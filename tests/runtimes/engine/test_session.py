"""The engine session without a GPU, with imitated bindings and a CUDA runtime that uses host memory.

The bindings follow NVIDIA's "TensorRT Python API" for ICudaEngine and IExecutionContext: kernels are queued
on a stream, a shape outside the profile returns False, and a plan that cannot be read returns None. The CUDA
runtime is in host_cuda.py. tests/gpu runs the real ones.
"""

from __future__ import annotations

import contextlib
import ctypes
import time
import types

import numpy as np
import pytest

from cnnx.device import Device
from cnnx.errors import BundleError, EnvironmentLacks, ImageError, UsageError
from cnnx.runtimes import RunOptions
from cnnx.runtimes.engine.session import EngineSession
from tests.doubles.host_cuda import ILLEGAL_ADDRESS, HostCuda


class Log:
    def clear(self):
        pass

    def said(self):
        return "the log"


STRATEGY = "dynamic_shapes_kernel_specialization_strategy"


def bindings(cuda: HostCuda, *, batch: tuple[int, int] | None, dtype=np.float32, room=True, rtx=False):
    """A `trt` with one engine that sums each image's channels.

    `batch` is the smallest and largest batch; None is a fixed batch of 2. Without `room`, the engine is read
    but its context is None. `rtx`: as TensorRT for RTX, which compiles kernels for a shape after it first ran
    unless specialization is eager ("Working with Dynamic Shapes"); until then the general kernel adds 1000.
    """

    class Context:
        def __init__(self):
            self.addresses, self.size, self.ran, self.eager, self.profiler = {}, -1, 0, not rtx, None

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
            if self.profiler is not None:
                self.profiler.report_layer_time("sum", self.ran)
            logits, images = view("logits", dtype), view("input", np.float32)
            general = 0 if self.eager else 1000
            cuda.enqueue(lambda _at: np.copyto(logits, images.sum(axis=2) + general))
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

        def create_execution_context(self, runtime_config=None):
            if not room:
                return None
            context = Context()
            if rtx:
                context.eager = getattr(runtime_config, STRATEGY, "LAZY") == "EAGER"  # LAZY is the default
                context.is_stream_capturable = lambda handle: rtx != "uncapturable"
            return context

        def create_runtime_config(self):
            return types.SimpleNamespace()

    class Runtime:
        engine_host_code_allowed = False

        def __init__(self, log):
            pass

        def deserialize_cuda_engine(self, plan):
            return Engine() if plan == b"good" else None

    mode = types.SimpleNamespace(INPUT="input")
    trt = types.SimpleNamespace(
        Runtime=Runtime, TensorIOMode=mode, nptype=lambda t: t, __version__="9.9", IProfiler=type("I", (), {})
    )
    if rtx:
        trt.DynamicShapesKernelSpecializationStrategy = types.SimpleNamespace(LAZY="LAZY", EAGER="EAGER")
    return trt


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


def test_a_sibling_has_a_context_a_stream_and_buffers_of_its_own(opened):
    cuda = HostCuda()
    session = opened(cuda, batch=(1, 4), cuda_graph=True)
    images = np.random.default_rng(0).integers(-9, 9, (4, 3, 4)).astype(np.float32)
    session.run(images)
    own = set(cuda.held)
    sibling = session.sibling()
    assert sibling._engine is session._engine and sibling._context is not session._context
    assert len(set(cuda.held) - own) == 5  # a stream, and two buffers on device and host
    np.testing.assert_array_equal(sibling.run(images[:2])["logits"], images[:2].sum(axis=2))
    np.testing.assert_array_equal(session.run(images)["logits"], images.sum(axis=2))
    session.close()
    np.testing.assert_array_equal(sibling.run(images)["logits"], images.sum(axis=2))
    sibling.close()
    assert not cuda.held
    with pytest.raises(UsageError, match="closed"):
        session.sibling()


def test_a_sibling_without_memory_leaves_nothing_behind(opened):
    cuda = HostCuda()
    session = opened(cuda, batch=None)
    before, cuda.room = dict(cuda.held), 16
    with pytest.raises(EnvironmentLacks, match="out of memory"):
        session.sibling()
    assert cuda.held == before
    session._engine.create_execution_context = lambda *_: None  # as TensorRT does without memory
    with pytest.raises(EnvironmentLacks, match="does not have enough memory for the engine"):
        session.sibling()
    assert cuda.held == before
    cuda.threads = False
    with pytest.raises(EnvironmentLacks, match="pycuda's context belongs to one thread"):
        session.sibling()
    session.close()


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
    assert cuda.captured is None and cuda.last_error == 0
    session.run(np.zeros((2, 3, 4), np.float32))


@pytest.mark.parametrize("cuda_graph", [False, True])
def test_rtx_compiles_the_kernels_of_a_shape_before_they_run(opened, cuda_graph):
    """Lazily, the general kernel would run first, and a graph captured after one run would keep it."""
    session = opened(HostCuda(), batch=(1, 4), cuda_graph=cuda_graph, rtx=True)
    found = session.run(np.ones((3, 3, 4), np.float32))["logits"]
    assert set(found.ravel()) == {4.0}
    session.close()


def test_rtx_tells_that_an_engine_cannot_be_captured(opened):
    session = opened(HostCuda(), batch=(1, 4), cuda_graph=True, rtx="uncapturable")
    with pytest.raises(EnvironmentLacks, match="reports that the engine cannot be captured"):
        session.run(np.ones((3, 3, 4), np.float32))
    session.close()


@pytest.mark.parametrize("call", ["cudaMalloc", "cudaStreamSynchronize"])
def test_a_call_that_is_forbidden_during_a_capture_leaves_nothing_behind(opened, call):
    """It invalidates the capture. The last error must not be found by the next library that asks for it."""
    cuda = HostCuda()
    session = opened(cuda, batch=None, cuda_graph=True)
    execute, images = session._context.execute_async_v3, np.zeros((2, 3, 4), np.float32)
    before = dict(cuda.held)

    def forbidden(handle):
        if cuda.captured is None:
            return execute(handle)
        arguments = (ctypes.byref(ctypes.c_void_p()), 4) if call == "cudaMalloc" else (handle,)
        return getattr(cuda, call)(*arguments) == 0

    session._context.execute_async_v3 = forbidden
    with pytest.raises(EnvironmentLacks, match="cannot be captured"):
        session.run(images)
    assert (cuda.captured, cuda.held, cuda.last_error) == (None, before, 0)
    session._context.execute_async_v3 = execute
    assert session.run(images)["logits"].shape == (2, 3)
    session.close()


def test_an_interrupted_capture_destroys_the_graph_of_what_was_queued(opened):
    cuda = HostCuda()
    stream = cuda.stream()

    def work():
        cuda.enqueue(lambda _at: None)
        raise KeyboardInterrupt

    before = dict(cuda.held)
    with pytest.raises(KeyboardInterrupt):
        cuda.capture(stream, work)
    assert cuda.held == before


def test_after_a_sticky_error_a_session_closes_and_says_what_to_do(opened):
    """Every later call returns it, those that free too."""
    cuda = HostCuda()
    session = opened(cuda, batch=None, cuda_graph=True)
    images = np.zeros((2, 3, 4), np.float32)
    session.timed_run(images)
    cuda.sticky = ILLEGAL_ADDRESS
    with pytest.raises(EnvironmentLacks, match="illegal memory access") as caught:
        session.run(images)
    assert "start it again" in caught.value.hint
    session.close()
    with pytest.raises(UsageError, match="closed"):
        session.run(images)


def test_a_free_that_fails_does_not_keep_the_others(opened):
    cuda = HostCuda()
    session = opened(cuda, batch=None)
    lost = session._buffers["input"].address
    memory = cuda.held.pop(lost)  # as if another library had freed it
    session.close()
    assert memory is not None and not cuda.held and cuda.last_error == 0


def test_out_of_memory_is_not_left_as_the_last_error():
    """TensorRT checks it after its own calls."""
    cuda = HostCuda(room=8)
    with pytest.raises(EnvironmentLacks, match="cudaMalloc failed: out of memory"):
        cuda.buffer(100, np.float32)
    assert cuda.last_error == 0


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


@pytest.mark.parametrize("cuda_graph", [False, True])
def test_gpu_compute_of_queued_runs_holds_no_time_of_the_host(opened, cuda_graph):
    """The host needs 5 us to queue an item. In a single run the GPU waits for the kernel after the event; if
    the next run is queued ahead, as in trtexec, the kernel is there already."""
    cuda = HostCuda(launch_us=5, kernel_us=200)
    session = opened(cuda, batch=(1, 4), cuda_graph=cuda_graph)
    images = np.ones((3, 3, 4), np.float32)
    session.timed_run(images)  # captures the graph
    assert session.timed_run(images).compute_ns == pytest.approx(205_000, abs=20)
    before = time.perf_counter_ns()
    found = session.timed_series(images, 5)
    assert 0 < found.wall_ns < time.perf_counter_ns() - before
    assert [run.compute_ns for run in found.runs] == pytest.approx([201_000] * 5, abs=20)
    held = dict(cuda.held)
    session.timed_series(images, 5)
    assert cuda.held == held
    np.testing.assert_array_equal(session.run(images)["logits"], images.sum(axis=2))
    session.close()
    assert not cuda.held


def test_layers_are_timed_after_warming_up(opened):
    """The imitation gives a layer as many milliseconds as there were runs."""
    session = opened(HostCuda(), batch=(1, 4))
    images = np.ones((3, 3, 4), np.float32)
    for runs in (3, 5):
        [layer] = session.layer_times(images, runs=runs)
        assert (layer.name, layer.kind) == ("sum", "compute")
        assert layer.median_ns == 1e6 * (session._context.ran - runs // 2)
    with pytest.raises(ImageError):
        session.layer_times(images[..., :3], runs=1)
    session.close()
    with pytest.raises(UsageError, match="closed"):
        session.layer_times(images, runs=1)


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
