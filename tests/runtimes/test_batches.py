from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnx.errors import ImageError
from cnnx.runtimes.batches import check_images, run_in_batches


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
    check_images(np.zeros((7, 3, 5, 9), np.float32), ["N", 3, "H", -1])
    with pytest.raises(ImageError, match=r"\(N, 3, H, -1\)"):
        check_images(np.zeros((7, 4, 5, 9), np.float32), ["N", 3, "H", -1])
