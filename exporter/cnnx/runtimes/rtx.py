"""TensorRT for RTX: parses and builds without a GPU, runs on RTX cards.

It comes as two wheels: the bindings, and ONNX Runtime's execution provider, in whose folder NVIDIA's
libraries lie. It is not TensorRT: what it builds shows that a graph parses and keeps the types it was
given, not how TensorRT fuses it, and its engines do not run on Jetson.
"""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import importlib
import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cnnx.environment import installed_version
from cnnx.errors import (
    CnnxError,
    EnvironmentLacks,
    GraphError,
    MissingExtra,
    UsageError,
)
from cnnx.runtimes import BuildOptions, BuildRequest, BuiltEngine
from cnnx.runtimes.build_log import layer_types
from cnnx.runtimes.cudart import CudaRuntime
from cnnx.runtimes.engine import EngineRuntime, EngineSession
from cnnx.runtimes.network import Library, ParsedNetwork, check_precision, make_log, release_of

_BINDINGS = "tensorrt_rtx_bindings"
_LIBRARIES = "onnxruntime_ep_nv_tensorrt_rtx"
_PURPOSE = "TensorRT for RTX"


class RtxRuntime(EngineRuntime):
    """TensorRT for RTX, by NVIDIA's wheels for Linux x86-64."""

    name = "rtx"
    builds_without_gpu = True

    def missing(self) -> CnnxError | None:
        """`MissingExtra` without the wheels, `EnvironmentLacks` where the two are of different releases."""
        for package in (_BINDINGS, _LIBRARIES):
            if importlib.util.find_spec(package) is None:
                return MissingExtra(package, "rtx", purpose=_PURPOSE)
        bindings, library = self.version(), _library_release()
        if release_of(bindings) != release_of(library):
            return EnvironmentLacks(
                f"the Python bindings of TensorRT for RTX are {bindings}, its library is {library}: "
                "only equal releases work together",
                mend="pip install --force-reinstall 'cnnx[rtx]'",
            )
        return None

    def cannot_run(self) -> CnnxError | None:
        """`EnvironmentLacks` without a GPU or its driver."""
        if reason := self.missing():
            return reason
        try:
            reason_of_cuda = _cuda().why_not()
        except EnvironmentLacks as error:
            return error
        if reason_of_cuda is None:
            return None
        return EnvironmentLacks(
            f"TensorRT for RTX cannot run here: {reason_of_cuda}",
            mend="run on a machine with an RTX GPU; building for one works here (--sm 86)",
        )

    def version(self) -> str | None:
        """Version of the bindings."""
        return installed_version("tensorrt_rtx")

    def device(self) -> str:
        """Name of the first GPU."""
        if reason := self.cannot_run():
            raise reason
        return _cuda().device_name()

    def check_capabilities(self, capabilities: Sequence[int]) -> None:
        """Refuse an architecture that TensorRT for RTX does not know.

        Raises:
            UsageError: it names those it knows.
        """
        if not capabilities:
            return
        known = known_capabilities(_library().trt)
        for capability in capabilities:
            if capability not in known:
                raise _unknown(capability, known)

    def build(self, onnx_file: Path, request: BuildRequest) -> list[BuiltEngine]:
        """Build one engine for each compute capability.

        Raises:
            MissingExtra, EnvironmentLacks: TensorRT for RTX is not, or not properly, installed.
            GraphError: the file is no graph with one input and one dynamic dimension at most.
            UsageError: a compute capability that it does not know, or none named and no GPU here; or
                options, of which it has none.
            BuildFailed: the parser or builder refused, or a layer is not of the type expected.
        """
        if reason := self.missing():
            raise reason
        if not onnx_file.is_file():
            raise GraphError("there is no such file", where=onnx_file)
        # A timing cache is no part of what is asked: RTX keeps none.
        if dataclasses.replace(request.options, timing_cache_folder=None) != BuildOptions():
            raise UsageError("TensorRT for RTX takes no options of TensorRT's builder", mend="leave them out")
        capabilities = request.compute_capabilities or (self._current(),)
        self.check_capabilities(capabilities)
        parsed = ParsedNetwork(onnx_file, _library(), product=_PURPOSE)
        return [_built(parsed, onnx_file, capability, request) for capability in capabilities]

    def open(self, file: Path, *, cuda_graph: bool = False, host_code: bool = False) -> EngineSession:
        """Open an engine on the first GPU.

        Engines are native code: the caller has checked the file's hash against a manifest it trusts.

        Args:
            file: the engine.
            cuda_graph: launch its kernels as one CUDA graph.
            host_code: let it run the CPU code it brings along, if any.

        Raises:
            EnvironmentLacks: no driver or GPU.
            BundleError: the engine is damaged, of another release, or for another GPU.
        """
        if reason := self.cannot_run():
            raise reason
        library = _library()
        return EngineSession(
            file,
            library.trt,
            cuda=_cuda(),
            log=library.log,
            runtime=self.name,
            cuda_graph=cuda_graph,
            host_code=host_code,
        )

    def _current(self) -> int:
        if self.cannot_run() is not None:
            raise UsageError(
                "no GPU here says which compute capability to build for",
                mend="name one: --sm 86 for RTX 30xx",
            )
        return _cuda().compute_capability()


