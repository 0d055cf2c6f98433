"""What builds an engine and what runs one: two Protocols, one vendor a file, imported on use.

A runtime is a module with a `RUNTIME` that satisfies `Runtime`. `NAMES` is the whole registry:
a new runtime is one file and one line here, and the conformance tests take it in by themselves.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cnnx.errors import CnnxError, UsageError

NAMES = {
    "ort": "cnnx.runtimes.ort",
    "rtx": "cnnx.runtimes.rtx",
}


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """What an engine is asked to be.

    Attributes:
        precision: "fp32", "fp16" or "int8", as the graph was typed.
        expected: name of each weighted layer's ONNX node -> the type its data should arrive in
            ("int8", "fp16", "fp32"); compared with what was built.
        batch: smallest, best and largest batch of the optimization profile.
        compute_capabilities: SM versions such as 86, for builders that cross-build; empty: this device.
    """

    precision: str
    expected: dict[str, str]
    batch: tuple[int, int, int] = (1, 1, 1)
    compute_capabilities: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class BuiltEngine:
    """One engine file and what is known of it. `identity` names its folder under engines/."""

    identity: str
    file_name: str
    plan: bytes = field(repr=False)
    runtime: str = ""
    runtime_version: str = ""
    target: str = ""
    layer_types: dict[str, str] = field(default_factory=dict)


class Session(Protocol):
    """A network ready to run. Sessions are not thread-safe; close them when done."""

    runtime: str
    runtime_version: str
    device: str
    output_names: tuple[str, ...]

    def run(self, images: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Run one batch.

        Args:
            images: (N, C, H, W), normalised, C-contiguous.

        Returns:
            Every output by name, each with N first; float outputs as float32.
        """
        ...

    def close(self) -> None:
        """Give memory back. Running afterwards is an error."""
        ...


class Runtime(Protocol):
    """A vendor's runtime: says whether it is here, builds where it builds, opens where it runs."""

    name: str
    engine_suffix: str | None
    """Ending of the files it builds, such as ".engine"; None where it runs ONNX as it is."""

    def version(self) -> str | None:
        """Version of what is installed; None where nothing is."""
        ...

    def missing(self) -> CnnxError | None:
        """Why this runtime cannot be used here at all (a `MissingExtra`, say), or None."""
        ...

    def cannot_run(self) -> CnnxError | None:
        """Why it cannot *run* a network here (no GPU, no driver), or None. Implies `missing`."""
        ...

    def device(self) -> str:
        """Where `open` puts a network: the GPU's name, or "CPU: " and its model.

        Raises:
            EnvironmentLacks: it cannot run here.
        """
        ...

    def check_capabilities(self, capabilities: Sequence[int]) -> None:
        """Refuse GPU architectures it does not build for, before any work is done for them.

        Raises:
            UsageError: it does not know one of them, or builds nothing.
        """
        ...

    def build(self, onnx_file: Path, request: BuildRequest) -> list[BuiltEngine]:
        """Build engines, one for each compute capability asked (one in all where none is named).

        Raises:
            BuildFailed: the parser or builder refused, or the asked precision was not reached.
            UsageError: this runtime builds nothing.
        """
        ...

    def open(self, file: Path) -> Session:
        """Open a built engine, or the ONNX file where `engine_suffix` is None."""
        ...


def get(name: str) -> Runtime:
    """The runtime of that name, without asking whether it can work here.

    Raises:
        UsageError: no runtime has this name.
    """
    if name not in NAMES:
        raise UsageError(f"no runtime is called {name!r}", mend=f"choose one of: {', '.join(NAMES)}")
    runtime: Runtime = importlib.import_module(NAMES[name]).RUNTIME
    return runtime
