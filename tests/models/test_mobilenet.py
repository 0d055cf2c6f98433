"""MobileNet compared with table 1 of arXiv:1704.04861, MobileNetV2 with table 2 of arXiv:1801.04381."""

from __future__ import annotations

from tests.inputs.counting import counts
from tests.inputs.meta import meta, rows_of, stages, totals

# Output channels of the separable convolutions, and the stride of their depthwise part.
SEPARABLE = [
    (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2),
    (512, 1), (512, 1), (512, 1), (512, 1), (512, 1), (1024, 2), (1024, 1),
]  # fmt: skip
# Expansion t, output channels c, repetitions n, stride s.
BOTTLENECKS = [
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)
]  # fmt: skip


def test_mobilenet_is_table_1() -> None:
    layers, channels, side = [(9 * 3 * 32, 32, 112)], 32, 112
    for outputs, stride in SEPARABLE:
        side //= stride
        layers += [(9 * channels, channels, side), (channels * outputs, outputs, side)]
        channels = outputs
    rows = rows_of(meta("mobilenet_v1"))
    assert totals(rows) == counts(layers, [(1024 * 1000, 1000, 1)]) == (4_231_976, 568_740_352)
    names = [f"pointwise{number}.relu" for number in (2, 4, 6, 12, 14)]
    assert stages(rows, names) == [(64, 112, 112), (128, 56, 56), (256, 28, 28), (512, 14, 14), (1024, 7, 7)]
    assert sum(row.op == "ReLU" for row in rows.values()) == 27


def test_mobilenet_v2_is_table_2() -> None:
    layers, channels, side, sums = [(9 * 3 * 32, 32, 112)], 32, 112, 0
    for expansion, outputs, repetitions, stride in BOTTLENECKS:
        for index in range(repetitions):
            hidden = expansion * channels
            layers += [(channels * hidden, hidden, side)] if expansion > 1 else []
            side //= stride if index == 0 else 1
            layers += [(9 * hidden, hidden, side), (hidden * outputs, outputs, side)]
            sums += index > 0
            channels = outputs
    layers.append((320 * 1280, 1280, 7))
    rows = rows_of(meta("mobilenet_v2"))
    assert totals(rows) == counts(layers, [(1280 * 1000, 1000, 1)]) == (3_504_872, 300_774_272)
    # Bottlenecks end without an activation, and only those that keep their shape add their input.
    assert sum(row.op == "ReLU6" for row in rows.values()) == 2 + 17 + 16
    assert sum(name.endswith(".add") for name in rows) == sums == 10
