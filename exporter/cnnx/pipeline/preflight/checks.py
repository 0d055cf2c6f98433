"""What must fit between a bundle and a machine, with both sides and the command that makes it fit."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cnnx.bundle.engine import Engine
from cnnx.bundle.plan import read_plan_header
from cnnx.errors import BundleError
from cnnx.machine.environment import Environment

Outcome = Literal["fits", "differs", "unknown"]

# Deep-learning accelerators by part of a Jetson's name in the device tree (NVIDIA's module data sheets). An
# Orin NX has 1 with 8 GB and 2 with 16 GB, which its name does not tell.
_DLA_CORES = {"Orin Nano": 0, "Orin NX": 2, "AGX Orin": 2, "Xavier NX": 2, "AGX Xavier": 2, "Thor": 0}


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that must fit.

    Attributes:
        name: what is compared.
        bundle: the bundle's side.
        machine: this machine's side.
        outcome: "unknown" if one side is.
        fix: the command, or what to do, if it differs.
        engine: identity of the engine; empty if it concerns the whole bundle.
    """

    name: str
    bundle: str
    machine: str
    outcome: Outcome
    fix: str = ""
    engine: str = ""

    def error(self, where: Path) -> BundleError:
        """The error that opening the engine raises."""
        what = f"the engine needs {self.bundle} ({self.name}), but this machine has {self.machine}"
        return BundleError(what, where=where, hint=self.fix)


def engine_checks(engine: Engine, here: Environment, *, version: str | None, bundle: Path) -> Iterator[Check]:
    """Whether a machine can run an engine; nothing is loaded, and no file but the plan's header is read.

    Args:
        engine: the engine.
        here: the machine.
        version: installed version of the engine's runtime; None: it is not installed.
        bundle: the bundle's folder.
    """
    fix = f"build it on this machine: cnnx build {shlex.quote(str(bundle))} --target {engine.runtime}"

    def check(name: str, built: str | None, found: str | None, *, fits: bool | None) -> Check:
        outcome: Outcome = "unknown" if fits is None else "fits" if fits else "differs"
        return Check(
            name,
            built or "unknown",
            found or "unknown",
            outcome,
            "" if outcome != "differs" else fix,
            engine.identity,
        )

    wanted = f"{engine.runtime} {engine.runtime_version}{' or newer' if engine.version_compatible else ''}"
    yield check(
        "runtime", wanted, f"{engine.runtime} {version or 'not installed'}", fits=engine.runs_on(version)
    )
    yield _header(engine, bundle, fix)
    made_on = engine.environment
    machine = made_on.get("machine")
    yield check(
        "architecture", machine, here.machine, fits=None if machine is None else machine == here.machine
    )
    capability = here.gpu.compute_capability if here.gpu else None
    yield check(
        "GPU architecture",
        "sm80 or newer" if engine.reach == "ampere_plus" else engine.target or None,
        "no GPU" if here.gpu is None else None if capability is None else f"sm{capability}",
        fits=None if capability is None else engine.reaches(capability),
    )
    if engine.reach == "gpu":
        sides = (
            ("GPU model", (made_on.get("gpu") or {}).get("name"), here.gpu.name if here.gpu else None),
            ("board", made_on.get("board"), here.board),
        )
        for name, built, found in sides:
            if built is not None:
                yield check(name, built, found, fits=None if found is None else built == found)
    if engine.dla_core is not None:
        cores = _dla_cores(here)
        yield check(
            "DLA",
            f"core {engine.dla_core}",
            None if cores is None else f"{cores} cores",
            fits=None if cores is None else engine.dla_core < cores,
        )
    if made_on.get("l4t") and here.l4t:
        yield check(
            "Jetson Linux",
            made_on["l4t"],
            here.l4t,
            fits=made_on["l4t"].split(".")[0] == here.l4t.split(".")[0],
        )


def _header(engine: Engine, bundle: Path, fix: str) -> Check:
    """Whether the plan is what its description says: files are sometimes exchanged by hand."""
    file = bundle / "engines" / engine.identity / engine.file
    wanted = f"{engine.runtime} {'.'.join(engine.runtime_version.split('.')[:3])}"
    try:
        found = read_plan_header(file)
    except OSError as error:
        return Check(
            "plan", wanted, f"the file cannot be read: {error.strerror}", "differs", fix, engine.identity
        )
    if found is None:
        return Check("plan", wanted, "a header that is not known", "unknown", engine=engine.identity)
    said = f"{found.runtime} {found.release}"
    fits = said == wanted
    return Check(
        "plan",
        wanted,
        f"{said} in its header",
        "fits" if fits else "differs",
        "" if fits else fix,
        engine.identity,
    )


def _dla_cores(here: Environment) -> int | None:
    """Number of DLA cores; None on a Jetson that is not known."""
    if here.board is None:
        return 0
    return next((cores for name, cores in _DLA_CORES.items() if name in here.board), None)


def driver_check(here: Environment) -> Check | None:
    """Whether the driver supports the installed CUDA; None without a GPU."""
    if here.gpu is None:
        return None
    majors = {package.version.split(".")[0] for package in here.cuda if package.version}
    newest = max((int(major) for major in majors if major.isdecimal()), default=None)
    supported = here.gpu.cuda
    if newest is None or supported is None:
        return Check("driver", "unknown CUDA", f"driver {here.gpu.driver or 'unknown'}", "unknown")
    fits = int(supported.split(".")[0]) >= newest
    return Check(
        "driver",
        f"CUDA {newest}",
        f"driver {here.gpu.driver or 'unknown'}, for CUDA up to {supported}",
        "fits" if fits else "differs",
        "" if fits else "update the driver, or install packages for an older CUDA: cnnx doctor names them",
    )
