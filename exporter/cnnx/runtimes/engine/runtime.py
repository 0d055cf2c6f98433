"""Base class of the runtimes that open engines as `EngineSession`: TensorRT and TensorRT for RTX."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from pathlib import Path

from cnnx.device import Device
from cnnx.errors import CnnxError, EnvironmentLacks
from cnnx.runtimes import USUAL, Images, RunOptions
from cnnx.runtimes.device import Cuda
from cnnx.runtimes.engine.emission import emits
from cnnx.runtimes.engine.network import Library
from cnnx.runtimes.engine.session import EngineSession
from cnnx.runtimes.layer_times import LayerTime


class EngineRuntime(ABC):
    """Checks whether engines can run here, and opens them. Subclasses add the bindings and the build."""

    name: str
    engine_suffix: str | None = ".engine"
    product: str
    """NVIDIA's name for it, for messages."""
    without_gpu: str
    """Hint for a machine without a GPU."""

    @abstractmethod
    def missing(self) -> CnnxError | None:
        """See `cnnx.runtimes.Runtime`."""

    @abstractmethod
    def library(self) -> Library:
        """The bindings' module and its logger. Call it only if `missing` returned None.

        Raises:
            EnvironmentLacks: they do not load.
        """

    @abstractmethod
    def cuda(self) -> Cuda:
        """CUDA, in the context that the bindings use.

        Raises:
            EnvironmentLacks: it does not load.
        """

    def emits(self) -> bool:
        """Whether this release can mark the tensors that fusion leaves."""
        return self.missing() is None and emits(self.library().trt)

    def cannot_run(self) -> CnnxError | None:
        """`EnvironmentLacks` with CUDA's own message if the GPU or its driver is missing."""
        if reason := self.missing():
            return reason
        try:
            reason_of_cuda = self.cuda().why_not()
        except EnvironmentLacks as error:
            return error
        if reason_of_cuda is None:
            return None
        return EnvironmentLacks(f"{self.product} cannot run here: {reason_of_cuda}", hint=self.without_gpu)

    def device(self) -> Device:
        """The first GPU."""
        return Device("gpu", self._running_cuda().device_name())

    def load(self) -> None:
        """Load the libraries and create the CUDA context, which the creation of a stream requires."""
        cuda = self._running_cuda()
        self.library()
        cuda.stream().free()

    def open(self, file: Path, options: RunOptions = USUAL) -> EngineSession:
        """Open an engine on the first GPU.

        Engines are native code: the caller must have checked the file's hash against a trusted manifest.

        Args:
            file: path of the engine.
            options: how to open it.

        Raises:
            MissingExtra, EnvironmentLacks: the libraries, a driver or a GPU is missing, or memory is short.
            BundleError: the engine is damaged, or from a different release or for a different GPU.
        """
        cuda, library = self._running_cuda(), self.library()
        return EngineSession(
            file, library.trt, cuda=cuda, log=library.log, runtime=self.name, options=options
        )

    def layer_times(
        self, file: Path, images: Images, *, runs: int = 50, options: RunOptions = USUAL
    ) -> tuple[LayerTime, ...]:
        """Time an engine layer by layer with TensorRT's IProfiler; see `cnnx.runtimes.Runtime`."""
        with contextlib.closing(self.open(file, options)) as session:
            return session.layer_times(images, runs=runs)

    def _running_cuda(self) -> Cuda:
        if reason := self.cannot_run():
            raise reason
        return self.cuda()
