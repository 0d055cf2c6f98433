"""Chooses the runtime for a target, and the engine or graph of a bundle that this machine can run."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cnnx import runtimes
from cnnx.bundle import Bundle
from cnnx.bundle.engine import Engine
from cnnx.bundle.manifest import Manifest
from cnnx.bundle.sealed import HINT
from cnnx.device import Device
from cnnx.errors import BundleError, CnnxError, UsageError
from cnnx.machine.environment import Environment, detect
from cnnx.pipeline.preflight.checks import engine_checks
from cnnx.pipeline.progress import Progress
from cnnx.pipeline.steps.inference import logits_of
from cnnx.recipe import Recipe
from cnnx.record import Subject
from cnnx.runtimes.engine.network import release_of

_REACHES = ("ampere_plus", "compute_capability", "gpu")
"""Which GPUs an engine runs on, widest first. An engine for fewer GPUs is faster on those."""


def choose_runtime(target: str, sm: Sequence[int]) -> runtimes.Runtime:
    """The runtime for a target on this machine.

    "auto" is the first builder that can build here, else the runtime for graphs. A GPU given by `sm` need
    not be in this machine, so only builders that do not need a GPU are considered then.

    Raises:
        EnvironmentLacks: the named runtime is not installed, or it needs a GPU and there is none.
    """
    if target != "auto":
        runtime = runtimes.get(target)
        if reason := cannot_build(runtime):
            raise reason
        runtime.check_capabilities(sm)
        return runtime
    lacking = None
    for runtime in runtimes.builders():
        if sm and not runtime.builds_without_gpu:
            continue
        reason = runtime.missing() if sm else runtime.cannot_run()
        if reason is None:
            runtime.check_capabilities(sm)
            return runtime
        lacking = lacking or reason
    if sm and lacking:
        raise lacking
    return runtimes.get(runtimes.GRAPHS)


def cannot_build(runtime: runtimes.Runtime) -> CnnxError | None:
    """Why a runtime cannot build engines here, or None if it can. Some build only on the target GPU."""
    return runtime.missing() if runtime.builds_without_gpu else runtime.cannot_run()


class Judged(Protocol):
    """What is judged: its description for records, and its logits, wherever it runs."""

    @property
    def subject(self) -> Subject:
        """Description for records."""
        ...

    def run(self, pixels: NDArray[np.uint8], recipe: Recipe, *, progress: Progress) -> NDArray[np.float32]:
        """Its logits for crops (N, H, W, C): (N, classes)."""
        ...


@dataclass(frozen=True, slots=True)
class OpenSubject:
    """An engine or graph of a bundle that runs here, and how to open it.

    Attributes:
        subject: description for records.
        runtime: runtime that opens it.
        file: file to open, hash checked.
        options: options that it must always be opened with.
        remarks: sentences to show with its figures.
        batch: smallest, tuned and largest batch of an engine; None if unknown.
        logits: name of the output with the logits as the manifest states it; None: not stated.
    """

    subject: Subject
    runtime: runtimes.Runtime
    file: Path
    options: runtimes.RunOptions = runtimes.USUAL
    remarks: tuple[str, ...] = ()
    batch: tuple[int, int, int] | None = None
    logits: str | None = None

    @property
    def captures(self) -> bool:
        """Whether it may run as one CUDA graph."""
        return self.subject.artefact == "engine"

    def wanted(self, *, cuda_graph: bool) -> runtimes.RunOptions:
        """The options to open it with, with or without a CUDA graph."""
        return dataclasses.replace(self.options, cuda_graph=cuda_graph)

    def open(self, *, cuda_graph: bool = False) -> runtimes.Session:
        """Open it; see `cnnx.runtimes.Runtime.open`.

        Raises:
            BundleError: it does not have the output that the manifest names.
        """
        session = self.runtime.open(self.file, self.wanted(cuda_graph=cuda_graph))
        if self.logits is not None and self.logits not in session.output_names:
            session.close()
            has = ", ".join(session.output_names)
            what = f"the manifest names the output {self.logits!r}, but {self.file.name} has {has}"
            raise BundleError(what, where=self.file.parent, hint=HINT)
        return session

    def run(self, pixels: NDArray[np.uint8], recipe: Recipe, *, progress: Progress) -> NDArray[np.float32]:
        """Open it and run crops (N, H, W, C): (N, classes); see `open`."""
        session = self.open()
        logits = logits_of(session, pixels, recipe.preprocessing, form=recipe.input_format, progress=progress)
        session.close()
        return logits


def open_subject(bundle: Bundle, target: str, *, engine: str | None = None) -> OpenSubject:
    """The engine or graph of a bundle to run here; for "auto" an engine if one can run, else the graph.

    Args:
        bundle: the opened bundle.
        target: "auto" or a runtime's name.
        engine: identity of the engine to use; None: an engine of the first runtime in `runtimes.NAMES`, one
            built with default options first. A remark names the others.

    Raises:
        EnvironmentLacks: the named runtime cannot run here.
        BundleError: all engines of that runtime were built for a different machine.
        UsageError: the bundle has no engine of that runtime or name, or the named engine is of a different
            runtime than the target.
    """
    environment = detect()
    engines = bundle.engines() if engine is None else (named_engine(bundle, target, engine),)
    if ready := _that_run(engines, target, environment, where=bundle.path):
        return _open_engine(bundle, ready, environment)
    if engine is not None:
        target = engines[0].runtime
    runtime = runtimes.get(runtimes.GRAPHS if target == "auto" else target)
    if reason := runtime.cannot_run():
        raise reason
    if runtime.engine_suffix is not None:
        raise UsageError(
            f"the bundle has no {target} engine",
            where=bundle.path,
            hint=f"build one: cnnx build {bundle.path} --target {target}",
        )
    subject = subject_of_graph(bundle, runtime)
    remarks = _of_gpu(environment) if subject.device_kind == "gpu" else ()
    return OpenSubject(
        subject, runtime, bundle.model, remarks=remarks, logits=bundle.manifest.outputs[0].name
    )


def subject_of_graph(bundle: Bundle, runtime: runtimes.Runtime) -> Subject:
    """Description for records of a bundle's graph, as a runtime runs it here, or an engine of it."""
    manifest, version = bundle.manifest, f"{runtime.name} {runtime.version()}"
    return _subject(manifest, "graph", manifest.files["model.onnx"], version, runtime.device())


