"""TensorRT for RTX: parses and builds without a GPU, runs on RTX cards.

It comes as two wheels: the bindings, and ONNX Runtime's execution provider, in whose folder NVIDIA's
libraries lie. It is not TensorRT: what it builds shows that a graph parses and keeps the types it was
given, not how TensorRT fuses it, and its engines do not run on Jetson.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import importlib.util
import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.version import InvalidVersion, Version

from cnnx.environment import installed_version
from cnnx.errors import (
    BuildFailed,
    CnnxError,
    EnvironmentLacks,
    GraphError,
    MissingExtra,
    UsageError,
)
from cnnx.runtimes import BuildRequest, BuiltEngine
from cnnx.runtimes.build_log import layer_types, mismatches
from cnnx.runtimes.cudart import CudaRuntime
from cnnx.runtimes.engine import EngineSession

_BINDINGS = "tensorrt_rtx_bindings"
_LIBRARIES = "onnxruntime_ep_nv_tensorrt_rtx"
_PURPOSE = "TensorRT for RTX"
_SHOWN = 5


class RtxRuntime:
    """TensorRT for RTX, by NVIDIA's wheels for Linux x86-64."""

    name = "rtx"
    engine_suffix: str | None = ".engine"

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
            UsageError: a compute capability that it does not know, or none named and no GPU here.
            BuildFailed: the parser or builder refused, or a layer is not of the type expected.
        """
        if reason := self.missing():
            raise reason
        if not onnx_file.is_file():
            raise GraphError("there is no such file", where=onnx_file)
        capabilities = request.compute_capabilities or (self._current(),)
        self.check_capabilities(capabilities)
        network = _Network(onnx_file)
        return [network.build(capability, request) for capability in capabilities]

    def open(self, file: Path) -> EngineSession:
        """Open an engine on the first GPU.

        Engines are native code: the caller has checked the file's hash against a manifest it trusts.

        Raises:
            EnvironmentLacks: no driver or GPU.
            BundleError: the engine is damaged, of another release, or for another GPU.
        """
        if reason := self.cannot_run():
            raise reason
        library = _library()
        return EngineSession(file, library.trt, cuda=_cuda(), log=library.log, runtime=self.name)

    def _current(self) -> int:
        if self.cannot_run() is not None:
            raise UsageError(
                "no GPU here says which compute capability to build for",
                mend="name one: --sm 86 for RTX 30xx",
            )
        return _cuda().compute_capability()


def release_of(version: str | None) -> tuple[int, ...]:
    """The part of a version that bindings and library must share: (1, 7, 1) of "1.7.1.116"."""
    try:
        return Version(version or "").release[:3]
    except InvalidVersion:
        return ()


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


@dataclass(frozen=True, slots=True)
class _Library:
    """The loaded bindings and their one logger.

    TensorRT keeps the first logger of a process and ignores those of later builders, so there is one.
    """

    trt: Any
    log: Any


@functools.cache
def _library() -> _Library:
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
    return _Library(trt, _make_log(trt))


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


def _make_log(trt: Any) -> Any:
    class Log(trt.ILogger):  # type: ignore[misc]
        """Prints nothing; keeps the lines on layers and the last errors."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: deque[str] = deque(maxlen=_SHOWN)
            self.layers = ""

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.errors.append(message)
            elif message.startswith("Layers:"):
                self.layers += message + "\n"

        def clear(self) -> None:
            self.errors.clear()
            self.layers = ""

        def said(self) -> str:
            return "; ".join(without_driver_noise("\n".join(self.errors)).splitlines()) or "it gave no reason"

    return Log()


def without_driver_noise(text: str) -> str:
    """What the builder says, without the lines by which it misses a driver that building does not need."""
    return "\n".join(line for line in text.splitlines() if "cudaError" not in line)


