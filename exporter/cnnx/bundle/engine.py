"""Description of an engine in a bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta
from packaging.version import InvalidVersion, Version

from cnnx.bundle.sealed import HINT, SCHEMA
from cnnx.errors import BundleError
from cnnx.machine.environment import Environment
from cnnx.options import Precision
from cnnx.schema import Count, Digest, DigestOrEmpty, FileName, Name, Positive, from_plain

_Target = Annotated[
    str, Meta(pattern=r"^(sm\d{1,4})?(?![\s\S])", description="a GPU architecture such as sm86, or empty")
]


@dataclass(frozen=True, slots=True)
class Engine:
    """A built engine: its file, source and target.

    Attributes:
        target: GPU architecture, such as "sm86", if it was built for a named one.
        graph_digest: SHA-256 of the graph it was compiled from.
        layer_types: input type of each weighted layer, as reported by the build.
        environment: machine that built it.
        reach: GPUs that can run it: "compute_capability" (all GPUs of the target), "gpu" (only the GPU model
            that built it) or "ampere_plus".
        version_compatible: whether newer runtime versions can run it.
        dla_core: DLA core it was built for; None for GPU only.
        on_gpu: layers that the DLA cannot run and that run on the GPU.
        timing_cache: SHA-256 of the timing cache of the build; empty if none was kept.
        remarks: remarks of the build.
        batch: smallest, optimal and largest batch; empty in older descriptions.
    """

    identity: FileName
    file: FileName
    digest: Digest
    runtime: Name
    runtime_version: str
    target: _Target
    precision: Precision
    graph_digest: Digest
    layer_types: Mapping[str, str]
    environment: Mapping[str, Any]
    # Fields from here on have defaults, so that older descriptions can be read.
    reach: Literal["compute_capability", "gpu", "ampere_plus"] = "compute_capability"
    version_compatible: bool = False
    dla_core: Count | None = None
    on_gpu: Sequence[str] = ()
    timing_cache: DigestOrEmpty = ""
    remarks: Sequence[str] = ()
    batch: Sequence[Positive] = ()
    schema: Literal[1] = SCHEMA

    def runs_on(self, version: str | None) -> bool:
        """Whether a runtime version can run it: the same, or a newer one if it is version compatible."""
        if version == self.runtime_version:
            return True
        try:
            return self.version_compatible and Version(str(version)) >= Version(self.runtime_version)
        except InvalidVersion:
            return False

    def reaches(self, compute_capability: int) -> bool:
        """Whether GPUs of a compute capability can run it."""
        if self.reach == "ampere_plus":
            return compute_capability >= 80
        return self.target in ("", f"sm{compute_capability}")


def engine_from_dict(data: Mapping[str, Any], *, where: Path) -> Engine:
    """Create an engine description from the contents of the file `where`.

    Raises:
        BundleError: a key is unknown or missing, or a value has the wrong type or range.
    """
    engine = from_plain(Engine, data, where=where, error=BundleError, hint=HINT)
    from_plain(Environment, engine.environment, where=where, error=BundleError, at="environment", hint=HINT)
    if engine.identity != where.parent.name:
        raise BundleError(
            f"the identity is {engine.identity!r}, but the folder is named {where.parent.name!r}",
            where=where,
            hint=f"rename the folder to {engine.identity}",
        )
    if len(engine.batch) not in (0, 3) or list(engine.batch) != sorted(engine.batch):
        what = f"batch is {list(engine.batch)}, not [smallest, optimal, largest]"
        raise BundleError(what, where=where, hint=HINT)
    return engine
