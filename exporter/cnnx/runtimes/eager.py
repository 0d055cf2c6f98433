"""Runs the original network in PyTorch, as the reference for all others."""

from __future__ import annotations

import contextlib
import copy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cnnx.device import Device
from cnnx.errors import InputRefused, UsageError
from cnnx.machine.environment import cpu_device
from cnnx.runtimes.batches import Images


class EagerSession:
    """A PyTorch module, ready to run. Satisfies `cnnx.runtimes.Session`.

    It runs on the device of its parameters. The module is put into eval mode and is otherwise unchanged. On
    CUDA, TF32 is switched off for the whole process: a reference must be FP32, and by default PyTorch lets
    convolutions round their inputs to 10 bits of mantissa.

    Args:
        model: the module.
        threads: CPU threads of PyTorch, in the whole process, until the session is closed; None: as they are.
    """

    runtime = "eager"
    output_names: tuple[str, ...] = ("logits",)

    def __init__(self, model: nn.Module, *, threads: int | None = None) -> None:
        self.runtime_version: str = torch.__version__
        self._threads_before = None if threads is None else torch.get_num_threads()
        if threads is not None:
            torch.set_num_threads(threads)
        self._model: nn.Module | None = model.eval()
        self._stream: torch.cuda.Stream | None = None
        self._device = next((p.device for p in model.parameters()), torch.device("cpu"))
        if self._device.type == "cuda":
            torch.backends.cuda.matmul.allow_tf32 = False
            torch.backends.cudnn.allow_tf32 = False
            self.device = Device("gpu", torch.cuda.get_device_name(self._device))
        else:
            self.device = cpu_device()

    def run(self, images: Images) -> dict[str, NDArray[np.float32]]:
        """Run N images as one batch.

        Args:
            images: (N, C, H, W), normalized, float32.

        Returns:
            "logits": (N, classes).

        Raises:
            InputRefused: the model returns anything but one tensor (N, classes).
            UsageError: the session is closed.
        """
        model = self._check_open()
        with torch.cuda.stream(self._stream) if self._stream else contextlib.nullcontext():
            return {"logits": self._logits(model, images)}

    def sibling(self) -> EagerSession:
        """Another session on the same module, on a CUDA stream of its own.

        Raises:
            UsageError: the session is closed.
        """
        self._check_open()
        other = copy.copy(self)
        if self._device.type == "cuda":
            make: Any = torch.cuda.Stream  # without types
            other._stream = make(self._device)
        return other

    def close(self) -> None:
        """Release the module; the caller's own references stay valid."""
        self._model = None
        if self._threads_before is not None:
            torch.set_num_threads(self._threads_before)

    def _check_open(self) -> nn.Module:
        if self._model is None:
            raise UsageError("the session is closed", hint="create a new EagerSession")
        return self._model

    def _logits(self, model: nn.Module, images: Images) -> NDArray[np.float32]:
        batch = torch.from_numpy(np.require(images, np.float32, ["C", "W"])).to(self._device)
        # With a channels-last input PyTorch runs the whole network in that layout, and the module's weights
        # stay as they are, so an export does not change. On two cores, in ms per image, contiguous to
        # channels last: VGG-like network 51 -> 37, bottleneck network 69 -> 51. Converting the weights as
        # well gains nothing.
        batch = batch.contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            logits = model(batch)
        if not isinstance(logits, torch.Tensor) or logits.ndim != 2:
            kind = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
            raise InputRefused(
                f"a classifier returns one tensor (N, classes), this model returns {kind}",
                hint="wrap the model in a module whose forward() returns only the logits",
            )
        found: NDArray[np.float32] = logits.float().cpu().numpy()
        return found
