"""What runtimes have in common whose engines are `EngineSession`s: NVIDIA's, with CUDA below them."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cnnx.device import Device
from cnnx.errors import CnnxError, EnvironmentLacks
from cnnx.runtimes import USUAL, RunOptions
from cnnx.runtimes.device import Cuda
from cnnx.runtimes.engine.network import Library
from cnnx.runtimes.engine.session import EngineSession
from cnnx.runtimes.layer_times import LayerTime


class EngineRuntime(ABC):
    """Loads, says why nothing runs here, and opens; a runtime adds what it is and how it builds."""

    name: str
    engine_suffix: str | None = ".engine"
    product: str
    """As NVIDIA calls it."""
    without_gpu: str
    """What to do where there is none."""

    @abstractmethod
    def missing(self) -> CnnxError | None:
        """See `cnnx.runtimes.Runtime`."""

    @abstractmethod
    def library(self) -> Library:
        """The bindings' module and its logger; after `missing` had nothing to say.

        Raises:
            EnvironmentLacks: they do not load.
        """

    @abstractmethod
    def cuda(self) -> Cuda:
        """CUDA, in the context that the bindings use.

        Raises:
            EnvironmentLacks: it does not load.
        """

    def cannot_run(self) -> CnnxError | None:
        """`EnvironmentLacks` without a GPU or its driver, in CUDA's own words."""
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
        """Load the libraries, and make CUDA's context: a stream is the least that needs one."""
        cuda = self._running_cuda()
        self.library()
        cuda.stream().free()

    def open(self, file: Path, options: RunOptions = USUAL) -> EngineSession:
        """Open an engine on the first GPU.

        Engines are native code: the caller has checked the file's hash against a manifest it trusts.

        Args:
            file: the engine.
            options: how.

        Raises:
            MissingExtra, EnvironmentLacks: the libraries, a driver or a GPU is missing, or memory is short.
            BundleError: the engine is damaged, of another release, or for another GPU.
        """
        cuda, library = self._running_cuda(), self.library()
        return EngineSession(
            file, library.trt, cuda=cuda, log=library.log, runtime=self.name, options=options
        )

    def layer_times(
        self, file: Path, images: NDArray[np.float32], *, runs: int = 50, options: RunOptions = USUAL
    ) -> tuple[LayerTime, ...]:
        """Time an engine layer by layer, by TensorRT's IProfiler; see `cnnx.runtimes.Runtime`."""
        with contextlib.closing(self.open(file, options)) as session:
            return session.layer_times(images, runs=runs)

    def _running_cuda(self) -> Cuda:
        if reason := self.cannot_run():
            raise reason
        return self.cuda()