def _open_engine(bundle: Bundle, ready: Sequence[Engine], environment: Environment) -> OpenSubject:
    """The first of the engines that run here."""
    engine, *others = ready
    runtime = runtimes.get(engine.runtime)
    version = f"{engine.runtime} {engine.runtime_version}"
    subject = _subject(bundle.manifest, "engine", engine.digest, version, runtime.device())
    remarks = _of_gpu(environment)
    if others:
        names = ", ".join(other.identity for other in others)
        remarks = (*remarks, f"The engine {engine.identity} is used; use --engine for {names}.")
    return OpenSubject(
        dataclasses.replace(subject, engine=engine.identity),
        runtime,
        bundle.engine_file(engine),
        runtimes.RunOptions(host_code=engine.version_compatible, dla_core=engine.dla_core),
        remarks,
        (engine.batch[0], engine.batch[1], engine.batch[2]) if engine.batch else None,
        bundle.manifest.outputs[0].name,
    )


def _of_gpu(here: Environment) -> tuple[str, ...]:
    """A remark if clocks and energy may be those of a different GPU; else empty."""
    return (f"{here.gpu.remark}.",) if here.gpu and here.gpu.remark else ()


def named_engine(bundle: Bundle, target: str, identity: str) -> Engine:
    """The engine of a bundle by its identity.

    Raises:
        UsageError: the bundle has no engine of that identity, or it is of another runtime than the target.
    """
    engines = {engine.identity: engine for engine in bundle.engines()}
    if identity not in engines:
        build = f"build one: cnnx build {bundle.path}"
        raise UsageError(
            f"the bundle has no engine {identity!r}",
            where=bundle.path,
            hint=f"choose one of: {', '.join(engines)}" if engines else build,
        )
    engine = engines[identity]
    if target not in ("auto", engine.runtime):
        raise UsageError(
            f"the engine {identity} is for {engine.runtime}, not for {target}",
            where=bundle.path,
            hint=f"drop --target, or give --target {engine.runtime}",
        )
    return engine


def _that_run(
    engines: Sequence[Engine], target: str, environment: Environment, *, where: Path
) -> list[Engine]:
    """Engines that this machine can run, the preferred one first; empty if the bundle has none.

    Raises:
        BundleError: there are engines of runtimes that run here, but none was built for this machine.
    """
    found, refusals = [], []
    for engine in engines:
        if engine.runtime not in runtimes.NAMES:
            continue  # of a newer cnnx
        runtime = runtimes.get(engine.runtime)
        if target not in ("auto", engine.runtime) or runtime.cannot_run() is not None:
            continue
        refusal = _refusal(engine, runtime, environment, where=where)
        if refusal is None:
            found.append(engine)
        else:
            refusals.append(refusal)
    if refusals and not found:
        raise refusals[0]
    return sorted(found, key=_preference, reverse=True)


def _preference(engine: Engine) -> tuple[int, bool, int, tuple[int, ...]]:
    """A sort key, largest first: by runtime, default options, fewest GPUs, newest release."""
    special = (
        engine.dla_core is not None,
        engine.version_compatible,
        bool(engine.batch) and engine.batch[1] != engine.batch[2],
    )
    rank = list(runtimes.NAMES).index(engine.runtime)
    return -rank, not any(special), _REACHES.index(engine.reach), release_of(engine.runtime_version)


def _refusal(
    engine: Engine, runtime: runtimes.Runtime, here: Environment, *, where: Path
) -> BundleError | None:
    checks = engine_checks(engine, here, version=runtime.version(), bundle=where)
    misfit = next((check for check in checks if check.outcome == "differs"), None)
    return None if misfit is None else misfit.error(where / "engines" / engine.identity)


def _subject(manifest: Manifest, artefact: Any, digest: str, runtime: str, device: Device) -> Subject:
    return Subject(
        manifest.recipe["name"],
        artefact,
        digest,
        manifest.precision,
        runtime,
        str(device),
        graph_digest=manifest.files["model.onnx"],
        device_kind=device.kind,
    )
