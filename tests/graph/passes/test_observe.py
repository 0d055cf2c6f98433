from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import ModelProto

from cnnx.errors import GraphError
from cnnx.graph import edit
from cnnx.graph.passes.observe import MAXIMA, MEANS, SAMPLE, SAMPLED, observed_model
from tests.inputs.graphs import GRAPHS, Sketch, images, run


def with_all_outputs(model: ModelProto) -> ModelProto:
    wide = ModelProto()
    wide.CopyFrom(model)
    given = {value.name for value in model.graph.output}
    for node in model.graph.node:
        wide.graph.output.extend(onnx.ValueInfoProto(name=name) for name in node.output if name not in given)
    return wide


def channels_of(values: NDArray[Any]) -> NDArray[Any]:
    return np.abs(values).reshape(len(values), values.shape[1], -1).max(axis=(0, 2))


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("batch", [1, 5])
def test_maxima_are_those_of_the_tensors_channels(name: str, batch: int) -> None:
    model = GRAPHS[name]()
    before, x = model.SerializeToString(), images(batch)
    observed = observed_model(model)
    onnx.checker.check_model(observed.model, full_check=True)
    found, values = run(observed.model, x), {**run(with_all_outputs(model), x), "input": x}
    assert tuple(observed.channels) == (
        "input",
        *(output for node in model.graph.node for output in node.output),
    )
    assert set(found) == {"logits", MAXIMA, MEANS} and not observed.samples
    cut_off = {node.input[0] for node in model.graph.node if node.op_type == "Relu"}
    readers = edit.wiring(model.graph)
    for tensor, place in observed.channels.items():
        seen = values[tensor]
        if tensor in cut_off and readers.only_consumer(tensor) is not None:
            seen = np.maximum(seen, 0)
        np.testing.assert_array_equal(found[MAXIMA][place], channels_of(seen), err_msg=tensor)
        mean = seen.reshape(len(seen), seen.shape[1], -1).mean(axis=(0, 2))
        np.testing.assert_allclose(found[MEANS][place], mean, atol=1e-5 * np.abs(seen).max(), err_msg=tensor)
    np.testing.assert_allclose(found["logits"], run(model, x)["logits"], atol=1e-5)
    assert model.SerializeToString() == before


@pytest.mark.parametrize("opset", [13, 17, 18, 20])
def test_every_opset_that_is_read_can_be_observed(opset: int) -> None:
    sketch = Sketch()
    x = sketch.node("Relu", [sketch.conv("input", "conv", 3, 4)], "relu")
    model = sketch.classify(x, 4 * 12 * 12)
    model.opset_import[0].version = opset
    observed = observed_model(model, sampled=["relu"])
    onnx.checker.check_model(observed.model, full_check=True)
    assert run(observed.model, images(1))[MAXIMA].max() > 0


@pytest.mark.parametrize("batch", [1, "batch"])
def test_a_sample_is_every_kth_value(batch: int | str) -> None:
    sketch = Sketch(batch=batch)
    x = sketch.node("Relu", [sketch.conv("input", "wide", 3, 60)], "relu")
    model = sketch.classify(x, 60 * 12 * 12)
    x = images(1)
    observed = observed_model(model, sampled=["input", "relu", "input"])
    found, values = run(observed.model, x), {**run(with_all_outputs(model), x), "input": x}
    assert list(observed.samples) == ["input", "relu"]
    assert found[SAMPLE].shape == (sum(place.stop - place.start for place in observed.samples.values()),)
    for tensor, step in (("input", 1), ("relu", 7)):  # 432 and 8,640 values, 2^6 3^3 5
        np.testing.assert_array_equal(
            found[SAMPLE][observed.samples[tensor]], values[tensor].reshape(-1)[::step]
        )
        assert len(values[tensor].reshape(-1)[::step]) <= SAMPLED


def test_halves_are_observed_as_floats_and_integers_are_not() -> None:
    sketch = Sketch()
    half = sketch.node("Cast", [sketch.conv("input", "conv", 3, 8)], "half", to=onnx.TensorProto.FLOAT16)
    wide = sketch.node("Cast", [sketch.node("Abs", [half], "abs")], "wide", to=onnx.TensorProto.FLOAT)
    sketch.node("Shape", [wide], "lengths")
    model = sketch.classify(sketch.node("GlobalAveragePool", [wide], "gap"), 8)
    observed = observed_model(model, sampled=["half"])
    onnx.checker.check_model(observed.model, full_check=True)
    assert "half" in observed.channels and "lengths" not in observed.channels
    found, values = run(observed.model, images(1)), run(with_all_outputs(model), images(1))
    np.testing.assert_array_equal(found[MAXIMA][observed.channels["half"]], channels_of(values["half"]))
    np.testing.assert_array_equal(found[MAXIMA][observed.channels["abs"]], channels_of(values["abs"]))
    np.testing.assert_array_equal(found[SAMPLE][observed.samples["half"]], values["half"].reshape(-1))


@pytest.mark.parametrize("shape", [(512, 7, 7), (1024, 14, 14), (64, 56, 56), (32, 32, 32), (96, 1, 1)])
def test_a_sample_meets_every_column_and_channel(shape: tuple[int, int, int]) -> None:
    sketch = Sketch(batch=1)
    ones = sketch.constant("ones", np.ones((1, *shape), np.float32))
    mean = sketch.node("ReduceMean", ["input"], "mean", keepdims=1)
    model = sketch.classify(sketch.node("Mul", [mean, ones], "wide"), int(np.prod(shape)), classes=2)
    place = observed_model(model, sampled=["wide"]).samples["wide"]
    taken = place.stop - place.start
    size = int(np.prod(shape))
    step = -(-size // taken)
    met = np.arange(0, size, step)
    assert len(met) == taken <= SAMPLED
    for axis, length in zip(np.unravel_index(met, shape), shape, strict=True):
        counts = np.bincount(axis, minlength=length)
        assert counts.min() > 0 and counts.max() - counts.min() <= 0.2 * counts.max() + 2


@settings(max_examples=25)
@given(place=st.integers(0, 4 * 3 * 12 * 12 - 1), value=st.sampled_from([np.nan, np.inf, -np.inf]))
def test_one_bad_value_anywhere_shows(place: int, value: float) -> None:
    observed = observed_model(GRAPHS["plain"]())
    x = images()
    x.reshape(-1)[place] = value
    assert not np.isfinite(run(observed.model, x)[MAXIMA][observed.channels["input"]]).all()


def test_weights_are_not_observed_and_unknown_tensors_refused() -> None:
    names = observed_model(GRAPHS["residual"]()).channels
    assert not any(name.endswith((".weight", ".bias")) for name in names)
    for wrong in ("conv1.weight", "nowhere"):
        with pytest.raises(GraphError, match="no float activation"):
            observed_model(GRAPHS["plain"](), sampled=[wrong])
