"""The one format of gates, and what intervals make of limits."""

import pytest

from cnnx.errors import GateError
from cnnx.gates import (
    AGREEMENT,
    COSTS,
    DEFAULTS,
    KINDS,
    RELATIVE,
    Estimate,
    Gate,
    decided,
    needed,
    read_gates,
)
from cnnx.stats import Interval, Verdict, exit_code_of

FILE = """
latency_p50_ms = 5
memory_mib = 400
top1_agreement = 0.9

[int8]
latency_p50_ms = 3
batch = 4
"""


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


def test_an_exact_value_is_always_decided_and_infinity_fails():
    assert decided("graph_mib", 4, Estimate(4.0)).verdict is Verdict.PASSED
    assert decided("graph_mib", 4, Estimate(4.01)).verdict is Verdict.FAILED
    broken = decided("divergence_nats", 4, Estimate(float("inf")))
    assert (broken.verdict, broken.value, broken.reason) == (
        Verdict.FAILED,
        None,
        "some logits are not finite",
    )


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
