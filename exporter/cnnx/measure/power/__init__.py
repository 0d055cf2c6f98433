"""Power and energy: sensors, a sampler in a process of its own, and energy per inference."""

from cnnx.measure.power.boards import BOARDS, Board, board_of, total_of
from cnnx.measure.power.finding import find_sensors, open_sensor
from cnnx.measure.power.sensors import PolledSensor, Sample, Sensor, SensorInfo, Unsupported
from cnnx.measure.power.tegrastats import cross_check, parse_line

__all__ = [
    "BOARDS",
    "Board",
    "PolledSensor",
    "Sample",
    "Sensor",
    "SensorInfo",
    "Unsupported",
    "board_of",
    "cross_check",
    "find_sensors",
    "open_sensor",
    "parse_line",
    "total_of",
]
