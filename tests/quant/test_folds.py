"""Estimates from folds: the spread of ranges, and the remaining error of a figure."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnx.quant.calibration import Calibration, TensorRange
from cnnx.quant.folds import spreads, still_moves

figures = st.floats(1e-6, 10)


def calibration(**ranges: float) -> Calibration:
    tensors = {name: TensorRange(amax, amax, "max", 0.0, 0.0) for name, amax in ranges.items()}
    return Calibration("max", 1, "d", ranges=tensors)


def test_the_range_that_moves_most_comes_first() -> None:
    whole = calibration(steady=1e-3, moves=4, gone=4, dead=0)
    folds = [calibration(steady=1e-3, moves=amax, gone=amax - 2, dead=0) for amax in (2, 3, 4)]
    found = spreads(whole, folds)
    assert [(each.tensor, each.ratio) for each in found] == [("gone", math.inf), ("moves", 2), ("steady", 1)]
    assert found[1].folds == (2, 3, 4) and found[1].amax == 4


@pytest.mark.parametrize("folds", [2, 5])
def test_an_excess_that_falls_with_the_images_is_what_remains(folds: int) -> None:
    """A figure of 0.01 + 0.3 / n exceeds that of an infinite set by 0.005 with 60 images."""
    part = 0.01 + 0.3 / (60 / folds)
    assert still_moves(0.01 + 0.3 / 60, [part] * folds) == pytest.approx(0.005)


def test_chance_counts_twice_and_less_for_more_images() -> None:
    assert still_moves(2, [1, 3]) == pytest.approx(2 * math.sqrt(2) / math.sqrt(2))
    assert still_moves(2, [1, 3] * 8) < still_moves(2, [1, 3]) / 2


@given(figures, st.lists(figures, min_size=2, max_size=8), st.floats(0.1, 10))
def test_unit_and_order_change_nothing(whole: float, folds: list[float], unit: float) -> None:
    moves = still_moves(whole, folds)
    assert moves >= 0
    assert still_moves(whole * unit, [fold * unit for fold in reversed(folds)]) == pytest.approx(moves * unit)


def test_folds_that_agree_settle_it_and_one_that_overflows_does_not() -> None:
    assert still_moves(0.5, [0.5] * 5) == 0
    assert still_moves(0.5, [0.5, math.inf]) == math.inf == still_moves(math.inf, [0.5, 0.5])
