"""Random stand-in weights: the whole pipeline runs, with real sizes and times, without trained weights.

The classifier is not fitted to images. That would give logits which quantization disturbs far more than those
of trained networks.
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

# Small but not zero: the exporter drops a bias of zeros, and the graph would then have fewer node inputs than
# that of the trained network.
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
    """Draw the weights of a model in place; a seed gives the same weights on every machine.

    Kernels and matrices are normal with variance 2 / fan-in (He et al., arXiv:1502.01852, equation 10), which
    preserves the scale of activations in plain networks with ReLU. Their biases are `_BIAS`. Other vectors,
    such as the scales of normalization layers, keep the constants set by their constructors.

    BatchNorm layers take mean and variance from the batches, averaged over them. Their shift is 1 if an
    activation reads them. With a shift of 0, each BatchNorm and ReLU would amplify a difference between two
    inputs by the root of E[f'^2] / Var[f] = pi / (pi - 1), or 1.21 per layer. After a hundred layers, the
    logits in FP32 would differ from those in FP64, and rounding to INT8 would destroy them. With a shift of 1
    the factor is 1.06.

    Random numbers come from NumPy, because PyTorch's normals differ between CPUs with and without AVX2.

    Args:
        model: model on the CPU; left in evaluation mode.
        seed: seeds each parameter, together with the parameter's index.
        batches: normalized images (N, C, H, W), float32; read only if there are BatchNorm layers.

    Raises:
        WeightsError: there are BatchNorm layers but no batches.
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
    """Run the batches with only the BatchNorm layers in training mode, so that each gets normalized input."""
    model.eval()
    layers = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    if not layers:
        return
    images = [torch.from_numpy(batch) for batch in batches]
    if not images:
        raise WeightsError(
            "stand-in weights for BatchNorm layers need calibration images",
            hint="give at least one with --calibration-data",
        )
    for layer in _activated(model, images[0]):
        if isinstance(layer.bias, nn.Parameter):
            nn.init.ones_(layer.bias)
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # makes PyTorch average over all batches
        layer.train()
    try:
        for batch in images:
            model(batch)
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
            layer.eval()


def _activated(model: nn.Module, batch: torch.Tensor) -> set[_BatchNorm]:
    """Return the BatchNorm layers whose output is read directly by an activation module."""
    # Keeps the tensors alive, so that no id is reused.
    normed: dict[int, tuple[_BatchNorm, torch.Tensor]] = {}
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
