"""What a network runs on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

DeviceKind = Literal["cpu", "gpu"]
_CPU = "CPU: "


@dataclass(frozen=True, slots=True)
class Device:
    """A processor that runs networks.

    Attributes:
        kind: decides which figures are taken and believed, and which power sensors see it.
        name: its model, as its vendor calls it.
    """

    kind: DeviceKind
    name: str

    def __str__(self) -> str:
        return f"{_CPU}{self.name}" if self.kind == "cpu" else self.name

    @classmethod
    def of(cls, shown: str, kind: Literal["cpu", "gpu", ""] = "") -> Device:
        """The device that `str` shows so; without a kind, as in older records, its name tells that."""
        known = kind or ("cpu" if shown.startswith(_CPU) else "gpu")
        return cls(known, shown.removeprefix(_CPU) if known == "cpu" else shown)
