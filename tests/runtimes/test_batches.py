from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnx.errors import ImageError, UsageError
from cnnx.runtimes.batches import check_images, run_in_batches

FLOAT, PIXELS = np.dtype(np.float32), np.dtype(np.uint8)


@given(count=st.integers(1, 20), sizes=st.tuples(st.integers(1, 8), st.integers(1, 8)))
def test_slices_join_to_the_whole(count, sizes):
    least, size = sorted(sizes)
    seen = []

    def run(part):
        seen.append(len(part))
        return {"sum": part.sum(axis=(1, 2, 3)), "same": part}

    images = np.random.default_rng(count).standard_normal((count, 1, 2, 2)).astype(np.float32)
    found = run_in_batches(run, images, size=size, least=least)
    np.testing.assert_array_equal(found["same"], images)
    np.testing.assert_allclose(found["sum"], images.sum(axis=(1, 2, 3)))
    assert len(seen) == -(-count // size)
    assert all(least <= n <= size for n in seen)
    assert sum(seen) - count < least


def test_only_fixed_sizes_must_fit():
    check_images(np.zeros((7, 3, 5, 9), np.float32), ["N", 3, "H", -1], FLOAT)
    with pytest.raises(ImageError, match=r"\(N, 3, H, -1\)"):
        check_images(np.zeros((7, 4, 5, 9), np.float32), ["N", 3, "H", -1], FLOAT)


@pytest.mark.parametrize(
    ("images", "shape", "fits"),
    [
        ((2, 1, 4, 4), (1, 1, 4, 4), True),
        ((2, 3, 4, 4), (1, 1, 4, 4), False),
        ((2, 3, 4, 4), (1, 0, 4, None), True),
        ((2, 3, 4, 5), (1, 3, 4, 4), False),
        ((2, 3, 4), (1, 3, 4, 4), False),
        ((2, 3, 4, 4, 1), (1, 3, 4, 4), False),
        ((0, 3, 4, 4), ("N", 3, 4, 4), False),
    ],
)
def test_every_fixed_size_and_the_number_of_axes_must_fit(images, shape, fits):
    if fits:
        check_images(np.zeros(images, np.float32), shape, FLOAT)
    else:
        with pytest.raises(ImageError, match="do not fit the input") as refusal:
            check_images(np.zeros(images, np.float32), shape, FLOAT)
        assert str(images) in refusal.value.what


@pytest.mark.parametrize("output", [np.float32(1), np.zeros(3, np.float32), np.zeros((1, 4), np.float32)])
def test_outputs_without_the_batch_cannot_be_joined_or_cut(output):
    images = np.zeros((3, 1, 2, 2), np.float32)

    def run(part):
        return {"logits": np.zeros((len(part), 4)), "other": np.asarray(output)}

    assert run_in_batches(run, images, size=3, least=1)["other"].shape == output.shape
    for size, least in ((2, 1), (4, 4)):
        with pytest.raises(UsageError, match=f"the output 'other' of shape .* so slices of {size} images"):
            run_in_batches(run, images, size=size, least=least)


def test_a_slice_is_padded_with_its_last_image():
    images, seen = np.arange(5, dtype=np.float32).reshape(5, 1, 1, 1), []
    run_in_batches(lambda part: seen.append(part.ravel().tolist()) or {"x": part}, images, size=3, least=3)
    assert seen == [[0, 1, 2], [3, 4, 4]]


def test_pixels_and_floats_are_not_mistaken_for_each_other():
    pixels = np.zeros((1, 5, 9, 3), np.uint8)
    check_images(pixels, [1, 5, 9, 3], PIXELS)
    check_images(pixels.astype(np.float32), [1, 5, 9, 3], np.dtype(np.float16))
    with pytest.raises(ImageError, match="takes floats, and the images are uint8"):
        check_images(pixels, [1, 5, 9, 3], FLOAT)
    with pytest.raises(ImageError, match="takes pixels"):
        check_images(pixels.astype(np.float32), [1, 5, 9, 3], PIXELS)
