"""What all sensors share."""

from __future__ import annotations

import pytest

from cnnx.measure.power import PolledSensor, SensorInfo
from cnnx.measure.power.sensors.sensor import (
    Rail,
    Sample,
    Span,
    Total,
    Uncertainty,
    integer,
    label,
    leave_to_read,
    read_text,
)


def info(**more):
    rails = tuple(Rail(name, "") for name in ("a", "b"))
    known = {
        "total": Total((), ""),
        "rate_hz": None,
        "window_ns": 0,
        "uncertainty": Uncertainty(None, None, ""),
    }
    return SensorInfo(name="fake", quantity="power_mw", rails=rails, **known, **more)


def test_a_reading_has_the_time_of_its_middle_and_a_sensor_is_closed_once():
    times, closed = iter([1000, 1007, 2000, 2001]), []
    values = iter([1.0, None, 3.0, 4.0])
    channel = values.__next__
    sensor = PolledSensor(info(), [channel] * 2, clock=times.__next__, close=lambda: closed.append(True))
    assert sensor.read() == Sample(1003, (1.0, None)) and sensor.read() == Sample(2000, (3.0, 4.0))
    assert sensor.info == info() and not closed
    sensor.close()
    assert closed == [True]
    PolledSensor(info(), []).close()


def test_a_span_lasts_seconds():
    assert Span(500_000_000, 3_000_000_000).seconds == 2.5


@pytest.mark.parametrize(
    ("relative", "step", "words"),
    [
        (None, None, "no uncertainty stated"),
        (None, 100.0, "no uncertainty stated, in steps of 100 mW"),
        (0.05, None, "within 5%"),
        (0.0, 0.5, "within 0%, in steps of 0.5 mW"),
    ],
)
def test_an_uncertainty_in_words(relative, step, words):
    assert str(Uncertainty(relative, step, "stated")) == words


def test_small_files_give_their_text_a_number_or_nothing(tmp_path):
    file = tmp_path / "f"
    assert integer(read_text, file) is None and label(read_text, file) is None
    for text, number, word in ((" -12 \n", -12, "-12"), ("abc\n", None, "abc"), (" \n", None, None)):
        file.write_text(text)
        assert (integer(read_text, file), label(read_text, file)) == (number, word)
    file.write_bytes(b"\xff\n")
    assert label(read_text, file) == "\ufffd"
    assert leave_to_read(file, "b") == f"sudo chmod a+r {file} b  # until the next boot"
