"""The logger and the strongly typed network that TensorRT and TensorRT for RTX share.

The bindings' module is passed in; nothing here imports it. Names and meanings follow NVIDIA's TensorRT
Python API reference. Tests check every name used here against the API of each release
(tests/runtimes/engine/trt_api).
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.version import InvalidVersion, Version

from cnnx.errors import BuildFailed, GraphError, UsageError
from cnnx.runtimes import BuildRequest
from cnnx.runtimes.kernels import mismatches

_SHOWN = 5
# Lines of the build log that are kept beside an engine.
_KEPT = 300
_NO_MEMORY = re.compile(
    r"out ?of ?memory|insufficient memory|not enough memory|MemoryAllocation", re.IGNORECASE
)
# "Tactic Device request: 448MB Available: 425MB. Device memory is insufficient to use tactic." and "Skipping
# tactic 3 due to insufficient memory on requested size of 448 detected ..." come in pairs (issue #1661); old
# releases write "insuficient". "Some tactics do not have sufficient workspace memory to run" appears once.
_SKIPPED = re.compile(r"Skipping tactic|sufficient workspace memory", re.IGNORECASE)
_UNTYPED = "Could not infer output types for operation: dequantize"
_REQUEST = re.compile(r"Tactic Device request: (\d+) ?MB Available: (\d+) ?MB")


@dataclass(frozen=True, slots=True)
class Library:
    """The loaded bindings and their only logger.

    TensorRT keeps the first logger of a process and ignores those of later builders, so all share one.
    """

    trt: Any
    log: Any


def release_of(version: str | None) -> tuple[int, ...]:
    """Part of a version that must match for components to work together: (1, 7, 1) of "1.7.1.116"."""
    try:
        return Version(version or "").release[:3]
    except InvalidVersion:
        return ()


def make_log(trt: Any) -> Any:
    """Create an ILogger for the bindings that prints nothing and keeps what later steps need."""

    class Log(trt.ILogger):  # type: ignore[misc]
        """Keeps lines on layers, the last lines and errors, and the tactics skipped for lack of memory."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: deque[str] = deque(maxlen=_SHOWN)
            self.lines: deque[str] = deque(maxlen=_KEPT)
            self.clear()

        def log(self, severity: Any, message: str) -> None:
            if not message.startswith("Layers:"):
                self.lines.append(f"{getattr(severity, 'name', severity)}: {message}")
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.errors.append(message)
            elif severity == trt.ILogger.WARNING:
                self._count(message)
            elif message.startswith("Layers:"):
                self.layers += message + "\n"

        def clear(self) -> None:
            self.errors.clear()
            self.lines.clear()
            self.layers = ""
            self.skipped = 0
            self._largest = (0, 0)

        def said(self) -> str:
            return (
                "; ".join(without_driver_noise("\n".join(self.errors)).splitlines()) or "no reason was given"
            )

        def tail(self) -> str:
            """The last lines, of every severity."""
            return "".join(f"{line}\n" for line in self.lines)

        def skipped_tactics(self) -> str:
            """A sentence on the tactics that were skipped; empty if none were."""
            if not self.skipped:
                return ""
            wanted, free = self._largest
            largest = f" (the largest needed {wanted} MB, {free} MB were free)" if wanted else ""
            were = "tactic was" if self.skipped == 1 else "tactics were"
            return f"{self.skipped} {were} skipped for lack of memory{largest}: the engine may be slower"

        def _count(self, message: str) -> None:
            self.skipped += len(_SKIPPED.findall(message))
            for wanted, free in _REQUEST.findall(message):
                self._largest = max(self._largest, (int(wanted), int(free)))

    return Log()


