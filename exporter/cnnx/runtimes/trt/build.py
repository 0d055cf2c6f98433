"""Builds one engine with TensorRT and checks the types of its layers.

The bindings' module is passed in; `trt.runtime` imports it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnnx.errors import BuildFailed, UsageError
from cnnx.runtimes import BuildOptions, BuildRequest, BuiltEngine, Reach, RunOptions
from cnnx.runtimes.engine.emission import let_emit
from cnnx.runtimes.engine.network import Library, ParsedNetwork, check_precision, listed, release_of
from cnnx.runtimes.engine.session import make_trt_runtime
from cnnx.runtimes.kernels import mismatches, of_nodes, types_of
from cnnx.runtimes.trt.dla import check_dla, refuse_unused, takes_strong_types, use_dla
from cnnx.runtimes.trt.inspector import parse_kernels
from cnnx.runtimes.trt.timing_cache import TimingCache, slug

_REACH: Mapping[str, Reach] = {
    "none": "gpu",
    "same_compute_capability": "compute_capability",
    "ampere_plus": "ampere_plus",
}


@dataclass(frozen=True, slots=True)
class Place:
    """The machine that builds an engine, which is also the one that runs it.

    Attributes:
        gpu: name of the GPU, as CUDA reports it.
        compute_capability: SM version, such as 87.
        tensorrt: version of TensorRT.
        board: name in the device tree; None if there is none.
        jetpack: version of JetPack; None if unknown or not a Jetson.
        jetson: whether this is a Jetson.
    """

    gpu: str
    compute_capability: int
    tensorrt: str
    board: str | None = None
    jetpack: str | None = None
    jetson: bool = False

    @property
    def device(self) -> str:
        """Device that an engine is tied to: GPUs of AGX Orin and Orin NX differ in size but not in name."""
        return self.board if self.jetson and self.board else self.gpu


def build_engine(file: Path, request: BuildRequest, *, library: Library, place: Place) -> BuiltEngine:
    """Build one engine and compare the types of its layers with the request.

    Raises:
        UsageError: this release or device does not support an option.
        GraphError: the file is not a graph with one input and at most one dynamic dimension.
        BuildFailed: the parser or builder failed, or a layer does not have the expected type.
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
    strongly_typed = options.dla_core is None or takes_strong_types(library.trt)
    parsed = ParsedNetwork(file, library, product="TensorRT", strongly_typed=strongly_typed)
    if request.emits:
        let_emit(parsed.network)
    config = parsed.config(request.batch)
    on_gpu = _configure(library.trt, parsed, config, options=options, level=level)
    if options.dla_core is not None:
        refuse_unused(on_gpu, request.expected)
    remarks = _fallback(on_gpu, parsed.network.num_layers)
    timings = _timing_cache(options, place)
    if timings and (remark := timings.give_to(config)):
        remarks.append(remark)
    plan = parsed.serialize(config)
    remarks += filter(None, [library.log.skipped_tactics()])
    digest = timings.keep(config) if timings else ""
    log = library.log.tail()
    inspected = _inspected(plan, parsed, request, library=library)
    evidence = {"inspector.json": inspected, "build.log": log}
    found = of_nodes(types_of(parse_kernels(inspected, request.expected)), request.expected)
    target = f"SM {place.compute_capability}"
    remarks += _check_types(found, request, file=file, target=target, evidence=evidence)
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
        evidence=evidence,
    )


def _identity(request: BuildRequest, place: Place) -> str:
    """Folder name under engines/: release and device, and options that are not the default."""
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
    """The requested member of HardwareCompatibilityLevel; None for the default."""
    if options.hardware_compatibility == "none":
        return None
    if place.jetson:  # NVIDIA's page "Hardware Compatibility": not supported on JetPack
        raise UsageError(
            "TensorRT does not support hardware compatibility on Jetson",
            hint="leave out --hardware-compatibility, and build on each device",
        )
    if options.hardware_compatibility == "ampere_plus" and place.compute_capability < 80:
        raise UsageError(
            f"hardware compatibility needs Ampere (SM 80), and this GPU is SM {place.compute_capability}",
            hint="leave out --hardware-compatibility",
        )
    # Look the member up instead of comparing versions: 10.3 does not have SAME_COMPUTE_CAPABILITY.
    level = trt.HardwareCompatibilityLevel.__members__.get(options.hardware_compatibility.upper())
    if level is None:
        raise UsageError(
            f"TensorRT {place.tensorrt} does not support hardware compatibility "
            f"{options.hardware_compatibility!r}",
            hint="leave out --hardware-compatibility, or use a newer TensorRT",
        )
    return level


def _configure(
    trt: Any, parsed: ParsedNetwork, config: Any, *, options: BuildOptions, level: Any
) -> tuple[str, ...]:
    """Set the options on a builder configuration; returns the layers that a DLA leaves to the GPU."""
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
    """Remark on the layers left to the GPU, shortened; the engine's description lists them all."""
    if not on_gpu:
        return []
    return [f"{len(on_gpu)} of {layers} layers run on the GPU because the DLA cannot: {listed(on_gpu)}"]


def _timing_cache(options: BuildOptions, place: Place) -> TimingCache | None:
    if options.timing_cache_folder is None:
        return None
    return TimingCache(Path(options.timing_cache_folder), device=place.device, version=place.tensorrt)


def _inspected(plan: bytes, parsed: ParsedNetwork, request: BuildRequest, *, library: Library) -> str:
    """The engine inspector's JSON for a plan that was just built, and is therefore trusted.

    Raises:
        BuildFailed: TensorRT does not load or run the engine, usually for lack of memory.
    """
    trt, log = library.trt, library.log
    log.clear()
    how = RunOptions(host_code=request.options.version_compatible, dla_core=request.options.dla_core)
    trt_runtime = make_trt_runtime(trt, log, how)
    engine = trt_runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise BuildFailed(
            f"TensorRT does not load the engine that it built: {log.said()}",
            hint="free GPU memory (close other programs) and build again",
        )
    inspector = engine.create_engine_inspector()
    if parsed.dynamic:
        # Without shapes, the inspector reports types as "N/A due to dynamic shapes".
        context = engine.create_execution_context()
        if context is None:
            raise BuildFailed(
                f"TensorRT built the engine but cannot load it to run: {log.said()}",
                hint="close other programs on the GPU and build again, or export with a smaller --batch",
            )
        context.set_input_shape(parsed.input_name, (request.batch[1], *parsed.input_shape[1:]))
        inspector.execution_context = context
    return str(inspector.get_engine_information(trt.LayerInformationFormat.JSON))


def _check_types(
    found: Mapping[str, str], request: BuildRequest, *, file: Path, target: str, evidence: Mapping[str, str]
) -> list[str]:
    """Reject wrong types, and return remarks on layers whose types cannot be read, as inside a DLA.

    For a DLA, layers left to the GPU may be wrong than the graph: such networks may not be strongly typed.
    """
    if request.options.dla_core is None:
        return check_precision(found, request, file=file, target=target, evidence=evidence)
    wrong = mismatches(request.expected, found)
    remarks = (
        [f"Layers on the GPU that do not have the type of the graph ({len(wrong)}): {listed(wrong)}"]
        if wrong
        else []
    )
    if unseen := [node for node in request.expected if node not in found]:
        what = f"{len(unseen)} layers run inside the DLA, where their types cannot be read"
        remarks.append(f"{what}: {listed(unseen)}")
    return remarks
