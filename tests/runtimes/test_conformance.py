"""Tests that every runtime in the registry must pass; a new runtime is included automatically.

TensorRT is also tested with imitated bindings of two releases, which need no GPU (imitated_trt.py).
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from cnnx import runtimes
from cnnx.errors import CnnxError, ImageError, UsageError
from cnnx.runtimes import BuildRequest, Runtime, Session
from cnnx.runtimes.evidence import kernels_in
from cnnx.runtimes.trt.runtime import TrtRuntime
from cnnx.runtimes.written import layouts_of, written_by
from tests.doubles.imitated_trt import ImitatedBindings

EXPECTED = {"conv1": "fp32", "conv2": "fp32", "fc": "fp32"}
BATCHES = {1: (1, 1, 1), 2: (2, 2, 2), "N": (1, 2, 4)}


IMITATED = {f"tensorrt-{release}-imitated": release for release in ("10.3.0", "11.4.0.106")}


@pytest.fixture(params=[*runtimes.NAMES, *IMITATED])
def runtime(request) -> Runtime:
    if request.param in IMITATED:
        return TrtRuntime(ImitatedBindings(IMITATED[request.param]))
    found = runtimes.get(request.param)
    assert found.name == request.param
    return found


@pytest.fixture(params=BATCHES, ids=lambda batch: f"batch-{batch}")
def case(request, runtime, net, tmp_path) -> Iterator[tuple[Session, Path]]:
    """An open session on the FP32 net, built first if the runtime builds engines, and the graph."""
    if reason := runtime.cannot_run():
        pytest.skip(str(reason))
    graph = file = net("fp32", batch=request.param)
    if runtime.engine_suffix is not None:
        built = runtime.build(graph, BuildRequest("fp32", EXPECTED, batch=BATCHES[request.param]))
        assert [engine.layer_types for engine in built] == [EXPECTED]
        file = tmp_path / built[0].file_name
        file.write_bytes(built[0].plan)
        assert file.suffix == runtime.engine_suffix
    session = runtime.open(file)
    yield session, graph
    session.close()


def test_runs_any_number_of_images_like_the_reference(case, images):
    session, graph = case
    model = onnx.load(graph)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"
    expected = ReferenceEvaluator(model).run(None, {"input": images})[0]
    for count in (5, 1, 2):
        found = session.run(images[:count])
        assert set(found) == set(session.output_names) == {"logits"}
        assert found["logits"].dtype == np.float32
        np.testing.assert_allclose(found["logits"], expected[:count], rtol=1e-4, atol=1e-5)


def test_reports_its_runtime_and_device(case, runtime):
    session, _ = case
    assert session.device == runtime.device()
    assert session.runtime == runtime.name
    assert session.runtime_version == runtime.version()
    assert len(session.device.name) > 3


def test_rejects_images_that_do_not_fit(case, images):
    session, _ = case
    for wrong in (images[:, :1], images[..., :7], images[0], images[:0]):
        with pytest.raises(ImageError, match="do not fit the input"):
            session.run(wrong)


def test_outputs_are_copies(case, images):
    session, _ = case
    first = session.run(images[:1])["logits"]
    kept = first.copy()
    session.run(images[1:2])
    np.testing.assert_array_equal(first, kept)


def test_running_after_closing_is_an_error(case, images):
    session, _ = case
    session.close()
    session.close()
    with pytest.raises(UsageError, match="closed"):
        session.run(images)


def test_siblings_run_at_the_same_time_and_outlive_the_first(case, images):
    session, _ = case
    both = [session.sibling(), session.sibling()]
    count = len(session.run(images[:2])["logits"])
    expected = [session.run(images[at : at + count])["logits"] for at in range(4)]
    session.close()
    start = threading.Barrier(len(both))

    def work(sibling):
        start.wait(10)
        return [sibling.run(images[at : at + count])["logits"] for at in (0, 1, 2, 3) * 5]

    with ThreadPoolExecutor(len(both)) as pool:
        for found in [pool.submit(work, sibling) for sibling in both]:
            np.testing.assert_array_equal(found.result(), expected * 5)
    for sibling in both:
        sibling.close()
        with pytest.raises(UsageError, match="closed"):
            sibling.sibling()


def test_opening_raises_what_missing_reports(runtime, net):
    """If something is missing, `open` raises the same error."""
    reason = runtime.missing()
    assert reason is None or isinstance(reason, CnnxError)
    if reason is not None:
        with pytest.raises(type(reason)):
            runtime.open(net())
        assert str(runtime.cannot_run()) == str(reason)
    else:
        assert runtime.version() is not None


def test_cannot_run_is_what_open_raises(runtime, net):
    reason = runtime.cannot_run()
    if reason is None:
        pytest.skip(f"{runtime.name} runs here")
    with pytest.raises(type(reason)) as caught:
        runtime.open(net())
    assert str(caught.value) == str(reason)


@pytest.mark.parametrize("name", runtimes.NAMES)
def test_importing_the_module_needs_no_vendor(name):
    """`missing` reports what is not installed, so the import must never fail."""
    assert importlib.import_module(runtimes.NAMES[name]).RUNTIME is runtimes.get(name)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(UsageError, match=", ".join(runtimes.NAMES)):
        runtimes.get("openvino")


def test_emits_what_it_says(runtime, net, images, tmp_path):
    """An engine that was built to emit its tensors has the outputs of any other."""
    if not runtime.emits():
        return
    here = () if runtime.cannot_run() is None else (86,)
    if here and not runtime.builds_without_gpu:
        pytest.skip(str(runtime.cannot_run()))
    asked = BuildRequest("fp32", EXPECTED, batch=BATCHES["N"], compute_capabilities=here, emits=True)
    (built,) = runtime.build(net("fp32", batch="N"), asked)
    written = written_by(kernels_in(built.evidence, EXPECTED), EXPECTED)
    assert {node for tensor in written for node in tensor.nodes} & EXPECTED.keys()
    if not here:
        (tmp_path / built.file_name).write_bytes(built.plan)
        session = runtime.open(tmp_path / built.file_name)
        assert runtimes.is_emitting(session)
        emission = session.emitted(images[:2], layouts_of(written))
        assert emission.tensors and emission.outputs.keys() == {"logits"}
        np.testing.assert_allclose(emission.outputs["logits"], session.run(images[:2])["logits"], rtol=1e-5)
        session.close()


def test_times_layers_in_a_separate_session(runtime, net, images, tmp_path):
    if reason := runtime.cannot_run():
        pytest.skip(str(reason))
    file = net("fp32", batch="N")
    if runtime.engine_suffix is not None:
        (built,) = runtime.build(file, BuildRequest("fp32", EXPECTED, batch=BATCHES["N"]))
        file = tmp_path / built.file_name
        file.write_bytes(built.plan)
    layers = runtime.layer_times(file, images[:2], runs=3)
    assert layers and all(layer.median_ns >= 0 and layer.name for layer in layers)
    assert "compute" in {layer.kind for layer in layers}


def test_all_runtimes_but_onnx_runtime_build_engines():
    assert [runtime.name for runtime in runtimes.builders()] == [
        name for name in runtimes.NAMES if name != "ort"
    ]
    with pytest.raises(UsageError, match="unknown runtime 'x'"):
        runtimes.get("x")