def known_capabilities(trt: Any) -> dict[int, Any]:
    """SM versions that this release builds for -> member of its ComputeCapability."""
    members: dict[str, Any] = trt.ComputeCapability.__members__
    return {int(name[2:]): member for name, member in members.items() if re.fullmatch(r"SM\d+", name)}


def _unknown(capability: int, known: Sequence[int] | dict[int, Any]) -> UsageError:
    return UsageError(
        f"TensorRT for RTX does not build for compute capability {capability}, and its engines never go "
        "to Jetson",
        mend=f"choose among {', '.join(map(str, sorted(known)))}; Jetson and datacentre GPUs take "
        "--target tensorrt, on the device itself",
    )


@functools.cache
def _library() -> Library:
    _cuda()
    try:
        for stem in ("libtensorrt_rtx.so", "libtensorrt_onnxparser_rtx.so"):
            ctypes.CDLL(str(_file(stem)), mode=ctypes.RTLD_GLOBAL)
        trt = importlib.import_module(_BINDINGS)
    except (OSError, ImportError) as error:
        raise EnvironmentLacks(
            f"TensorRT for RTX is installed and does not load: {error}",
            mend="pip install --force-reinstall 'cnnx[rtx]'",
        ) from error
    return Library(trt, make_log(trt))


@functools.cache
def _cuda() -> CudaRuntime:
    return CudaRuntime(_file("libcudart.so"))


def _file(stem: str) -> Path:
    """A library in the execution provider's folder, such as libtensorrt_rtx.so.1.7.1."""
    spec = importlib.util.find_spec(_LIBRARIES)
    folders = (spec.submodule_search_locations if spec else None) or []
    found = [file for folder in folders for file in sorted(Path(folder).glob(f"{stem}.*"))]
    if not found:
        raise EnvironmentLacks(
            f"{stem} is not in the package {_LIBRARIES}", mend="pip install --force-reinstall 'cnnx[rtx]'"
        )
    return found[0]


def _library_release() -> str | None:
    try:
        return _file("libtensorrt_rtx.so").name.partition(".so.")[2]
    except EnvironmentLacks:
        return None


def _built(parsed: ParsedNetwork, file: Path, capability: int, request: BuildRequest) -> BuiltEngine:
    """The engine for one compute capability."""
    library = _library()
    config = parsed.config(request.batch)
    config.num_compute_capabilities = 1
    config.set_compute_capability(known_capabilities(library.trt)[capability], 0)
    plan = parsed.serialize(config)
    found = layer_types(library.log.layers)
    check_precision(found, request, file=file, target=f"SM {capability}")
    version = installed_version("tensorrt_rtx") or ""
    return BuiltEngine(
        identity=f"rtx-{'.'.join(map(str, release_of(version)))}-sm{capability}",
        file_name="model.engine",
        plan=plan,
        runtime="rtx",
        runtime_version=version,
        target=f"sm{capability}",
        layer_types={node: found[node] for node in request.expected},
    )


RUNTIME = RtxRuntime()
