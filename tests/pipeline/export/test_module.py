"""`cnnx.export` of a PyTorch module that exists only in memory."""

from __future__ import annotations

import numpy as np
import pytest

import cnnx
from cnnx.errors import CnnxError, UsageError

torch = pytest.importorskip("torch", reason="modules need PyTorch")


class SmallNet(torch.nn.Module):
    def __init__(self, *, outputs=1):
        super().__init__()
        self.outputs = outputs
        self.features = torch.nn.Sequential(
            torch.nn.Conv2d(3, 16, 3, stride=2), torch.nn.BatchNorm2d(16), torch.nn.ReLU()
        )
        self.head = torch.nn.Linear(16, 10)

    def forward(self, x):
        logits = self.head(self.features(x).mean((2, 3)))
        return logits if self.outputs == 1 else {"logits": logits, "aux": logits}


def test_a_module_becomes_a_bundle_and_stays_as_it_is(tmp_path, cache):
    module = SmallNet().train()
    example = torch.randn(2, 3, 32, 32)
    few = {"calibration_images": 16, "validation_images": 16, "preprocessing": "torchvision"}
    result = cnnx.export(module, example=example, precision="int8", out=tmp_path / "net", batch=(1, 4), **few)
    assert module.training and result.bundle.manifest.recipe["name"] == "smallnet"
    logits = cnnx.load(tmp_path / "net").run(example.numpy())["logits"]
    with torch.no_grad():
        expected = module.eval()(example).numpy()
    assert np.abs(logits - expected).max() < 0.1 * np.abs(expected).max()


@pytest.mark.parametrize(
    ("module", "example", "error", "said"),
    [
        (3, None, TypeError, "torch.nn.Module, not int"),
        (SmallNet(), None, UsageError, "example=torch.zeros"),
        (SmallNet(), "image", TypeError, "a tensor or an array"),
        (SmallNet(), torch.zeros(3, 32, 32), UsageError, r"example\[None\]"),
        (SmallNet(), torch.zeros(1, 1, 32, 32), CnnxError, "PyTorch could not export"),
        (SmallNet(outputs=2), torch.zeros(1, 3, 32, 32), CnnxError, "dict"),
        ("lenet5", torch.zeros(1, 1, 32, 32), UsageError, "drop `example`"),
    ],
)
def test_what_cannot_be_exported_is_refused(module, example, error, said, tmp_path, cache):
    with pytest.raises(error, match=said):
        cnnx.export(module, example=example, out=tmp_path / "net")
    assert not (tmp_path / "net").exists()
