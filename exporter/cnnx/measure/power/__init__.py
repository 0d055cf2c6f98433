"""Power and energy: sensors, a sampler in a separate process, and energy per inference."""

from cnnx.measure.power.cost import COST_LIMIT_S, SamplerCost, cost_seconds, cost_turns, sampler_cost
from cnnx.measure.power.driving import Driven
from cnnx.measure.power.energy import EnergyMeasurement, EnergyPerInference, EnergyRows
from cnnx.measure.power.finding import find_sensors, open_sensor
from cnnx.measure.power.live import power_now
from cnnx.measure.power.measuring import Plan, measure_energy
from cnnx.measure.power.sampler import Sampler, SamplerProcess, sample
from cnnx.measure.power.sensors.boards import BOARDS, Board, board_of, total_of
from cnnx.measure.power.sensors.sensor import PolledSensor, Sample, Sensor, SensorInfo, Span, Unsupported
from cnnx.measure.power.trace import Trace

__all__ = [
    "BOARDS",
    "COST_LIMIT_S",
    "Board",
    "Driven",
    "EnergyMeasurement",
    "EnergyPerInference",
    "EnergyRows",
    "Plan",
    "PolledSensor",
    "Sample",
    "Sampler",
    "SamplerCost",
    "SamplerProcess",
    "Sensor",
    "SensorInfo",
    "Span",
    "Trace",
    "Unsupported",
    "board_of",
    "cost_seconds",
    "cost_turns",
    "find_sensors",
    "measure_energy",
    "open_sensor",
    "power_now",
    "sample",
    "sampler_cost",
    "total_of",
]
