"""The engines of a bundle that one Triton server can load, by compute capability."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from packaging.version import InvalidVersion, Version

from cnnx.bundle import Bundle
from cnnx.bundle.engine import Engine
from cnnx.package.copies import engines_of

_USUAL = "model.plan"


@dataclass(frozen=True, slots=True)
class Plans:
    """Engines for one model of a Triton repository.

    Attributes:
        files: file name -> engine.
        by_capability: compute capability, such as "8.7" -> file name.
        version: the TensorRT release of all of them; empty without engines.
        batches: smallest and largest batch that all of them take; None without engines.
        portable: whether all are version compatible.
        notes: engines that were left out, and why.
    """

    files: Mapping[str, Engine] = field(default_factory=dict)
    by_capability: Mapping[str, str] = field(default_factory=dict)
    version: str = ""
    batches: tuple[int, int] | None = None
    portable: bool = False
    notes: tuple[str, ...] = ()


def plans_of(bundle: Bundle) -> Plans:
    """Choose engines of the newest TensorRT release: one for each compute capability, none for the DLA.

    Where several fit, the one with the largest batch is taken.
    """
    known = engines_of(bundle, "tensorrt")
    found = [engine for engine in known if engine.dla_core is None]
    notes = ["Engines for the DLA are left out: Triton would run them on the GPU."] * (found != list(known))
    if not found:
        return Plans(
            notes=(*notes, "The bundle has no TensorRT engine: README.md has the command to build one.")
        )
    newest = max((engine.runtime_version for engine in found), key=_order)
    if older := sorted({engine.runtime_version for engine in found} - {newest}):
        notes.append(f"Engines of TensorRT {', '.join(older)} are left out: a server has one release.")
    best: dict[str, Engine] = {}
    for engine in found:
        capability = _capability(engine)
        if engine.runtime_version == newest and _largest(engine, bundle) > (
            _largest(best[capability], bundle) if capability in best else 0
        ):
            best[capability] = engine
    # Triton takes the default file, model.plan, for a GPU that is not listed.
    usual = "" if "" in best else min(best)
    files = {_USUAL if key == usual else f"model-{key}.plan": engine for key, engine in best.items()}
    names = {key: _USUAL if key == usual else f"model-{key}.plan" for key in best if key}
    smallest = max(
        (engine.batch[0] if engine.batch else bundle.manifest.batch[0]) for engine in best.values()
    )
    largest = min(_largest(engine, bundle) for engine in best.values())
    portable = all(engine.version_compatible for engine in best.values())
    return Plans(files, names, newest, (smallest, largest), portable, tuple(notes))


def _largest(engine: Engine, bundle: Bundle) -> int:
    return engine.batch[2] if engine.batch else bundle.manifest.batch[1]


def _capability(engine: Engine) -> str:
    """Such as "8.7"; empty if any GPU can run it, or if it is unknown which one."""
    if engine.reach == "ampere_plus":
        return ""
    gpu = engine.environment.get("gpu") or {}
    number = engine.target.removeprefix("sm") or str(gpu.get("compute_capability") or "")
    return f"{number[:-1]}.{number[-1]}" if len(number) > 1 else ""


def _order(version: str) -> tuple[bool, Version]:
    try:
        return True, Version(version)
    except InvalidVersion:
        return False, Version("0")
