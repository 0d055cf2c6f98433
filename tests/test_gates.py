"""The one format of gates, and what intervals make of limits."""

import re
from pathlib import Path

import pytest

from cnnx.errors import GateError
from cnnx.gates import (
    AGREEMENT,
    CLEAR_MARGIN,
    COSTS,
    DEFAULTS,
    KINDS,
    RELATIVE,
    SIMILARITY,
    Estimate,
    Gate,
    GateTable,
    Limits,
    decided,
    gates_of,
    needed,
    read_gates,
)
from cnnx.stats import Interval, Verdict, exit_code_of, images_to_decide

FILE = """
latency_p50_ms = 5
memory_mib = 400
top1_agreement = 0.9

[int8]
latency_p50_ms = 3
batch = 4
"""


MANUAL = Path(__file__).parent.parent / "docs" / "ci.md"


def test_the_defaults_are_those_of_the_manual():
    rows = re.findall(
        r"^\| ([a-z0-9 -]+?) +\|.*\| +(\S+)(?: nats)? +\| +(\S+)(?: nats)? +\|$", MANUAL.read_text(), re.M
    )
    stated = {kind: (fp16, int8) for kind, fp16, int8 in rows if "." in fp16}
    for key in (*SIMILARITY, "accuracy_ratio"):
        name = KINDS[key].name.replace(" / original's", " ratio")
        limits = tuple(getattr(DEFAULTS[precision], key) for precision in ("fp16", "int8"))
        assert limits == tuple(map(float, stated.pop(name, (0, 0)))), name
    assert stated == {}, "what the manual states is a default"
    assert GateTable().of("fp32") == DEFAULTS["fp16"] and Limits().margin == CLEAR_MARGIN == 0.1
    assert Limits(clear_margin=0.0).margin == 0


def read(tmp_path, text):
    (tmp_path / "gates.toml").write_text(text)
    return read_gates(tmp_path / "gates.toml")


@pytest.mark.parametrize("text", [FILE, f"[gates]{FILE.replace('[int8]', '[gates.int8]')}"])
def test_a_file_sets_gates_for_both_precisions_and_for_each(tmp_path, text):
    table = read(tmp_path, text)
    int8, fp16 = table.of("int8"), table.of("fp16")
    assert (int8.latency_p50_ms, int8.memory_mib, int8.batch) == (3, 400, 4)
    assert (fp16.latency_p50_ms, fp16.memory_mib, fp16.batch) == (5, 400, None)
    assert int8.top1_agreement == 0.9 and int8.top5_agreement == DEFAULTS["int8"].top5_agreement
    assert table.of("fp32") == fp16
    assert list(table.stated("int8").set()) == ["top1_agreement", "latency_p50_ms", "memory_mib"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("latency_ms = 5", ["unknown key 'latency_ms'", "hint", "gates.toml"]),
        ("[int8]\ntop1_agreement = 95", ["int8.top1_agreement", "0..1"]),
        ("energy_mj = nan", ["energy_mj", "finite"]),
        ("latency_p50_ms = -1", ["latency_p50_ms", "0 or more"]),
        ("batch = 0", ["batch", "1 or more"]),
        ("[gates]\n[fp64]", ["gates"]),
        ("latency_p50_ms: 5", ["not valid TOML", "one a line"]),
        ("\x00", ["not valid TOML"]),
        (f"x = {'[' * 5000}", ["not valid TOML"]),
    ],
)
def test_what_a_file_of_gates_gets_wrong_is_named(tmp_path, text, words):
    with pytest.raises(GateError) as refusal:
        read(tmp_path, text)
    assert refusal.value.exit_code == 3 and all(word in str(refusal.value) for word in words), refusal.value


def test_a_file_that_is_absent_or_not_text_is_named(tmp_path):
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    for name in ("binary.toml", "absent.toml", "."):
        with pytest.raises(GateError, match="cannot be read"):
            read_gates(tmp_path / name)


@pytest.mark.parametrize(
    ("key", "low", "high", "verdict"),
    [
        ("top1_agreement", 0.96, 0.99, Verdict.PASSED),
        ("top1_agreement", 0.90, 0.94, Verdict.FAILED),
        ("top1_agreement", 0.90, 0.97, Verdict.INCONCLUSIVE),
        ("latency_ratio", 0.90, 0.95, Verdict.PASSED),
        ("latency_ratio", 0.96, 0.99, Verdict.FAILED),
        ("latency_ratio", 0.90, 0.97, Verdict.INCONCLUSIVE),
    ],
)
def test_the_interval_decides_on_either_side(key, low, high, verdict):
    found = Estimate((low + high) / 2, Interval(low, high), 100, "rounds")
    gate = decided(key, 0.95, found)
    assert gate.verdict is verdict and gate.at_most == (key == "latency_ratio")
    assert (gate.decides_at is not None) == (verdict is Verdict.INCONCLUSIVE)