class ParsedNetwork:
    """A parsed graph, ready to be built, for several GPUs if the builder supports that.

    Args:
        file: path of the ONNX graph.
        library: bindings that parse it.
        product: NVIDIA's name for them, for messages.
        strongly_typed: only the types in the graph decide precision. False only where a DLA requires it.

    Raises:
        BuildFailed: the parser rejects the graph.
        GraphError: the graph does not have one input and at least one output, or a size other than the batch
            is dynamic.
    """

    def __init__(self, file: Path, library: Library, *, product: str, strongly_typed: bool = True) -> None:
        self._file, self._product = file, product
        self._trt, self._log = library.trt, library.log
        self._log.clear()
        self.builder = self._trt.Builder(self._log)
        strong = 1 << int(self._trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        self.network = self.builder.create_network(strong if strongly_typed else 0)
        # Keep a reference: the network may point to weights that the parser owns.
        self._parser = self._trt.OnnxParser(self.network, self._log)
        if not self._parser.parse_from_file(str(file)):
            raise self._refusal()
        # A file that is not a protobuf message may parse to an empty network.
        if self.network.num_inputs != 1 or self.network.num_outputs < 1:
            raise GraphError(
                f"a classifier has one input, this graph has {self.network.num_inputs}, "
                f"and {self.network.num_outputs} outputs",
                where=file,
                hint="pass the ONNX file of a classifier with a single input, such as model.onnx of a bundle",
            )
        entry = self.network.get_input(0)
        self.input_name: str = entry.name
        self.input_shape: tuple[int, ...] = tuple(entry.shape)
        if -1 in self.input_shape[1:]:
            raise GraphError(
                f"only the batch may be dynamic, the input {self.input_name!r} is {self.input_shape}",
                where=file,
                hint="export the graph with a fixed number of channels, height and width",
            )

    @property
    def dynamic(self) -> bool:
        """Whether the batch is dynamic."""
        return self.input_shape[0] == -1

    def config(self, batch: tuple[int, int, int]) -> Any:
        """A builder configuration with detailed layer information, no TF32, and the range of batches.

        Raises:
            UsageError: a range is requested and the graph's batch is fixed.
        """
        trt = self._trt
        self._log.clear()  # not in `serialize`: errors in a profile are logged when it is set
        config = self.builder.create_builder_config()
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
        # On by default. FP32 is for layers that need more precision than FP16 has, and TF32 has no more.
        config.clear_flag(trt.BuilderFlag.TF32)
        if self.dynamic:
            profile = self.builder.create_optimization_profile()
            profile.set_shape(self.input_name, *((size, *self.input_shape[1:]) for size in batch))
            config.add_optimization_profile(profile)
        elif batch[0] != batch[2]:
            raise UsageError(
                f"batches {batch[0]} to {batch[2]} were requested, but the graph's is fixed at "
                f"{self.input_shape[0]}",
                where=self._file,
                hint=f"export the graph with --batch {batch[0]}..{batch[2]}",
            )
        return config

    def serialize(self, config: Any) -> bytes:
        """Build the engine and return the plan.

        Raises:
            BuildFailed: the builder failed, or there was not enough memory.
        """
        plan = self.builder.build_serialized_network(self.network, config)
        if plan is not None:
            return bytes(plan)
        said = self._log.said()
        hint = "change the model and export it again; cnnx export --verbose shows the linter's remarks"
        if _UNTYPED in said:
            # TensorRT #4832, open: INT8 with FP16 scales on Orin with 10.16.
            hint = "export the bundle again with --scales fp32, and build it"
        if self._log.skipped or tells_no_memory(said):
            said = "; ".join(filter(None, (said, self._log.skipped_tactics())))
            hint = (
                "free memory (close other programs, the desktop) or build a smaller batch; if the workspace "
                "is limited, raise the limit; if the machine runs out of memory, set or lower it"
            )
        raise BuildFailed(f"{self._product} did not build an engine: {said}", where=self._file, hint=hint)

    def _refusal(self) -> BuildFailed:
        errors = [self._parser.get_error(index) for index in range(self._parser.num_errors)]
        said = [
            f"node {error.node_name()!r} ({error.node_operator()}): {parser_sentence(error.desc())}"
            for error in errors
        ]
        wants_plugin = any("Plugin not found" in error.desc() for error in errors)
        return BuildFailed(
            f"TensorRT's ONNX parser rejects the graph: {listed(said) if said else self._log.said()}",
            where=self._file,
            hint="replace the operator with standard ONNX operators: it needs a plugin, and cnnx loads "
            "no plugins"
            if wants_plugin
            else "change these nodes and export again; cnnx export --verbose shows the linter's remarks",
        )


def check_precision(
    found: Mapping[str, str],
    request: BuildRequest,
    *,
    file: Path,
    target: str,
    evidence: Mapping[str, str] | None = None,
) -> list[str]:
    """Reject a build in which a layer has a different type than the graph gives it.

    A layer that the builder does not name, or whose type it does not report, refuses nothing: networks are
    strongly typed, and what fused kernels report is not documented.

    Args:
        found: node -> type, as reported by the build.
        request: build request with the expected types.
        file: path of the graph.
        target: build target, for the message.
        evidence: see `BuildFailed`.

    Returns:
        A remark on the layers whose type was not reported.

    Raises:
        BuildFailed: a layer has the wrong type; the message names the layers.
    """
    wrong = mismatches(request.expected, found)
    if not wrong:
        unseen = [node for node in request.expected if node not in found]
        what = f"{len(unseen)} of {len(request.expected)} layers have no type in what the build reported"
        return [f"{what}, so it was not checked: {listed(unseen)}"] if unseen else []
    # Measured with RTX 1.7.1: Cast, Conv, Cast with nothing else in between becomes one FP16 kernel, with
    # FP16 weights. With the activation in between, the convolution stays in FP32.
    narrowed = any(line.endswith("fp16 instead of fp32") for line in wrong)
    raise BuildFailed(
        f"{len(wrong)} of {len(request.expected)} layers did not reach the requested precision "
        f"({request.precision}, {target}): {listed(wrong)}",
        where=file,
        hint="TensorRT narrows a single FP32 layer between casts: include its activation in the FP32 part"
        if narrowed
        else "check these layers with cnnx inspect, or keep them in fp16 with an override in the recipe",
        evidence=evidence,
    )


def tells_no_memory(said: str) -> bool:
    """Whether the log reports that there was not enough memory."""
    return _NO_MEMORY.search(said) is not None


def without_driver_noise(text: str) -> str:
    """The builder's messages without those on a missing driver, which a build may not need."""
    return "\n".join(line for line in text.splitlines() if "cudaError" not in line or tells_no_memory(line))


def parser_sentence(description: str) -> str:
    """A parser's message without assertion code and without messages on a missing driver."""
    lines = without_driver_noise(description).splitlines()
    useful = [line for line in lines if not line.startswith("Invalid Node")] or lines
    if not useful:
        return "no reason given"
    if "Plugin not found" in useful[0]:  # TensorRT's message for an unknown operator
        return "TensorRT does not support this operator"
    return re.sub(r"^Assertion failed: .*?: ", "", useful[0])


def listed(lines: Sequence[str]) -> str:
    """The first few lines, joined, and the number of the remaining ones."""
    more = f"; and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
    return "; ".join(lines[:_SHOWN]) + more
