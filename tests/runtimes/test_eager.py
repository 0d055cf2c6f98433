from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from cnnx.errors import InputRefused, UsageError  # noqa: E402
from cnnx.runtimes.eager import EagerSession  # noqa: E402


def classifier() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(8 * 36, 10)
    )


def test_logits_are_the_models_own(images):
    """BatchNorm and Dropout are in eval mode; read-only and strided images are accepted."""
    model = classifier()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    strides = model[0].weight.stride()
    session = EagerSession(model)
    view = np.broadcast_to(images, images.shape)
    found = session.run(view)
    assert set(found) == set(session.output_names) == {"logits"}
    with torch.no_grad():
        expected = model.eval()(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(found["logits"], expected, rtol=1e-5, atol=1e-6)
    assert found["logits"].dtype == np.float32
    assert model[0].weight.stride() == strides
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert session.runtime == "eager"
    assert session.runtime_version == torch.__version__
    assert session.device.kind == "cpu"


def test_a_model_that_does_not_return_logits_is_rejected(images):
    with pytest.raises(InputRefused, match=r"this model returns \(5, 3, 8, 8\)"):
        EagerSession(nn.Identity()).run(images)

    class Pair(nn.Module):
        def forward(self, x):
            return x, x

    with pytest.raises(InputRefused, match="tuple"):
        EagerSession(Pair()).run(images)


def test_a_sibling_shares_the_module_and_outlives_the_first(images):
    session = EagerSession(classifier())
    expected, sibling = session.run(images)["logits"], session.sibling()
    session.close()
    np.testing.assert_array_equal(sibling.run(images)["logits"], expected)
    with pytest.raises(UsageError, match="closed"):
        session.sibling()


def test_running_after_closing_is_an_error(images):
    session = EagerSession(classifier())
    session.close()
    with pytest.raises(UsageError, match="closed"):
        session.run(images)


def test_the_number_of_threads_is_that_of_the_session_until_it_is_closed(images):
    before = torch.get_num_threads()
    session = EagerSession(classifier(), threads=before + 1)
    assert torch.get_num_threads() == before + 1
    session.run(images)
    session.close()
    assert torch.get_num_threads() == before
