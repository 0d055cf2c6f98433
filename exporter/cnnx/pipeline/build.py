"""`build`: builds engines from a bundle's graph. Does not need PyTorch."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cnnx import runtimes
from cnnx.bundle import Bundle
from cnnx.bundle.engine import Engine
from cnnx.errors import BundleError, CnnxError, EnvironmentLacks, MissingExtra, UsageError
from cnnx.graph.inspect import expected_types
from cnnx.graph.load import load_model
from cnnx.machine.environment import detect
from cnnx.options import part_of, takes
from cnnx.options.bundles import BuildOptions, EngineOptions
from cnnx.pipeline.preconditions.refusals import refuse_unwritable_cache
from cnnx.pipeline.progress import Listener, Steps, StepTime, silent
from cnnx.pipeline.steps.engine import engine_step
from cnnx.pipeline.target import choose_runtime
from cnnx.report.result import Result
from cnnx.report.table import Block
from cnnx.store.cache import cache_folder
from cnnx.store.digests import digest_of_file
from cnnx.store.files import check_folder


@dataclass(frozen=True, slots=True, repr=False)
class BuildResult(Result):
    """The requested engines, now in the bundle, and the steps of the run."""

    bundle: Bundle
    engines: tuple[Engine, ...]
    steps: tuple[StepTime, ...]

    def blocks(self, *, verbose: bool = False) -> Iterable[Block]:
        """What the command prints."""
        from cnnx.report.tables.bundle import engine_table

        return [engine_table(self.engines)]


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
    opened = Bundle.open(Path(bundle))
    steps = Steps(listener)
    runtime = choose_runtime(options.target, options.sm)
    if runtime.engine_suffix is None:
        raise _no_builder(runtime, options.target)
    opened.check_place("engines")
    refuse_unwritable_cache()
    if options.timing_cache_folder:
        check_folder(Path(options.timing_cache_folder))
    engines = build_into(opened, runtime, options, steps)
    return BuildResult(opened, engines, tuple(steps.times))


def _no_builder(runtime: runtimes.Runtime, target: str) -> CnnxError:
    """Why no engine can be built: the target is not a builder, or "auto" found none."""
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
            hint="run cnnx build on the device; or, to build for an RTX GPU from here: --target rtx --sm 86",
        )
    return EnvironmentLacks(
        f"no engine can be built for this machine: {lacking.what}",
        hint=f"{lacking.hint}; or, to build for an RTX GPU of a different machine: --target rtx --sm 86",
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
    caches = options.timing_cache_folder or str(cache_folder() / "timing-caches")
    request = runtimes.BuildRequest(
        precision=manifest.precision,
        expected=expected_types(load_model(bundle.model)),
        batch=(low, best, high),
        compute_capabilities=tuple(options.sm),
        options=dataclasses.replace(part_of(options, BuildOptions), timing_cache_folder=caches),
    )
    built = engine_step(steps, bundle.model, runtime=runtime, request=request)
    environment = detect().as_dict()
    existing = {engine.identity: engine for engine in bundle.engines()}
    engines = []
    for plan, description in built.read():
        digest = digest_of_file(plan)
        known = existing.get(description["identity"])
        if known is not None and known.digest == digest and _is_intact(bundle, known):
            engines.append(known)
            continue
        engine = Engine(
            **description,
            digest=digest,
            runtime=runtime.name,
            precision=manifest.precision,
            graph_digest=manifest.files["model.onnx"],
            environment=environment,
            batch=request.batch,
        )
        bundle.add_engine(engine, plan)
        engines.append(engine)
    return tuple(engines)


def _is_intact(bundle: Bundle, engine: Engine) -> bool:
    try:
        bundle.engine_file(engine)
    except BundleError:
        return False
    return True
