"""Adapters: each makes a folder in which a consumer, such as Triton, can use a bundle as it is."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Protocol, cast

from cnnx.bundle import Bundle
from cnnx.errors import UsageError

ADAPTERS = {
    "cpp": "cnnx.package.cpp",
    "deepstream": "cnnx.package.deepstream",
    "isaac-ros": "cnnx.package.isaac_ros",
    "jetson-inference": "cnnx.package.jetson_inference",
    "python": "cnnx.package.python",
    "triton": "cnnx.package.triton",
}
"""Consumer -> its module; a new adapter is one module and one line."""


class Adapter(Protocol):
    """What the module of an adapter has."""

    @staticmethod
    def write(bundle: Bundle, folder: Path) -> tuple[str, ...]:
        """Fill an empty folder; return notes for the user.

        Raises:
            BundleError: the consumer cannot use this network.
        """
        ...


def adapter_of(consumer: str) -> Adapter:
    """The adapter of a consumer.

    Raises:
        UsageError: there is none.
    """
    if consumer not in ADAPTERS:
        raise UsageError(
            f"there is no package for {consumer!r}", hint=f"choose from {', '.join(sorted(ADAPTERS))}"
        )
    return cast("Adapter", importlib.import_module(ADAPTERS[consumer]))
