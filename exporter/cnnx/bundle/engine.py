"""Description of an engine in a bundle, and the check of which machines can run it."""

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

    def check(
        self,
        *,
        runtime_version: str | None,
        compute_capability: int | None,
        gpu: str | None = None,
        board: str | None = None,
        where: Path,
    ) -> None:
        """Refuse an engine that this machine cannot run, before it is loaded.

        Args:
            runtime_version: installed version of the runtime.
            compute_capability: compute capability of this GPU; not compared if None.
            gpu: name of this GPU; not compared if None.
            board: device-tree name of this Jetson; not compared if None. GPUs with the same name differ in
                size between boards.
            where: path of the bundle.

        Raises:
            BundleError: the engine does not match this machine; the hint has the command to rebuild it.
        """
        hint = f"build the engine on this machine: cnnx build {where}"
        if not self._runs_on(runtime_version):
            raise BundleError(
                f"the engine was built by {self.runtime} {self.runtime_version}, but "
                f"{runtime_version or 'no version'} is installed",
                where=where / "engines" / self.identity,
                hint=hint,
            )
        if compute_capability is not None and not self._reaches(compute_capability):
            raise BundleError(
                f"the engine was built for {self.target}, but this GPU is sm{compute_capability}",
                where=where / "engines" / self.identity,
                hint=hint,
            )
        if self.reach != "gpu":
            return
        built_on = ((self.environment.get("gpu") or {}).get("name"), self.environment.get("board"))
        for built, here in zip(built_on, (gpu, board), strict=True):
            if None not in (built, here) and built != here:
                raise BundleError(
                    f"the engine was built on {built} and runs only on that model, but this is {here}",
                    where=where / "engines" / self.identity,
                    hint=hint,
                )

    def _runs_on(self, version: str | None) -> bool:
        """Whether a runtime version can run it: the same, or a newer one if version compatible."""
        if version == self.runtime_version:
            return True
        try:
            return self.version_compatible and Version(str(version)) >= Version(self.runtime_version)
        except InvalidVersion:
            return False

    def _reaches(self, compute_capability: int) -> bool:
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
