"""Fake sysfs trees of the boards that have power monitors, laid out as the kernel documents it."""

from __future__ import annotations

from pathlib import Path

# label, mV, mA
Channels = list[tuple[str, int, int]]


def write(root: Path, files: dict[str, object]) -> None:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{content}\n")


def ina3221(
    root: Path, hwmon: int, channels: Channels, *, shunt_uohm: int = 5000, interval_ms: int = 0
) -> None:
    """Linux, Documentation/hwmon/ina3221.rst: in1..3 are buses, in4..6 shunts, in7 and curr4 sums."""
    chip = f"sys/class/hwmon/hwmon{hwmon}"
    files: dict[str, object] = {
        "name": "ina3221",
        "update_interval": interval_ms,
        "in7_label": "sum of shunt voltages",
        "in7_input": 77,
        "curr4_input": 9999,
    }
    for number, (label, millivolts, milliamperes) in enumerate(channels, start=1):
        files |= {
            f"in{number}_label": label,
            f"in{number}_enable": 1,
            f"in{number}_input": millivolts,
            f"curr{number}_input": milliamperes,
            f"shunt{number}_resistor": shunt_uohm,
            f"in{number + 3}_input": 33,
        }
    write(root, {f"{chip}/{name}": content for name, content in files.items()})


def ina238(root: Path, hwmon: int, microwatts: int, *, label: str | None = None) -> None:
    """Linux, Documentation/hwmon/ina238.rst: power1_input in microwatts; label by the device tree."""
    chip = f"sys/class/hwmon/hwmon{hwmon}"
    files: dict[str, object] = {
        "name": "ina238",
        "power1_input": microwatts,
        "in0_input": 1,
        "in1_input": 19000,
    }
    write(root, {f"{chip}/{name}": content for name, content in files.items()})
    if label is not None:
        write(root, {f"{chip}/label": label})


def iio(root: Path, address: str, device: int, channels: Channels) -> None:
    """JetPack 4: channels from 0, under the driver's address."""
    chip = f"sys/bus/i2c/drivers/ina3221x/{address}/iio:device{device}"
    for number, (label, millivolts, milliamperes) in enumerate(channels):
        write(
            root,
            {
                f"{chip}/rail_name_{number}": label,
                f"{chip}/in_voltage{number}_input": millivolts,
                f"{chip}/in_current{number}_input": milliamperes,
                f"{chip}/in_power{number}_input": millivolts * milliamperes // 1000,
            },
        )


def nano(root: Path) -> None:
    iio(root, "6-0040", 0, [("POM_5V_IN", 5000, 360), ("POM_5V_GPU", 5000, 0), ("POM_5V_CPU", 5000, 70)])


def tx2(root: Path) -> None:
    iio(
        root, "0-0040", 0, [("VDD_SYS_GPU", 19000, 10), ("VDD_SYS_SOC", 19000, 30), ("VDD_4V0_WIFI", 4800, 4)]
    )
    iio(root, "0-0041", 1, [("VDD_IN", 19000, 200), ("VDD_SYS_CPU", 19000, 20), ("VDD_SYS_DDR", 19000, 25)])


def agx_xavier(root: Path) -> None:
    iio(root, "1-0040", 0, [("GPU", 19000, 60), ("CPU", 19000, 20), ("SOC", 19000, 130)])
    iio(root, "1-0041", 1, [("CV", 19000, 0), ("VDDRQ", 19000, 10), ("SYS5V", 5000, 540)])


def orin_nx(root: Path) -> None:
    ina3221(root, 3, [("VDD_IN", 5000, 560), ("VDD_CPU_GPU_CV", 5000, 130), ("VDD_SOC", 5000, 131)])


def agx_orin(root: Path) -> None:
    ina3221(
        root,
        1,
        [("VDD_GPU_SOC", 20000, 400), ("VDD_CPU_CV", 20000, 70), ("VIN_SYS_5V0", 5000, 800)],
        shunt_uohm=2000,
        interval_ms=20,
    )
    ina3221(root, 2, [("NC", 0, 0), ("VDDQ_VDD2_1V8AO", 5000, 80), ("NC", 0, 0)], shunt_uohm=2000)


def thor(root: Path) -> None:
    ina3221(root, 5, [("VDD_GPU", 12000, -26), ("VDD_CPU_SOC_MSS", 12000, 500), ("VIN_SYS_5V0", 5000, 1300)])
    ina238(root, 4, 36_487_000)
