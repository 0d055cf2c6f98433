"""Every entry point of cnnx, by name; each module has those of one kind."""

from __future__ import annotations

import importlib

from tools.check.fuzz.door import Door

MODULES = (
    "records", "portable", "environment", "weights", "bundles", "images", "downloads", "surveys", "graphs",
    "recipes", "caches", "signatures", "logs", "folders", "lists", "sensors",
)  # fmt: skip
"""Those that take longest come first."""


def doors_of(module: str) -> tuple[Door, ...]:
    """The doors of one module."""
    found: tuple[Door, ...] = importlib.import_module(f"{__name__}.{module}").DOORS
    return found


def all_doors() -> dict[str, Door]:
    """Every door, by its name."""
    return {door.name: door for module in MODULES for door in doors_of(module)}
