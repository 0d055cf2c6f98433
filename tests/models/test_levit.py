"""LeViT-256 compared with figure 4, table 2 and equation 1 of arXiv:2104.01136."""

from __future__ import annotations

import itertools
from collections import Counter

import onnxruntime
import pytest
import torch
from torch.nn.functional import conv2d

from cnnx.graph.export import export_model
from cnnx.graph.simplify import simplify
from cnnx.models.count import layer_rows
from cnnx.models.levit import Attention, ShrinkingAttention, levit

# Table 2: channels, heads and side of each stage; then channels, heads and side before each shrinking.
STAGES = [(256, 4, 14), (384, 6, 7), (512, 8, 4)]
SHRINKING = [None, (256, 8, 14), (384, 12, 7)]
Convolution = tuple[str, int, int, int, int]  # name, input and output channels, kernel, side of its output


def mlp(name: str, channels: int, side: int) -> list[Convolution]:
    return [
        (f"{name}.mlp.ln1.linear", channels, 2 * channels, 1, side),
        (f"{name}.mlp.ln2.linear", 2 * channels, channels, 1, side),
    ]


def architecture() -> tuple[list[Convolution], dict[str, tuple[int, int]], list[int]]:
    """Return convolutions in execution order, shapes of the bias tables, and MACs of the attention products.

    Queries and keys have 32 channels per head; values have 64, or 128 where a map shrinks.
    """
    widths = [3, 32, 64, 128, 256]
    convolutions = [
        (f"stem.conv{i}.linear", widths[i - 1], widths[i], 3, 224 >> i) for i in range(1, len(widths))
    ]
    tables, products = {}, []
    for stage, ((channels, heads, side), shrinking) in enumerate(zip(STAGES, SHRINKING, strict=True)):
        if shrinking:
            name = f"stages.{stage}.downsample"
            before, many, larger = shrinking
            convolutions += [
                (f"{name}.attn_downsample.kv.linear", before, many * (32 + 128), 1, larger),
                (f"{name}.attn_downsample.q.ln.linear", before, many * 32, 1, side),
                (f"{name}.attn_downsample.proj.ln.linear", many * 128, channels, 1, side),
                *mlp(name, channels, side),
            ]
            tables[f"{name}.attn_downsample.attention_biases"] = (many, larger**2)
            products.append(many * side**2 * larger**2 * (32 + 128))
        for block in range(4):
            name = f"stages.{stage}.blocks.{block}"
            convolutions += [
                (f"{name}.attn.qkv.linear", channels, heads * (32 + 32 + 64), 1, side),
                (f"{name}.attn.proj.ln.linear", heads * 64, channels, 1, side),
                *mlp(name, channels, side),
            ]
            tables[f"{name}.attn.attention_biases"] = (heads, side**2)
            products.append(heads * side**4 * (32 + 64))
    return convolutions, tables, products


def test_levit_256_is_figure_4() -> None:
    with torch.device("meta"):
        model = levit().eval()
    rows = layer_rows(model, (3, 224, 224))
    convolutions, _, products = architecture()
    assert [(r.name, r.output_shape, r.multiply_adds) for r in rows if r.op == "Conv2d"] == [
        (name, (n, side, side), m * n * k * k * side**2) for name, m, n, k, side in convolutions
    ]
    stem = sum(row.multiply_adds for row in rows if row.name.startswith("stem"))
    assert stem == 864 * 112**2 + 18_432 * 56**2 + 73_728 * 28**2 + 294_912 * 14**2 == 184_246_272
    total = sum(m * n * k * k * side**2 for _, m, n, k, side in convolutions) + 2 * 512 * 1000
    assert products == [14_751_744] * 4 + [12_293_120] + [1_382_976] * 4 + [1_505_280] + [196_608] * 4
    assert sum(row.multiply_adds for row in rows) == total + sum(products) == 1_127_257_344
    assert sum(row.parameters for row in rows) == 18_893_876
    shapes = {row.name: row.output_shape for row in rows}
    assert [shapes[f"stages.{stage}.blocks.3.mlp.ln2.bn"] for stage in range(3)] == [
        (256, 14, 14), (384, 7, 7), (512, 4, 4)
    ]  # fmt: skip


