from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cnnx.errors import EnvironmentLacks
from cnnx.measure.power import PolledSensor, SensorInfo, Unsupported, board_of, open_sensor, total_of
from cnnx.measure.power.sensors.ina import find_ina
from cnnx.measure.power.sensors.rapl import find_rapl
from tests.doubles import power_trees as trees
from tests.doubles.power_trees import write
from tests.inputs.again import again


def ina(root: Path) -> PolledSensor:
    found = find_ina(root)
    assert isinstance(found, PolledSensor), found
    return found


def reading(sensor: PolledSensor) -> dict[str, float | None]:
    return dict(zip([rail.name for rail in sensor.info.rails], sensor.read().values, strict=True))


@pytest.mark.parametrize(
    "build, drivers",
    [
        (trees.nano, ("ina3221x",)),
        (trees.agx_orin, ("ina3221",)),
        (trees.thor, ("ina238", "ina3221")),
    ],
)
def test_the_chips_that_were_read_are_told(tmp_path, build, drivers):
    build(tmp_path)
    assert ina(tmp_path).info.drivers == drivers


@pytest.mark.parametrize(
    "build, rails, total",
    [
        (trees.nano, {"POM_5V_IN": 1800, "POM_5V_GPU": 0, "POM_5V_CPU": 350}, 1800),
        (
            trees.tx2,
            {
                "VDD_IN": 3800,
                "VDD_SYS_GPU": 190,
                "VDD_SYS_SOC": 570,
                "VDD_4V0_WIFI": 19.2,
                "VDD_SYS_CPU": 380,
                "VDD_SYS_DDR": 475,
            },
            3800,
        ),
        (
            trees.agx_xavier,
            {"GPU": 1140, "CPU": 380, "SOC": 2470, "CV": 0, "VDDRQ": 190, "SYS5V": 2700},
            6880,
        ),
        (trees.orin_nx, {"VDD_IN": 2800, "VDD_CPU_GPU_CV": 650, "VDD_SOC": 655}, 2800),
        (
            trees.agx_orin,
            {"VDD_GPU_SOC": 8000, "VDD_CPU_CV": 1400, "VIN_SYS_5V0": 4000, "VDDQ_VDD2_1V8AO": 400},
            13400,
        ),
        (
            trees.thor,
            {"VDD_GPU": -312, "VDD_CPU_SOC_MSS": 6000, "VIN_SYS_5V0": 6500, "VIN": 36487},
            36487,
        ),
    ],
)
def test_every_board_gives_its_rails_and_a_total_that_counts_nothing_twice(tmp_path, build, rails, total):
    build(tmp_path)
    sensor = ina(tmp_path)
    values = reading(sensor)
    assert values == pytest.approx(rails)
    assert sum(values[name] for name in sensor.info.total.rails) == pytest.approx(total)
    assert "unknown rail" not in {rail.covers for rail in sensor.info.rails}
    assert sensor.info.uncertainty.relative is None  # nobody states one
    assert again(SensorInfo, sensor.info.as_dict()) == sensor.info


def test_what_a_combined_rail_covers_is_not_said_of_one_part(tmp_path):
    trees.orin_nx(tmp_path)
    covers = {rail.name: rail.covers for rail in ina(tmp_path).info.rails}
    assert covers["VDD_CPU_GPU_CV"] == "CPU, GPU, DLA and PVA together, part of VDD_IN"


def test_chips_are_found_whatever_their_numbers_after_a_boot(tmp_path):
    trees.agx_orin(tmp_path / "a")
    trees.agx_orin(tmp_path / "b")
    hwmon = tmp_path / "b/sys/class/hwmon"
    (hwmon / "hwmon1").rename(hwmon / "hwmon11")
    (hwmon / "hwmon2").rename(hwmon / "hwmon0")
    write(tmp_path / "b", {"sys/class/hwmon/hwmon1/name": "coretemp"})
    first, second = ina(tmp_path / "a"), ina(tmp_path / "b")
    assert first.info == second.info
    assert reading(first) == reading(second)


def test_rate_and_resolution_are_what_the_driver_says(tmp_path):
    trees.agx_orin(tmp_path)
    info = ina(tmp_path).info
    assert (info.rate_hz, info.window_ns) == (50, 20_000_000)  # update_interval of 20 ms
    assert "each value is the mean of up to 20 ms" in info.notes
    assert str(info.uncertainty) == "no uncertainty stated, in steps of 400 mW"
    assert info.uncertainty.resolution_mw == pytest.approx(400)  # 40 uV / 2 mOhm x 20 V


def test_the_slowest_chip_gives_rate_and_window(tmp_path):
    trees.thor(tmp_path)
    assert (ina(tmp_path).info.rate_hz, ina(tmp_path).info.window_ns) == (None, 0)
    write(tmp_path, {"sys/class/hwmon/hwmon4/update_interval": 200})
    assert (ina(tmp_path).info.rate_hz, ina(tmp_path).info.window_ns) == (5, 200_000_000)


