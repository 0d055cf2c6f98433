"""Engines that emit their tensors, on an imitation of TensorRT; tests/gpu runs the real ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from cnnx.errors import BuildFailed, EnvironmentLacks, UsageError
from cnnx.runtimes import BuildRequest, is_emitting
from cnnx.runtimes.engine.emission import address_of, make_listener
from cnnx.runtimes.evidence import kernels_in
from cnnx.runtimes.trt.runtime import TrtRuntime
from cnnx.runtimes.written import layouts_of, written_by
from tests.doubles.host_cuda import ILLEGAL_ADDRESS, HostCuda
from tests.doubles.imitated_fusion import values_of
from tests.doubles.imitated_trt import ImitatedBindings

LAYERS = ("conv1", "conv2", "fc")


def opened(bindings: ImitatedBindings, graph: Path, kind: str, folder: Path) -> Any:
    """A session of an engine that emits, and how its tensors lie in memory."""
    runtime = TrtRuntime(bindings)
    asked = BuildRequest(kind, dict.fromkeys(LAYERS, kind), batch=(1, 2, 4), emits=True)
    (built,) = runtime.build(graph, asked)
    (folder / "model.engine").write_bytes(built.plan)
    written = written_by(kernels_in(built.evidence, LAYERS), LAYERS)
    return runtime.open(folder / "model.engine"), layouts_of(written)


@pytest.mark.parametrize("release", ["10.16.0", "11.4.0.106"])
@pytest.mark.parametrize("kind", ["fp32", "fp16", "int8"])
def test_values_are_those_of_the_graph(
    release: str, kind: str, net: Any, images: Any, tmp_path: Path
) -> None:
    """Read from the format that they have on the device, during the call only, through its stream."""
    graph = net(kind, batch="N")
    session, layouts = opened(ImitatedBindings(release, internal=False), graph, kind, tmp_path)
    assert is_emitting(session)
    for count in (1, 3):
        emission = session.emitted(images[:count], layouts)
        expected = values_of(onnx.load(graph), images[:count])
        assert {"relu1_y", "pool_y"} & emission.tensors.keys() or kind == "int8"
        assert emission.outputs.keys() == {"logits"} and not emission.unread and emission.tensors
        for name, values in emission.tensors.items():
            np.testing.assert_array_equal(values, expected[name])
            assert values.dtype == expected[name].dtype
        np.testing.assert_array_equal(emission.outputs["logits"], session.run(images[:count])["logits"])
    with pytest.raises(UsageError, match="are not one batch"):
        session.emitted(images, layouts)
    session.close()


def test_10_3_cannot_emit_and_onnx_runtime_need_not(net: Any) -> None:
    from cnnx import runtimes

    assert not TrtRuntime(ImitatedBindings("10.3.0")).emits()
    assert TrtRuntime(ImitatedBindings("10.16.0")).emits()
    assert not runtimes.get("ort").emits()


def test_a_mark_or_a_listener_that_tensorrt_refuses_is_no_silence(
    net: Any, images: Any, tmp_path: Path
) -> None:
    bindings = ImitatedBindings("11.4.0.106")
    session, layouts = opened(bindings, net("fp16", batch="N"), "fp16", tmp_path)
    trt = bindings.loaded.trt
    trt.IExecutionContext.set_debug_listener = lambda self, listener: False
    with pytest.raises(EnvironmentLacks, match="does not accept a listener"):
        session.emitted(images[:1], layouts)
    trt.INetworkDefinition.mark_unfused_tensors_as_debug_tensors = lambda self: False
    with pytest.raises(BuildFailed, match="did not mark the tensors"):
        opened(bindings, net("fp16", batch="N"), "fp16", tmp_path)


def test_a_failed_copy_is_raised_once_the_run_is_over(
    net: Any, images: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception in the callback would be printed by the bindings, and lost."""
    bindings = ImitatedBindings("11.4.0.106")
    session, layouts = opened(bindings, net("fp16", batch="N"), "fp16", tmp_path)

    def broken(*_: Any) -> bytes:
        raise EnvironmentLacks("cudaMemcpyAsync failed: an illegal memory access was encountered", hint="-")

    monkeypatch.setattr(bindings.device, "read", broken)
    with pytest.raises(EnvironmentLacks, match="illegal memory access"):
        session.emitted(images[:1], layouts)


def test_types_that_numpy_lacks_and_memory_of_the_host() -> None:
    trt: Any = ImitatedBindings("11.4.0.106").loaded.trt
    cuda = HostCuda()
    listener = make_listener(trt, cuda, {})
    assert listener.process_debug_tensor(0, trt.TensorLocation.DEVICE, trt.TensorLocation.HOST, [1], "b", 0)
    assert listener.unread.keys() == {"b"} and not listener.tensors and listener.failure is None
    values = np.arange(6, dtype=np.float32)
    address = values.ctypes.data
    arguments = (trt.TensorLocation.HOST, trt.DataType.FLOAT, [2, 3], "h", 0)
    assert listener.process_debug_tensor(address, *arguments)
    np.testing.assert_array_equal(listener.tensors["h"], values.reshape(2, 3))
    cuda.sticky = ILLEGAL_ADDRESS
    assert listener.process_debug_tensor(address, trt.TensorLocation.DEVICE, *arguments[1:])
    assert "illegal memory access" in str(listener.failure)


def test_an_address_comes_as_a_capsule_with_any_name_or_as_a_number() -> None:
    import ctypes

    new = ctypes.pythonapi.PyCapsule_New
    new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    assert [address_of(new(4096, name, None)) for name in (None, b"void *")] == [4096, 4096]
    assert address_of(8192) == 8192