def test_an_interval_narrowed_to_the_number_that_would_decide_decides():
    found = Estimate(1.02, Interval(0.98, 1.05), 100, "rounds")
    count = needed(found, 1.0)
    narrower = (100 / count) ** 0.5
    interval = Interval(1.02 - 0.04 * narrower, 1.02 + 0.03 * narrower)
    assert count == 401 and interval.against(1.0, at_most=True) is Verdict.FAILED
    assert needed(Estimate(1.0, Interval(0.9, 1.1), 100), 1.0) is None
    assert needed(Estimate(1.1, Interval(0.9, 1.2)), 1.0) is None
    # From the other side, towards a limit above.
    assert needed(Estimate(0.98, Interval(0.95, 1.02), 100), 1.0) == 401
    assert needed(Estimate(1.0001, Interval(0.9, 1.1), 100), 1.0) is None, "more than ten million"
    assert needed(Estimate(1.0001, Interval(0.97, 1.1), 100), 1.0) == pytest.approx(9.06e6, rel=1e-3)
    assert needed(Estimate(0.98, Interval(0.97, 0.99), 100, wilson=True), 0.99) == images_to_decide(
        0.98, 0.99
    )


MAXIMA = {"accuracy_loss_points", "latency_ratio", "memory_ratio", "energy_ratio", "divergence_nats", *COSTS}


@pytest.mark.parametrize("key", KINDS)
def test_a_limit_of_what_should_be_small_is_a_maximum_and_of_anything_else_a_minimum(key):
    below, above = (decided(key, 0.5, Estimate(value)).verdict for value in (0.4, 0.6))
    verdicts = (Verdict.FAILED, Verdict.PASSED)
    assert (below, above) == (verdicts[::-1] if key in MAXIMA else verdicts)
    assert decided(key, 0.5, Estimate(0.5)).verdict is Verdict.PASSED
    assert decided(key, 0.5, "unknown").at_most == (key in MAXIMA)


def test_an_exact_value_is_always_decided_and_infinity_fails():
    assert decided("graph_mib", 4, Estimate(4.0)).verdict is Verdict.PASSED
    assert decided("graph_mib", 4, Estimate(4.01)).verdict is Verdict.FAILED
    broken = decided("divergence_nats", 4, Estimate(float("inf")))
    assert (broken.verdict, broken.value, broken.reason) == (
        Verdict.FAILED,
        None,
        "some logits are not finite",
    )


def test_a_gate_is_one_that_is_set_and_asked_for_and_has_its_reason_if_nothing_was_measured():
    limits = Limits(graph_mib=1, engine_mib=0, accuracy=0.5, latency_ratio=1.1, batch=3, reason="why")
    found = {"graph_mib": Estimate(2.0), "accuracy": "no labels", "memory_mib": Estimate(1.0)}
    gates = {gate.name: gate for gate in gates_of(limits, found)}
    assert list(gates) == [KINDS[key].name for key in limits.set()] and len(gates) == 4
    assert gates["graph size"].verdict is Verdict.FAILED and gates["graph size"].unit == "MiB"
    reasons = [gates[name].reason for name in ("accuracy", "engine size", "latency / base's")]
    assert reasons == ["no labels", "it was not measured", "it was not measured"]
    assert {gate.verdict for gate in gates.values() if gate.reason} == {Verdict.NOT_JUDGED}
    [alone] = gates_of(limits, found, ["accuracy", "memory_mib"])
    assert (alone.name, alone.threshold, alone.at_most, alone.value) == ("accuracy", 0.5, False, None)


def test_an_edited_gate_is_refused():
    with pytest.raises(ValueError, match="give 'failed'"):
        Gate("latency p50", 6.0, Interval(5.5, 6.5), 5, Verdict.PASSED, at_most=True, unit="ms")
    with pytest.raises(ValueError, match="no value to follow from"):
        Gate("latency p50", None, None, 5, Verdict.PASSED)


def test_every_gate_belongs_to_one_group():
    assert sorted(KINDS) == sorted({*AGREEMENT, *COSTS, *RELATIVE, "accuracy"})


@pytest.mark.parametrize(
    ("verdicts", "plain", "allowed", "strict"),
    [
        (["passed"], 0, 0, 0),
        (["passed", "failed", "inconclusive"], 1, 1, 1),
        (["passed", "inconclusive"], 6, 0, 1),
        (["inconclusive", "not judged"], 6, 6, 1),
        (["passed", "not judged"], 6, 6, 1),
        ([], 0, 0, 0),
    ],
)
def test_exit_codes(verdicts, plain, allowed, strict):
    found = [Verdict(each) for each in verdicts]
    assert exit_code_of(found) == plain
    assert exit_code_of(found, allow_inconclusive=True) == allowed
    assert exit_code_of(found, strict=True) == strict
