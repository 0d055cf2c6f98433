"""Random weights that stand in for trained ones: the whole flow runs, sizes and times are real.

Nothing clever is done to the classifier: fitting it to a few images makes logits that quantization
disturbs far more than it does those of trained networks, which would mislead.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from cnnx.errors import WeightsError

# Nearly nothing, but not zero: the exporter drops a bias of zeros, and the graph would lack nodes' inputs
# that the trained network's has.
_BIAS = 1e-3

_ACTIVATIONS = (
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.ELU,
    nn.GELU,
    nn.SiLU,
    nn.Hardswish,
    nn.Hardtanh,
    nn.PReLU,
)


def initialise(model: nn.Module, seed: int, *, batches: Iterable[NDArray[np.float32]]) -> None:
    """Draw a model's weights, in place, the same ones for a seed on every machine.

    Kernels and matrices are normal with variance 2 / fan-in (He et al., arXiv:1502.01852, equation 10),
    which keeps the scale of activations through plain networks with ReLU; their biases are `_BIAS`. Other
    vectors, such as the scales of normalisation layers, keep the constants their constructors gave.
    BatchNorm layers take mean and variance from the batches, averaged over them, and shifts of 1 where an
    activation reads them. With shifts of 0 each BatchNorm and ReLU enlarges a difference between two inputs
    by the root of E[f'^2] / Var[f] = pi / (pi - 1), so 1.21 times a layer: after a hundred layers PyTorch in
    FP32 gives other logits than in FP64, and rounding to INT8 buries all. With 1 it is 1.06 times.

    NumPy draws, not PyTorch, whose normals differ between processors with and without AVX2.

    Args:
        model: on the CPU; left in evaluation mode.
        seed: together with a parameter's position it seeds that parameter.
        batches: (N, C, H, W) float32, normalised; read only where there are BatchNorm layers.

    Raises:
        WeightsError: there are BatchNorm layers and no batches.
    """
    with torch.no_grad():
        for position, parameter in enumerate(model.parameters()):
            if parameter.dim() > 1:
                generator = np.random.default_rng([seed, position])
                values = generator.standard_normal(tuple(parameter.shape), dtype=np.float32)
                values *= np.float32(math.sqrt(2 / math.prod(parameter.shape[1:])))
                parameter.copy_(torch.from_numpy(values))
        for module in model.modules():
            bias = getattr(module, "bias", None)
            weight = getattr(module, "weight", None)
            if isinstance(bias, nn.Parameter) and isinstance(weight, nn.Parameter) and weight.dim() > 1:
                bias.fill_(_BIAS)
        _take_statistics(model, batches)


def _take_statistics(model: nn.Module, batches: Iterable[NDArray[np.float32]]) -> None:
    """Run the batches with only the BatchNorm layers in training mode, so that each sees normalised input."""
    model.eval()
    layers = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    if not layers:
        return
    pictures = [torch.from_numpy(batch) for batch in batches]
    if not pictures:
        raise WeightsError("stand-in weights for BatchNorm layers need calibration images", mend="give some")
    for layer in _activated(model, pictures[0]):
        if isinstance(layer.bias, nn.Parameter):
            nn.init.ones_(layer.bias)
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # PyTorch's word for the plain average over all batches
        layer.train()
    try:
        for batch in pictures:
            model(batch)
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
            layer.eval()


def _activated(model: nn.Module, batch: torch.Tensor) -> set[_BatchNorm]:
    """The BatchNorm layers whose output an activation module reads as it is."""
    normed: dict[
        int, tuple[_BatchNorm, torch.Tensor]
    ] = {}  # the tensor too, so that its number stays its own
    found: set[_BatchNorm] = set()

    def gave(layer: _BatchNorm, _: object, output: torch.Tensor) -> None:
        normed[id(output)] = layer, output

    def reads(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if inputs and id(inputs[0]) in normed:
            found.add(normed[id(inputs[0])][0])

    hooks = []
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            hooks.append(module.register_forward_hook(gave))
        elif isinstance(module, _ACTIVATIONS):
            hooks.append(module.register_forward_pre_hook(reads))
    model(batch)
    for hook in hooks:
        hook.remove()
    return found