def test_a_rail_that_cannot_be_read_takes_the_total_with_it(tmp_path):
    trees.agx_orin(tmp_path)
    (tmp_path / "sys/class/hwmon/hwmon1/curr2_input").unlink()
    info = ina(tmp_path).info
    assert info.total.rails == ()
    assert info.total.covers == "no total on this board: VDD_CPU_CV cannot be read"


def test_a_rail_that_fails_later_is_none_and_not_zero(tmp_path):
    trees.orin_nx(tmp_path)
    sensor = ina(tmp_path)
    write(tmp_path, {"sys/class/hwmon/hwmon3/curr1_input": "rubbish"})
    assert reading(sensor) == {"VDD_CPU_GPU_CV": 650, "VDD_IN": None, "VDD_SOC": 655}
    shutil.rmtree(tmp_path / "sys")
    assert set(reading(sensor).values()) == {None}


def test_channels_that_are_off_are_no_rails(tmp_path):
    trees.orin_nx(tmp_path)
    write(tmp_path, {"sys/class/hwmon/hwmon3/in3_enable": 0})
    (tmp_path / "sys/class/hwmon/hwmon3/in2_label").unlink()
    assert reading(ina(tmp_path)).keys() == {"VDD_IN"}


def test_rails_of_an_unknown_board_are_shown_and_never_added_up(tmp_path):
    trees.ina3221(tmp_path, 0, [("VDD_CPU_GPU_CV_X", 5000, 100), ("VDD_IN2", 5000, 100), ("vdd_in", 5000, 1)])
    info = ina(tmp_path).info
    assert {rail.covers for rail in info.rails} == {"unknown rail"}
    assert info.total.rails == () and info.total.covers.startswith("no total on this board")


def test_a_label_that_occurs_twice_keeps_both_rails(tmp_path):
    trees.ina3221(tmp_path, 0, [("A", 5000, 100), ("A", 5000, 200), ("NC", 5000, 1)])
    assert sorted(reading(ina(tmp_path)).values()) == [500, 1000]


def test_jetpack_4_falls_back_to_the_drivers_own_power(tmp_path):
    trees.nano(tmp_path)
    (tmp_path / "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0/in_voltage0_input").unlink()
    assert reading(ina(tmp_path))["POM_5V_IN"] == 1800


def test_a_labelled_ina238_keeps_its_name(tmp_path):
    trees.ina238(tmp_path, 0, 5_000_000, label="12V")
    assert reading(ina(tmp_path)) == {"12V": 5000}


def refusing(path: Path) -> Callable[[Path], str]:
    """Reads as the kernel does for a user who may not."""

    def read(asked: Path) -> str:
        if asked.match(str(path)):
            raise PermissionError(13, "Permission denied")
        return asked.read_text().strip()

    return read


def test_without_monitors_or_without_leave_the_reason_is_given(tmp_path):
    absent = find_ina(tmp_path)
    assert isinstance(absent, Unsupported) and "no INA3221 or INA238 under" in absent.reason
    trees.orin_nx(tmp_path)
    refused = find_ina(tmp_path, read=refusing(Path("curr*_input")))
    assert isinstance(refused, Unsupported) and "permission denied" in refused.reason


def test_a_row_of_the_table_is_taken_by_exact_names_only():
    assert board_of({"VDD_IN"}) is not None  # TX2 or Xavier NX: their totals agree
    assert total_of({"VDD_IN"}).rails == ("VDD_IN",)
    assert board_of({"vdd_in", "VDD_IN_X", "CPU_"}) is None
    assert board_of(set()) is None


def rapl(
    root: Path, *, packages: int = 1, energy_uj: int = 5_000_000, range_uj: int = 65_532_610_987
) -> None:
    """Linux, Documentation/power/powercap/powercap.rst; the class lists all zones side by side."""
    folder = "sys/class/powercap/"
    for package in range(packages):
        zones = {"": f"package-{package}", ":0": "core", ":1": "dram"}
        for suffix, name in zones.items():
            zone = f"{folder}intel-rapl:{package}{suffix}/"
            write(
                root,
                {zone + "name": name, zone + "energy_uj": energy_uj, zone + "max_energy_range_uj": range_uj},
            )
    write(root, {f"{folder}intel-rapl-mmio:0/name": "package-0", f"{folder}intel-rapl-mmio:0/energy_uj": 1})
    write(root, {f"{folder}intel-rapl/enabled": 1})


def moving(root: Path) -> Callable[[float], None]:
    """Waits as a machine does whose counters move meanwhile, by 1 uJ each."""

    def sleep(_seconds: float) -> None:
        for counter in root.glob("sys/class/powercap/*/energy_uj"):
            counter.write_text(f"{int(counter.read_text()) + 1}\n")

    return sleep


