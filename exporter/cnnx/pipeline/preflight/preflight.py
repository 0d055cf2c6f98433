"""`preflight`: whether a bundle fits this machine, before anything is loaded."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cnnx import runtimes
from cnnx.bundle import Bundle
from cnnx.bundle.engine import Engine
from cnnx.bundle.manifest import recipe_of
from cnnx.data.resampling import missing
from cnnx.errors import BundleError
from cnnx.machine.environment import Environment, detect, free_memory_bytes
from cnnx.options import takes
from cnnx.options.bundles import PreflightOptions
from cnnx.pipeline.bench.prediction import predict_graph
from cnnx.pipeline.preflight.checks import Check, driver_check, engine_checks
from cnnx.pipeline.progress import Listener, silent
from cnnx.pipeline.sign.trust import open_bundle
from cnnx.report.result import Result
from cnnx.report.table import Block
from cnnx.report.tables.preflight import preflight_blocks
from cnnx.stats import Verdict

_MIB = 2**20


@dataclass(frozen=True, slots=True, repr=False)
class PreflightResult(Result):
    """What fits and what does not.

    Attributes:
        path: the bundle's folder.
        checks: every check, those of the whole bundle first.
        ready: identities of the engines that fit.
        rebuilt: identities of the engines that were built and passed the self-test.
    """

    path: str
    checks: tuple[Check, ...]
    ready: tuple[str, ...]
    rebuilt: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """3 if a file is damaged, 4 if no engine fits or something else is missing here, else 0."""
        if any(check.name == "files" and check.outcome == "differs" for check in self.checks):
            return 3
        whole = any(check.outcome == "differs" and not check.engine for check in self.checks)
        engines = {check.engine for check in self.checks if check.engine}
        return 4 if whole or (engines and not self.ready) else 0

    def blocks(self, *, verbose: bool = False) -> Iterable[Block]:
        """What the command prints."""
        return preflight_blocks(self)


@takes(PreflightOptions)
def preflight(
    bundle: str | Path, options: PreflightOptions, *, listener: Listener = silent
) -> PreflightResult:
    """Compare a bundle with this machine. Nothing is loaded, so it needs neither a GPU nor TensorRT.

    Hashes of all files, then for each engine: the release in the plan's own header, the installed runtime,
    architecture, GPU, board, DLA and Jetson Linux; for the whole bundle the driver, the memory predicted
    against the memory free, and packages that the preprocessing needs.

    Args:
        bundle: the bundle's folder.
        options: options as an object; each can also be given by keyword. With `rebuild`, engines that do not
            fit are built from the bundle's graph, and self-tested.
        listener: receives progress events.

    Raises:
        BundleError: the manifest is damaged, so that nothing can be compared; or the bundle is not signed as
            required.
        BuildFailed: an engine cannot be built.

    Examples:
        >>> cnnx.preflight("lenet5-int8").exit_code
        0
    """
    opened = open_bundle(Path(bundle), options.require_signature, verify=False)
    found = _compared(opened)
    unsigned = {check.engine for check in found.checks if check.name == "signature"}
    fits = {*found.ready, *unsigned}  # another build would not be signed either
    misfits = [engine for engine in opened.engines() if engine.identity not in fits]
    if not options.rebuild or not misfits:
        return found
    tests = [
        test
        for runtime in dict.fromkeys(engine.runtime for engine in misfits)
        for test in _rebuilt(opened, runtime, listener)
    ]
    again = _compared(opened)
    failed = {test.engine for test in tests if test.outcome == "differs"}
    return PreflightResult(
        again.path,
        (*again.checks, *tests),
        tuple(identity for identity in again.ready if identity not in failed),
        tuple(test.engine for test in tests if test.engine not in failed),
    )


def _rebuilt(bundle: Bundle, runtime: str, listener: Listener) -> Iterator[Check]:
    """Build engines of a runtime; a check for each, on its self-test."""
    from cnnx.pipeline.build import build
    from cnnx.pipeline.validate import validate

    for engine in build(bundle.path, target=runtime, listener=listener).engines:
        tested = validate(bundle.path, target=runtime, engine=engine.identity, listener=listener)
        passed = tested.verdict is Verdict.PASSED
        yield Check(
            "self-test",
            "passed",
            tested.verdict.value,
            "fits" if passed else "differs",
            "" if passed else f"see what differs: cnnx validate {shlex.quote(str(bundle.path))}",
            engine.identity,
        )


def _compared(bundle: Bundle) -> PreflightResult:
    here = detect()
    engines = bundle.engines()
    checks = [*_files(bundle, engines), *_whole(bundle, here)]
    if not any(check.outcome == "differs" and check.name == "files" for check in checks):
        checks.append(_memory(bundle, engines))
    for engine in engines:
        if here.gpu is None and here.l4t is None:
            fix = f"copy the bundle to the device: scp -r {shlex.quote(str(bundle.path))} DEVICE:"
            checks.append(Check("GPU", "an NVIDIA GPU", "none", "differs", fix, engine.identity))
        version = runtimes.get(engine.runtime).version() if engine.runtime in runtimes.NAMES else None
        checks += engine_checks(engine, here, version=version, bundle=bundle.path)
    ready = [
        engine.identity
        for engine in engines
        if not any(check.outcome == "differs" for check in checks if check.engine == engine.identity)
    ]
    return PreflightResult(str(bundle.path), tuple(checks), tuple(ready))


def _files(bundle: Bundle, engines: Iterable[Engine]) -> Iterator[Check]:
    """Whether every file has the hash that the manifest, or an engine's description, states."""
    try:
        bundle.verify()
    except BundleError as error:
        yield Check("files", "as exported", error.what, "differs", error.hint or "")
    else:
        count = len(bundle.manifest.files)
        yield Check("files", f"{count} hashes", "all equal", "fits")
    yield from (check for engine in engines if (check := _damaged(bundle, engine)))


def _damaged(bundle: Bundle, engine: Engine) -> Check | None:
    try:
        bundle.check_signed(engine)
    except BundleError as error:
        return Check("signature", "signed", error.what, "differs", error.hint or "", engine.identity)
    try:
        bundle.engine_file(engine)
    except BundleError as error:
        fix = f"build it again: cnnx build {shlex.quote(str(bundle.path))}"
        return Check("engine file", "as built", error.what, "differs", fix, engine.identity)
    return None


def _whole(bundle: Bundle, here: Environment) -> Iterator[Check]:
    if (driver := driver_check(here)) is not None:
        yield driver
    if (lacks := missing(recipe_of(bundle.manifest).preprocessing)) is not None:
        yield Check("preprocessing", "OpenCV", "not installed", "differs", lacks.hint or "")


def _memory(bundle: Bundle, engines: Iterable[Engine]) -> Check:
    """Memory predicted for the largest batch of an engine, against what is free now."""
    batch = max((engine.batch[2] for engine in engines if engine.batch), default=bundle.manifest.batch[0])
    predicted = predict_graph(bundle.model, batch)
    needed = (predicted.weights_bytes or 0) + (predicted.scratch_bytes or 0) + (predicted.io_bytes or 0)
    free = free_memory_bytes()
    return Check(
        "memory",
        f"{needed / _MIB:,.1f} MiB at batch {batch}, plus libraries",
        "unknown" if free is None else f"{free / _MIB:,.0f} MiB free",
        "unknown" if free is None else "fits" if needed <= free else "differs",
        "" if free is None or needed <= free else "export with a smaller --batch, or stop other programs",
    )
