"""The graph or engine of a bundle as the nodes of a device run it; see `cnnx.pipeline.target.Judged`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnnx import runtimes
from cnnx.bundle import ENGINE, MANIFEST, MODEL, Bundle
from cnnx.bundle.engine import Engine, engine_from_dict
from cnnx.bundle.sealed import check_file, read_sealed
from cnnx.bundle.signature import sign_again
from cnnx.bundle.writing import about_signature
from cnnx.errors import BundleError, EnvironmentLacks
from cnnx.options.fleet import FleetValidateOptions
from cnnx.pipeline.fleet.shards.fleet import Fleet
from cnnx.pipeline.fleet.shards.kept import SAME_VERSION, unreadable
from cnnx.pipeline.fleet.shards.parts import BUNDLE
from cnnx.pipeline.fleet.shards.runs import logits_by, logits_work
from cnnx.pipeline.fleet.tasks.subject import ENGINES
from cnnx.pipeline.fleet.work.job import Job
from cnnx.pipeline.progress import Progress, Steps
from cnnx.pipeline.target import named_engine
from cnnx.recipe import Recipe
from cnnx.record import Subject
from cnnx.schema import FileName, Name, from_plain


@dataclass(frozen=True, slots=True)
class _Found:
    """What a node answers; see `cnnx.pipeline.fleet.tasks.subject`. None of it is trusted."""

    subject: Subject
    target: Name
    engine: FileName | None
    environment: Mapping[str, Any]
    remarks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FleetSubject:
    """A subject that nodes run.

    Attributes:
        fleet: the nodes.
        bundle: the bundle, which has the engine.
        needs: the device.
        subject: description for records.
        environment: the machine and software of the node that described it.
        target: name of its runtime.
        engine: identity of its engine; None: the graph.
    """

    fleet: Fleet
    bundle: Bundle
    needs: str
    subject: Subject
    environment: Mapping[str, Any]
    target: str
    engine: str | None

    def run(self, pixels: NDArray[np.uint8], recipe: Recipe, *, progress: Progress) -> NDArray[np.float32]:
        """Its logits for crops (N, H, W, C): (N, classes); the bundle's own recipe prepares them."""
        arguments = {"target": self.target, "engine": self.engine}
        files = _files(self.bundle, [] if self.engine is None else [self.engine])
        classes = recipe.model.classes
        work = logits_work("subject", "subject_logits", arguments, files, needs=self.needs, classes=classes)
        return logits_by(self.fleet, work, pixels, progress)


def fleet_subject(
    fleet: Fleet, bundle: Bundle, options: FleetValidateOptions, *, needs: str, steps: Steps
) -> FleetSubject:
    """Ask a node of the device what it runs. An engine that it builds is added to the bundle.

    Every node gets that one engine: a verdict is about one file.

    Raises:
        UsageError: there is no such runtime, or no such engine.
        JobsLost: no node could open or build it.
        BundleError: a signature is required, and does not cover the engine. One that was built is not added.
        EnvironmentLacks: the answer is not what the task gives.
    """
    if options.target != "auto":
        runtimes.get(options.target)
    if options.engine is None:
        engines = [engine.identity for engine in bundle.engines()]
    else:
        engines = [named_engine(bundle, options.target, options.engine).identity]
    job = Job(
        f"{bundle.manifest.recipe['name']} on {needs}",
        task="subject",
        arguments={"target": options.target, "engine": options.engine},
        files=_files(bundle, engines),
        needs=needs,
    )

    def work(_: Progress) -> FleetSubject:
        (found,) = [_subject(answer.value, answer.folder) for answer in fleet.one(job)]
        return found

    def _subject(value: Any, folder: Path) -> FleetSubject:
        found = from_plain(_Found, value, where=needs, error=EnvironmentLacks, hint=SAME_VERSION)
        if found.engine is None or found.engine in engines or options.engine is not None:
            built = None
        else:
            built = _built(bundle, folder / ENGINES / found.engine, needs)
        known = [engine for engine in bundle.engines() if engine.identity in engines]
        runnable: dict[str | None, str] = {each.identity: each.digest for each in (*known, *_some(built))}
        if options.engine is None:
            runnable[None] = bundle.manifest.files[MODEL]
        ran = found.subject
        if (ran.engine or None) != found.engine or ran.digest != runnable.get(found.engine):
            raise unreadable(needs, "what it runs is neither the bundle's graph nor an engine of it")
        if built:
            _add(bundle, built, folder / ENGINES / built.identity)
        for engine in known:
            if engine.identity == found.engine:
                bundle.check_signed(engine)
        for remark in (*found.remarks, *about_signature(bundle, _some(built))):
            steps.note(remark)
        return FleetSubject(fleet, bundle, needs, ran, found.environment, found.target, found.engine)

    return steps.run("subject", work)


def _some(engine: Engine | None) -> tuple[Engine, ...]:
    return () if engine is None else (engine,)


def _built(bundle: Bundle, folder: Path, needs: str) -> Engine:
    """The engine that a node has built, in a folder of its answer; checked before the bundle gets it."""
    try:
        engine = engine_from_dict(read_sealed(folder / ENGINE, bundle=folder), where=folder / ENGINE)
        check_file(folder / engine.file, engine.digest, bundle=folder)
    except BundleError as error:
        raise unreadable(needs, f"engine {folder.name}: {error.what}") from None
    if engine.graph_digest != bundle.manifest.files[MODEL]:
        raise unreadable(needs, f"engine {folder.name} was built from a different graph")
    return engine


def _add(bundle: Bundle, engine: Engine, folder: Path) -> None:
    """Add an engine to a bundle, unless that requires a signature, which cannot cover a new engine."""
    if bundle.signed is not None:
        raise BundleError(
            f"a node built the engine {engine.identity}, which the signature does not cover",
            where=bundle.path,
            hint="add it with the same command without --require-signature; if you trust it, "
            f"{sign_again(bundle.path)}; or run the graph with --target ort",
        )
    bundle.add_engine(engine, folder / engine.file)


def _files(bundle: Bundle, engines: list[str]) -> dict[str, Path]:
    """The files of a bundle that its graph and these engines need."""
    names = [MANIFEST, *bundle.manifest.files]
    for identity in engines:
        folder = bundle.path / ENGINES / identity
        names += [path.relative_to(bundle.path).as_posix() for path in folder.iterdir() if path.is_file()]
    return {f"{BUNDLE}/{name}": bundle.path / name for name in names}
