"""What TensorRT and TensorRT for RTX share: the logger, and ONNX parsed into a strongly typed network.

The bindings' module is handed in: nothing here imports it. Names and meaning as in NVIDIA's TensorRT
Python API reference; tests hold every name used here to the API of each release
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
_NO_MEMORY = re.compile(
    r"out ?of ?memory|insufficient memory|not enough memory|MemoryAllocation", re.IGNORECASE
)
# "Tactic Device request: 448MB Available: 425MB. Device memory is insufficient to use tactic." and "Skipping
# tactic 3 due to insufficient memory on requested size of 448 detected ..." come in pairs (issue #1661); old
# releases write "insuficient". "Some tactics do not have sufficient workspace memory to run" comes once.
_SKIPPED = re.compile(r"Skipping tactic|sufficient workspace memory", re.IGNORECASE)
_REQUEST = re.compile(r"Tactic Device request: (\d+) ?MB Available: (\d+) ?MB")


@dataclass(frozen=True, slots=True)
class Library:
    """The loaded bindings and their one logger.

    TensorRT keeps the first logger of a process and ignores those of later builders, so there is one.
    """

    trt: Any
    log: Any


def release_of(version: str | None) -> tuple[int, ...]:
    """The part of a version that things must share to work together: (1, 7, 1) of "1.7.1.116"."""
    try:
        return Version(version or "").release[:3]
    except InvalidVersion:
        return ()


def make_log(trt: Any) -> Any:
    """The logger to hand to the bindings: an ILogger that prints nothing and remembers what counts."""

    class Log(trt.ILogger):  # type: ignore[misc]
        """Keeps the lines on layers, the last errors, and which tactics memory did not suffice for."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: deque[str] = deque(maxlen=_SHOWN)
            self.clear()

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.errors.append(message)
            elif severity == trt.ILogger.WARNING:
                self._count(message)
            elif message.startswith("Layers:"):
                self.layers += message + "\n"

        def clear(self) -> None:
            self.errors.clear()
            self.layers = ""
            self.skipped = 0
            self._largest = (0, 0)

        def said(self) -> str:
            return "; ".join(without_driver_noise("\n".join(self.errors)).splitlines()) or "it gave no reason"

        def skipped_tactics(self) -> str:
            """In words; empty where none was skipped."""
            if not self.skipped:
                return ""
            wanted, free = self._largest
            largest = f" (the largest wanted {wanted} MB of {free} MB free)" if wanted else ""
            were = "tactic was" if self.skipped == 1 else "tactics were"
            return f"{self.skipped} {were} skipped for lack of memory{largest}: the engine may be slower"

        def _count(self, message: str) -> None:
            self.skipped += len(_SKIPPED.findall(message))
            for wanted, free in _REQUEST.findall(message):
                self._largest = max(self._largest, (int(wanted), int(free)))

    return Log()


