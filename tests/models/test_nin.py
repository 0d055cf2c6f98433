"""Network in Network, with and without BatchNorm."""

from __future__ import annotations

from tests.inputs.meta import meta, rows_of, stages, totals

# Output maps, input maps, kernel of each convolution; the last 1x1 of the fourth block gives the classes.
BLOCKS = ((96, 3, 11), (256, 96, 5), (384, 256, 3), (1024, 384, 3))


def test_nin_is_the_authors_imagenet_model() -> None:
    """Sides are 54, 27, 13, 6, because Caffe's pools round up."""
    rows = rows_of(meta("nin"))
    parameters = multiply_adds = 0
    for (maps, reads, kernel), side in zip(BLOCKS, (54, 27, 13, 6), strict=True):
        outputs = (maps, 1000 if maps == 1024 else maps)
        first = maps * reads * kernel * kernel
        small = [maps * outputs[0], maps * outputs[1]]
        parameters += first + maps + sum(small) + sum(outputs)
        multiply_adds += (first + sum(small)) * side * side
    assert totals(rows) == (parameters, multiply_adds) == (7_595_176, 1_100_188_800)
    assert stages(rows, ["cccp2", "cccp4", "cccp6", "cccp8", "pool4"]) == [
        (96, 54, 54), (256, 27, 27), (384, 13, 13), (1000, 6, 6), (1000, 1, 1)
    ]  # fmt: skip


def test_bn_nin_is_the_network_of_canziani() -> None:
    """8,638,496 weights, 8,655,336 parameters: all convolutions of a block are as wide as the first."""
    weights = multiply_adds = 0
    for (maps, reads, kernel), side in zip(BLOCKS, (56, 28, 14, 7), strict=True):
        block = maps * reads * kernel * kernel + 2 * maps * maps
        weights += block
        multiply_adds += block * side * side
    maps = 3 * (96 + 256 + 384 + 1024)
    assert weights + 1024 * 1000 == 8_638_496
    rows = rows_of(meta("bn_nin"))
    assert totals(rows) == (8_655_336, 1_259_939_840)
    assert totals(rows) == (weights + 1024 * 1000 + 1000 + maps + 2 * maps, multiply_adds + 1024 * 1000)
