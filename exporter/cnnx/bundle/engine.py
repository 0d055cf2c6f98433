"""What an engine in a bundle was built from and for, and which machines may run it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta
from packaging.version import InvalidVersion, Version

from cnnx.bundle.sealed import MEND, SCHEMA
from cnnx.errors import BundleError
from cnnx.machine.environment import Environment
from cnnx.options import Precision
from cnnx.schema import Count, Digest, DigestOrEmpty, FileName, Name, Positive, from_plain

_Target = Annotated[
    str, Meta(pattern=r"^(sm\d{1,4})?(?![\s\S])", description="a GPU architecture such as sm86, or empty")
]


@dataclass(frozen=True, slots=True)
class Engine:
    """A built engine: its file and what it was built from and for.

    Attributes:
        target: "sm86" or the like where it was built for a named GPU architecture.
        graph_digest: SHA-256 of the graph it was compiled from.
        layer_types: type in which each weighted layer's data arrives, as the build reported it.
        environment: of the machine that built it.
        reach: GPUs that run it: "compute_capability" (all of the target's), "gpu" (the model that built it
            alone) or "ampere_plus".
        version_compatible: whether later releases than the one that built it may run it.
        dla_core: of the DLA that it was built for; None: for the GPU alone.
        on_gpu: layers that this DLA cannot run and the GPU does.
        timing_cache: SHA-256 of the timing cache that the build left; empty: none was kept.
        remarks: what the build said beside success.
        batch: smallest, the one it is tuned for, and largest; empty in descriptions of before.
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
    # What follows came with TensorRT and after: descriptions of before are read without.
    reach: Literal["compute_capability", "gpu", "ampere_plus"] = "compute_capability"
    version_compatible: bool = False
    dla_core: Count | None = None
    on_gpu: Sequence[str] = ()
    timing_cache: DigestOrEmpty = ""
    remarks: Sequence[str] = ()
    batch: Sequence[Positive] = ()
    schema: Literal[1] = SCHEMA

    def check(
        self,
        *,
        runtime_version: str | None,
        compute_capability: int | None,
        gpu: str | None = None,
        board: str | None = None,
        where: Path,
    ) -> None:
        """Refuse an engine that this machine cannot run, before anything of it is loaded.

        Args:
            runtime_version: installed here.
            compute_capability: of the GPU here; None: not known, then not compared.
            gpu: name of the GPU here; None likewise.
            board: of a Jetson, as the device tree names it; None likewise. GPUs of one name differ in size
                between boards.
            where: the bundle.

        Raises:
            BundleError: it names both sides and the command that mends it.
        """
        mend = f"build it here: cnnx build {where}"
        if not self._runs_on(runtime_version):
            raise BundleError(
                f"the engine was built by {self.runtime} {self.runtime_version}, here is {runtime_version}",
                where=where / "engines" / self.identity,
                mend=mend,
            )
        if compute_capability is not None and not self._reaches(compute_capability):
            raise BundleError(
                f"the engine was built for {self.target}, this GPU is sm{compute_capability}",
                where=where / "engines" / self.identity,
                mend=mend,
            )
        if self.reach != "gpu":
            return
        built_on = ((self.environment.get("gpu") or {}).get("name"), self.environment.get("board"))
        for built, here in zip(built_on, (gpu, board), strict=True):
            if None not in (built, here) and built != here:
                raise BundleError(
                    f"the engine was built on {built} and runs on that model alone, here is {here}",
                    where=where / "engines" / self.identity,
                    mend=mend,
                )

    def _runs_on(self, version: str | None) -> bool:
        """The release that built it; where it is version compatible, later ones too, never earlier ones."""
        if version == self.runtime_version:
            return True
        try:
            return self.version_compatible and Version(version or "") >= Version(self.runtime_version)
        except InvalidVersion:
            return False

    def _reaches(self, compute_capability: int) -> bool:
        if self.reach == "ampere_plus":
            return compute_capability >= 80
        return self.target in ("", f"sm{compute_capability}")


def engine_from_dict(data: Mapping[str, Any], *, where: Path) -> Engine:
    """An engine's description, read from `where`.

    Raises:
        BundleError: a key is unknown or missing, or a value has another type or range.
    """
    engine = from_plain(Engine, data, where=where, error=BundleError, mend=MEND)
    from_plain(Environment, engine.environment, where=where, error=BundleError, at="environment", mend=MEND)
    if engine.identity != where.parent.name:
        raise BundleError(
            f"identity is {engine.identity!r}, the folder is called {where.parent.name!r}",
            where=where,
            mend="give the folder its name back",
        )
    if len(engine.batch) not in (0, 3) or list(engine.batch) != sorted(engine.batch):
        what = f"batch is {list(engine.batch)}, and should be smallest, usual and largest"
        raise BundleError(what, where=where, mend=MEND)
    return engine
