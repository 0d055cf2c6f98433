"""Statistics of a tensor: exact where documented, and independent of how the values are split."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from cnnx.errors import BundleError
from cnnx.quant.histogram import TensorStatistics

Floats = NDArray[np.float32]
ANY_FLOATS = hnp.arrays(np.float32, st.integers(0, 300), elements=st.floats(width=32))


def statistics(*arrays: Floats) -> TensorStatistics:
    made = TensorStatistics()
    for values in arrays:
        made.update(values)
    return made


def same(one: TensorStatistics, other: TensorStatistics) -> bool:
    mine, yours = one.to_arrays(), other.to_arrays()
    return all(np.array_equal(mine[key], yours[key]) for key in mine)


@settings(deadline=None)
@given(ANY_FLOATS)
def test_totals_are_numpys(values: Floats) -> None:
    finite = values[np.isfinite(values)]
    made = statistics(values)
    assert made.count == finite.size
    assert made.nonfinite == values.size - finite.size
    assert made.zeros == np.count_nonzero(finite == 0)
    assert made.maximum == (np.abs(finite).max() if finite.size else 0)
    assert made.to_arrays()["counts"].sum() == np.count_nonzero(finite)
    assert made.linear(64).sum() == pytest.approx(np.count_nonzero(finite))


@settings(deadline=None)
@given(st.lists(ANY_FLOATS, max_size=4), st.randoms(use_true_random=False))
def test_any_split_in_any_order_gives_the_same(parts: list[Floats], random: object) -> None:
    whole = statistics(np.concatenate([np.empty(0, np.float32), *parts]))
    getattr(random, "shuffle")(parts)  # noqa: B009 - hypothesis' Random has no public type
    merged = TensorStatistics()
    for part in parts:
        merged.merge(statistics(part.reshape(1, -1, 1)))
    assert same(merged, whole)


def test_a_stream_longer_than_a_chunk_taken_up_again_from_a_file(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    values = np.random.default_rng(1).standard_normal((2, 3, 41, 999)).astype(np.float32)
    values[0, 0, 0, :7] = 0
    half = statistics(values[0])
    file = tmp_path_factory.mktemp("statistics") / "half.npz"
    np.savez(file, **half.to_arrays())
    with np.load(file) as saved:
        resumed = TensorStatistics.from_arrays(saved)
    resumed.update(values[1])
    assert same(resumed, statistics(values))
    assert not same(resumed, half)


def test_the_centres_of_bins_have_the_mean_of_the_values() -> None:
    values = np.random.default_rng(2).uniform(-3, 3, 20_000).astype(np.float32)
    values[:100] = 0
    centres, counts = statistics(values).filled()
    assert counts.sum() == np.count_nonzero(values)
    assert centres @ counts / counts.sum() == pytest.approx(np.abs(values[values != 0]).mean(), rel=2e-5)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.01, 1e3))
def test_linear_reading_misplaces_less_than_a_bin(seed: int, scale: float) -> None:
    # Cumulative counts may differ only by the logarithmic bin that contains a linear edge.
    values = np.abs(np.random.default_rng(seed).laplace(scale=scale, size=4000).astype(np.float32))
    made = statistics(values)
    edges = np.linspace(0, made.maximum, 2049)[1:]
    cumulated = np.cumsum(made.linear(2048))
    assert np.all(cumulated >= np.searchsorted(np.sort(values), edges * (1 - 2.0**-10)) - 1e-6)
    assert np.all(cumulated <= np.searchsorted(np.sort(values), edges * (1 + 2.0**-10), side="right") + 1e-6)
    threshold = float(np.quantile(values, 0.9))
    assert made.share_above(threshold) == pytest.approx(0.1, abs=0.005)
    assert made.share_above(made.maximum) == 0


def test_a_maximum_at_the_lower_edge_of_its_bin_is_counted() -> None:
    made = statistics(np.array([0.5, 1.0], np.float32))
    assert made.linear(4).tolist() == pytest.approx([0, 0, 1, 1], abs=0.01)


def test_what_lies_beyond_the_octaves_stays_in_the_end_bins() -> None:
    made = statistics(np.array([1e-30, 3e38, 0.0], np.float32))
    counts = made.to_arrays()["counts"]
    assert (counts[0], counts[-1], made.zeros) == (1, 1, 1)
    assert made.maximum == pytest.approx(3e38)


def test_a_sample_is_told_how_large_the_rest_was() -> None:
    made = statistics(np.array([1, 2], np.float32))
    made.tell_maximum(-2.5)
    made.tell_maximum(0.5)
    assert (made.maximum, made.count) == (2.5, 2)
    assert made.linear(5).tolist() == [0, 0, 1, 0, 1]


@settings(deadline=None)
@given(ANY_FLOATS, st.floats(0, 1))
def test_a_quantile_leaves_no_larger_share_beyond_it(values: Floats, share: float) -> None:
    finite = np.abs(values[np.isfinite(values)])
    found = statistics(values).quantile(share)
    assert np.count_nonzero(finite <= found) >= share * finite.size - 1e-9
    assert found <= finite.max(initial=0)


@pytest.mark.parametrize("fault", ["missing", "short", "sum"])
def test_damaged_arrays_are_refused(fault: str) -> None:
    arrays = statistics(np.ones(5, np.float32)).to_arrays()
    if fault == "missing":
        del arrays["totals"]
    elif fault == "short":
        arrays["counts"] = arrays["counts"][:-1]
    else:
        arrays["counts"][7] += 1
    with pytest.raises(BundleError, match="saved statistics"):
        TensorStatistics.from_arrays(arrays)
