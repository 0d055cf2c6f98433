"""Which gates are set for a bundle: by its recipe, and by a file that takes precedence."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cnnx.bundle import Bundle
from cnnx.bundle.manifest import recipe_of
from cnnx.gates import Limits, read_gates


@dataclass(frozen=True, slots=True)
class Demand:
    """Gates of a bundle.

    Attributes:
        limits: all limits, defaults included.
        stated: keys that a file of gates states; they are reported even if nothing was measured.
    """

    limits: Limits
    stated: frozenset[str] = frozenset()


def demand_of(bundle: Bundle, gates: str | Path | None = None) -> Demand:
    """The gates of a bundle: key by key those of a file, else those of its recipe, else the defaults.

    Raises:
        GateError: the file cannot be read, or is invalid.
    """
    precision = bundle.manifest.precision
    own = recipe_of(bundle.manifest).gates.of(precision)
    if gates is None:
        return Demand(own)
    file = read_gates(Path(gates)).stated(precision)
    return Demand(file.over(own), frozenset(file.set()))
