"""What this machine has, and what cnnx can do on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cnnx import runtimes
from cnnx.environment import detect, installed_version
from cnnx.errors import CnnxError, MissingExtra
from cnnx.pipeline.running import cannot_build


@dataclass(frozen=True, slots=True)
class Ability:
    """One thing cnnx does: whether it can here, and otherwise why not and what mends it."""

    what: str
    able: bool
    reason: str = ""
    mend: str = ""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The machine and the abilities of cnnx on it."""

    environment: dict[str, Any]
    abilities: tuple[Ability, ...]


def doctor() -> Diagnosis:
    """Look at this machine. Never raises for what is absent: that is what it reports."""
    torch = None if installed_version("torch") else MissingExtra("torch", "export", purpose="exporting")
    abilities = [_ability("export a network from its PyTorch definition", torch)]
    for name in runtimes.NAMES:
        runtime = runtimes.get(name)
        abilities.append(_ability(f"run and validate with {name}", runtime.cannot_run()))
        if runtime.engine_suffix is not None:
            abilities.append(_ability(f"build engines with {name}", cannot_build(runtime)))
    return Diagnosis(detect().as_dict(), tuple(abilities))


def _ability(what: str, lacking: CnnxError | None) -> Ability:
    if lacking is None:
        return Ability(what, able=True)
    return Ability(what, able=False, reason=lacking.what, mend=lacking.mend or "")
