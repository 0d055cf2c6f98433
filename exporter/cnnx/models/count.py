"""What a PyTorch model is made of: a row a layer, without computing anything."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import nn

from cnnx.errors import RecipeError
from cnnx.record import LayerRow


def layer_rows(model: nn.Module, input_shape: tuple[int, ...]) -> tuple[LayerRow, ...]:
    """Every layer in the order it runs, for one picture; the model itself stays as it is.

    A copy on the meta device runs once, so a VGG-16 takes milliseconds and no memory. A layer that is
    called twice has two rows, its parameters in the first.
    Multiply-adds are those of convolutions and linear layers, biases excluded; what a model computes
    outside of modules (a matrix product in `forward`) is not counted.

    Args:
        model: in evaluation mode, its parameters on any device.
        input_shape: channels, height, width.

    Raises:
        RecipeError: the model does not take an input of this shape.
    """
    rows: list[LayerRow] = []
    twin = _on_meta(model)
    _watch(twin, rows)
    try:
        with torch.no_grad():
            twin(torch.empty(1, *input_shape, device="meta"))
    except (RuntimeError, ValueError) as error:
        raise RecipeError(
            f"the network does not take an input of shape {list(input_shape)}: {error}",
            where="input.shape",
        ) from error
    return tuple(rows)


def _on_meta(model: nn.Module) -> nn.Module:
    """A copy whose tensors have shapes but no values; what is shared in the model is shared in the copy."""
    parameters: dict[int, Any] = {
        id(p): nn.Parameter(p.detach().to("meta"), requires_grad=False) for p in model.parameters()
    }
    buffers = {id(b): b.to("meta") for b in model.buffers()}
    return copy.deepcopy(model, parameters | buffers)


def _watch(model: nn.Module, rows: list[LayerRow]) -> None:
    """Append a row whenever a module runs that has no modules inside, or parameters of its own."""
    seen: set[str] = set()

    def add(name: str, module: nn.Module, output: Any) -> None:
        own = 0 if name in seen else sum(p.numel() for p in module.parameters(recurse=False))
        seen.add(name)
        shape = tuple(output.shape[1:]) if isinstance(output, torch.Tensor) else ()
        rows.append(LayerRow(name, type(module).__name__, shape, own, _multiply_adds(module, shape)))

    for name, module in model.named_modules():
        if not list(module.children()) or list(module.parameters(recurse=False)):
            module.register_forward_hook(lambda m, _, out, name=name: add(name, m, out))


def _multiply_adds(module: nn.Module, output_shape: tuple[int, ...]) -> int:
    """Values written times the inputs each is summed over."""
    if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        return math.prod(output_shape) * module.in_channels // module.groups * math.prod(module.kernel_size)
    if isinstance(module, nn.Linear):
        return math.prod(output_shape) * module.in_features
    return 0
