from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cnnx.measure.power import EnergyMeasurement, EnergyRows, PolledSensor, Unsupported, measure_energy
from cnnx.measure.power.sensors import tegrastats
from cnnx.measure.power.sensors.ina import find_ina
from cnnx.measure.power.sensors.tegrastats import RailPower, cross_check, during, mean_power_mw, parse_line
from tests.doubles.power_trees import orin_nx
from tests.doubles.rehearsal import Machine
from tests.doubles.replay import Replay
from tests.inputs.again import again

# One line of each release, in its format; values are invented.
NANO = (
    "RAM 1712/3964MB (lfb 3x2MB) SWAP 175/1982MB (cached 5MB) IRAM 0/252kB(lfb 252kB) CPU [7%@1224,4%@1224,"
    "off,3%@1224] EMC_FREQ 0%@1600 GR3D_FREQ 0%@76 APE 25 PLL@35C CPU@38C PMIC@50C GPU@38C AO@43C "
    "thermal@38.5C POM_5V_IN 1790/1655 POM_5V_GPU 0/0 POM_5V_CPU 340/392\n"
)
AGX_XAVIER = (
    "RAM 430/15823MB (lfb 3700x4MB) SWAP 0/7911MB (cached 0MB) CPU [2%@2265,1%@2265,off,off,off,off,off,off] "
    "EMC_FREQ 1%@2133 GR3D_FREQ 8%@1377 APE 150 AO@27C GPU@29C Tdiode@32C PMIC@100C AUX@28C CPU@29C "
    "thermal@28.4C GPU 1210/1190 CPU 375/380 SOC 2480/2495 CV 0/0 VDDRQ 185/190 SYS5V 2710/2695\n"
)
ORIN_NANO_5 = (
    "04-02-2026 09:30:00 RAM 3000/6851MB (lfb 1x512kB) SWAP 150/3426MB (cached 0MB) CPU [21%@1397,11%@1192,"
    "off,off,off,off] EMC_FREQ 2%@204 GR3D_FREQ 0%@[114] GR3D2_FREQ 0%@[114] VIC_FREQ 115 APE 150 AUX@44C "
    "CPU@45.5C thermal@44.6C GPU@44.5C PMIC@50C VDD_IN 2790mW/2835mW VDD_CPU_GPU_CV 650mW/665mW "
    "VDD_SOC 650mW/705mW\n"
)
AGX_ORIN = (
    "04-02-2026 09:30:01 RAM 4200/62801MB (lfb 1700x4MB) SWAP 18/31400MB (cached 0MB) CPU [0%@729,off] "
    "EMC_FREQ 0%@2133 GR3D_FREQ 40%@[1300,1300] VIC_FREQ 729 APE 174 CV0@-256C CPU@43.5C tj@43.3C "
    "VDD_GPU_SOC 9240mW/8240mW VDD_CPU_CV 1380mW/1280mW VIN_SYS_5V0 4105mW/4005mW NC 0mW/0mW "
    "VDDQ_VDD2_1V8AO 409mW/399mW NC 0mW/0mW\n"
)
ORIN_NANO_6 = (
    "04-02-2026 09:30:02 RAM 6100/7620MB (lfb 7x2MB) SWAP 840/3810MB (cached 1MB) CPU [14%@729,10%@729] "
    "EMC_FREQ 42%@2133 GR3D_FREQ 62%@[621] NVDEC off VIC off APE 200 cpu@53.3C gpu@52.8C tj@53.3C "
    "VDD_IN 12300mW/12280mW VDD_CPU_GPU_CV 4640mW/4650mW VDD_SOC 2800mW/2810mW\n"
)
NO_ROOT = (
    "04-02-2026 09:30:02 RAM 6100/7620MB (lfb 7x2MB) CPU [14%@729,10%@729] GR3D_FREQ 62%@[621] cpu@53C\n"
)
THOR = (
    "04-02-2026 09:30:03 RAM 8200/125749MB (lfb 30x4MB) CPU [89%@2601,off] EMC_FREQ @4266 "
    "GR3D_FREQ @[1574,1574,1574] VIC off cpu@57.2C/60.7C gpu@-256C/65.6C VDD_GPU -305mW/8560mW/37900mW "
    "VDD_CPU_SOC_MSS 30010mW/12200mW/30010mW VIN_SYS_5V0 15400mW/7400mW/15400mW "
    "VIN 124400mW/36400mW/124400mW NEW_TOKEN 7 OTHER 1/2/3/4 [\n"
)
THOR_IDLE = (
    "04-02-2026 09:30:04 RAM 8200/125749MB (lfb 30x4MB) CPU [0%,5%,off]@2601 VIN 21000mW/21000mW/22000mW\n"
)
LINES = [NANO, AGX_XAVIER, ORIN_NANO_5, AGX_ORIN, ORIN_NANO_6, NO_ROOT, THOR, THOR_IDLE]


