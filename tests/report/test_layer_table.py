"""The table of layers: with an explanation, of an older record without one, and of a graph on a CPU."""

from __future__ import annotations

import json

from cnnx.device import Device
from cnnx.measure.roofline.explanation import explain
from cnnx.measure.roofline.peaks import peaks_of
from cnnx.pipeline.bench.measurement import LayerProfile
from cnnx.pipeline.records.benchmark import PlainProfile
from cnnx.report.tables.layers import layer_table
from cnnx.report.terminal import as_text
from cnnx.report.words import Run
from cnnx.schema import from_plain
from tests.inputs.engines import Planted, residual


def profile(peaks, unknown=""):
    engine = Planted()
    residual(engine, 2, stage="layer1", sums="int8")
    residual(engine, 4, stage="layer3", sums="fp16")
    profiled = engine.profiled(batch=8)
    found = LayerProfile(50, tuple(profiled.times), explain(profiled, peaks, unknown=unknown)).as_dict()
    return json.loads(json.dumps(found))


def shown(profile, width=160):
    return as_text(
        [layer_table(Run("net", "net int8", {"layers": profile, "latency": {"batch": 8}}))], width=width
    )


CARD = peaks_of(Device("gpu", "NVIDIA L4"))


def test_each_layer_stands_against_its_limit_and_the_cause_below_the_table():
    found = profile(CARD)
    from_plain(PlainProfile, found, where="a record", error=AssertionError)
    text = shown(found)
    for heading in ("type", "GMACs", "ops/byte", "limit ms", "attained %", "bound by"):
        assert heading in text
    assert "cause: 4 Q/DQ conversions around layer3" in text and "keep its Add in INT8" in text
    assert "The time goes to layers" in text and "of its roofline." in text
    assert "INT8 242.3" in text and "300 GB/s at 2040 MHz, as stated (NVIDIA L4 data sheet)" in text
    # 128 x 128 x 9 weights at 28 x 28 positions of 8 images, in INT8: 1.850 / 2 GMACs at 121 TMACs/s.
    [row] = [line for line in text.splitlines() if "/layer1/0/conv1/Conv" in line]
    assert " 0.925 " in row and " compute " in row and " 76 " in row
    narrow = shown(found, width=90).splitlines()
    assert any("attained %" in line and "limit ms" not in line for line in narrow)


def test_a_record_without_an_explanation_has_the_columns_it_had():
    found = profile(CARD)
    del found["explanation"]
    text = shown(found)
    assert (
        "attained" not in text and "cause" not in text and "medians of 50 separate profiling runs: " in text
    )


def test_an_unknown_device_has_no_limits_and_says_so():
    text = shown(profile(None, "no peak rates are listed for a toy"))
    assert "The roofline is unknown: no peak rates are listed for a toy." in text
    assert "GMACs" in text and "attained %" not in text and "cause: " in text
