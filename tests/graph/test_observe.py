import numpy as np
import onnx
import pytest
from graphs import GRAPHS, images, run
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnx.errors import GraphError
from cnnx.graph.observe import MAXIMA, observed_model


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("batch", [1, 5])
def test_maxima_are_those_of_the_tensors_themselves(name, batch):
    model = GRAPHS[name]()
    before, x = model.SerializeToString(), images(batch)
    _, tensors = observed_model(model)
    observed, names = observed_model(model, histogram_tensors=tensors)
    onnx.checker.check_model(observed, full_check=True)
    found = run(observed, x)
    assert names == tensors == ("input", *(output for node in model.graph.node for output in node.output))
    assert set(found) == {"logits", MAXIMA, *names}
    np.testing.assert_array_equal(found[MAXIMA], [np.abs(found[tensor]).max() for tensor in names])
    np.testing.assert_allclose(found["logits"], run(model, x)["logits"], atol=1e-5)
    assert model.SerializeToString() == before


@settings(max_examples=25, deadline=None)
@given(place=st.integers(0, 4 * 3 * 12 * 12 - 1), value=st.sampled_from([np.nan, np.inf, -np.inf]))
def test_one_bad_value_anywhere_shows(place, value):
    observed, names = observed_model(GRAPHS["plain"]())
    x = images()
    x.reshape(-1)[place] = value
    assert not np.isfinite(run(observed, x)[MAXIMA][names.index("input")])


def test_weights_are_not_observed_and_unknown_tensors_refused():
    _, names = observed_model(GRAPHS["residual"]())
    assert not any(name.endswith((".weight", ".bias")) for name in names)
    for wrong in ("conv1.weight", "nowhere"):
        with pytest.raises(GraphError, match="no float activation"):
            observed_model(GRAPHS["plain"](), histogram_tensors=[wrong])
