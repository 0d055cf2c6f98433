"""The engine session without a GPU: on bindings and a CUDA runtime whose device memory is host memory.

The fakes do what NVIDIA's references say of the calls used ("CUDA Runtime API", memory and stream
management; "TensorRT Python API", ICudaEngine and IExecutionContext): copies and kernels are queued on a
stream and nothing has happened before it is synchronized; a shape outside the profile is refused with
False; a plan that cannot be read gives None. tests/gpu runs the real ones.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import types

import numpy as np
import pytest

from cnnx import runtimes
from cnnx.errors import BundleError, EnvironmentLacks, ImageError, UsageError
from cnnx.runtimes.cudart import CudaRuntime
from cnnx.runtimes.engine import EngineSession


class HostCuda(CudaRuntime):
    """Keeps account of what is allocated; `room` bytes are all there is."""

    def __init__(self, room: int = 1 << 20) -> None:
        self.held: dict[int, object] = {}
        self.room = room
        self.queue: list = []

    def device_name(self) -> str:
        return "host"

    def call(self, function, *arguments):
        does = {
            "cudaMalloc": self._allocate,
            "cudaHostAlloc": self._allocate,
            "cudaStreamCreate": lambda pointer: self._allocate(pointer, 1),
            "cudaFree": self._free,
            "cudaFreeHost": self._free,
            "cudaStreamDestroy": self._free,
            "cudaMemcpyAsync": self._copy,
            "cudaStreamSynchronize": self._synchronize,
        }
        does[function](*arguments)

    def _allocate(self, pointer, nbytes, *_):
        if nbytes > self.room:
            raise EnvironmentLacks("cudaMalloc failed: out of memory")
        self.room -= nbytes
        memory = ctypes.create_string_buffer(b"\xff" * nbytes, nbytes)
        pointer._obj.value = ctypes.addressof(memory)
        self.held[pointer._obj.value] = memory

    def _free(self, pointer):
        self.room += len(self.held.pop(pointer.value))

    def _copy(self, to, source, nbytes, kind, stream):
        assert stream.value in self.held
        target, origin = to.value, source.value
        self.queue.append(lambda: ctypes.memmove(target, origin, nbytes))

    def _synchronize(self, stream):
        for work in self.queue:
            work()
        self.queue.clear()


class Log:
    def clear(self):
        pass

    def said(self):
        return "the log"


def bindings(cuda: HostCuda, *, batch: tuple[int, int] | None, dtype=np.float32):
    """A `trt` whose one engine sums each picture's channels; `batch` smallest and largest, None: fixed 2."""

    class Context:
        def __init__(self):
            self.addresses, self.size = {}, -1

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
            cuda.queue.append(lambda: np.copyto(view("logits", dtype), view("input", np.float32).sum(axis=2)))
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
            return Context()

    class Runtime:
        def __init__(self, log):
            pass

        def deserialize_cuda_engine(self, plan):
            return Engine() if plan == b"good" else None

    mode = types.SimpleNamespace(INPUT="input")
    return types.SimpleNamespace(Runtime=Runtime, TensorIOMode=mode, nptype=lambda t: t, __version__="9.9")


@pytest.fixture
def opened(tmp_path):
    (tmp_path / "model.engine").write_bytes(b"good")

    def open_(cuda, **how):
        trt = bindings(cuda, **how)
        return EngineSession(tmp_path / "model.engine", trt, cuda=cuda, log=Log(), runtime="rtx")

    return open_


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("batch", [None, (1, 4)])
def test_any_number_of_pictures(opened, batch, dtype):
    cuda = HostCuda()
    session = opened(cuda, batch=batch, dtype=dtype)
    assert (session.runtime, session.runtime_version, session.device) == ("rtx", "9.9", "host")
    assert session.output_names == ("logits",)
    images = np.random.default_rng(0).integers(-9, 9, (11, 3, 4)).astype(np.float32)
    held = dict(cuda.held)
    earlier = session.run(images[:1])["logits"]
    for count in (11, 2, 1, 4):
        found = session.run(images[:count])["logits"]
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, images[:count].sum(axis=2))
    np.testing.assert_array_equal(earlier, images[:1].sum(axis=2))
    assert cuda.held == held  # nothing is allocated while it runs
    session.close()
    session.close()
    assert not cuda.held
    with pytest.raises(UsageError, match="closed"):
        session.run(images)


def test_pictures_and_batches_that_do_not_fit(opened):
    session = opened(HostCuda(), batch=(2, 4))
    with pytest.raises(ImageError):
        session.run(np.zeros((2, 3, 5), np.float32))
    with pytest.raises(UsageError, match="batch of 1: the log"):
        session.run(np.zeros((1, 3, 4), np.float32))


def test_too_little_memory_leaves_none_held(opened):
    for room in range(1, 200, 8):
        cuda = HostCuda(room)
        with contextlib.suppress(EnvironmentLacks):
            opened(cuda, batch=(1, 4)).close()
        assert not cuda.held


def test_an_engine_that_is_not_taken(opened, tmp_path):
    (tmp_path / "model.engine").write_bytes(b"bad")
    with pytest.raises(BundleError, match="does not take the engine: the log"):
        opened(HostCuda(), batch=None)


def test_the_calls_exist_in_the_real_bindings():
    if reason := runtimes.get("rtx").missing():
        pytest.skip(str(reason))
    from cnnx.runtimes import rtx

    rtx._library()
    trt = importlib.import_module("tensorrt_rtx_bindings")
    fake = bindings(HostCuda(), batch=None)
    engine = fake.Runtime(None).deserialize_cuda_engine(b"good")
    for real, imitation in (
        (trt.Runtime, fake.Runtime),
        (trt.ICudaEngine, type(engine)),
        (trt.IExecutionContext, type(engine.create_execution_context())),
    ):
        used = {name for name in vars(imitation) if not name.startswith("_")}
        assert used <= set(dir(real))
    assert trt.nptype(trt.DataType.HALF) is np.float16
    assert trt.TensorIOMode.INPUT
