"""One build with TensorRT: options, the build itself, and what the engine says of its layers.

The bindings' module is handed in; trt.py imports it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnnx.errors import BuildFailed, UsageError
from cnnx.runtimes import BuildOptions, BuildRequest, BuiltEngine, Reach, RunOptions
from cnnx.runtimes.engine.network import Library, ParsedNetwork, check_precision, listed, release_of
from cnnx.runtimes.engine.session import make_trt_runtime
from cnnx.runtimes.kernels import types_of
from cnnx.runtimes.trt.dla import check_dla, use_dla
from cnnx.runtimes.trt.inspector import parse_kernels
from cnnx.runtimes.trt.timing_cache import TimingCache, slug

_REACH: Mapping[str, Reach] = {
    "none": "gpu",
    "same_compute_capability": "compute_capability",
    "ampere_plus": "ampere_plus",
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where an engine is built, which is where it will run.

    Attributes:
        gpu: name, as CUDA gives it.
        compute_capability: such as 87.
        tensorrt: version.
        board: as the device tree names it; None where there is none.
        jetpack: version; None where it is not known, and off Jetson.
        jetson: whether this is one.
    """

    gpu: str
    compute_capability: int
    tensorrt: str
    board: str | None = None
    jetpack: str | None = None
    jetson: bool = False

    @property
    def device(self) -> str:
        """What an engine is tied to: an AGX Orin's GPU and an Orin NX's have one name and differ in size."""
        return self.board if self.jetson and self.board else self.gpu


def build_engine(file: Path, request: BuildRequest, *, library: Library, place: Place) -> BuiltEngine:
    """Build one engine and compare its layers with what was asked.

    Raises:
        UsageError: options that this release or device does not have.
        GraphError: the file is no graph with one input and one dynamic dimension at most.
        BuildFailed: the parser or builder refused, or a layer is not of the type expected.
    """
    options = request.options
    if options.dla_core is not None:
        check_dla(
            request.precision,
            batch=request.batch,
            board=place.board,
            jetpack=place.jetpack,
            tensorrt=place.tensorrt,
        )
    level = _compatibility_level(library.trt, options, place)
    parsed = ParsedNetwork(file, library, product="TensorRT")
    config = parsed.config(request.batch)
    on_gpu = _configure(library.trt, parsed, config, options=options, level=level)
    remarks = _fallback(on_gpu, parsed.network.num_layers)
    timings = _timing_cache(options, place)
    if timings and (remark := timings.give_to(config)):
        remarks.append(remark)
    plan = parsed.serialize(config)
    remarks += filter(None, [library.log.skipped_tactics()])
    digest = timings.keep(config) if timings else ""
    found = types_of(parse_kernels(_inspected(plan, parsed, request, library=library)))
    remarks += _judge(found, request, file=file, target=f"SM {place.compute_capability}")
    return BuiltEngine(
        identity=_identity(request, place),
        file_name="model.engine",
        plan=plan,
        runtime="tensorrt",
        runtime_version=place.tensorrt,
        target=f"sm{place.compute_capability}",
        layer_types={node: found[node] for node in request.expected if node in found},
        reach=_REACH[options.hardware_compatibility],
        version_compatible=options.version_compatible,
        dla_core=options.dla_core,
        on_gpu=on_gpu,
        timing_cache=digest,
        remarks=tuple(remarks),
    )


def _identity(request: BuildRequest, place: Place) -> str:
    """Folder name under engines/: what an engine is of and for, and how it differs from the usual one."""
    options, release = request.options, ".".join(map(str, release_of(place.tensorrt)))
    parts = ["tensorrt", release, f"sm{place.compute_capability}", slug(place.device), *request.tuning]
    if options.hardware_compatibility != "none":
        parts.append(options.hardware_compatibility.replace("_", "-"))
    if options.version_compatible:
        parts.append("version-compatible")
    if options.dla_core is not None:
        parts.append(f"dla{options.dla_core}")
    return "-".join(parts)


