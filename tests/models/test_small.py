"""The small networks of cnnx's own design: the counts in their docstrings, added up by hand."""

from __future__ import annotations

from cnnx.models.count import layer_rows
from tests.inputs.counting import counts
from tests.inputs.meta import meta, rows_of, stages, totals


def test_small_vgg_bn() -> None:
    rows = rows_of(meta("small_vgg_bn", classes=100), 32)
    convolutions = [
        (9 * 3 * 32, 32, 32),
        (9 * 32 * 32, 32, 32),
        (9 * 32 * 64, 64, 16),
        (9 * 64 * 64, 64, 16),
        (9 * 64 * 128, 128, 8),
        (9 * 128 * 128, 128, 8),
    ]
    hidden = (128 * 4 * 4 * 64, 64, 1)
    found = counts([*convolutions, hidden], [(64 * 100, 100, 1)], values_a_channel=3)
    assert totals(rows) == found == (425_668, 38_770_944)
    pools = [row.output_shape for row in rows.values() if row.op == "MaxPool2d"]
    assert pools == [(32, 16, 16), (64, 8, 8), (128, 4, 4)]


def test_small_googlenet_bn() -> None:
    # Input channels, then filters as in table 1: 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool proj; side.
    modules = [
        (32, 16, 16, 32, 16, 16, 16, 16),
        (80, 32, 32, 48, 16, 16, 16, 16),
        (112, 48, 32, 64, 16, 32, 32, 8),
        (176, 64, 48, 96, 16, 48, 32, 8),
        (240, 96, 64, 128, 16, 48, 48, 4),
    ]
    convolutions = [(9 * 3 * 32, 32, 32), (9 * 32 * 32, 32, 32)]
    for reads, one, reduce3, three, reduce5, five, project, side in modules:
        convolutions += [
            (reads * one, one, side),
            (reads * reduce3, reduce3, side),
            (9 * reduce3 * three, three, side),
            (reads * reduce5, reduce5, side),
            (25 * reduce5 * five, five, side),
            (reads * project, project, side),
        ]
    rows = rows_of(meta("small_googlenet_bn", classes=100), 32)
    assert totals(rows) == counts(convolutions, [(320 * 100, 100, 1)]) == (366_756, 31_788_288)
    names = [f"inception{name}.cat" for name in ("3a", "3b", "4a", "4b", "5a")]
    assert stages(rows, names) == [(80, 16, 16), (112, 16, 16), (176, 8, 8), (240, 8, 8), (320, 4, 4)]


def test_small_mobilenet() -> None:
    convolutions, channels, side = [(9 * 3 * 32, 32, 32)], 32, 32
    for outputs, stride in ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (256, 1)):
        side //= stride
        convolutions += [(9 * channels, channels, side), (channels * outputs, outputs, side)]
        channels = outputs
    rows = rows_of(meta("small_mobilenet", classes=100), 32)
    assert totals(rows) == counts(convolutions, [(256 * 100, 100, 1)]) == (228_772, 20_890_624)


def test_small_levit() -> None:
    layers = [(9 * 3 * 32, 32, 32), (9 * 32 * 64, 64, 16), (9 * 64 * 64, 64, 16), (9 * 64 * 64, 64, 8)]
    tables = products = 0

    def blocks(channels: int, heads: int, side: int) -> None:
        """Count two blocks of attention (queries and keys of 32 channels per head, values of 64) and MLP."""
        nonlocal tables, products
        for _ in range(2):
            layers.extend(
                [(channels * 128 * heads, 128 * heads, side), (64 * heads * channels, channels, side)]
            )
            layers.extend(
                [(channels * 2 * channels, 2 * channels, side), (2 * channels * channels, channels, side)]
            )
            tables += heads * side**2
            products += heads * (32 + 64) * side**4

    blocks(64, 2, 8)
    # Shrinking attention: 64 / 32 heads, keys of 32 and values of 128 channels per head; then an MLP.
    layers += [(64 * 2 * 160, 2 * 160, 8), (64 * 64, 64, 4), (2 * 128 * 96, 96, 4)]
    layers += [(96 * 192, 192, 4), (192 * 96, 96, 4)]
    tables += 2 * 8**2
    products += 2 * (32 + 128) * 4**2 * 8**2
    blocks(96, 2, 4)
    heads = [(96 * 100, 100, 1)] * 2
    parameters, multiply_adds = counts(layers, heads)
    parameters += tables + 2 * 2 * 96  # and a BatchNorm before each head
    rows = {str(i): row for i, row in enumerate(layer_rows(meta("small_levit", classes=100), (3, 32, 32)))}
    assert totals(rows) == (parameters, multiply_adds + products) == (435_240, 29_379_328)
