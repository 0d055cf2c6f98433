"""Each rule on the machine at its limits, with the words that are shown."""

from __future__ import annotations

import pytest

from cnnx.machine.state import Frequency, MachineState
from cnnx.measure.machine_rules import judge_machine

MS, SECOND = 10**6, 10**9


def state(**known):
    clocks = known.pop("clocks", None)
    gpu = Frequency(clocks[0], None, clocks[1]) if clocks else None
    temperatures = known.pop("temperatures_c", {})
    return MachineState(None, gpu, None, temperatures, known.pop("throttling", ()), **known)


def held(at_ns, **ns):
    return state(at_ns=at_ns, held_ns=ns)


def heat(limits=None, **celsius):
    return state(temperatures_c=celsius, limits_c=limits or {})


POWER, THERMAL = "software power cap", "software thermal slowdown"
MODE = "the power mode changed during the measurement: "
LIMIT = "the power limit changed during the measurement: "
CASES = {
    "nothing": ([], [], []),
    "no state": ([state()] * 2, [], []),
    "held for a hundredth of the time": (
        [held(0, power=5 * MS), held(SECOND, power=15 * MS)],
        [],
        ["the GPU clock was reduced for 10.0 ms, 1.00% of the time by the power limit"],
    ),
    "held for more": (
        [held(SECOND, thermal=0), held(2 * SECOND), held(3 * SECOND, thermal=21 * MS)],
        ["the GPU clock was reduced for 21.0 ms, 1.05% of the time by the thermal limit"],
        [],
    ),
    "held for an unknown share": (
        [held(None, power=0), held(SECOND, power=MS)],
        ["the GPU clock was reduced for 1.0 ms by the power limit"],
        [],
    ),
    "held within no time": (
        [held(SECOND, power=0), held(SECOND, power=MS)],
        ["the GPU clock was reduced for 1.0 ms by the power limit"],
        [],
    ),
    "not held": ([held(0, power=7, thermal=7), held(SECOND, power=7, thermal=7)], [], []),
    "counted once": ([held(0), held(SECOND, power=SECOND)], [], []),
    "reasons": (
        [state(throttling=(POWER, "GPU idle")), state(throttling=None), state(throttling=(THERMAL, POWER))],
        [f"the GPU clock was reduced: {POWER}", f"the GPU clock was reduced: {THERMAL}"],
        [],
    ),
    "a reason that is counted, and one that is not": (
        [held(0, power=0), state(throttling=(POWER, THERMAL)), held(SECOND, power=0)],
        [f"the GPU clock was reduced: {THERMAL}"],
        [],
    ),
    "power modes": (
        [state(power_mode="B"), state(), state(power_mode="A"), state(power_mode="B")],
        [f"{MODE}B, then A"],
        [],
    ),
    "one power mode": ([state(power_mode="B"), state(), state(power_mode="B")], [], []),
    "one power limit": ([state(power_limit_mw=90_000), state(), state(power_limit_mw=90_000)], [], []),
    "a power limit that moves by a tenth": (
        [state(power_limit_mw=90_500), state(power_limit_mw=100_000), state(power_limit_mw=90_000)],
        [],
        [f"{LIMIT}90.5 W, then 100 W, then 90 W"],
    ),
    "a power limit that moves by more": (
        [state(power_limit_mw=100_000), state(power_limit_mw=89_999)],
        [f"{LIMIT}100 W, then 89.999 W"],
        [],
    ),
    "confidential": (
        [state(), state(confidential=True)],
        ["confidential computing is on, in which the times of CUDA events are unreliable"],
        [],
    ),
    "at a limit": (
        [heat({"GPU": 93.0}, GPU=91.0), heat({"GPU": 93.0}, GPU=80.0)],
        ["GPU reached 91 C and is throttled from 93 C"],
        [],
    ),
    "near a limit": (
        [heat(GPU=90.9), heat({"GPU": 93.0, "CPU": 95.0, "SoC": 1.0}, GPU=80.0, CPU=92.0, wifi=99.0)],
        [],
        ["GPU reached 91 C and is throttled from 93 C"],
    ),
    "the part nearest to its limit": (
        [heat({"GPU": 100.0, "CPU": 80.0}, GPU=90.0, CPU=75.0)],
        [],
        ["CPU reached 75 C and is throttled from 80 C"],
    ),
    "unknown limits": (
        [heat(CPU=80.0, GPU=50.0)],
        [],
        ["GPU reached 50 C; its throttling temperature is unknown"],
    ),
    "unknown limits without a GPU": (
        [heat(a=50.0, b=60.0), heat(a=61.0)],
        [],
        ["a reached 61 C; its throttling temperature is unknown"],
    ),
    "unknown throttling": (
        [state(throttling=None)] * 2,
        [],
        ["throttling is unknown, as NVML reports no reasons; only a falling clock would show it"],
    ),
    "throttling that is counted": ([state(throttling=None, held_ns={}, at_ns=0)] * 2, [], []),
    "throttling known once": ([state(throttling=None), state()], [], []),
    "a clock of three quarters": ([state(clocks=(1000, None)), state(clocks=(750, None))], [], []),
    "a clock that fell": (
        [state(), state(clocks=(1000, None)), state(clocks=(749, None)), state(clocks=(990, None))],
        ["the GPU clock fell from 1000 to 749 MHz"],
        [],
    ),
    "a clock that rose": ([state(clocks=(700, None)), state(clocks=(1000, None))], [], []),
    "three quarters of the highest clock": ([state(clocks=(750, 1000))], [], []),
    "less of the highest clock": (
        [state(clocks=(749, 1000)), state(clocks=(740, 1000))],
        [],
        ["the GPU ran at 740 of at most 1000 MHz; the results hold for this clock"],
    ),
    "an unknown clock": ([state(clocks=(None, 1000))], [], []),
    "several": (
        [state(clocks=(500, 1000), throttling=None, temperatures_c={"GPU": 50.0})],
        [],
        [
            "the GPU ran at 500 of at most 1000 MHz; the results hold for this clock",
            "GPU reached 50 C; its throttling temperature is unknown",
            "throttling is unknown, as NVML reports no reasons; only a falling clock would show it",
        ],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_findings_and_remarks_at_their_limits(case):
    states, findings, remarks = CASES[case]
    found = judge_machine(states)
    assert [[each.reason for each in each_kind] for each_kind in found] == [findings, remarks]
    assert all(each.rule and each.hint for each_kind in found for each in each_kind)
