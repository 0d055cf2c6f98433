"""Counts of layers added up by hand."""

from __future__ import annotations

Layer = tuple[int, int, int]  # weights, outputs, side of its map


def counts(layers: list[Layer], linear: list[Layer], *, values_a_channel: int = 2) -> tuple[int, int]:
    """Return parameters and MACs; a BatchNorm has two values per channel, a bias adds a third."""
    parameters = sum(weights + values_a_channel * outputs for weights, outputs, _ in layers)
    parameters += sum(weights + outputs for weights, outputs, _ in linear)
    return parameters, sum(weights * side**2 for weights, _, side in (*layers, *linear))
