"""The search on networks whose distance is a sum over their layers."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from cnnx.quant.repair import Outcome, Try, repair

Damages = dict[str, float]  # integers where sums are compared: those of a set are added in any order
LAYERS = st.dictionaries(
    st.sampled_from([f"layer{i}" for i in range(24)]), st.integers(0, 100), min_size=2, max_size=24
)


def sum_of(damages: Damages, limit: float, *, together: float = 0.0) -> Try:
    """Distances add up; the first two layers by name add more if both are in INT8."""
    pair = set(sorted(damages)[:2])

    def attempt(int8: frozenset[str]) -> Outcome:
        distance = sum(damages[layer] for layer in int8) + (together if pair <= int8 else 0)
        return Outcome(distance, distance <= limit)

    return attempt


@settings(deadline=None)
@given(damages=LAYERS, limit=st.integers(0, 300), together=st.integers(0, 200))
def test_what_is_found_passes_and_nothing_in_it_could_stay(
    damages: Damages, limit: float, together: float
) -> None:
    attempt = sum_of(damages, limit, together=together)
    found = repair(list(damages), attempt, costs=dict.fromkeys(damages, 1), most=10_000)
    int8 = frozenset(damages) - {each.layer for each in found.put_back}
    assert found.after == attempt(int8) and found.after.passes  # with none in INT8 the distance is 0
    assert found.before == attempt(frozenset(damages))
    assert bool(found.put_back) != found.before.passes
    for each in found.put_back:
        assert each.alone == damages[each.layer]
        assert not attempt(int8 | {each.layer}).passes
        assert each.spared == attempt(int8 | {each.layer}).distance - found.after.distance


@example(damages={"a": 0, "b": 0, "c": 1}, limit=0, most=4)  # no trial is left behind the layer found
@given(damages=LAYERS, limit=st.integers(0, 100), most=st.integers(1, 60))
def test_no_more_networks_are_tried_than_allowed(damages: Damages, limit: float, most: int) -> None:
    calls: list[frozenset[str]] = []
    inner = sum_of(damages, limit)

    def attempt(int8: frozenset[str]) -> Outcome:
        calls.append(int8)
        return inner(int8)

    found = repair(list(damages), attempt, costs=dict.fromkeys(damages, 1), most=most)
    assert len(calls) == len(set(calls)) == found.tried <= most
    int8 = frozenset(damages) - {each.layer for each in found.put_back}
    assert found.after == inner(int8)
    assert found.after.passes or found.exhausted


def test_the_culprits_alone_are_put_back() -> None:
    damages = {f"layer{i}": 1.0 for i in range(40)} | {"layer7": 300.0, "layer31": 100.0}
    found = repair(list(damages), sum_of(damages, 50), costs=dict.fromkeys(damages, 1), most=100)
    assert [each.layer for each in found.put_back] == ["layer7", "layer31"]


def test_one_culprit_of_forty_layers_takes_seven_trials() -> None:
    """The whole, four or five halves, and the network without it; the last half is the layer alone."""
    damages = {f"layer{i}": 1.0 for i in range(40)} | {"layer7": 300.0}
    found = repair(list(damages), sum_of(damages, 50), costs=dict.fromkeys(damages, 1), most=100)
    assert [each.layer for each in found.put_back] == ["layer7"] and found.tried == 7


def test_three_culprits_of_forty_layers_take_23_trials() -> None:
    """A third of what a ranking takes, which tries each layer alone."""
    damages = {f"layer{i}": 1.0 for i in range(40)} | {f"layer{i}": 300.0 for i in (3, 17, 29)}
    found = repair(list(damages), sum_of(damages, 50), costs=dict.fromkeys(damages, 1), most=100)
    assert {each.layer for each in found.put_back} == {"layer3", "layer17", "layer29"}
    assert found.tried == 23


def test_of_equals_the_costly_layer_stays_in_int8() -> None:
    damages = {"cheap": 1.0, "costly": 1.0}
    costs = {"cheap": 10, "costly": 1000}
    found = repair(list(damages), sum_of(damages, 1.0), costs=costs, most=100)
    assert [each.layer for each in found.put_back] == ["cheap"]


def test_of_two_that_harm_together_the_costly_one_returns_to_int8() -> None:
    """c harms by itself, but less than a or b alone; these harm each other."""
    alone = {"a": 3.0, "b": 2.0, "c": 1.0}

    def attempt(int8: frozenset[str]) -> Outcome:
        return Outcome(sum(alone[each] for each in int8), "c" not in int8 and not {"a", "b"} <= int8)

    for costly, other in (("a", "b"), ("b", "a")):
        found = repair(list(alone), attempt, costs={costly: 1000, other: 10, "c": 1}, most=100)
        assert [each.layer for each in found.put_back] == [other, "c"] and found.after.passes


def test_a_wrong_network_that_seems_to_get_worse_leads_no_one_astray() -> None:
    """Beyond some distance all is noise, as with completely wrong logits."""
    damages = {f"layer{i:02}": 1.0 if i < 7 else 1e-4 for i in range(32)}
    inner = sum_of(damages, 0.5)

    def attempt(int8: frozenset[str]) -> Outcome:
        outcome = inner(int8)
        return Outcome(
            7 + (len(int8) * 7919 % 13) / 4 if outcome.distance > 2 else outcome.distance, outcome.passes
        )

    found = repair(list(damages), attempt, costs=dict.fromkeys(damages, 1), most=60)
    assert [each.layer for each in found.put_back] == [f"layer{i:02}" for i in range(7)]
    assert found.tried < 1 + 32 + 7 + 8 + 2


def test_what_only_harms_together_is_found() -> None:
    damages = {f"layer{i:02}": 200.0 - i for i in range(30)}
    damages |= {"a": 0.0, "b": 0.0}  # the first two by name do nothing alone
    found = repair(
        list(damages), sum_of(damages, 10_000, together=50_000), costs=dict.fromkeys(damages, 1), most=110
    )
    assert found.after.passes and len(found.put_back) == 1 and found.put_back[0].layer in "ab"


def test_where_nothing_would_do_nothing_is_put_back() -> None:
    damages = dict.fromkeys("abcdef", 1.0)
    found = repair(
        list(damages), lambda int8: Outcome(1.0 + len(int8), False), costs=dict.fromkeys(damages, 1), most=99
    )
    assert found.put_back == () and not found.after.passes and not found.exhausted


def test_what_was_put_back_when_trials_ended_stays_so() -> None:
    damages = dict.fromkeys("abcdef", 1.0)
    found = repair(list(damages), sum_of(damages, 0.5), costs=dict.fromkeys(damages, 1), most=12)
    assert found.exhausted and not found.after.passes
    assert found.after.distance == 6 - len(found.put_back) < 6
    assert {each.spared for each in found.put_back} <= {1.0, None}
