"""What sampling costs: turns that fit a minute, on a clock of the test's own."""

from __future__ import annotations

import math

import pytest

from cnnx.errors import UsageError
from cnnx.measure.power.cost import SamplerCost, cost_seconds, cost_turns, sampler_cost


@pytest.mark.parametrize(
    ("run_s", "turns", "seconds"),
    [
        (0.0, 10, 15.0),  # two sides of half a second, and half a second to start the sampler
        (0.5, 10, 25.0),
        (1.0, 10, 45.0),
        (1.375, 10, 60.0),
        (1.4, 9, 54.9),
        (2.0, 7, 59.5),
        (4.875, 3, 60.0),
        (4.9, 0, 0.0),
    ],
)
def test_at_most_ten_turns_and_at_least_three_within_a_minute(run_s, turns, seconds):
    assert cost_turns(run_s) == turns and cost_seconds(run_s) == pytest.approx(seconds)


class Work:
    """Runs of 100 ms, or of 110 ms while sampled; the first of each side takes a second."""

    def __init__(self):
        self.now_ns, self.sampled, self.sides, self.checked = 0, False, [], 0
        self.cold = True

    def clock(self):
        return self.now_ns

    def run(self):
        if self.cold:
            self.sides.append(self.sampled)
        self.now_ns += 10**9 if self.cold else 110_000_000 if self.sampled else 100_000_000
        self.cold = False

    def __enter__(self):
        self.sampled, self.cold = True, True
        return self

    def __exit__(self, *_):
        self.sampled, self.cold = False, True

    def check(self):
        assert self.sampled
        self.checked += 1
        self.cold = True


def test_sides_take_turns_and_their_first_run_is_not_counted():
    work, told = Work(), []

    def sampler():
        work.cold = True
        return work

    def progress(done, turns):
        work.cold = True
        told.append((done, turns))

    found = sampler_cost(work.run, sampler, turns=3, clock=work.clock, progress=progress)
    assert work.sides == [False, True, True, False, False, True] and work.checked == 3
    assert told == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert found == SamplerCost((1e8,) * 3, (1.1e8,) * 3)
    assert found.ratio == pytest.approx(1.1) == found.interval.low == found.interval.high
    with pytest.raises(UsageError, match="in 1 turns"):
        sampler_cost(work.run, sampler, turns=1, clock=work.clock)


def test_the_ratio_is_a_geometric_mean_with_the_middle_of_its_draws():
    cost = SamplerCost((1.0, 1.0, 2.0, 4.0), (2.0, 0.5, 4.0, 4.0))
    assert cost.ratio == pytest.approx(2**0.25)
    assert 0.5 < cost.interval.low < 1 < cost.ratio < cost.interval.high <= 2
    assert cost.as_dict() == {"without_ns": [1.0, 1.0, 2.0, 4.0], "with_ns": [2.0, 0.5, 4.0, 4.0]}
    turned = SamplerCost(cost.with_ns, cost.without_ns)
    assert math.log(turned.interval.high) == pytest.approx(-math.log(cost.interval.low), abs=0.2)
