import logging
import subprocess
import sys

import numpy as np
import onnx
import pytest

from tests.inputs.graphs import ops, run

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from torch import nn  # noqa: E402

from cnnx.errors import GraphError  # noqa: E402
from cnnx.graph.export import export_model  # noqa: E402
from cnnx.graph.load import load_model, save_model  # noqa: E402
from cnnx.graph.simplify import simplify  # noqa: E402


class Net(nn.Module):
    """BatchNorm, LRN, a residual Add, an idle pooling and a flatten."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
            nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2), nn.AdaptiveAvgPool2d(6),
        )  # fmt: skip
        self.block = nn.Conv2d(8, 8, 3, padding=1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(), nn.Linear(8, 10))

    def forward(self, x):
        x = self.features(x)
        return self.classifier(torch.flatten(self.pool(self.block(x) + x), 1))


class Branching(nn.Module):
    def forward(self, x):
        return x.flatten(1) if x.sum() > 0 else x.flatten(1) * 2


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    model = Net().eval()
    model.features[1].running_mean.normal_()
    model.features[1].running_var.uniform_(0.5, 2)
    return model


def test_a_dynamic_export_computes_the_same_and_is_named_after_the_modules(net, tmp_path, capfd):
    level = logging.root.manager.disable
    path = tmp_path / "net.onnx"
    model = export_model(net, shape=(3, 12, 12), batch=(1, 8))
    save_model(model, path)
    assert capfd.readouterr() == ("", "") and logging.root.manager.disable == level
    assert load_model(path) == onnx.load_model(path) == model
    names = [node.name for node in model.graph.node]
    layers = ["features.0", "features.2", "features.3", "features.4", "features.5", "block", "add", "pool"]
    assert [name for name in names if name in layers] == layers and names[-1] == "classifier.1"
    assert ops(model).count("LRN") == 1 and "Pow" not in ops(model)
    for batch in (1, 5):
        x = torch.randn(batch, 3, 12, 12)
        with torch.no_grad():
            wanted = net(x).numpy()
        np.testing.assert_allclose(run(model, x.numpy())["logits"], wanted, atol=1e-5)
    simplify(model)
    assert ops(model) == [
        "Conv",
        "Relu",
        "MaxPool",
        "LRN",
        "Conv",
        "Add",
        "GlobalAveragePool",
        "Flatten",
        "Gemm",
    ]
    np.testing.assert_allclose(run(model, x.numpy())["logits"], wanted, atol=1e-5)
    assert not net.features[4].__dict__.get("forward")  # the model is as it was


def test_two_exports_have_the_same_bytes_and_no_paths(net, tmp_path):
    contents = []
    for name in ("a.onnx", "b.onnx"):
        save_model(export_model(net, shape=(3, 12, 12), input_name="image"), tmp_path / name)
        contents.append((tmp_path / name).read_bytes())
    assert contents[0] == contents[1]
    assert b".py" not in contents[0] and b"site-packages" not in contents[0]
    model = onnx.load_model_from_string(contents[0])
    assert (model.ir_version, model.opset_import[0].version) == (10, 19)
    assert [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim] == [1, 3, 12, 12]


def test_a_model_that_cannot_be_traced_is_refused_with_the_reason():
    with pytest.raises(GraphError, match="could not export") as refusal:
        export_model(Branching(), shape=(3, 4, 4))
    assert "data-dependent" in refusal.value.what and refusal.value.where == "Branching"


def test_the_rest_of_the_room_needs_no_torch():
    modules = ("load", "simplify", "edit", "passes.observe", "policy.placement", "passes.qdq", "passes.fp16")
    imports = "; ".join(f"import cnnx.graph.{name}" for name in modules)
    code = f"import sys; {imports}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
