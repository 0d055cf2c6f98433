"""`build`: builds engines from a bundle's graph. Does not need PyTorch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnnx import runtimes
from cnnx.bundle import MODEL, Bundle
from cnnx.bundle.engine import Engine
from cnnx.bundle.writing import about_signature
from cnnx.errors import BuildFailed, BundleError, CnnxError, EnvironmentLacks, MissingExtra, UsageError
from cnnx.graph.footprint import predict_memory
from cnnx.graph.inspect import expected_types
from cnnx.graph.load import load_model
from cnnx.machine.environment import available_memory_bytes, detect, free_memory_bytes
from cnnx.options import part_of, takes
from cnnx.options.bundles import BuildOptions, EngineOptions
from cnnx.pipeline.preconditions.build_memory import FreeMemory, memory_warning, predict_build
from cnnx.pipeline.preconditions.refusals import refuse_unwritable_cache
from cnnx.pipeline.progress import Listener, Steps, StepTime, silent
from cnnx.pipeline.sign.trust import open_bundle
from cnnx.pipeline.steps.engine import engine_step
from cnnx.pipeline.target import choose_runtime
from cnnx.report.result import Result
from cnnx.report.table import Block, Remark
from cnnx.store.cache import Store, cache_folder
from cnnx.store.digests import digest_of, digest_of_file
from cnnx.store.files import check_folder

_REFUSED = "refused-builds"
_FOR_RTX = "to build for an RTX GPU of a different machine: --target rtx --sm 86"


@dataclass(frozen=True, slots=True, repr=False)
class BuildResult(Result):
    """The requested engines, now in the bundle, the steps of the run, and notes on the signature."""

    bundle: Bundle
    engines: tuple[Engine, ...]
    steps: tuple[StepTime, ...]
    notes: tuple[str, ...] = ()

    def blocks(self, *, verbose: bool = False) -> Iterable[Block]:
        """What the command prints."""
        from cnnx.report.tables.bundle import engine_table

        return [engine_table(self.engines), *(Remark(note, "note", "open") for note in self.notes)]


@takes(EngineOptions)
def build(bundle: str | Path, options: EngineOptions, *, listener: Listener = silent) -> BuildResult:
    """Build engines from a bundle's graph and keep them in the bundle.

    Args:
        bundle: the bundle's folder.
        options: options as an object, which may be a `BuildOptions`; each can also be given by keyword. A
            timing cache is kept in the cache folder unless they name a different folder.
        listener: receives progress events.

    Raises:
        BundleError: the bundle is damaged.
        UsageError: the target builds no engines, or not for these GPUs or this batch.
        EnvironmentLacks: a package, driver or GPU that the target needs is missing.
        BuildFailed: the build failed, or the requested precision was not reached.
        WriteFailed: the engines cannot be written; raised before any work.

    Examples:
        >>> result = cnnx.build("lenet5-int8", target="tensorrt")  # doctest: +SKIP
        >>> [engine.identity for engine in result.engines]  # doctest: +SKIP
    """
    opened = open_bundle(Path(bundle), options.require_signature)
    steps = Steps(listener)
    runtime = choose_runtime(options.target, options.sm)
    if runtime.engine_suffix is None:
        raise no_builder(runtime, options.target)
    opened.check_place("engines")
    refuse_unwritable_cache()
    if options.timing_cache_folder:
        check_folder(Path(options.timing_cache_folder))
    engines = build_into(opened, runtime, options, steps)
    return BuildResult(opened, engines, tuple(steps.times), about_signature(opened, engines))


def no_builder(runtime: runtimes.Runtime, target: str, *, instead: str = _FOR_RTX) -> CnnxError:
    """Why no engine can be built: the target is not a builder, or "auto" found none.

    Args:
        runtime: the runtime of the target.
        target: the target, as the user gave it.
        instead: what can be done on this machine.
    """
    lacking = next(runtimes.builders()).cannot_run() if target == "auto" else None
    if lacking is None:
        return UsageError(
            f"{runtime.name} runs the bundle's graph directly and builds no engines",
            hint="give a builder: --target tensorrt, or --target rtx --sm 86 for an RTX GPU",
        )
    machine = detect()
    if isinstance(lacking, MissingExtra) and machine.gpu is None and machine.l4t is None:
        return EnvironmentLacks(
            "no engine can be built for this machine: no NVIDIA GPU was found",
            hint=f"run it on the device; or, {instead}",
        )
    return EnvironmentLacks(
        f"no engine can be built for this machine: {lacking.what}",
        hint=f"{lacking.hint}; or, {instead}",
    )


def build_into(
    bundle: Bundle, runtime: runtimes.Runtime, options: EngineOptions, steps: Steps
) -> tuple[Engine, ...]:
    """Build engines from a bundle's graph with a runtime, and keep them in the bundle; see `build`."""
    manifest = bundle.manifest
    low, high = manifest.batch
    best = high if options.opt_batch is None else options.opt_batch
    if not low <= best <= high:
        raise UsageError(
            f"invalid --opt-batch {best}: the graph takes batches from {low} to {high}",
            where=bundle.path,
            hint=f"give --opt-batch {min(max(best, low), high)}, or export again with a different --batch",
        )
    model = load_model(bundle.model)
    request = runtimes.BuildRequest(
        precision=manifest.precision,
        expected=expected_types(model),
        batch=(low, best, high),
        compute_capabilities=tuple(options.sm),
        options=with_timing_cache(part_of(options, BuildOptions)),
    )
    predicted = predict_memory(model, high)
    needed = predict_build(predicted, bundle.model, workspace=options.workspace_bytes, here=not options.sm)
    if warning := memory_warning(needed, _free()):
        steps.note(warning)
    try:
        built = engine_step(steps, bundle.model, runtime=runtime, request=request)
    except BuildFailed as error:
        raise _kept(error, manifest.files[MODEL], runtime.name) from None
    return tuple(
        keep_engine(bundle, runtime.name, plan, description, batch=request.batch)
        for plan, description in built.read()
    )


