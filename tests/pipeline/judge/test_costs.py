"""Estimates of costs, by records that are made up."""

from __future__ import annotations

import dataclasses

import pytest

from cnnx.bundle import Bundle
from cnnx.gates import Limits
from cnnx.measure.samples import Latency
from cnnx.pipeline.judge.costs import (
    cost_gates,
    energy_estimate,
    latency_estimate,
    measured_estimates,
    memory_of,
    size_estimates,
    size_keys,
)
from cnnx.pipeline.judge.demand import Demand
from cnnx.record import Record, Subject
from cnnx.stats import Verdict
from tests.bundle.test_bundle import make
from tests.inputs.bundles import engine_of

MS, MIB = 1_000_000, 2**20
SUBJECT = Subject("net", "graph", "0" * 64, "int8", "ort 1", "CPU: one")


def benchmark(p50_ms, *, batch=1, n=700, subject=SUBJECT, **result):
    samples = tuple(round(p50_ms * MS) + (i - n // 2) * 10 for i in range(n))
    latency = Latency(samples, batch, 5, "steady", complete=True).as_dict()
    return Record("benchmark", subject, {}, {"latency": latency, "memory": {"added_bytes": MIB}, **result})


def energy(gross_mj, *, batch=1, doubts=(), total=True, subject=SUBJECT):
    found = {"gross_mj": gross_mj, "gross": {"low": 0.9 * gross_mj, "high": 1.1 * gross_mj}}
    result = {
        "batch": batch,
        "doubts": doubts,
        "no_total": "rails overlap",
        "total": found if total else None,
    }
    return Record("energy", subject, {}, result)


def test_the_newest_measurements_of_the_subject_at_the_batch_count():
    elsewhere = dataclasses.replace(SUBJECT, device="CPU: two")
    engine = dataclasses.replace(SUBJECT, artefact="engine")
    others = [dataclasses.replace(SUBJECT, digest="1" * 64), elsewhere, engine]
    records = [
        benchmark(1), energy(1), benchmark(2), energy(2), benchmark(3, batch=8), energy(3, batch=8),
        *(make_one(9, subject=other) for other in others for make_one in (benchmark, energy)),
    ]  # fmt: skip
    for batch, expected in ((1, 2), (8, 3)):
        found = measured_estimates(records, SUBJECT, batch)
        assert found["latency_p50_ms"].value == pytest.approx(expected, rel=0.01)
        assert found["latency_p99_ms"].value > found["latency_p50_ms"].value
        assert found["energy_mj"].value == expected and found["memory_mib"].value == 1
    assert measured_estimates(records, SUBJECT, 2) == {
        **dict.fromkeys(
            ("latency_p50_ms", "latency_p99_ms", "memory_mib"),
            "latency and memory were measured at batch 1, 8, not at batch 2",
        ),
        "energy_mj": "energy were measured at batch 1, 8, not at batch 2",
    }
    nothing = measured_estimates([], SUBJECT, 1)
    assert len(nothing) == 4 and all("cnnx bench measures it" in reason for reason in nothing.values())


@pytest.mark.parametrize(("share", "enough"), [(0.5, 11), (0.99, 662)])
def test_a_percentile_has_its_interval_if_there_are_enough_samples(share, enough):
    few = latency_estimate(benchmark(1, n=enough - 1), share)
    assert few == f"{enough - 1} samples are too few for this percentile: {enough} are needed"
    found = latency_estimate(benchmark(1, n=enough), share)
    assert (found.count, found.counted) == (enough, "samples")
    assert found.interval.low <= found.value <= found.interval.high
    assert found.interval.low == pytest.approx(1, rel=0.01)


def test_an_invalid_measurement_names_its_rules():
    rules = [{"rule": "unsteady"}, {"rule": "throttled"}]
    doubtful = benchmark(1, validity={"valid": False, "findings": rules})
    assert latency_estimate(doubtful, 0.5) == "the measurement is invalid (unsteady, throttled)"
    for validity in (None, {"valid": True, "findings": []}):
        assert latency_estimate(benchmark(1, validity=validity), 0.5).value == pytest.approx(1, rel=0.01)


@pytest.mark.parametrize(
    ("memory", "found"),
    [
        ({"gpu_bytes": 9, "context_bytes": 4, "shared_bytes": 3, "added_bytes": 2}, ("GPU memory", 5)),
        ({"gpu_bytes": 4, "context_bytes": 9}, ("GPU memory", 0)),
        ({"gpu_bytes": 9, "shared_bytes": 0, "added_bytes": 2}, ("shared memory", 0)),
        ({"context_bytes": 4, "shared_bytes": None, "added_bytes": -2}, ("host peak", 0)),
        ({"gpu_bytes": None, "added_bytes": 7}, ("host peak", 7)),
        ({}, "memory could not be measured"),
    ],
)
def test_which_memory_a_network_adds(memory, found):
    assert memory_of(memory) == found


def test_an_energy_in_doubt_or_without_a_total_is_not_judged():
    found = energy_estimate(energy(5.0).result)
    assert (found.value, found.interval.low, found.interval.high) == (5.0, 4.5, 5.5)
    assert "a rail is missing" in energy_estimate(energy(5.0, doubts=("a rail is missing", "x")).result)
    assert energy_estimate(energy(5.0, total=False).result) == "there is no total: rails overlap"


@pytest.fixture
def bundle(tmp_path):
    return make(tmp_path / "b")


def with_engines(bundle, tmp_path, **sizes):
    for identity, size in sizes.items():
        (tmp_path / identity).write_bytes(identity.encode() + bytes(size - len(identity)))
        engine = engine_of(bundle, tmp_path / identity, identity=identity)
        bundle.add_engine(engine, tmp_path / identity)
    return {engine.identity: engine.digest for engine in bundle.engines()}


def test_the_size_of_an_engine_is_its_own_or_else_that_of_the_largest(bundle, tmp_path):
    graph = bundle.model.stat().st_size / MIB
    assert size_keys(bundle) == ("graph_mib",)
    found = size_estimates(bundle, "0" * 64)
    assert found["graph_mib"].value == graph and found["engine_mib"] == "the bundle has no engine"
    digests = with_engines(bundle, tmp_path, small=MIB, large=3 * MIB)
    assert size_keys(bundle) == ("graph_mib", "engine_mib")
    for digest, size in ((digests["small"], 1), (digests["large"], 3), ("0" * 64, 3)):
        assert size_estimates(bundle, digest)["engine_mib"].value == size
    (bundle.path / "engines" / "large" / "model.engine").unlink()
    assert size_estimates(Bundle.open(bundle.path), "0" * 64)["engine_mib"].value == 1


def test_gates_on_costs_are_those_that_are_set_and_concern_the_bundle(bundle, tmp_path):
    def names(demand, records=()):
        return {gate.name: gate.verdict for gate in cost_gates(bundle, SUBJECT, demand, records)}

    agreement = Demand(Limits(top1_agreement=0.5, latency_ratio=1.0))
    assert names(agreement) == {}
    sizes = Limits(graph_mib=5, engine_mib=5)
    assert names(Demand(sizes)) == {"graph size": Verdict.PASSED}
    stated = Demand(sizes, frozenset({"engine_mib"}))
    assert names(stated) == {"graph size": Verdict.PASSED, "engine size": Verdict.NOT_JUDGED}
    limits = Limits(latency_p50_ms=1.5, latency_p99_ms=1.5, memory_mib=0.5, energy_mj=1)
    assert set(names(Demand(limits)).values()) == {Verdict.NOT_JUDGED}
    assert names(Demand(limits), [benchmark(1), energy(2)]) == {
        "latency p50": Verdict.PASSED,
        "latency p99": Verdict.PASSED,
        "memory": Verdict.FAILED,
        "energy per image": Verdict.FAILED,
    }
    at_8 = dataclasses.replace(limits, batch=8)
    assert names(Demand(at_8), [benchmark(1, batch=8), benchmark(2)])["latency p50"] is Verdict.PASSED
    assert names(Demand(at_8), [benchmark(2, batch=8), benchmark(1)])["latency p50"] is Verdict.FAILED
    # By default, the bundle's own records that are about it.
    assert {gate.verdict for gate in cost_gates(bundle, SUBJECT, Demand(limits))} == {Verdict.NOT_JUDGED}
    with_engines(bundle, tmp_path, broken=MIB)
    (bundle.path / "engines" / "broken" / "engine.json").write_text("{}")
    assert names(agreement) == {}, "which need no engine"