def _compatibility_level(trt: Any, options: BuildOptions, place: Place) -> Any:
    """The member of HardwareCompatibilityLevel asked for; None for the usual one."""
    if options.hardware_compatibility == "none":
        return None
    if place.jetson:  # NVIDIA's page "Hardware Compatibility": not supported on JetPack
        raise UsageError(
            "TensorRT has no hardware compatibility on Jetson", hint="leave it out and build on each device"
        )
    if options.hardware_compatibility == "ampere_plus" and place.compute_capability < 80:
        raise UsageError(
            f"hardware compatibility starts at Ampere (SM 80), this GPU is SM {place.compute_capability}",
            hint="leave it out",
        )
    # SAME_COMPUTE_CAPABILITY is not in 10.3: asked of the release, not of its number.
    level = trt.HardwareCompatibilityLevel.__members__.get(options.hardware_compatibility.upper())
    if level is None:
        raise UsageError(
            f"TensorRT {place.tensorrt} has no hardware compatibility {options.hardware_compatibility!r}",
            hint="leave it out, or use a newer TensorRT",
        )
    return level


def _configure(
    trt: Any, parsed: ParsedNetwork, config: Any, *, options: BuildOptions, level: Any
) -> tuple[str, ...]:
    """Set the options on a builder configuration; gives the layers that a DLA leaves to the GPU."""
    if options.workspace_bytes is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_bytes)
    if options.optimization_level is not None:
        config.builder_optimization_level = options.optimization_level
    if level is not None:
        config.hardware_compatibility_level = level
    if options.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if options.dla_core is None:
        return ()
    return use_dla(trt, parsed.builder, parsed.network, config, core=options.dla_core)


def _fallback(on_gpu: Sequence[str], layers: int) -> list[str]:
    """In short: the engine's description has them all."""
    if not on_gpu:
        return []
    return [f"{len(on_gpu)} of {layers} layers run on the GPU, the DLA cannot: {listed(on_gpu)}"]


def _timing_cache(options: BuildOptions, place: Place) -> TimingCache | None:
    if options.timing_cache_folder is None:
        return None
    return TimingCache(Path(options.timing_cache_folder), device=place.device, version=place.tensorrt)


def _inspected(plan: bytes, parsed: ParsedNetwork, request: BuildRequest, *, library: Library) -> str:
    """The inspector's JSON on a plan that was built this moment, and is therefore trusted.

    Raises:
        BuildFailed: TensorRT does not load what it built, mostly for lack of memory.
    """
    trt, log = library.trt, library.log
    log.clear()
    how = RunOptions(host_code=request.options.version_compatible, dla_core=request.options.dla_core)
    trt_runtime = make_trt_runtime(trt, log, how)
    engine = trt_runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise BuildFailed(
            f"TensorRT does not load the engine that it built: {log.said()}",
            hint="free memory on the GPU and build again",
        )
    inspector = engine.create_engine_inspector()
    if parsed.dynamic:
        # Without shapes the types stand there as "N/A due to dynamic shapes".
        context = engine.create_execution_context()
        if context is None:
            raise BuildFailed(f"TensorRT does not run the engine that it built: {log.said()}")
        context.set_input_shape(parsed.input_name, (request.batch[1], *parsed.input_shape[1:]))
        inspector.execution_context = context
    return str(inspector.get_engine_information(trt.LayerInformationFormat.JSON))


def _judge(found: Mapping[str, str], request: BuildRequest, *, file: Path, target: str) -> list[str]:
    """Refuse what was not reached. Layers inside a DLA's loadable cannot be told apart: those are said."""
    if request.options.dla_core is None:
        check_precision(found, request, file=file, target=target)
        return []
    unseen = [node for node in request.expected if node not in found]
    seen = {node: kind for node, kind in request.expected.items() if node in found}
    check_precision(found, BuildRequest(request.precision, seen), file=file, target=target)
    if not unseen:
        return []
    return [f"{len(unseen)} layers run inside the DLA, where their type cannot be read: {listed(unseen)}"]
