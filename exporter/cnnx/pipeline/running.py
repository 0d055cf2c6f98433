"""Which runtime a target stands for here, and what of a bundle this machine can run."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnnx import runtimes
from cnnx.bundle import Bundle, Engine, Manifest
from cnnx.environment import Environment, detect
from cnnx.errors import BundleError, CnnxError, MissingExtra, UsageError
from cnnx.record import Subject


def choose_runtime(target: str, sm: Sequence[int]) -> runtimes.Runtime:
    """The runtime a target stands for here.

    "auto": TensorRT where it and a GPU are, else RTX where it can build, else ONNX Runtime. A GPU that is
    named and not here is RTX's alone to build for.

    Raises:
        EnvironmentLacks: a named runtime is absent, or builds on a GPU and there is none.
    """
    if target != "auto":
        runtime = runtimes.get(target)
        if reason := cannot_build(runtime):
            raise reason
        runtime.check_capabilities(sm)
        return runtime
    tensorrt = runtimes.get("tensorrt")
    if not sm and tensorrt.cannot_run() is None:
        return tensorrt
    rtx = runtimes.get("rtx")
    if rtx.missing() is None and (sm or rtx.cannot_run() is None):
        rtx.check_capabilities(sm)
        return rtx
    if sm:
        raise MissingExtra("tensorrt_rtx_bindings", "rtx", purpose="building an engine for a named GPU")
    return runtimes.get("ort")


def cannot_build(runtime: runtimes.Runtime) -> CnnxError | None:
    """Why a runtime can build nothing here, or None. One that builds on the GPU it is for needs that GPU."""
    return runtime.missing() if runtime.builds_without_gpu else runtime.cannot_run()


@dataclass(frozen=True, slots=True)
class OpenSubject:
    """Something of a bundle that runs here, and how to open it.

    Attributes:
        subject: what it is.
        runtime: what opens it.
        file: that is opened, its hash checked.
        options: how it must be opened, whatever is wanted of it.
        remarks: what is to be known of it beside its figures, a sentence each.
    """

    subject: Subject
    runtime: runtimes.Runtime
    file: Path
    options: runtimes.RunOptions = runtimes.USUAL
    remarks: tuple[str, ...] = ()

    @property
    def captures(self) -> bool:
        """Whether it may run as one CUDA graph."""
        return self.subject.artefact == "engine"

    def wanted(self, *, cuda_graph: bool) -> runtimes.RunOptions:
        """Its options, with or without a CUDA graph."""
        return dataclasses.replace(self.options, cuda_graph=cuda_graph)

    def open(self, *, cuda_graph: bool = False) -> runtimes.Session:
        """Open it; see `cnnx.runtimes.Runtime.open`."""
        return self.runtime.open(self.file, self.wanted(cuda_graph=cuda_graph))


def open_subject(bundle: Bundle, target: str) -> OpenSubject:
    """What of a bundle can run here: for "auto" an engine if one can, else the graph on ONNX Runtime.

    Raises:
        EnvironmentLacks: a named runtime cannot run here.
        BundleError: no engine of that runtime, or it was built for another machine.
    """
    manifest = bundle.manifest
    environment = detect()
    if (found := _engine_that_runs(bundle, target, environment)) is not None:
        engine, runtime = found
        version = f"{engine.runtime} {engine.runtime_version}"
        subject = _subject(manifest, "engine", engine.digest, version, runtime.device())
        file = bundle.engine_file(engine)
        options = runtimes.RunOptions(host_code=engine.version_compatible, dla_core=engine.dla_core)
        return OpenSubject(subject, runtime, file, options, _of_gpu(environment))
    if target not in ("auto", "ort"):
        runtime = runtimes.get(target)
        raise runtime.cannot_run() or UsageError(
            f"the bundle holds no {target} engine",
            where=bundle.path,
            mend=f"cnnx build {bundle.path} --target {target}",
        )
    ort = runtimes.get("ort")
    if reason := ort.cannot_run():
        raise reason
    subject = _subject(manifest, "graph", manifest.files["model.onnx"], f"ort {ort.version()}", ort.device())
    remarks = () if subject.device.startswith("CPU: ") else _of_gpu(environment)
    return OpenSubject(subject, ort, bundle.model, remarks=remarks)


def _of_gpu(here: Environment) -> tuple[str, ...]:
    """What the description of the GPU here does not promise, and so clocks and energy do not either."""
    return (f"{here.gpu.remark}.",) if here.gpu and here.gpu.remark else ()


def _engine_that_runs(
    bundle: Bundle, target: str, environment: Environment
) -> tuple[Engine, runtimes.Runtime] | None:
    """The first engine that this machine can run, TensorRT's before RTX's; None where there is none at all.

    Raises:
        BundleError: there are engines of runtimes that run here, and none was built for this machine.
    """
    refusal = None
    for engine in sorted(bundle.engines(), key=lambda engine: engine.runtime != "tensorrt"):
        runtime = runtimes.get(engine.runtime)
        if target not in ("auto", engine.runtime) or runtime.cannot_run() is not None:
            continue
        refusal_of_this = _refusal(engine, runtime, environment, where=bundle.path)
        if refusal_of_this is None:
            return engine, runtime
        refusal = refusal or refusal_of_this
    if refusal is not None:
        raise refusal
    return None


def _refusal(
    engine: Engine, runtime: runtimes.Runtime, here: Environment, *, where: Path
) -> BundleError | None:
    try:
        engine.check(
            runtime_version=runtime.version(),
            compute_capability=here.gpu.compute_capability if here.gpu else None,
            gpu=here.gpu.name if here.gpu else None,
            board=here.board,
            where=where,
        )
    except BundleError as error:
        return error
    return None


def _subject(manifest: Manifest, artefact: Any, digest: str, runtime: str, device: str) -> Subject:
    return Subject(manifest.recipe["name"], artefact, digest, manifest.precision, runtime, device)
