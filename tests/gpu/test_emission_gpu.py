"""What engines emit on a GPU: the tensors of the graph, read from whatever format they have there."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from cnnx import runtimes
from cnnx.graph.trace import Trace
from cnnx.quant.noise import Noise
from cnnx.runtimes import BuildRequest
from cnnx.runtimes.evidence import kernels_in
from cnnx.runtimes.written import layouts_of, written_by
from tests.doubles.imitated_fusion import values_of
from tests.inputs.graphs import images, residual


@pytest.mark.parametrize("name", ["tensorrt", "rtx"])
def test_tensors_that_fusion_leaves_are_those_of_the_graph(name, tmp_path):
    runtime = runtimes.get(name)
    if reason := runtime.cannot_run():
        pytest.skip(str(reason))
    if not runtime.emits():
        pytest.skip("this release cannot mark unfused tensors")
    model, batch = residual(), images(2)
    onnx.save(model, tmp_path / "model.onnx")
    (built,) = runtime.build(tmp_path / "model.onnx", BuildRequest("fp32", {}, batch=(1, 2, 2), emits=True))
    (tmp_path / built.file_name).write_bytes(built.plan)
    nodes = [node.name for node in model.graph.node]
    written = {each.name: each for each in written_by(kernels_in(built.evidence, nodes), nodes)}
    session, trace = runtime.open(tmp_path / built.file_name), Trace(model, model)
    assert runtimes.is_emitting(session)
    emission, expected = session.emitted(batch, layouts_of(written.values())), values_of(model, batch)
    session.close()
    compared = {}
    for tensor, values in {**emission.tensors, **emission.outputs}.items():
        found = trace.named(tensor, values.shape)
        if found is None and tensor in written:
            found = trace.result_of(written[tensor].nodes, values.shape, written[tensor].begun)
        if found is not None:
            compared[found] = Noise()
            compared[found].add(expected[found], values)
    assert len(compared) > 2, (list(emission.tensors), emission.unread)
    assert all(noise.ratio < 1e-6 for noise in compared.values()), {k: v.db for k, v in compared.items()}
    assert np.isfinite([noise.ratio for noise in compared.values()]).all()
