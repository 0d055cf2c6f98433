"""TensorRT for RTX: parses and builds without a GPU, runs on RTX cards.

It comes as two wheels: the bindings, and ONNX Runtime's execution provider, whose folder contains NVIDIA's
libraries. It is not TensorRT: its builds show that a graph parses and keeps its types, not how TensorRT
fuses it, and its engines do not run on Jetson.
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

from cnnx.errors import (
    CnnxError,
    EnvironmentLacks,
    GraphError,
    MissingExtra,
    UsageError,
    install_hint,
)
from cnnx.machine.environment import installed_version
from cnnx.runtimes import BuildOptions, BuildRequest, BuiltEngine
from cnnx.runtimes.engine.cudart import CudaRuntime
from cnnx.runtimes.engine.emission import let_emit
from cnnx.runtimes.engine.network import Library, ParsedNetwork, check_precision, make_log, release_of
from cnnx.runtimes.engine.runtime import EngineRuntime
from cnnx.runtimes.kernels import of_nodes
from cnnx.runtimes.rtx.build_log import layer_types

_BINDINGS = "tensorrt_rtx_bindings"
_LIBRARIES = "onnxruntime_ep_nv_tensorrt_rtx"


class RtxRuntime(EngineRuntime):
    """TensorRT for RTX, from NVIDIA's wheels for Linux x86-64."""

    name = "rtx"
    builds_without_gpu = True
    product = "TensorRT for RTX"
    without_gpu = "run on a machine with an RTX GPU; building for one works here (--sm 86)"

    def missing(self) -> CnnxError | None:
        """`MissingExtra` without the wheels, `EnvironmentLacks` if their releases differ."""
        for package in (_BINDINGS, _LIBRARIES):
            if importlib.util.find_spec(package) is None:
                return MissingExtra(package, "rtx", purpose=self.product)
        bindings, library = self.version(), _library_release()
        if release_of(bindings) != release_of(library):
            return EnvironmentLacks(
                f"the Python bindings of TensorRT for RTX have version {bindings} and its library {library}: "
                "they must have the same release",
                hint=install_hint("rtx", "--force-reinstall "),
            )
        return None

    def library(self) -> Library:
        """See `EngineRuntime`."""
        return _library()

    def cuda(self) -> CudaRuntime:
        """The CUDA runtime that comes with the wheels."""
        return _cuda()

    def version(self) -> str | None:
        """Version of the bindings."""
        return installed_version("tensorrt_rtx")

    def check_capabilities(self, capabilities: Sequence[int]) -> None:
        """Reject architectures that TensorRT for RTX does not support.

        Raises:
            UsageError: one is not supported, or none is given and this machine has no GPU.
        """
        if not capabilities:
            self._current()
            return
        known = known_capabilities(self.library().trt)
        for capability in capabilities:
            if capability not in known:
                raise _unknown(capability, known)

    def build(self, onnx_file: Path, request: BuildRequest) -> list[BuiltEngine]:
        """Build one engine for each compute capability.

        Raises:
            MissingExtra, EnvironmentLacks: TensorRT for RTX is not installed, or not properly.
            GraphError: the file is not a graph with one input and at most one dynamic dimension.
            UsageError: a compute capability is not supported, or none is given and this machine has no
                GPU; or TensorRT options are set.
            BuildFailed: the parser or builder failed, or a layer does not have the expected type.
        """
        if reason := self.missing():
            raise reason
        if not onnx_file.is_file():
            raise GraphError("no such file", where=onnx_file, hint="pass the path of an existing ONNX file")
        # The folder of the timing cache is ignored: TensorRT for RTX has no timing cache.
        if dataclasses.replace(request.options, timing_cache_folder=None) != BuildOptions():
            raise UsageError(
                "TensorRT for RTX does not support TensorRT's build options",
                hint="remove the build options, or build with --target tensorrt on the device itself",
            )
        capabilities = request.compute_capabilities or (self._current(),)
        self.check_capabilities(capabilities)
        parsed = ParsedNetwork(onnx_file, self.library(), product=self.product)
        if request.emits:
            let_emit(parsed.network)
        return [_built(parsed, onnx_file, capability, request) for capability in capabilities]

    def _current(self) -> int:
        if self.cannot_run() is not None:
            raise UsageError(
                "no compute capability to build for was given, and there is no GPU to take it from",
                hint="give one, such as --sm 86 for RTX 30xx",
            )
        return self.cuda().compute_capability()


def known_capabilities(trt: Any) -> dict[int, Any]:
    """SM versions that this release can build for -> member of its ComputeCapability."""
    members: dict[str, Any] = trt.ComputeCapability.__members__
    return {int(name[2:]): member for name, member in members.items() if re.fullmatch(r"SM\d+", name)}


def _unknown(capability: int, known: Sequence[int] | dict[int, Any]) -> UsageError:
    return UsageError(
        f"TensorRT for RTX does not build for compute capability {capability}, and its engines do not run on "
        "Jetson",
        hint=f"choose from {', '.join(map(str, sorted(known)))}; for Jetson and data center GPUs, use "
        "--target tensorrt on the device itself",
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
            f"TensorRT for RTX is installed but does not load: {error}",
            hint=install_hint("rtx", "--force-reinstall "),
        ) from error
    return Library(trt, make_log(trt))


@functools.cache
def _cuda() -> CudaRuntime:
    return CudaRuntime(_file("libcudart.so"))


def _file(stem: str) -> Path:
    """Path of a library in the execution provider's folder, such as libtensorrt_rtx.so.1.7.1."""
    spec = importlib.util.find_spec(_LIBRARIES)
    folders = (spec.submodule_search_locations if spec else None) or []
    found = [file for folder in folders for file in sorted(Path(folder).glob(f"{stem}.*"))]
    if not found:
        raise EnvironmentLacks(
            f"{stem} was not found in the package {_LIBRARIES}",
            hint=install_hint("rtx", "--force-reinstall "),
        )
    return found[0]


def _library_release() -> str | None:
    try:
        return _file("libtensorrt_rtx.so").name.partition(".so.")[2]
    except EnvironmentLacks:
        return None


def _built(parsed: ParsedNetwork, file: Path, capability: int, request: BuildRequest) -> BuiltEngine:
    """Build the engine for one compute capability."""
    library = _library()
    config = parsed.config(request.batch)
    config.num_compute_capabilities = 1
    config.set_compute_capability(known_capabilities(library.trt)[capability], 0)
    plan = parsed.serialize(config)
    evidence = {"layers.log": library.log.layers, "build.log": library.log.tail()}
    found = of_nodes(layer_types(library.log.layers, request.expected), request.expected)
    remarks = check_precision(found, request, file=file, target=f"SM {capability}", evidence=evidence)
    version = installed_version("tensorrt_rtx") or ""
    return BuiltEngine(
        identity="-".join(
            ["rtx", ".".join(map(str, release_of(version))), f"sm{capability}", *request.tuning]
        ),
        file_name="model.engine",
        plan=plan,
        runtime="rtx",
        runtime_version=version,
        target=f"sm{capability}",
        layer_types=found,
        remarks=tuple(remarks),
        evidence=evidence,
    )


RUNTIME = RtxRuntime()