def test_levit_has_the_names_and_shapes_of_published_checkpoints() -> None:
    with torch.device("meta"):
        state = levit().state_dict()
    convolutions, tables, _ = architecture()
    expected: dict[str, tuple[int, ...]] = {**tables}
    norms = {name.removesuffix("linear") + "bn": n for name, _, n, _, _ in convolutions}
    norms |= {"head.bn": 512, "head_dist.bn": 512}
    for norm, channels in norms.items():
        expected |= {
            f"{norm}.{value}": (channels,) for value in ("weight", "bias", "running_mean", "running_var")
        }
        expected[f"{norm}.num_batches_tracked"] = ()
    expected |= {f"{name}.weight": (n, m, k, k) for name, m, n, k, _ in convolutions}
    for head in ("head", "head_dist"):
        expected |= {f"{head}.linear.weight": (1000, 512), f"{head}.linear.bias": (1000,)}
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == expected


@pytest.mark.parametrize("stride", [1, 2])
@torch.no_grad()
def test_attention_is_equation_1(stride: int) -> None:
    """Compute attention per position, with the bias of |y - y'| and |x - x'|; channels grouped by head."""
    torch.manual_seed(0)
    side, heads = 5, 2
    block = Attention(64, heads, side) if stride == 1 else ShrinkingAttention(64, 96, side)
    block.double().eval().attention_biases.normal_()
    x = torch.randn(1, 64, side, side, dtype=torch.float64)
    if stride == 1:
        q, k, v = block.qkv(x).reshape(heads, 128, -1).split([32, 32, 64], 1)
    else:
        k, v = block.kv(x).reshape(heads, 160, -1).split([32, 128], 1)
        q = block.q.ln.bn(conv2d(x[:, :, ::2, ::2], block.q.ln.linear.weight)).reshape(heads, 32, -1)
    keys = list(itertools.product(range(side), repeat=2))
    queries = list(itertools.product(range(0, side, stride), repeat=2))
    mixed = torch.empty(heads, v.shape[1], len(queries), dtype=torch.float64)
    for head, (i, (row, column)) in itertools.product(range(heads), enumerate(queries)):
        table = block.attention_biases[head].view(side, side)
        scores = [
            q[head, :, i] @ k[head, :, j] / 32**0.5 + table[abs(row - y), abs(column - x_)]
            for j, (y, x_) in enumerate(keys)
        ]
        mixed[head, :, i] = v[head] @ torch.stack(scores).softmax(0)
    smaller = len(range(0, side, stride))
    assert torch.allclose(block(x), block.proj(mixed.view(1, -1, smaller, smaller)), atol=1e-12)


def trained_like() -> torch.nn.Module:
    """Set attention biases and BatchNorm means to non-zero values, as in a trained network."""
    torch.manual_seed(0)
    model = levit().eval()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith(("attention_biases", "running_mean")):
                tensor.normal_()
    return model


@torch.no_grad()
def test_two_heads_are_averaged_and_trained_apart() -> None:
    model, given = trained_like(), []
    for head in (model.head, model.head_dist):
        head.register_forward_hook(lambda _module, _inputs, output: given.append(output))
    logits = model(torch.randn(2, 3, 224, 224))
    assert not torch.allclose(given[0], given[1])
    assert torch.allclose(logits, (given[0] + given[1]) / 2)
    labels, teacher = model.train()(torch.randn(2, 3, 224, 224))
    assert labels is given[2] and teacher is given[3]


@pytest.mark.slow
@torch.no_grad()
def test_the_graph_looks_nothing_up_and_computes_the_same() -> None:
    model = trained_like()
    graph = export_model(model, shape=(3, 224, 224))
    simplify(graph)
    ops = Counter(node.op_type for node in graph.graph.node)
    assert ops.pop("BatchNormalization", 0) <= 2  # those before the heads' linear layers
    assert ops == {
        "Conv": 62, "HardSwish": 31, "MatMul": 28, "Softmax": 14, "Mul": 14, "Add": 41,
        "Split": 14, "Reshape": 30, "Transpose": 28,
        "GlobalAveragePool": 1, "Flatten": 1, "Gemm": 2, "Div": 1,
    }  # fmt: skip
    image = torch.randn(1, 3, 224, 224)
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"input": image.numpy()})
    wanted = model(image).numpy()
    assert abs(logits - wanted).max() <= 1e-4 * abs(wanted).max()
