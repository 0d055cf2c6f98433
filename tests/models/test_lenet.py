"""LeNet-5 compared with section II-B of the paper."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from cnnx import models
from cnnx.errors import RecipeError
from cnnx.models.lenet import CONNECTIONS, ConnectedConv2d, DigitCodes, Subsampling
from tests.inputs.meta import meta, rows_of, stages, totals


def test_the_modern_form_is_the_lectures() -> None:
    rows = rows_of(meta("lenet5", 10), 32, 1)
    layers = [rows[name] for name in ("conv1", "pool1", "conv2", "pool2", "fc1", "fc2", "fc3")]
    assert [row.output_shape for row in layers] == [
        (6, 28, 28), (6, 14, 14), (16, 10, 10), (16, 5, 5), (120,), (84,), (10,)
    ]  # fmt: skip
    assert [row.parameters for row in layers] == [156, 0, 2_416, 0, 48_120, 10_164, 850]
    assert [row.multiply_adds for row in layers] == [117_600, 0, 240_000, 0, 48_000, 10_080, 840]
    assert totals(rows) == (61_706, 416_520)


def test_the_1998_form_has_the_papers_shapes_and_parameters() -> None:
    rows = rows_of(meta("lenet5_1998", 10), 32, 1)
    names = ("c1", "s2", "c3", "s4", "c5", "f6", "output")
    assert stages(rows, names) == [
        (6, 28, 28), (6, 14, 14), (16, 10, 10), (16, 5, 5), (120, 1, 1), (84,), (10,)
    ]  # fmt: skip
    assert [rows[name].parameters for name in names] == [156, 12, 1_516, 32, 48_120, 10_164, 0]
    assert totals(rows)[0] == 60_000
    # C3 is computed as one dense convolution of 16 * 6 * 25 weights at 100 positions.
    assert totals(rows)[1] == 117_600 + 240_000 + 48_000 + 10_080


def test_the_1998_form_has_the_papers_340_908_connections() -> None:
    """Counts products and biases per image, without the zeros in C3's kernel."""
    net = models.build("lenet5_1998", classes=10, arguments={})
    kernel = net.get_submodule("c3").kernel()
    assert kernel.shape == (16, 6, 5, 5)
    connected = int((kernel != 0).sum())
    sizes = {name: row.output_shape for name, row in rows_of(net, 32, 1).items()}

    def places(layer: str) -> int:
        return sizes[layer][1] * sizes[layer][2]

    found = {
        "C1": places("c1") * 6 * (1 * 5 * 5 + 1),
        "S2": places("s2") * 6 * (2 * 2 + 1),
        "C3": places("c3") * (connected + 16),
        "S4": places("s4") * 16 * (2 * 2 + 1),
        "C5": 120 * (16 * 5 * 5 + 1),
        "F6": 84 * (120 + 1),
        "output": net.get_submodule("output").get_buffer("codes").numel(),
    }
    assert found == {
        "C1": 122_304, "S2": 5_880, "C3": 151_600, "S4": 2_000, "C5": 48_120, "F6": 10_164, "output": 840
    }  # fmt: skip
    assert sum(found.values()) == 340_908


def test_table_i_connects_as_the_paper_describes() -> None:
    """Section II-B: six maps read three contiguous ones, six read four, three read four others, one all."""
    sizes = [len(sources) for sources in CONNECTIONS]
    assert sizes == [3] * 6 + [4] * 9 + [6]
    assert sum(sizes) == 60

    def contiguous(sources: tuple[int, ...]) -> bool:
        return any({(start + step) % 6 for step in range(len(sources))} == set(sources) for start in range(6))

    assert [contiguous(sources) for sources in CONNECTIONS] == [True] * 12 + [False] * 3 + [True]
    assert len(set(CONNECTIONS)) == 16
    assert len({sum(source in sources for sources in CONNECTIONS) for source in range(6)}) == 1
    for target, source in itertools.product(range(16), range(6)):
        wired = bool(ConnectedConv2d().kernel()[target, source].any())
        assert wired == (source in CONNECTIONS[target])


def test_a_subsampling_map_sums_scales_and_shifts() -> None:
    layer = Subsampling(2)
    nn.init.constant_(layer.coefficient, 0.5)
    nn.init.constant_(layer.bias, 3.0)
    x = torch.arange(16.0).reshape(1, 1, 4, 4).repeat(1, 2, 1, 1)
    assert layer(x)[0, 1].tolist() == [[0.5 * 10 + 3, 0.5 * 18 + 3], [0.5 * 42 + 3, 0.5 * 50 + 3]]


def test_an_output_is_the_distance_to_a_digits_image() -> None:
    codes = DigitCodes()
    drawn = codes.get_buffer("codes")
    assert drawn.shape == (10, 84)
    assert set(drawn.unique().tolist()) == {-1.0, 1.0}
    assert len({tuple(row) for row in drawn.tolist()}) == 10
    logits = codes(drawn)
    assert logits.argmax(dim=1).tolist() == list(range(10))
    assert logits.diagonal().tolist() == [0.0] * 10
    # The squared distance of two codes that differ at n pixels is 4n.
    assert logits[0, 8] == -4 * int((drawn[0] != drawn[8]).sum())


def test_the_1998_form_knows_ten_classes_only() -> None:
    with pytest.raises(RecipeError, match="invalid number of classes 7: the 1998 network has ten outputs"):
        models.build("lenet5_1998", classes=7, arguments={})