@pytest.mark.parametrize(
    "line, rails, gpu, memory",
    [
        (NANO, {"POM_5V_IN": 1790, "POM_5V_GPU": 0, "POM_5V_CPU": 340}, 0, 0),
        (AGX_XAVIER, {"GPU": 1210, "CPU": 375, "SOC": 2480, "CV": 0, "VDDRQ": 185, "SYS5V": 2710}, 8, 1),
        (ORIN_NANO_5, {"VDD_IN": 2790, "VDD_CPU_GPU_CV": 650, "VDD_SOC": 650}, 0, 2),
        (
            AGX_ORIN,
            {"VDD_GPU_SOC": 9240, "VDD_CPU_CV": 1380, "VIN_SYS_5V0": 4105, "VDDQ_VDD2_1V8AO": 409},
            40,
            0,
        ),
        (ORIN_NANO_6, {"VDD_IN": 12300, "VDD_CPU_GPU_CV": 4640, "VDD_SOC": 2800}, 62, 42),
        (NO_ROOT, {}, 62, None),
        (
            THOR,
            {"VDD_GPU": -305, "VDD_CPU_SOC_MSS": 30010, "VIN_SYS_5V0": 15400, "VIN": 124400},
            None,
            None,
        ),
        (THOR_IDLE, {"VIN": 21000}, None, None),
    ],
)
def test_every_release_is_read(line, rails, gpu, memory):
    read = parse_line(line)
    assert {name: power.power_mw for name, power in read.rails.items()} == rails
    assert (read.gpu_percent, read.memory_percent) == (gpu, memory)
    assert read.clock == (line[:19] if line[0] == "0" else None)


def test_averages_and_maxima_are_apart():
    assert parse_line(ORIN_NANO_6).rails["VDD_IN"] == RailPower(12300, 12280)
    assert parse_line(THOR).rails["VDD_GPU"] == RailPower(-305, 8560, 37900)


@pytest.mark.parametrize(
    "values", ["2763mW/28", "2763/2846mW", "2763mW/2846mW/9", "2763mW", "mW/mW", "1/2/3/4"]
)
def test_values_that_are_damaged_within_a_whole_line_are_left_out(values):
    assert parse_line(f"RAM 1/2MB VDD_IN {values} VDD_SOC 5mW/6mW\n").rails == {"VDD_SOC": RailPower(5, 6)}


def test_temperatures_are_no_rails_and_a_sensor_that_is_off_has_none():
    xavier = parse_line(AGX_XAVIER)
    assert xavier.temperatures_c["GPU"] == 29 and xavier.rails["GPU"].power_mw == 1210
    assert parse_line(AGX_ORIN).temperatures_c == {"CV0": None, "CPU": 43.5, "tj": 43.3}
    assert parse_line(THOR).temperatures_c == {"cpu": 57.2, "gpu": None}


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(LINES), st.data())
def test_a_torn_line_loses_values_and_never_invents_one(line, data):
    start = data.draw(st.integers(0, len(line)))
    end = data.draw(st.integers(start, len(line)))
    torn, whole = parse_line(line[start:end]), parse_line(line)
    assert torn.rails.items() <= whole.rails.items()
    assert torn.temperatures_c.items() <= whole.temperatures_c.items()
    assert torn.gpu_percent in (None, whole.gpu_percent)
    assert torn.memory_percent in (None, whole.memory_percent)


foreign = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="/%"), min_size=1)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 60), foreign), max_size=4))
def test_unknown_tokens_are_passed_over(inserted):
    """A token that stands between a name and its value costs that value; everything else stays."""
    known = parse_line(ORIN_NANO_6).rails
    tokens = {token for _, token in inserted}
    words = ORIN_NANO_6.split()
    for place, token in inserted:
        words.insert(2 + place % (len(words) - 2), token)
    read = parse_line(" ".join(words) + "\n")
    for name in read.rails.keys() - tokens:
        assert read.rails[name] == known[name]
    assert len(known.keys() - read.rails.keys()) <= len(inserted)
    assert read.gpu_percent in (62, None)


@settings(max_examples=200, deadline=None)
@given(st.text("RAMGPU_vdin0123456789-/.@%[]CmW \n", max_size=80))
@example("GR3D_FREQ 5%\n")
@example("VDD_IN 1mW/2\n")
def test_any_text_is_survived(text):
    parse_line(text)


def test_a_cross_check_compares_means_of_the_rails_that_both_have():
    lines = [
        parse_line(ORIN_NANO_6),
        parse_line(ORIN_NANO_6.replace("12300mW", "12500mW")),
        parse_line(NO_ROOT),
    ]
    assert mean_power_mw(lines)["VDD_IN"] == 12400
    ours = {"VDD_IN": 12000.0, "VDD_SOC": 0.0, "OTHER": 5.0}
    assert cross_check(ours, mean_power_mw(lines)) == {"VDD_IN": pytest.approx(1 / 30)}


def printing(folder: Path, lines: str, *, first: str = "") -> Path:
    """A program that prints lines, makes the file "printed" and goes on until it is stopped."""
    program = folder / "tegrastats"
    program.write_text(f"""#!/bin/sh
{first}
cat <<'END'
{lines}END
printf 'RAM 61'
touch '{folder}/printed'
exec sleep 600
""")
    program.chmod(0o755)
    return program


