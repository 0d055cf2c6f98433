"""The search on devices whose true latency is known."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest

from cnnx.quant.repair import Outcome
from cnnx.quant.tuning.choice import Objective, least
from cnnx.quant.tuning.device import SAME, Budget, Ledger, Paired, Placement, Refused, Tried
from cnnx.quant.tuning.problem import Link, Problem, Site
from cnnx.quant.tuning.search import OutOfTime, Search, front
from tools.bench.tune import BUILDS, WORLDS, Engine, Model, trial

DEVELOPED_ON = 5000  # docs/tuning.md reports the seeds from 0 on
CHAIN = Problem([Site(f"s{i}", i, 1 / 8) for i in range(8)], [Link(i, i + 1, i) for i in range(7)])


def placements(n: int) -> np.ndarray:
    return np.array(list(itertools.product([False, True], repeat=n)))


def test_the_choice_keeps_its_bound_and_is_almost_always_the_best_of_all() -> None:
    draw, exact = np.random.default_rng(7), 0
    every = placements(8)
    for share in np.linspace(0, 1.2, 80):
        linear, pairs = CHAIN.per_site(draw.normal(0, 1, 15))
        damage = draw.lognormal(0, 1, 8)
        objective = Objective(linear, pairs, damage, share * float(damage.sum()))
        found = least(CHAIN, objective, draw)
        assert damage @ found <= objective.bound * (1 + 1e-9)
        kept = every[every @ damage <= objective.bound]
        times = [objective.latency(each) for each in kept]
        exact += objective.latency(found) <= min(times) + 1e-9
        assert objective.latency(found) <= 0.8 * min(times) + 1e-9
    assert exact >= 76


def test_sites_of_one_kind_share_a_coefficient_and_features_are_their_sums() -> None:
    blocks = Problem(
        [Site("a1", 0, 0.2), Site("b1", 1, 0.3), Site("a2", 0, 0.2), Site("b2", 1, 0.3)],
        [Link(0, 1, 0), Link(1, 2, 1), Link(2, 3, 0)],
    )
    assert (blocks.kinds, blocks.link_kinds) == (2, 2)
    coefficients = np.array([-3.0, -5.0, 2.0, 7.0])
    linear, pairs = blocks.per_site(coefficients)
    objective = Objective(linear, pairs, np.zeros(4), 0.0)
    for each in placements(4):
        assert objective.latency(each) == pytest.approx(float(blocks.features(each) @ coefficients))
    whole = blocks.placement(["a1", "b1", "a2", "b2"])
    assert list(blocks.features(whole)) == [2, 2, 2, 1]
    assert blocks.names_of(blocks.placement(["b1", "a2"])) == {"b1", "a2"}


@pytest.mark.parametrize("world", (WORLDS[0], WORLDS[3]), ids=lambda world: world.what)
def test_the_regret_is_at_most_one_percent_and_below_that_of_removal_by_damage(world) -> None:
    found = [trial(world, seed) for seed in range(DEVELOPED_ON, DEVELOPED_ON + 2)]
    for each in found:
        assert -1e-9 <= each.search <= 0.01 and each.passes
        assert each.over_fp16 <= 1.0 and each.builds <= BUILDS + 6
    assert sum(each.search for each in found) < sum(each.by_damage for each in found)


class Small(Model):
    """A model with eight groups, whose builder may refuse placements."""

    def __init__(self, seed: int = 1, refused: Sequence[str] = ()) -> None:
        super().__init__(WORLDS[0].__class__("eight groups", groups=8), seed)
        self.refused, self.open = frozenset(refused), 0

    def build(self, placement: Placement) -> Engine:
        if self.refused and self.refused <= placement:
            raise Refused("these two cannot be fused")
        self.open += 1
        return super().build(placement)

    def discard(self, engine: Engine) -> None:
        self.open -= 1


def search(model: Model, ledger: Ledger | None = None, **changes):
    given = changes.pop("given", frozenset(model.problem.names))
    return Search(
        model.problem,
        model,
        changes.pop("judge", model.judge),
        given=given,
        ledger=ledger or Ledger(),
        budget=changes.pop("budget", Budget(builds=40)),
        clock=lambda: model.now,
        **changes,
    )


def test_what_the_builder_refuses_is_not_chosen_and_not_tried_again() -> None:
    free = search(Small()).run()
    two = sorted(free.chosen.placement)[:2]
    model, ledger = Small(refused=two), Ledger()
    found = search(model, ledger).run()
    refused = [each for each in ledger.tried.values() if each.refused]
    assert refused and all(each.time is None and set(two) <= each.placement for each in refused)
    assert not set(two) <= found.chosen.placement
    assert found.chosen.time.ratio < 1
    with pytest.raises(Refused):
        search(Small(refused=["g00"]), given=frozenset()).__class__(
            model.problem,
            _RefusesAll(),
            model.judge,
            given=frozenset(),
            ledger=Ledger(),
            budget=Budget(),
            clock=lambda: 0.0,
        ).run()


class _RefusesAll(Small):
    def build(self, placement: Placement) -> Engine:
        raise Refused("no")


def test_engines_that_will_not_race_are_freed() -> None:
    model, most = Small(), []
    found = search(model, progress=lambda *_: most.append(model.open)).run()
    assert max(most) <= 8 and found.engine.placement == found.chosen.placement


def test_nothing_is_found_if_not_even_fp16_passes() -> None:
    model = Small()
    assert search(model, judge=lambda _: Outcome(1.0, False)).run() is None
    assert model.built == 0


def test_fp16_is_kept_where_nothing_is_faster() -> None:
    model = Small()
    model.linear, model.pairs = np.abs(model.linear) + 0.01, np.zeros_like(model.pairs)
    found = search(model).run()
    assert found.chosen.placement == frozenset() and found.chosen.time == SAME
    assert found.given.time.ratio > 1


def test_a_placement_that_fails_the_gates_is_never_chosen_even_if_it_is_given() -> None:
    model = Small(seed=4)
    ledger = Ledger()
    found = search(model, ledger).run()
    assert not model.judge(frozenset(model.problem.names)).passes  # the given one
    assert found.chosen.outcome.passes and model.judge(found.chosen.placement).passes
    assert found.given.time is not None  # it is compared all the same


def test_a_budget_that_ends_before_anything_is_compared_is_refused() -> None:
    with pytest.raises(OutOfTime):
        search(Small(), budget=Budget(seconds=10.0)).run()


def test_a_search_stays_within_its_time() -> None:
    for minutes in (1, 4, 9):
        model = Small()
        found = search(model, budget=Budget(seconds=minutes * 60.0)).run()
        assert model.now <= minutes * 60.0 + 25 and found.ended


def test_a_search_that_was_stopped_resumes_and_measures_nothing_twice() -> None:
    whole, ledger = Small(), Ledger()
    expected = search(whole, ledger).run()

    class Stop(Exception):
        pass

    def stop_after(count: int):
        def save() -> None:
            if len(kept.tried) >= count:
                raise Stop

        return save

    kept, model = Ledger(), Small()
    for count in (2, 5, 9):
        with pytest.raises(Stop):
            search(model, kept, save=stop_after(count)).run()
        assert len(kept.tried) == count
    before = dict(kept.tried)
    found = search(model, kept).run()
    assert before.keys() <= kept.tried.keys() and kept.seconds > 0
    assert model.true(found.chosen.placement) <= whole.true(expected.chosen.placement) * 1.01


def test_placements_that_give_one_graph_are_tried_once() -> None:
    model, ledger = Small(), Ledger()

    def canonical(placement: Placement) -> Placement:
        return placement if "g01" in placement else placement - {"g02"}

    search(model, ledger, canonical=canonical).run()
    assert all(canonical(each) == each for each in (*ledger.tried, *ledger.judged))


def test_the_front_has_no_placement_that_another_one_beats() -> None:
    model, ledger = Small(), Ledger()
    search(model, ledger).run()
    found = front(ledger.measured)
    times = [each.time.log_ratio for each in found]
    distances = [each.outcome.distance for each in found]
    assert times == sorted(times) and distances == sorted(distances, reverse=True)
    for each in ledger.measured:
        assert any(
            kept.time.log_ratio <= each.time.log_ratio and kept.outcome.distance <= each.outcome.distance
            for kept in found
        )


def test_measurements_are_combined_by_their_precision() -> None:
    both = Paired(0.0, 0.01, 10).with_more(Paired(0.03, 0.02, 5))
    assert both.rounds == 15 and both.log_ratio == pytest.approx(0.03 / 5)
    assert both.error == pytest.approx((1 / 0.01**2 + 1 / 0.02**2) ** -0.5)
    assert both.interval.low < both.ratio < both.interval.high
    assert Tried(frozenset(), Outcome(0.0, True), SAME).time.interval.high == 1.0
