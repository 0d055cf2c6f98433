"""Sampler process: called with SENSOR RATE_HZ ROOT FILE, it samples until standard input closes."""

from __future__ import annotations

import contextlib
import select
import sys
from pathlib import Path

from cnnx.errors import EnvironmentLacks
from cnnx.measure.power.finding import open_sensor
from cnnx.measure.power.sampler import sample


def main(arguments: list[str]) -> int:
    """Sample until the parent process closes standard input or dies.

    Returns:
        0, or 4 if the sensor is not supported; standard error has the reason.
    """
    name, rate_hz, root, file = arguments
    try:
        sensor = open_sensor(name, Path(root))
    except EnvironmentLacks as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    with Path(file).open("w", buffering=1) as out, contextlib.closing(sensor):
        sample(sensor, out.write, rate_hz=float(rate_hz), wait=_stdin_ends)
    return 0


def _stdin_ends(seconds: float) -> bool:
    return bool(select.select([sys.stdin], [], [], seconds)[0])
