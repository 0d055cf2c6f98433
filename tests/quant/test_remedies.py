"""The search for a remedy, on networks whose distance is a product of what changes leave of it."""

from __future__ import annotations

import itertools
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnx.quant.remedies import Advice, Attempt, Remedies, Remedy, Tried, advise
from cnnx.quant.repair import Outcome

IMAGES = 64
FREE = (
    Remedy("method", method="max"),
    Remedy("method", method="entropy"),
    Remedy("center", on=False),
    Remedy("shortcuts", ("add1", "add2")),
    Remedy("range", ("conv1",), method="max"),
)
LAYERS = tuple(Remedy("fp16", (f"layer{n}",), cost=10 + n) for n in range(20))


def network(
    leaves: dict[Remedy, float],
    *,
    limit: float = 0.5,
    noise: float = 0.01,
    calls: list[Remedies] | None = None,
) -> Attempt:
    """A network at distance 1, of which each change leaves a share; images scatter around the mean."""

    def attempt(remedies: Remedies) -> Tried:
        if calls is not None:
            calls.append(remedies)
        mean = float(np.prod([leaves.get(each, 1.0) for each in remedies]))
        seed = zlib.crc32(repr(remedies).encode())
        values = mean + noise * np.random.default_rng(seed).standard_normal(IMAGES)
        return Tried(remedies, Outcome(mean, mean <= limit), values)

    return attempt


def changes(advice: Advice) -> Remedies:
    assert advice.chosen is not None
    return advice.chosen.remedies


def test_a_change_that_is_free_comes_before_layers_that_leave_int8() -> None:
    leaves = {FREE[2]: 0.3, LAYERS[0]: 0.01}
    found = advise(FREE, LAYERS, network(leaves))
    assert changes(found) == (FREE[2],) and found.reaches


def test_two_changes_are_combined_if_one_is_not_enough_but_never_two_methods() -> None:
    leaves = {FREE[0]: 0.8, FREE[1]: 0.81, FREE[3]: 0.6}
    calls: list[Remedies] = []
    found = advise(FREE, (), network(leaves, calls=calls))
    assert set(changes(found)) == {FREE[0], FREE[3]} and found.reaches
    assert all(sum(each.kind == "method" for each in tried) < 2 for tried in calls)


def test_no_more_layers_return_than_the_prefixes_tell_apart() -> None:
    leaves = dict.fromkeys(LAYERS, 0.8)  # four layers are enough, and five is the next prefix
    found = advise((), LAYERS, network(leaves))
    assert changes(found) == LAYERS[:5] and found.chosen is not None
    assert found.chosen.cost == sum(each.cost for each in LAYERS[:5])


def test_layers_are_spared_where_a_free_change_does_part_of_the_work() -> None:
    leaves = {FREE[3]: 0.7, **dict.fromkeys(LAYERS, 0.8)}
    assert set(changes(advise(FREE, LAYERS, network(leaves)))) == {FREE[3], LAYERS[0], LAYERS[1]}


def test_chance_is_not_advised() -> None:
    found = advise(FREE, LAYERS, network({FREE[0]: 0.97, LAYERS[0]: 0.99}, noise=1.0))
    assert found.chosen is None and not found.reaches
    # A network that passes is close enough already: a change must be worth it.
    found = advise(FREE, (), network({FREE[0]: 0.9}, limit=2.0))
    assert changes(found) == (FREE[0],) and not found.reaches


def test_logits_that_are_not_finite_lose_to_any_that_are() -> None:
    def attempt(remedies: Remedies) -> Tried:
        distance = 0.1 if FREE[2] in remedies else np.inf
        return Tried(remedies, Outcome(distance, distance < 1), np.full(IMAGES, distance))

    found = advise(FREE, LAYERS, attempt)
    assert changes(found) == (FREE[2],) and found.reaches


SHARES = st.floats(0.05, 1.2)


@given(
    st.lists(SHARES, min_size=len(FREE), max_size=len(FREE)),
    st.lists(SHARES, max_size=len(LAYERS)),
    st.floats(0.01, 2),
)
def test_what_is_advised_was_tried_and_nothing_cheaper_that_was_tried_is_enough(
    free: list[float], layers: list[float], limit: float
) -> None:
    leaves = {**dict(zip(FREE, free, strict=True)), **dict(zip(LAYERS, layers, strict=False))}
    calls: list[Remedies] = []
    attempt = network(leaves, limit=limit, calls=calls)
    found = advise(FREE, LAYERS[: len(layers)], attempt)
    assert [each.remedies for each in found.tried] == calls and len(calls) == len(set(calls))
    assert len(calls) <= 1 + len(FREE) + 4 + 12
    start = found.tried[0]
    enough = [
        each
        for each in found.tried[1:]
        if each.outcome.passes
        and each.beats(start)
        and (not start.outcome.passes or each.outcome.distance <= 0.75)
    ]
    assert found.reaches == bool(enough)
    if enough:
        assert found.chosen is not None and found.chosen in enough
        assert found.chosen.cost == min(each.cost for each in enough)
    elif found.chosen is not None:
        assert found.chosen.beats(start)
        helping = [each.outcome.distance for each in found.tried if each.beats(start)]
        assert found.chosen.outcome.distance == min(helping)


@pytest.mark.parametrize(("gain", "beats"), [(0.0, False), (0.1, True), (-0.1, False)])
def test_a_gain_counts_from_thrice_its_error(gain: float, beats: bool) -> None:
    """Paired: images differ by far more than the change does."""
    values = np.repeat([0.1, 10.0], IMAGES // 2)
    scatter = np.array(list(itertools.islice(itertools.cycle((-0.2, 0.2)), IMAGES)))
    before = Tried((), Outcome(float(values.mean()), False), values)
    after = Tried((FREE[0],), Outcome(float(values.mean()) - gain, False), values - gain + scatter)
    assert after.beats(before) is beats
