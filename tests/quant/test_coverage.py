import numpy as np
import pytest

from cnnx.quant.coverage import coverage
from cnnx.quant.observation import Observation, Seen


def observed(values, channels):
    """Observe one tensor with sample `values` and channels of these maxima."""
    seen = Observation({"x": slice(0, len(channels))}, {"x": slice(0, len(values))})
    maxima = np.array(channels, np.float32)
    seen.take(Seen(maxima, np.zeros_like(maxima), np.array(values, np.float32)), 1)
    return seen


def test_shares_are_of_the_values_other_than_zero():
    # With a step of 1, 0.25 rounds to zero, and 200 and 300 exceed 127; zeros are not counted.
    seen = observed([0, 0, 0.25, 0.75, -3, 100, -200, 300, 60], [0.25, 0.5, 0.6, 60, 70, 0, 300])
    found = coverage(seen, "x", step=1.0, amax=127.0, read_by=("conv",))
    assert (found.amax, found.maximum, found.read_by) == (127, 300, ("conv",))
    assert found.saturated == pytest.approx(2 / 7) and found.underflow == pytest.approx(1 / 7)
    # The channel of zeros is zero in FP32 too, so it is not counted. Half a step rounds to zero.
    assert (found.channels, found.dead_channels, found.dead_share) == (6, 2, pytest.approx(1 / 3))
    assert found.middle_steps == pytest.approx(30.3) and found.body == 1


def test_few_values_far_out_leave_the_body_a_thin_part_of_the_range():
    seen = observed([*np.linspace(0.5, 1, 9999), 100], [100])
    found = coverage(seen, "x", step=100 / 127, amax=100.0, read_by=())
    assert found.body == pytest.approx(0.01, rel=0.01) and found.saturated == 0


def test_a_tensor_of_zeros_has_nothing_to_lose():
    found = coverage(observed([0, 0], [0]), "x", step=1.0, amax=127.0, read_by=())
    assert (found.saturated, found.underflow, found.channels, found.dead_share, found.middle_steps) == (
        0,
    ) * 5
