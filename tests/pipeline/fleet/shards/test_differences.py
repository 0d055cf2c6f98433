"""How far nodes differ on what all of them ran."""

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from cnnx.agreement.sharding import NodeShare, Sharding
from cnnx.pipeline.fleet.shards.fleet import largest_difference

values = arrays.arrays(np.float32, (4, 3), elements=st.floats(-100, 100, width=32))


@given(st.lists(values, min_size=1, max_size=4))
def test_it_is_the_largest_of_any_value_between_any_two(found):
    pairs = [np.abs(a.astype(np.float64) - b).max() for a, b in itertools.combinations(found, 2)]
    assert largest_difference(found) == max(pairs, default=0)


def test_what_is_finite_on_some_nodes_only_has_no_difference():
    one, other = np.ones((2, 3), np.float32), np.ones((2, 3), np.float32)
    other[1, 1] = np.nan
    assert largest_difference([one, other]) is None
    assert largest_difference([other, other]) == 0
    assert largest_difference([np.full((2, 2), np.inf, np.float32)] * 2) == 0


def test_nodes_are_alike_only_if_nothing_differs():
    node = NodeShare("a", "a CPU", 2, {}, {"subject": 8})
    for differences, exact in (({}, True), ({"subject": 0.0}, True), ({"a": 0, "b": 1e-9}, False)):
        assert Sharding((node,), 8, 8, 2, differences).is_exact is exact
    assert not Sharding((node,), 8, 8, 2, {"subject": None}).is_exact
