"""TensorRT 10.3 to 11.x, one code path: builds on the GPU that the engine will run on, Jetson included.

On Jetson it comes with JetPack, elsewhere with the extra "tensorrt". The graph's types alone decide
precision (a strongly typed network), in every release alike: TensorRT 11 knows no other way.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Protocol

from cnnx.errors import CnnxError, EnvironmentLacks, GraphError, MissingExtra, UsageError
from cnnx.machine.environment import Environment, detect, installed_version
from cnnx.runtimes import BuildRequest, BuiltEngine
from cnnx.runtimes.device import Cuda
from cnnx.runtimes.engine import cuda, cudart
from cnnx.runtimes.engine.network import Library, make_log, release_of
from cnnx.runtimes.engine.runtime import EngineRuntime
from cnnx.runtimes.trt.build import Place, build_engine

_OLDEST = (10, 3)
_INSTALL = "https://docs.nvidia.com/deeplearning/tensorrt/latest/installing-tensorrt/installing.html"
CudaBy = Literal["auto", "cudart", "pycuda"]
"""Which library speaks to CUDA; "auto": the CUDA runtime, pycuda where that is not found."""


class Bindings(Protocol):
    """TensorRT as it is found somewhere: here, or imitated in tests."""

    def version(self) -> str | None:
        """Version; None where there is none."""
        ...

    def lacking(self) -> CnnxError | None:
        """Why it cannot be used, or None."""
        ...

    def load(self) -> Library:
        """The module and its logger."""
        ...

    def cuda(self) -> Cuda:
        """CUDA, by whichever library."""
        ...

    def environment(self) -> Environment:
        """The machine."""
        ...


class TrtRuntime(EngineRuntime):
    """TensorRT.

    Args:
        bindings: where it is; None: as it is installed here.
    """

    name = "tensorrt"
    builds_without_gpu = False
    product = "TensorRT"
    without_gpu = "run where an NVIDIA GPU and its driver are (nvidia-smi shows both)"

    def __init__(self, bindings: Bindings | None = None) -> None:
        self._bindings = bindings or InstalledBindings()

    def missing(self) -> CnnxError | None:
        """Absent, too old, or bindings without their libraries; on Jetson the hint is JetPack's."""
        return self._bindings.lacking()

    def library(self) -> Library:
        """See `EngineRuntime`."""
        return self._bindings.load()

    def cuda(self) -> Cuda:
        """See `EngineRuntime`."""
        return self._bindings.cuda()

    def version(self) -> str | None:
        """Version of what is installed."""
        return self._bindings.version()

    def check_capabilities(self, capabilities: Sequence[int]) -> None:
        """Refuse any: TensorRT builds for the GPU that is here.

        Raises:
            UsageError: one is named.
        """
        if capabilities:
            raise UsageError(
                "TensorRT builds for the GPU that it runs on, not for a named one",
                hint="leave --sm out and build on the device itself; --target rtx builds for named RTX GPUs",
            )

    def build(self, onnx_file: Path, request: BuildRequest) -> list[BuiltEngine]:
        """Build one engine for this machine's first GPU.

        Raises:
            MissingExtra, EnvironmentLacks: TensorRT, a GPU or its driver is missing.
            GraphError: the file is no graph with one input and one dynamic dimension at most.
            UsageError: a compute capability was named, or options that are not to be had here.
            BuildFailed: the parser or builder refused, or a layer is not of the type expected.
        """
        if reason := self.cannot_run():
            raise reason
        self.check_capabilities(request.compute_capabilities)
        if not onnx_file.is_file():
            raise GraphError("there is no such file", where=onnx_file)
        return [build_engine(onnx_file, request, library=self.library(), place=self._place())]

    def _place(self) -> Place:
        device, machine = self.cuda(), self._bindings.environment()
        return Place(
            gpu=device.device_name(),
            compute_capability=device.compute_capability(),
            tensorrt=self.version() or "",
            board=machine.board,
            jetpack=machine.jetpack,
            jetson=machine.l4t is not None,
        )


class InstalledBindings:
    """TensorRT as this machine has it; satisfies `Bindings`.

    Args:
        cuda_by: which library speaks to CUDA.
    """

    def __init__(self, cuda_by: CudaBy = "auto") -> None:
        self._cuda_by = cuda_by

    def version(self) -> str | None:
        """By the package's metadata; where a package has another name, by the module itself."""
        if not _is_there():
            return None
        if (found := installed_version("tensorrt")) is not None:
            return found
        try:
            return str(self.load().trt.__version__)
        except EnvironmentLacks:
            return None

    def lacking(self) -> CnnxError | None:
        """Absent, too old, or not loading."""
        if not _is_there():
            return absent(self.environment())
        found = self.version()
        if found is not None and release_of(found) < _OLDEST:
            return EnvironmentLacks(
                f"cnnx builds with TensorRT 10.3 or newer, here is {found}",
                hint="JetPack 6.1 or newer has it"
                if self.environment().l4t
                else "pip install 'cnnx[tensorrt]'",
            )
        try:
            self.load()
        except EnvironmentLacks as error:
            return error
        return None

    def load(self) -> Library:
        """Import the bindings.

        Raises:
            EnvironmentLacks: they do not load, mostly because NVIDIA's libraries are not there.
        """
        return _load()

    def cuda(self) -> Cuda:
        """The CUDA runtime, or pycuda.

        Raises:
            MissingExtra: pycuda was asked and is absent.
            EnvironmentLacks: the library does not load.
        """
        return _cuda(self._cuda_by)

    def environment(self) -> Environment:
        """This machine."""
        return detect()


def absent(machine: Environment) -> CnnxError:
    """Why TensorRT is not there with a hint for this machine."""
    if machine.l4t is not None:
        return EnvironmentLacks(
            "TensorRT's Python module is not to be seen. On Jetson it comes with JetPack, never from pip",
            hint="sudo apt install python3-libnvinfer; and make the environment that cnnx is in with "
            "python3 -m venv --system-site-packages",
        )
    if machine.machine != "x86_64":
        return EnvironmentLacks(
            f"TensorRT is not installed, and no extra of cnnx brings it for {machine.machine}",
            hint=f"install it as NVIDIA says: {_INSTALL}",
        )
    return MissingExtra("tensorrt", "tensorrt", purpose="TensorRT")


def _is_there() -> bool:
    """A module that can be imported; not a folder that happens to have its name."""
    spec = importlib.util.find_spec("tensorrt")
    return spec is not None and spec.origin is not None


@functools.cache
def _load() -> Library:
    try:
        import tensorrt as trt
    except (ImportError, OSError) as error:
        on_jetson = detect().l4t is not None
        raise EnvironmentLacks(
            f"TensorRT's Python bindings are installed and its libraries do not load: {error}",
            hint="sudo apt install nvidia-jetpack"
            if on_jetson
            # The bindings' wheel has no libraries in it; they come from tensorrt-cu12-libs or -cu13-libs.
            else "pip install --force-reinstall 'cnnx[tensorrt]'",
        ) from error
    return Library(trt, make_log(trt))


@functools.cache
def _cuda(by: CudaBy) -> Cuda:
    if by == "pycuda":
        return cuda.PycudaRuntime()
    try:
        return cudart.load_cudart()
    except EnvironmentLacks:
        if by == "auto" and cuda.missing() is None:
            return cuda.PycudaRuntime()
        raise


RUNTIME = TrtRuntime()