class ParsedNetwork:
    """A parsed graph, ready to be built, for several GPUs where the builder can.

    Args:
        file: the ONNX graph.
        library: the bindings that parse it.
        product: what NVIDIA calls them, for messages.

    Raises:
        BuildFailed: the parser refuses the graph.
        GraphError: it has not one input and at least one output, or a dynamic size besides the batch.
    """

    def __init__(self, file: Path, library: Library, *, product: str) -> None:
        self._file, self._product = file, product
        self._trt, self._log = library.trt, library.log
        self._log.clear()
        self.builder = self._trt.Builder(self._log)
        self.network = self.builder.create_network(
            1 << int(self._trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        )
        # Held: the network may point into weights that the parser owns.
        self._parser = self._trt.OnnxParser(self.network, self._log)
        if not self._parser.parse_from_file(str(file)):
            raise self._refusal()
        # A file that is no protobuf message at all can parse, to nothing.
        if self.network.num_inputs != 1 or self.network.num_outputs < 1:
            raise GraphError(
                f"a classifier has one input, this graph has {self.network.num_inputs}, "
                f"and {self.network.num_outputs} outputs",
                where=file,
            )
        entry = self.network.get_input(0)
        self.input_name: str = entry.name
        self.input_shape: tuple[int, ...] = tuple(entry.shape)
        if -1 in self.input_shape[1:]:
            raise GraphError(f"only the batch may be dynamic, the input is {self.input_shape}", where=file)

    @property
    def dynamic(self) -> bool:
        """Whether the batch varies."""
        return self.input_shape[0] == -1

    def config(self, batch: tuple[int, int, int]) -> Any:
        """A builder configuration: layers told in detail, no TF32, and the range of batches.

        Raises:
            UsageError: a range was asked and the graph's batch is fixed.
        """
        trt = self._trt
        self._log.clear()  # here and not in `serialize`: what is wrong with a profile is logged on setting it
        config = self.builder.create_builder_config()
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
        # On by default. FP32 is asked for where FP16's range or precision is not enough: TF32 has FP16's.
        config.clear_flag(trt.BuilderFlag.TF32)
        if self.dynamic:
            profile = self.builder.create_optimization_profile()
            profile.set_shape(self.input_name, *((size, *self.input_shape[1:]) for size in batch))
            config.add_optimization_profile(profile)
        elif batch[0] != batch[2]:
            raise UsageError(
                f"batches {batch[0]} to {batch[2]} were asked, the graph's is fixed at {self.input_shape[0]}",
                where=self._file,
                hint="export the graph with that range",
            )
        return config

    def serialize(self, config: Any) -> bytes:
        """Build, and give the plan.

        Raises:
            BuildFailed: the builder refused, or memory did not suffice.
        """
        plan = self.builder.build_serialized_network(self.network, config)
        if plan is not None:
            return bytes(plan)
        said, hint = self._log.said(), None
        if self._log.skipped or tells_no_memory(said):
            said = "; ".join(filter(None, (said, self._log.skipped_tactics())))
            hint = (
                "free memory (other programs, the desktop) or build a smaller batch; where the workspace "
                "was capped, raise the cap; where the machine runs out of memory, set or lower it"
            )
        raise BuildFailed(f"{self._product} built no engine: {said}", where=self._file, hint=hint)

    def _refusal(self) -> BuildFailed:
        errors = [self._parser.get_error(index) for index in range(self._parser.num_errors)]
        said = [
            f"node {error.node_name()!r} ({error.node_operator()}): {parser_sentence(error.desc())}"
            for error in errors
        ]
        wants_plugin = any("Plugin not found" in error.desc() for error in errors)
        return BuildFailed(
            f"TensorRT's ONNX parser refuses the graph: {listed(said) if said else self._log.said()}",
            where=self._file,
            hint="write the operator with standard ones: a plugin would have to go with every engine, and "
            "cnnx loads none"
            if wants_plugin
            else None,
        )


def check_precision(found: Mapping[str, str], request: BuildRequest, *, file: Path, target: str) -> None:
    """Refuse a build in which a layer is not of the type its graph gives it.

    Args:
        found: node -> type, as the build reported.
        request: with what was expected.
        file: the graph.
        target: what was built for, for the message.

    Raises:
        BuildFailed: it names the layers, those that were not found included.
    """
    wrong = mismatches(request.expected, found)
    if not wrong:
        return
    # Measured with RTX 1.7.1: Cast, Conv, Cast with nothing else between becomes one FP16 kernel, weights
    # and all; with the activation among them it stays FP32.
    narrowed = any(line.endswith("fp16 instead of fp32") for line in wrong)
    raise BuildFailed(
        f"{len(wrong)} of {len(request.expected)} layers did not reach the precision asked "
        f"({request.precision}, {target}): {listed(wrong)}",
        where=file,
        hint="a lone FP32 layer between casts is narrowed: take its activation into the FP32 part"
        if narrowed
        else "look at these layers with cnnx inspect; or hold them in fp16 by a precision override",
    )


def tells_no_memory(said: str) -> bool:
    """Whether the log says that memory did not suffice."""
    return _NO_MEMORY.search(said) is not None


def without_driver_noise(text: str) -> str:
    """What the builder says, without the lines by which it misses a driver that building may not need."""
    return "\n".join(line for line in text.splitlines() if "cudaError" not in line or tells_no_memory(line))


def parser_sentence(description: str) -> str:
    """A parser's message without assertion code and without complaints about an absent driver."""
    lines = without_driver_noise(description).splitlines()
    useful = [line for line in lines if not line.startswith("Invalid Node")] or lines
    if not useful:
        return "no reason given"
    if "Plugin not found" in useful[0]:  # its words for an operator that neither it nor a plugin knows
        return "TensorRT has no such operator"
    return re.sub(r"^Assertion failed: .*?: ", "", useful[0])


def listed(lines: Sequence[str]) -> str:
    """The first few lines in one, and how many more there are."""
    more = f"; and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
    return "; ".join(lines[:_SHOWN]) + more