def with_timing_cache(options: BuildOptions) -> BuildOptions:
    """The options with cnnx's own timing cache, unless they name another folder."""
    folder = options.timing_cache_folder or str(cache_folder() / "timing-caches")
    return BuildOptions(**{**vars(options), "timing_cache_folder": folder})


def keep_engine(
    bundle: Bundle, runtime: str, plan: Path, description: Mapping[str, Any], *, batch: tuple[int, int, int]
) -> Engine:
    """Add a built engine to a bundle, unless it has that engine.

    Args:
        bundle: the bundle of its graph.
        runtime: name of the runtime.
        plan: the engine's file.
        description: what its build reported.
        batch: smallest, tuned and largest batch.
    """
    digest = digest_of_file(plan)
    known = {engine.identity: engine for engine in bundle.engines()}.get(description["identity"])
    if known is not None and known.digest == digest and _is_intact(bundle, known):
        return known
    engine = Engine(
        **description,
        digest=digest,
        runtime=runtime,
        precision=bundle.manifest.precision,
        graph_digest=bundle.manifest.files[MODEL],
        environment=detect().as_dict(),
        batch=batch,
    )
    bundle.add_engine(engine, plan)
    return engine


def _free() -> FreeMemory:
    shared = detect().l4t is not None
    return FreeMemory(available_memory_bytes(), None if shared else free_memory_bytes(), shared)


def refused_builds(graph: str) -> dict[str, Path]:
    """Name -> cached folder with what a builder reported about a refused engine of a graph (SHA-256)."""
    return {
        f"{inputs['runtime']}-{folder.name[:8]}": folder
        for folder, inputs in Store().entries(_REFUSED)
        if inputs["graph"] == graph
    }


def _kept(error: BuildFailed, graph: str, runtime: str) -> BuildFailed:
    """Keep what the builder reported about an engine that was refused, and name the folder in the hint."""
    if not error.evidence:
        return error

    def fill(folder: Path) -> None:
        for name, text in error.evidence.items():
            (folder / name).write_text(text, encoding="utf-8")

    inputs = {"graph": graph, "runtime": runtime, "report": digest_of(error.evidence)}
    try:
        folder = Store().make(_REFUSED, inputs, fill).folder
    except (CnnxError, OSError):
        return error  # the build's own error matters more
    at = folder.relative_to(cache_folder()).as_posix()
    hint = f"{error.hint}; what the builder reported is in {at}, in the cache (cnnx cache)"
    return BuildFailed(error.what, where=error.where, hint=hint, evidence=error.evidence)


def _is_intact(bundle: Bundle, engine: Engine) -> bool:
    try:
        bundle.engine_file(engine)
    except BundleError:
        return False
    return True