class _Network:
    """A parsed graph, ready to be built for several compute capabilities."""

    def __init__(self, file: Path) -> None:
        library = _library()
        self._file, self._trt, self._log = file, library.trt, library.log
        self._log.clear()
        self._builder = self._trt.Builder(self._log)
        self._network = self._builder.create_network(
            1 << int(self._trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        )
        # Held: the network may point into weights that the parser owns.
        self._parser = self._trt.OnnxParser(self._network, self._log)
        if not self._parser.parse_from_file(str(file)):
            raise self._refusal()
        # A file that is no protobuf message at all can parse, to nothing.
        if self._network.num_inputs != 1 or self._network.num_outputs < 1:
            raise GraphError(
                f"a classifier has one input, this graph has {self._network.num_inputs}, "
                f"and {self._network.num_outputs} outputs",
                where=file,
            )

    def build(self, capability: int, request: BuildRequest) -> BuiltEngine:
        """The engine for one compute capability."""
        self._log.clear()
        plan = self._builder.build_serialized_network(self._network, self._config(capability, request))
        if plan is None:
            raise BuildFailed(f"TensorRT for RTX built no engine: {self._log.said()}", where=self._file)
        found = layer_types(self._log.layers)
        if wrong := mismatches(request.expected, found):
            raise self._not_reached(wrong, capability, request)
        version = installed_version("tensorrt_rtx") or ""
        return BuiltEngine(
            identity=f"rtx-{'.'.join(map(str, release_of(version)))}-sm{capability}",
            file_name="model.engine",
            plan=bytes(plan),
            runtime="rtx",
            runtime_version=version,
            target=f"sm{capability}",
            layer_types={node: found[node] for node in request.expected},
        )

    def _not_reached(self, wrong: Sequence[str], capability: int, request: BuildRequest) -> BuildFailed:
        # Measured with 1.7.1: Cast, Conv, Cast with nothing else between becomes one FP16 kernel, weights
        # and all; with the activation among them it stays FP32.
        narrowed = any(line.endswith("fp16 instead of fp32") for line in wrong)
        return BuildFailed(
            f"{len(wrong)} of {len(request.expected)} layers did not reach the precision asked "
            f"({request.precision}, SM {capability}): {_listed(wrong)}",
            where=self._file,
            mend="a lone FP32 layer between casts is narrowed: take its activation into the FP32 part"
            if narrowed
            else "look at these layers with cnnx inspect; or hold them in fp16 by a precision override",
        )

    def _config(self, capability: int, request: BuildRequest) -> Any:
        trt = self._trt
        config = self._builder.create_builder_config()
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
        # On by default. FP32 is asked for where FP16's range or precision is not enough: TF32 has FP16's.
        config.clear_flag(trt.BuilderFlag.TF32)
        config.num_compute_capabilities = 1
        config.set_compute_capability(known_capabilities(trt)[capability], 0)
        if profile := self._profile(request.batch):
            config.add_optimization_profile(profile)
        return config

    def _profile(self, batch: tuple[int, int, int]) -> Any:
        """The range of batches of a dynamic graph; None for a static one."""
        entry = self._network.get_input(0)
        shape = tuple(entry.shape)
        if -1 in shape[1:]:
            raise GraphError(f"only the batch may be dynamic, the input is {shape}", where=self._file)
        if shape[0] != -1:
            if batch[0] != batch[2]:
                raise UsageError(
                    f"batches {batch[0]} to {batch[2]} were asked, the graph's is fixed at {shape[0]}",
                    where=self._file,
                    mend="export the graph with that range",
                )
            return None
        profile = self._builder.create_optimization_profile()
        profile.set_shape(entry.name, *((size, *shape[1:]) for size in batch))
        return profile

    def _refusal(self) -> BuildFailed:
        errors = [self._parser.get_error(index) for index in range(self._parser.num_errors)]
        said = [
            f"node {error.node_name()!r} ({error.node_operator()}): {parser_sentence(error.desc())}"
            for error in errors
        ]
        return BuildFailed(
            f"TensorRT's ONNX parser refuses the graph: {_listed(said) if said else self._log.said()}",
            where=self._file,
        )


def parser_sentence(description: str) -> str:
    """A parser's message without assertion code and without complaints about an absent driver."""
    lines = without_driver_noise(description).splitlines()
    useful = [line for line in lines if not line.startswith("Invalid Node")] or lines
    if not useful:
        return "no reason given"
    if "Plugin not found" in useful[0]:  # its words for an operator that neither it nor a plugin knows
        return "TensorRT has no such operator"
    return re.sub(r"^Assertion failed: .*?: ", "", useful[0])


def _listed(lines: Sequence[str]) -> str:
    more = f"; and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
    return "; ".join(lines[:_SHOWN]) + more


RUNTIME = RtxRuntime()
