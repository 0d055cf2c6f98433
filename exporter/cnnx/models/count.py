"""Lists the layers of a PyTorch model with shapes, parameters, MACs and activation bytes."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from cnnx.errors import RecipeError
from cnnx.record import LayerRow


def layer_rows(model: nn.Module, input_shape: tuple[int, ...]) -> tuple[LayerRow, ...]:
    """Return the rows of `trace`."""
    return trace(model, input_shape)[0]


def trace(model: nn.Module, input_shape: tuple[int, ...]) -> tuple[tuple[LayerRow, ...], tuple[int, ...]]:
    """Return all layers in execution order, for one image, and the output shape without the batch.

    The model is not changed. Modules that do not run (auxiliary heads in evaluation mode) have no row.

    A copy of the model runs once on the meta device, so a VGG-16 takes milliseconds and no memory. Each call
    of a module without submodules is one row; the parameters are in the row of the first call. An operation
    in the `forward` of another module (a sum, a concatenation, a matrix product) is also a row, named after
    the module and the operator, such as "layer1.0.add".

    MACs are those of convolutions and matrix products, without biases. Activation bytes are those that a
    layer newly writes, in the model's data type. They are 0 for layers that work in place or return a view
    (ReLU(inplace=True), Flatten, Dropout in evaluation mode).

    Args:
        model: model in evaluation mode, on any device.
        input_shape: channels, height, width.

    Raises:
        RecipeError: the model does not accept this input shape, or does not return a single tensor.
    """
    image = torch.empty(1, *input_shape, device="meta")
    twin = _on_meta(model)
    recorder = _Recorder(twin)
    recorder.know(image)
    try:
        with torch.no_grad(), torch.device("meta"), recorder:
            logits = twin(image)
    except (RuntimeError, ValueError) as error:
        raise RecipeError(
            f"the network does not accept an input of shape {list(input_shape)}: {error}",
            where="input.shape",
            hint="set input.shape to [channels, height, width] of its input; "
            "`cnnx show` prints that of the built-in networks",
        ) from error
    if not isinstance(logits, torch.Tensor):
        raise RecipeError(
            f"the network returns {type(logits).__name__}, not a single tensor of logits",
            where="model.definition",
            hint="return only the logits (N, classes) from forward in evaluation mode",
        )
    return tuple(recorder.rows), tuple(logits.shape[1:])


def _on_meta(model: nn.Module) -> nn.Module:
    """Return a copy on the meta device; tensors shared in the model stay shared in the copy."""
    parameters: dict[int, Any] = {
        id(p): nn.Parameter(p.detach().to("meta"), requires_grad=False) for p in model.parameters()
    }
    buffers = {id(b): b.to("meta") for b in model.buffers()}
    return copy.deepcopy(model, parameters | buffers)


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records a row for each layer while a model runs: intercepts every operator and tracks its module."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.rows: list[LayerRow] = []
        self._storages: dict[int, Any] = {}  # kept alive, so that no handle is reused
        self._running: list[str] = []
        self._parameters: dict[str, int] = {}
        counted: set[int] = set()
        self._leaves: set[str] = set()
        self._multiply_adds = 0  # of the leaf that is running
        for name, module in model.named_modules():
            own = {id(p): p.numel() for p in module.parameters(recurse=False) if id(p) not in counted}
            self._parameters[name] = sum(own.values())  # tied parameters count in the first module
            counted.update(own)
            if not list(module.children()):
                self._leaves.add(name)
            module.register_forward_pre_hook(lambda _module, _inputs, name=name: self._enter(name))
            module.register_forward_hook(lambda module, _in, out, name=name: self._leave(name, module, out))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        output = result[0] if isinstance(result, tuple) else result
        packet = func._overloadpacket
        cost = 0
        if packet in flop_registry:  # counts floating-point operations, two per MAC
            cost = flop_registry[packet](*args, **(kwargs or {}), out_val=result) // 2
        module = self._running[-1] if self._running else ""
        if module in self._leaves:
            self._multiply_adds += cost
        elif isinstance(output, torch.Tensor) and ((written := self.know(output)) or cost):
            operator = packet.__name__.strip("_")
            name = f"{module}.{operator}".lstrip(".")
            # The batch is the first dimension, except in products that merge it with attention heads.
            shape = tuple(output.shape[1:] if output.shape[:1] == (1,) else output.shape)
            self.rows.append(LayerRow(name, operator, shape, 0, cost, written))
        return result

    def _enter(self, name: str) -> None:
        self._running.append(name)
        self._multiply_adds = 0

    def _leave(self, name: str, module: nn.Module, output: Any) -> None:
        self._running.pop()
        own = self._parameters.pop(name, 0)  # 0 in later calls
        if isinstance(module, nn.Identity) or (name not in self._leaves and not own):
            return
        tensor = isinstance(output, torch.Tensor)
        shape = tuple(output.shape[1:]) if tensor else ()
        written = self.know(output) if tensor else 0
        kind, cost = type(module).__name__, self._multiply_adds if name in self._leaves else 0
        self.rows.append(LayerRow(name, kind, shape, own, cost, written))

    def know(self, tensor: torch.Tensor) -> int:
        """Return the bytes of a tensor in new memory, or 0 if its memory is already known."""
        storage = tensor.untyped_storage()
        if storage._cdata in self._storages:
            return 0
        self._storages[storage._cdata] = storage
        return tensor.numel() * tensor.element_size()
