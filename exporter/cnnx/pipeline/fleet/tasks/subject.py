"""The task that finds what of a bundle a node runs: its graph, or an engine, built if there is none."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cnnx import runtimes
from cnnx.bundle import Bundle
from cnnx.errors import BundleError
from cnnx.machine.environment import detect
from cnnx.options.bundles import EngineOptions
from cnnx.pipeline.build import build_into
from cnnx.pipeline.fleet.shards.parts import BUNDLE
from cnnx.pipeline.progress import Listener, Steps
from cnnx.pipeline.target import OpenSubject, choose_runtime, open_subject

ENGINES = "engines"


def run(arguments: Mapping[str, Any], files: Path, out: Path, *, listener: Listener) -> dict[str, Any]:
    """Return the subject that runs here, as records describe it, and how to open it.

    Args:
        arguments: `target`, and `engine`: its identity, or None.
        files: has the bundle, to which an engine is added if none fits.
        out: folder for the engine, if one was built.
        listener: receives progress events.
    """
    bundle = Bundle.open(files / BUNDLE)
    target, engine = arguments["target"], arguments["engine"]
    before = {each.identity for each in bundle.engines()}
    subject = _opened(bundle, target, engine, listener)
    found = subject.subject
    if found.engine and found.engine not in before:
        shutil.copytree(bundle.path / ENGINES / found.engine, out / ENGINES / found.engine)
    return {
        "subject": dataclasses.asdict(found),
        "target": subject.runtime.name,
        "engine": found.engine or None,
        "environment": detect().as_dict(),
        "remarks": list(subject.remarks),
    }


def _opened(bundle: Bundle, target: str, engine: str | None, listener: Listener) -> OpenSubject:
    """What runs here; if that should be an engine and none fits, one is built."""
    if engine is not None:
        return open_subject(bundle, target, engine=engine)
    runtime = choose_runtime(target, ()) if target != runtimes.GRAPHS else runtimes.get(target)
    if runtime.engine_suffix is None:
        return open_subject(bundle, target)
    try:
        subject = open_subject(bundle, target)
    except BundleError:  # all engines were built for other machines
        subject = None
    if subject is None or subject.subject.artefact == "graph":
        (built, *_) = build_into(bundle, runtime, EngineOptions(), Steps(listener))
        subject = open_subject(bundle, runtime.name, engine=built.identity)
    return subject
