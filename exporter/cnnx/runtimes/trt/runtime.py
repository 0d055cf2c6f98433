"""TensorRT 10.3 to 11.x, which builds on the GPU that will run the engine, including Jetson.

On Jetson, TensorRT comes with JetPack, elsewhere with the extra "tensorrt". All releases share one code path:
only the types in the graph decide precision (strongly typed networks), as TensorRT 11 requires.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Protocol

from cnnx.errors import CnnxError, EnvironmentLacks, GraphError, MissingExtra, UsageError, install_hint
from cnnx.machine.driver import extra_for
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
"""Library for CUDA calls; "auto": the CUDA runtime, or pycuda if that is not found."""


class Bindings(Protocol):
    """An installation of TensorRT, or its imitation in tests."""

    def version(self) -> str | None:
        """Version; None if not installed."""
        ...

    def lacking(self) -> CnnxError | None:
        """Why it cannot be used; None if it can."""
        ...

    def load(self) -> Library:
        """Load the module and its logger."""
        ...

    def cuda(self) -> Cuda:
        """CUDA, through either library."""
        ...

    def environment(self) -> Environment:
        """Properties of the machine."""
        ...


class TrtRuntime(EngineRuntime):
    """TensorRT.

    Args:
        bindings: the installation; None: that of this machine.
    """

    name = "tensorrt"
    builds_without_gpu = False
    product = "TensorRT"
    without_gpu = "run on a machine with an NVIDIA GPU and its driver (nvidia-smi shows both)"

    def __init__(self, bindings: Bindings | None = None) -> None:
        self._bindings = bindings or InstalledBindings()

    def missing(self) -> CnnxError | None:
        """Error if TensorRT or its libraries are missing or too old; on Jetson the hint names JetPack."""
        return self._bindings.lacking()

    def library(self) -> Library:
        """See `EngineRuntime`."""
        return self._bindings.load()

    def cuda(self) -> Cuda:
        """See `EngineRuntime`."""
        return self._bindings.cuda()

    def version(self) -> str | None:
        """Installed version."""
        return self._bindings.version()

    def check_capabilities(self, capabilities: Sequence[int]) -> None:
        """Reject any: TensorRT builds only for the GPU of this machine.

        Raises:
            UsageError: a compute capability is given.
        """
        if capabilities:
            raise UsageError(
                "TensorRT builds only for the GPU of this machine, not for a given compute capability",
                hint="leave out --sm and build on the device itself; --target rtx supports --sm for RTX GPUs",
            )

    def build(self, onnx_file: Path, request: BuildRequest) -> list[BuiltEngine]:
        """Build one engine for this machine's first GPU.

        Raises:
            MissingExtra, EnvironmentLacks: TensorRT, a GPU or its driver is missing.
            GraphError: the file is not a graph with one input and at most one dynamic dimension.
            UsageError: a compute capability is given, or an option is not supported here.
            BuildFailed: the parser or builder failed, or a layer does not have the expected type.
        """
        if reason := self.cannot_run():
            raise reason
        self.check_capabilities(request.compute_capabilities)
        if not onnx_file.is_file():
            raise GraphError("no such file", where=onnx_file, hint="pass the path of an existing ONNX file")
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
    """The TensorRT installed on this machine; satisfies `Bindings`.

    Args:
        cuda_by: library for CUDA calls.
    """

    def __init__(self, cuda_by: CudaBy = "auto") -> None:
        self._cuda_by = cuda_by

    def version(self) -> str | None:
        """Version from the package's metadata, or from the module if the package has a different name."""
        if not _is_installed():
            return None
        if (found := installed_version("tensorrt")) is not None:
            return found
        try:
            return str(self.load().trt.__version__)
        except EnvironmentLacks:
            return None

    def lacking(self) -> CnnxError | None:
        """Error if TensorRT is missing, too old, or does not load."""
        if not _is_installed():
            return absent(self.environment())
        found = self.version()
        if found is not None and release_of(found) < _OLDEST:
            return EnvironmentLacks(
                f"cnnx needs TensorRT 10.3 or newer, found {found}",
                hint="install JetPack 6.1 or newer" if self.environment().l4t else install_hint("tensorrt"),
            )
        try:
            self.load()
        except EnvironmentLacks as error:
            return error
        return None

    def load(self) -> Library:
        """Import the bindings.

        Raises:
            EnvironmentLacks: they do not load, usually because NVIDIA's libraries are missing.
        """
        return _load()

    def cuda(self) -> Cuda:
        """The CUDA runtime, or pycuda.

        Raises:
            MissingExtra: pycuda is requested but not installed.
            EnvironmentLacks: the library does not load.
        """
        return _cuda(self._cuda_by)

    def environment(self) -> Environment:
        """Properties of this machine."""
        return detect()


def absent(machine: Environment) -> CnnxError:
    """Error for a missing TensorRT, with a hint that depends on the machine."""
    if machine.l4t is not None:
        return EnvironmentLacks(
            "TensorRT's Python module was not found. On Jetson it comes with JetPack, not from pip",
            hint="sudo apt install python3-libnvinfer; and create cnnx's virtual environment with "
            "python3 -m venv --system-site-packages",
        )
    if machine.machine != "x86_64":
        return EnvironmentLacks(
            f"TensorRT is not installed, and cnnx has no extra for it on {machine.machine}",
            hint=f"follow NVIDIA's instructions: {_INSTALL}",
        )
    extra = extra_for("tensorrt", machine.gpu.cuda if machine.gpu else None)
    return MissingExtra("tensorrt", extra or "tensorrt", purpose="TensorRT")


def _is_installed() -> bool:
    """Whether the module can be imported, not just a folder with the same name."""
    spec = importlib.util.find_spec("tensorrt")
    return spec is not None and spec.origin is not None


@functools.cache
def _load() -> Library:
    try:
        import tensorrt as trt
    except (ImportError, OSError) as error:
        on_jetson = detect().l4t is not None
        raise EnvironmentLacks(
            f"TensorRT's Python bindings are installed, but its libraries do not load: {error}",
            hint="sudo apt install nvidia-jetpack"
            if on_jetson
            # The bindings' wheel has no libraries; they are in tensorrt-cu12-libs or tensorrt-cu13-libs.
            else install_hint("tensorrt", "--force-reinstall "),
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