def wait_until_printed(folder: Path) -> None:
    end = time.monotonic() + 30
    while not (folder / "printed").exists() and time.monotonic() < end:
        time.sleep(0.01)


def test_lines_are_taken_while_work_is_done(tmp_path):
    program = printing(tmp_path, THOR_IDLE + ORIN_NANO_6)

    def work() -> str:
        wait_until_printed(tmp_path)
        return "done"

    result, lines = during(work, program=[str(program)])
    assert result == "done"
    assert lines == [parse_line(THOR_IDLE), parse_line(ORIN_NANO_6), parse_line("")]


def test_without_the_program_work_is_done_all_the_same(tmp_path):
    absent = during(lambda: 7, program=[str(tmp_path / "tegrastats")])
    assert absent == (7, Unsupported("tegrastats", f"{tmp_path}/tegrastats: No such file or directory"))
    assert during(lambda: 7, program=["true"]) == (7, Unsupported("tegrastats", "true printed nothing"))


def test_what_a_program_prints_while_it_stops_is_read(tmp_path):
    program = printing(tmp_path, THOR_IDLE)
    stopping = "trap 'sleep 0.2; echo; exit' TERM; while :; do sleep 0.01; done"
    program.write_text(program.read_text().replace("exec sleep 600", stopping))
    _, lines = during(lambda: wait_until_printed(tmp_path), program=[str(program)])
    assert lines == [parse_line(THOR_IDLE), parse_line("RAM 61\n")]


@pytest.mark.parametrize("ending", ["\n", "\r"])
def test_only_the_last_token_of_an_unfinished_line_is_left_out(ending):
    whole = "RAM 61 VDD_A 1mW/2mW VDD_B 3mW/4mW"
    assert parse_line(whole + ending).rails.keys() == {"VDD_A", "VDD_B"}
    assert parse_line(whole).rails.keys() == {"VDD_A"}
    assert parse_line(f"VDD_A 1mW/2mW VDD_B 3mW/4mW{ending}").rails.keys() == {"VDD_B"}


def test_a_program_that_will_not_stop_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(tegrastats, "_PATIENCE_S", 0.1)
    program = printing(tmp_path, ORIN_NANO_6, first="trap '' TERM")
    _, lines = during(lambda: wait_until_printed(tmp_path), program=[str(program)])
    assert isinstance(lines, list) and lines[0].rails["VDD_IN"].power_mw == 12300


def measured_beside(tmp_path: Path, program: str | None) -> EnergyMeasurement:
    """On an Orin NX's monitors: 2,800 mW at VDD_IN, 650 at VDD_CPU_GPU_CV, 655 at VDD_SOC."""
    orin_nx(tmp_path)
    sensor, machine = find_ina(tmp_path), Machine(work_ms=1000)
    assert isinstance(sensor, PolledSensor)

    def load() -> int:
        machine.load()
        if program and len(machine.starts) > 24:  # 20 to 22 s of warm-up, then 5 s beside tegrastats
            wait_until_printed(tmp_path)
        return 1

    replay = Replay(sensor.info, lambda _: sensor.read().values, clock=machine.clock)
    return measure_energy(load, replay, clock=machine.clock, sleep=machine.sleep, tegrastats=program)


def test_tegrastats_reads_the_same_load_before_what_counts(tmp_path):
    line = ORIN_NANO_6.replace("12300mW", "2836mW").replace("4640mW", "637mW").replace("2800mW", "655mW")
    result = measured_beside(tmp_path, str(printing(tmp_path, line * 3)))
    assert result.deviations == {
        "VDD_IN": pytest.approx(36 / 2800),
        "VDD_CPU_GPU_CV": pytest.approx(-0.02),
        "VDD_SOC": pytest.approx(0),
    }
    beside = result.beside
    assert beside is not None and beside.lines == 4 and beside.reason == ""
    assert result.warmup.end_ns <= beside.span.start_ns < beside.span.end_ns <= result.load.span.start_ns
    assert again(EnergyRows, result.as_dict()).measurement() == result


@pytest.mark.parametrize("program", [None, "absent", "mute", "without root"])
def test_no_tegrastats_or_one_that_says_nothing_leaves_the_measurement_as_it_is(tmp_path, program):
    path = {
        None: lambda: None,
        "absent": lambda: str(tmp_path / "no such program"),
        "mute": lambda: "true",
        "without root": lambda: str(printing(tmp_path, NO_ROOT)),
    }[program]()
    if program in ("absent", "mute"):
        (tmp_path / "printed").touch()
    result = measured_beside(tmp_path, path)
    assert result.deviations == {} and result.doubts == ()
    energy = result.energy()
    assert energy is not None and energy.power_mw == pytest.approx(2800)
    assert (result.beside is None) == (program is None)
    reasons = {
        "absent": f"{path}: No such file or directory",
        "mute": "true printed nothing",
        "without root": "tegrastats printed no rails",
    }
    assert result.beside is None or result.beside.reason == reasons[program]
