"""What a PyTorch model is made of: a row a layer, without computing anything."""

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
    """The rows of `trace`."""
    return trace(model, input_shape)[0]


def trace(model: nn.Module, input_shape: tuple[int, ...]) -> tuple[tuple[LayerRow, ...], tuple[int, ...]]:
    """Every layer in the order it runs, for one picture, and the shape of the result without the batch.

    The model itself stays as it is. What does not run (auxiliary heads in evaluation) has no row.

    A copy on the meta device runs once, so a VGG-16 takes milliseconds and no memory. A module without
    modules inside is one row, or two when it is called twice, its parameters in the first. What another
    module's `forward` computes by itself (a sum, a concatenation, a matrix product) is a row as well,
    called after that module and the operator: "layer1.0.add".

    Multiply-adds are those of convolutions and matrix products, biases excluded. Activation bytes are those
    a layer newly writes, in the type the model computes in: 0 for what works in place or only looks at its
    input another way (ReLU(inplace=True), Flatten, Dropout in evaluation mode).

    Args:
        model: in evaluation mode, its parameters on any device.
        input_shape: channels, height, width.

    Raises:
        RecipeError: the model does not take an input of this shape, or does not give one tensor.
    """
    picture = torch.empty(1, *input_shape, device="meta")
    twin = _on_meta(model)
    recorder = _Recorder(twin)
    recorder.know(picture)
    try:
        with torch.no_grad(), torch.device("meta"), recorder:
            logits = twin(picture)
    except (RuntimeError, ValueError) as error:
        raise RecipeError(
            f"the network does not take an input of shape {list(input_shape)}: {error}",
            where="input.shape",
            mend="give the shape it was made for; cnnx show prints that of the shipped networks",
        ) from error
    if not isinstance(logits, torch.Tensor):
        raise RecipeError(f"the network gives {type(logits).__name__}, not one tensor of logits")
    return tuple(recorder.rows), tuple(logits.shape[1:])


def _on_meta(model: nn.Module) -> nn.Module:
    """A copy whose tensors have shapes but no values; what is shared in the model is shared in the copy."""
    parameters: dict[int, Any] = {
        id(p): nn.Parameter(p.detach().to("meta"), requires_grad=False) for p in model.parameters()
    }
    buffers = {id(b): b.to("meta") for b in model.buffers()}
    return copy.deepcopy(model, parameters | buffers)


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Writes rows while a model runs: it sees every operator, and knows which module it runs in."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.rows: list[LayerRow] = []
        self._storages: dict[int, Any] = {}  # kept alive, so that no handle is used again
        self._running: list[str] = []
        self._parameters: dict[str, int] = {}
        counted: set[int] = set()
        self._leaves: set[str] = set()
        self._multiply_adds = 0  # of the leaf that is running
        for name, module in model.named_modules():
            own = {id(p): p.numel() for p in module.parameters(recurse=False) if id(p) not in counted}
            self._parameters[name] = sum(own.values())  # a tied parameter counts where it stands first
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
        if packet in flop_registry:  # in floating-point operations: two a multiply-add
            cost = flop_registry[packet](*args, **(kwargs or {}), out_val=result) // 2
        module = self._running[-1] if self._running else ""
        if module in self._leaves:
            self._multiply_adds += cost
        elif isinstance(output, torch.Tensor) and ((written := self.know(output)) or cost):
            operator = packet.__name__.strip("_")
            name = f"{module}.{operator}".lstrip(".")
            # The batch stands first, except in products that join it with attention heads.
            shape = tuple(output.shape[1:] if output.shape[:1] == (1,) else output.shape)
            self.rows.append(LayerRow(name, operator, shape, 0, cost, written))
        return result

    def _enter(self, name: str) -> None:
        self._running.append(name)
        self._multiply_adds = 0

    def _leave(self, name: str, module: nn.Module, output: Any) -> None:
        self._running.pop()
        own = self._parameters.pop(name, 0)  # the second call has none
        if isinstance(module, nn.Identity) or (name not in self._leaves and not own):
            return
        tensor = isinstance(output, torch.Tensor)
        shape = tuple(output.shape[1:]) if tensor else ()
        written = self.know(output) if tensor else 0
        kind, cost = type(module).__name__, self._multiply_adds if name in self._leaves else 0
        self.rows.append(LayerRow(name, kind, shape, own, cost, written))

    def know(self, tensor: torch.Tensor) -> int:
        """Bytes of a tensor whose memory was not known yet; 0 where it was."""
        storage = tensor.untyped_storage()
        if storage._cdata in self._storages:
            return 0
        self._storages[storage._cdata] = storage
        return tensor.numel() * tensor.element_size()
