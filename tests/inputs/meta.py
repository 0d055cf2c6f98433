"""Networks on the meta device, for the golden tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from cnnx import models
from cnnx.models.count import layer_rows
from cnnx.record import LayerRow


def meta(name: str, classes: int = 1000, **arguments: Any) -> nn.Module:
    """Build a definition on the meta device."""
    with torch.device("meta"):
        return models.build(name, classes=classes, arguments=arguments)


def rows_of(model: nn.Module, side: int = 224, channels: int = 3) -> dict[str, LayerRow]:
    """Return the layers by name, for an image of this size."""
    rows = layer_rows(model, (channels, side, side))
    assert len({row.name for row in rows}) == len(rows)
    return {row.name: row for row in rows}


def totals(rows: dict[str, LayerRow]) -> tuple[int, int]:
    """Return parameters and MACs."""
    return sum(row.parameters for row in rows.values()), sum(row.multiply_adds for row in rows.values())


def stages(rows: dict[str, LayerRow], names: Sequence[str]) -> list[tuple[int, ...]]:
    """Return the output shapes of these layers."""
    return [rows[name].output_shape for name in names]
