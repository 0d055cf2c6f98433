"""PyTorch as it stands: the original network, the judge of all others."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cnnx.device import Device
from cnnx.errors import InputRefused, UsageError
from cnnx.machine.environment import cpu_device


class EagerSession:
    """A module, ready to run. Satisfies `cnnx.runtimes.Session`.

    It runs where its parameters lie. The module is put into eval mode and otherwise left as it is. On
    CUDA, TF32 is switched off for the whole process: a reference must be FP32, and PyTorch lets
    convolutions round their inputs to 10 bits of mantissa by default.
    """

    runtime = "eager"
    output_names: tuple[str, ...] = ("logits",)

    def __init__(self, model: nn.Module) -> None:
        self.runtime_version: str = torch.__version__
        self._model: nn.Module | None = model.eval()
        self._device = next((p.device for p in model.parameters()), torch.device("cpu"))
        if self._device.type == "cuda":
            torch.backends.cuda.matmul.allow_tf32 = False
            torch.backends.cudnn.allow_tf32 = False
            self.device = Device("gpu", torch.cuda.get_device_name(self._device))
        else:
            self.device = cpu_device()

    def run(self, images: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Run N pictures at once.

        Args:
            images: (N, C, H, W), normalised, float32.

        Returns:
            "logits": (N, classes).

        Raises:
            InputRefused: the model returns anything but one tensor (N, classes).
            UsageError: the session is closed.
        """
        if self._model is None:
            raise UsageError("the session is closed")
        batch = torch.from_numpy(np.require(images, np.float32, ["C", "W"])).to(self._device)
        # Channels last in the input is enough for PyTorch to run the whole network so, and leaves the
        # module's weights alone (an export from it stays the same). Two cores, ms an image, contiguous
        # against channels last: VGG-like 51 -> 37, bottleneck net 69 -> 51; weights converted too: no
        # further gain.
        batch = batch.contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            logits = self._model(batch)
        if not isinstance(logits, torch.Tensor) or logits.ndim != 2:
            kind = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
            raise InputRefused(f"a classifier returns one tensor (N, classes), this model returns {kind}")
        return {"logits": logits.float().cpu().numpy()}

    def close(self) -> None:
        """Let go of the module; whoever made it may hold it still."""
        self._model = None
