"""`build`: engines from a bundle's graph. It needs no PyTorch."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from cnnx import runtimes
from cnnx.bundle import Bundle
from cnnx.bundle.engine import Engine
from cnnx.errors import BundleError, CnnxError, EnvironmentLacks, UsageError
from cnnx.graph.inspect import expected_types
from cnnx.graph.load import load_model
from cnnx.machine.environment import detect
from cnnx.options import part_of, takes
from cnnx.options.bundles import BuildOptions, EngineOptions
from cnnx.pipeline.preconditions.refusals import refuse_unwritable_cache
from cnnx.pipeline.progress import Listener, Steps, StepTime, silent
from cnnx.pipeline.steps.engine import engine_step
from cnnx.pipeline.target import choose_runtime
from cnnx.store.cache import cache_folder
from cnnx.store.digests import digest_of_file
from cnnx.store.files import check_folder


@dataclass(frozen=True, slots=True)
class BuildResult:
    """Engines that stand in a bundle now, and whether each was built in this run."""

    bundle: Bundle
    engines: tuple[Engine, ...]
    steps: tuple[StepTime, ...]


@takes(EngineOptions)
def build(bundle: str | Path, options: EngineOptions, *, listener: Listener = silent) -> BuildResult:
    """Build engines from a bundle's graph and keep them in the bundle.

    Args:
        bundle: its folder.
        options: as an object, which may be a `BuildOptions`; each can be given by keyword, too. A timing
            cache is kept beside the steps' cache unless they name another place.
        listener: told of progress.

    Raises:
        BundleError: the bundle is not whole.
        UsageError: the target builds nothing, or not for these GPUs or this batch.
        EnvironmentLacks: what the target needs is absent.
        BuildFailed: it was refused, or the asked precision was not reached.
        WriteFailed: an engine cannot be kept, which is told before any work.
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
    """Why nothing builds here: one that does not was named, or is what "auto" was left with."""
    lacking = next(runtimes.builders()).cannot_run() if target == "auto" else None
    if lacking is None:
        return UsageError(
            f"{runtime.name} runs the bundle's graph as it is and builds no engine",
            hint="name a builder: --target tensorrt, or --target rtx --sm 86 for an RTX GPU",
        )
    return EnvironmentLacks(
        f"no engine can be built for this machine: {lacking.what}",
        hint=f"{lacking.hint}; or, for an RTX GPU elsewhere: --target rtx --sm 86",
    )


def build_into(
    bundle: Bundle, runtime: runtimes.Runtime, options: EngineOptions, steps: Steps
) -> tuple[Engine, ...]:
    """Build a bundle's graph with a runtime and keep the engines in the bundle; see `build`."""
    manifest = bundle.manifest
    low, high = manifest.batch
    best = high if options.opt_batch is None else options.opt_batch
    if not low <= best <= high:
        raise UsageError(
            f"the graph takes batches of {low} to {high}, none of {best} to be tuned for",
            where=bundle.path,
            hint="choose --opt-batch among them, or export with another --batch",
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
    standing = {engine.identity: engine for engine in bundle.engines()}
    engines = []
    for plan, said in built.read():
        digest = digest_of_file(plan)
        known = standing.get(said["identity"])
        if known is not None and known.digest == digest and _is_intact(bundle, known):
            engines.append(known)
            continue
        engine = Engine(
            **said,
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
