"""Processors that run networks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

DeviceKind = Literal["cpu", "gpu"]
_CPU = "CPU: "


@dataclass(frozen=True, slots=True)
class Device:
    """A processor that runs networks.

    Attributes:
        kind: decides which validity rules and which power sensors apply.
        name: the vendor's model name.
    """

    kind: DeviceKind
    name: str

    def __str__(self) -> str:
        return f"{_CPU}{self.name}" if self.kind == "cpu" else self.name

    @classmethod
    def of(cls, shown: str, kind: Literal["cpu", "gpu", ""] = "") -> Device:
        """Parse what `str` returns. Without a kind, as in older records, it is derived from the name."""
        known = kind or ("cpu" if shown.startswith(_CPU) else "gpu")
        return cls(known, shown.removeprefix(_CPU) if known == "cpu" else shown)
