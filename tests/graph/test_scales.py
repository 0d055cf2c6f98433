"""Scales of a file, by layer."""

from __future__ import annotations

from pathlib import Path

from cnnx.graph.scales import FileScales
from tests.inputs.graphs import residual


def test_scales_survive_being_written_exactly():
    scales = FileScales({"a": (0.1, 0.0)}, {"b": (127.0, 1 / 3)}, ("a note",))
    text = scales.to_json()
    assert FileScales.from_json(text, where=Path("scales.json")) == scales and text.endswith("}\n")
    assert FileScales({}, {}).notes == ()


def test_a_tensor_has_the_largest_range_that_a_reader_has():
    scales = FileScales(
        {"a.conv1": (2.0,), "a.add": (0.0, 3.0), "b.conv1": (1.0,), "b.down": (0.5,), "fc": (0.0,)}, {}
    )
    assert scales.ranges(residual()) == {"stem.relu": 3.0, "a.relu2": 1.0}
