"""The graph or engine of a bundle as the nodes of a device run it; see `cnnx.pipeline.target.Judged`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnnx import runtimes
from cnnx.bundle import ENGINE, MANIFEST, Bundle
from cnnx.bundle.engine import Engine, engine_from_dict
from cnnx.bundle.sealed import read_sealed
from cnnx.bundle.writing import about_signature
from cnnx.errors import EnvironmentLacks
from cnnx.options.fleet import FleetValidateOptions
from cnnx.pipeline.fleet.shards.fleet import Fleet
from cnnx.pipeline.fleet.shards.parts import BUNDLE
from cnnx.pipeline.fleet.shards.runs import logits_by, logits_work
from cnnx.pipeline.fleet.tasks.subject import ENGINES
from cnnx.pipeline.fleet.work.job import Job
from cnnx.pipeline.progress import Progress, Steps
from cnnx.pipeline.target import named_engine
from cnnx.recipe import Recipe
from cnnx.record import Subject
from cnnx.schema import from_plain


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
        work = logits_work("subject", "subject_logits", arguments, files, needs=self.needs)
        return logits_by(self.fleet, work, pixels, progress)


def fleet_subject(
    fleet: Fleet, bundle: Bundle, options: FleetValidateOptions, *, needs: str, steps: Steps
) -> FleetSubject:
    """Ask a node of the device what it runs. An engine that it builds is added to the bundle.

    Every node gets that one engine: a verdict is about one file.

    Raises:
        UsageError: there is no such runtime, or no such engine.
        JobsLost: no node could open or build it.
        BundleError: a signature is required, and does not cover the engine.
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
        for remark in value["remarks"]:
            steps.note(remark)
        if (folder / ENGINES).is_dir():
            _keep_engine(bundle, folder / ENGINES / value["engine"])
            for note in about_signature(bundle, _chosen(bundle, value["engine"])):
                steps.note(note)
        for engine in _chosen(bundle, value["engine"]):
            bundle.check_signed(engine)
        subject = from_plain(Subject, value["subject"], where=needs, error=EnvironmentLacks)
        return FleetSubject(
            fleet, bundle, needs, subject, value["environment"], value["target"], value["engine"]
        )

    return steps.run("subject", work)


def _chosen(bundle: Bundle, identity: str | None) -> tuple[Engine, ...]:
    return tuple(engine for engine in bundle.engines() if engine.identity == identity)


def _keep_engine(bundle: Bundle, folder: Path) -> None:
    engine = engine_from_dict(read_sealed(folder / ENGINE, bundle=folder), where=folder / ENGINE)
    bundle.add_engine(engine, folder / engine.file)


def _files(bundle: Bundle, engines: list[str]) -> dict[str, Path]:
    """The files of a bundle that its graph and these engines need."""
    names = [MANIFEST, *bundle.manifest.files]
    for identity in engines:
        folder = bundle.path / ENGINES / identity
        names += [path.relative_to(bundle.path).as_posix() for path in folder.iterdir() if path.is_file()]
    return {f"{BUNDLE}/{name}": bundle.path / name for name in names}