def test_rapl_whose_counters_stand_still_is_unsupported(tmp_path):
    rapl(tmp_path)
    waits: list[float] = []
    found = find_rapl(tmp_path, sleep=waits.append)
    assert isinstance(found, Unsupported) and "no counter changed in 0.1 s" in found.reason
    assert sum(waits) == pytest.approx(0.1)


def test_rapl_adds_packages_and_neither_their_parts_nor_the_second_interface(tmp_path):
    rapl(tmp_path, packages=2)
    sensor = find_rapl(tmp_path, sleep=moving(tmp_path))
    assert isinstance(sensor, PolledSensor)
    names = ["package-0", "package-0/core", "package-0/dram", "package-1", "package-1/core", "package-1/dram"]
    assert [rail.name for rail in sensor.info.rails] == names
    assert sensor.info.total.rails == ("package-0", "package-1")
    info = sensor.info
    assert (info.quantity, info.rate_hz, info.window_ns, info.drivers) == (
        "energy_mj",
        1000,
        0,
        ("intel-rapl",),
    )
    package, core, memory = [rail.covers for rail in info.rails][:3]
    assert package == "a CPU package" and core.startswith("cores") and memory.startswith("memory, not")
    assert info.total.covers == "CPU packages, without memory and the rest of the machine"
    assert set(reading(sensor).values()) == {5000.001}


def test_rapl_counts_on_when_the_counter_starts_again(tmp_path):
    counter = "sys/class/powercap/intel-rapl:0/energy_uj"
    rapl(tmp_path, range_uj=10_000_000)
    sensor = find_rapl(tmp_path, sleep=moving(tmp_path))
    assert isinstance(sensor, PolledSensor)
    seen = []
    for value in (9_000_000, 9_999_999, 1_000, 8_000_000, 500_000):
        write(tmp_path, {counter: value})
        seen.append(reading(sensor)["package-0"])
    # Two rounds of 10,000,001 values each.
    assert seen == pytest.approx([9000, 9999.999, 10001.001, 18000.001, 20500.002])


def test_rapl_of_unknown_range_gives_no_value_where_it_started_again(tmp_path):
    rapl(tmp_path)
    (tmp_path / "sys/class/powercap/intel-rapl:0/max_energy_range_uj").unlink()
    sensor = find_rapl(tmp_path, sleep=moving(tmp_path))
    assert isinstance(sensor, PolledSensor)
    assert reading(sensor)["package-0"] == 5000.001
    for later in (7, 9_000_000):
        write(tmp_path, {"sys/class/powercap/intel-rapl:0/energy_uj": later})
        assert reading(sensor)["package-0"] is None


@pytest.mark.parametrize(("package", "prefix"), [("package-3", "package-3"), (None, "package 3")])
def test_rapl_parts_are_found_in_the_folder_of_their_package_whose_name_they_have(tmp_path, package, prefix):
    """A class folder that lists no parts; and a package without a name."""
    folder = "sys/class/powercap/intel-rapl:3"
    names = {f"{folder}/intel-rapl:3:{number}": name for number, name in enumerate(("core", "uncore"))}
    names |= {folder: package} if package else {}
    for place, name in names.items():
        write(tmp_path, {f"{place}/name": name, f"{place}/energy_uj": 5, f"{place}/max_energy_range_uj": 99})

    def sleep(_seconds):
        (tmp_path / folder / "intel-rapl:3:0/energy_uj").write_text("6")

    sensor = find_rapl(tmp_path, sleep=sleep)
    assert isinstance(sensor, PolledSensor)
    parts = [f"{prefix}/core", f"{prefix}/uncore"]
    assert [rail.name for rail in sensor.info.rails] == ([package] if package else []) + parts
    assert sensor.info.total.rails == ((package,) if package else ())
    assert package or sensor.info.total.covers == "no total: no package counter can be read"


def test_rapl_says_why_it_is_not_there(tmp_path):
    absent = find_rapl(tmp_path)
    assert isinstance(absent, Unsupported) and "no intel-rapl zone" in absent.reason
    rapl(tmp_path)
    refused = find_rapl(tmp_path, read=refusing(Path("energy_uj")))
    assert isinstance(refused, Unsupported)
    assert "Permission denied" in refused.reason and "only root" in refused.reason


def test_a_sensor_is_opened_by_name_or_refused_with_its_reason(tmp_path):
    trees.orin_nx(tmp_path)
    assert open_sensor("ina", tmp_path).info.name == "ina"
    with pytest.raises(EnvironmentLacks, match="rapl is not supported here: no intel-rapl zone"):
        open_sensor("rapl", tmp_path)
    with pytest.raises(EnvironmentLacks, match="no sensor of this name"):
        open_sensor("wattmeter", tmp_path)
