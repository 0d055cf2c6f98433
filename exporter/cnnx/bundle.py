"""The bundle: one folder that holds all an engine was made from, and what it was judged to be.

    <bundle>/
      manifest.json      what it is; the SHA-256 of every portable file and of itself
      model.onnx         the typed or Q/DQ graph that every target compiles
      calibration.json   ranges and maxima (fp16 and int8)
      reference.npz      self-test: uint8 crops and the original's logits
      labels.txt         a class a line, where the network has names for them
      engines/<identity>/    a vendor's plain file, and engine.json beside it
      runs/              records

The files above the line are portable and never change once written. Nothing is loaded before its hash
was checked.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from packaging.version import InvalidVersion, Version

from cnnx.errors import BundleError
from cnnx.recipe import Precision, Scales
from cnnx.record import Record, read_record
from cnnx.store import atomic_file, atomic_folder, digest_of, digest_of_file, locked

SCHEMA = 1
REFERENCE_BYTES = 32 * 2**20
MODEL, CALIBRATION, REFERENCE, LABELS = "model.onnx", "calibration.json", "reference.npz", "labels.txt"
_MANIFEST, _ENGINE = "manifest.json", "engine.json"
# Came into engine.json with TensorRT and after; engines of before are still read.
_LATER = frozenset({"reach", "version_compatible", "dla_core", "on_gpu", "timing_cache", "remarks", "batch"})


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A graph input or output: name, element type, shape (None for a batch that varies), layout."""

    name: str
    type: str
    shape: tuple[int | None, ...]
    layout: str


@dataclass(frozen=True, slots=True)
class ImageList:
    """Which pictures a step saw: where from, how many, and the SHA-256 of their list."""

    name: str
    source: str
    images: int
    digest: str
    synthetic: bool = False
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a bundle says of itself.

    Attributes:
        fingerprint: digest of everything that went into it; equal fingerprints are equal bundles.
        recipe: the recipe as plain data.
        weights: kind ("pretrained", "standin" or "file"), origin and digest.
        batch: smallest and largest.
        layers: name, op, precision, rule and reason of each layer.
        warnings: what the linter remarked.
        versions: of cnnx and of the tools that made it.
        files: SHA-256 of each portable file.
    """

    name: str
    precision: Precision
    fingerprint: str
    recipe: Mapping[str, Any]
    weights: Mapping[str, str]
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    batch: tuple[int, int]
    classes: int
    scales: Scales
    images: Mapping[str, ImageList]
    layers: tuple[Mapping[str, Any], ...]
    warnings: tuple[Mapping[str, str], ...]
    versions: Mapping[str, str]
    files: Mapping[str, str] = field(default_factory=dict)
    schema: int = SCHEMA

    @property
    def cannot_judge(self) -> tuple[str, ...]:
        """Reasons why agreement of this bundle proves nothing; empty when it does."""
        reasons = []
        if self.weights["kind"] == "standin":
            reasons.append("the weights are stand-ins: nothing was learned that could be lost")
        elif self.images["validation"].synthetic:
            reasons.append("the validation pictures are synthetic, the weights were trained on photographs")
        return tuple(reasons)

    def as_dict(self) -> dict[str, Any]:
        """Plain data without the manifest's own digest."""
        return json.loads(json.dumps(dataclasses.asdict(self)))  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class Reference:
    """The self-test: crops (N, H, W, C) uint8, original's logits (N, classes), labels or None, names."""

    crops: NDArray[np.uint8]
    logits: NDArray[np.float32]
    labels: NDArray[np.int64] | None
    ids: tuple[str, ...]

    def save(self, path: Path) -> None:
        """Write as many of the images, from the first, as `REFERENCE_BYTES` hold."""
        ids = np.array(self.ids, dtype=np.str_)
        size = self.crops[0].nbytes + self.logits[0].nbytes + ids.itemsize + 8
        keep = slice(0, max(1, REFERENCE_BYTES // size))
        arrays: dict[str, NDArray[Any]] = {
            "crops": self.crops[keep],
            "logits": self.logits[keep],
            "ids": ids[keep],
        }
        if self.labels is not None:
            arrays["labels"] = self.labels[keep]
        with path.open("wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


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

    identity: str
    file: str
    digest: str
    runtime: str
    runtime_version: str
    target: str
    precision: str
    graph_digest: str
    layer_types: Mapping[str, str]
    environment: Mapping[str, Any]
    reach: str = "compute_capability"
    version_compatible: bool = False
    dla_core: int | None = None
    on_gpu: Sequence[str] = ()
    timing_cache: str = ""
    remarks: Sequence[str] = ()
    batch: Sequence[int] = ()
    schema: int = SCHEMA

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


class Bundle:
    """A bundle on disk, opened: its manifest is verified, its files as far as asked."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest

    @classmethod
    def open(cls, path: Path, *, verify: bool = True) -> Bundle:
        """Open a bundle.

        Args:
            path: its folder.
            verify: check the hash of every portable file, not of the manifest alone.

        Raises:
            BundleError: no bundle, not whole, a byte changed, or a schema this cnnx does not know.
        """
        data = _read_sealed(path / _MANIFEST, bundle=path)
        bundle = cls(path, _manifest_from_dict(data, where=path / _MANIFEST))
        if verify:
            bundle.verify()
        return bundle

    def verify(self) -> None:
        """Check every portable file against the manifest.

        Raises:
            BundleError: a file is missing or has another hash.
        """
        for name, digest in self.manifest.files.items():
            _check_file(self.path / name, digest, bundle=self.path)

    @property
    def model(self) -> Path:
        """The ONNX graph."""
        return self.path / MODEL

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes; empty where there are none."""
        file = self.path / LABELS
        return tuple(file.read_text(encoding="utf-8").splitlines()) if LABELS in self.manifest.files else ()

    def reference(self) -> Reference:
        """The self-test set."""
        with np.load(self.path / REFERENCE, allow_pickle=False) as arrays:
            ids = tuple(map(str, arrays["ids"]))
            return Reference(arrays["crops"], arrays["logits"], arrays.get("labels"), ids)

    def engines(self) -> tuple[Engine, ...]:
        """Engines that stand beside the portable part, their descriptions verified."""
        found = []
        for file in sorted(self.path.glob(f"engines/*/{_ENGINE}")):
            data = _read_sealed(file, bundle=self.path)
            found.append(_from_dict(Engine, data, where=file, later=_LATER))
        return tuple(found)

    def engine_file(self, engine: Engine) -> Path:
        """The engine's file, its hash checked.

        Raises:
            BundleError: it is missing, or a byte changed.
        """
        file = self.path / "engines" / engine.identity / engine.file
        _check_file(file, engine.digest, bundle=self.path)
        return file

    def add_engine(self, engine: Engine, plan: Path) -> None:
        """Put an engine beside the portable part, replacing one of the same identity."""
        with locked(self.path), atomic_folder(self.path / "engines" / engine.identity) as draft:
            shutil.copyfile(plan, draft / engine.file)
            _write_sealed(draft / _ENGINE, dataclasses.asdict(engine))

    def add_record(self, record: Record) -> Path:
        """Keep a record under runs/; gives its path."""
        place = self.path / "runs" / record.file_name
        with atomic_file(place) as draft:
            draft.write_text(json.dumps(record.as_dict(), indent=1) + "\n", encoding="utf-8")
        return place

    def records(self) -> tuple[Record, ...]:
        """Every record under runs/, oldest first."""
        return tuple(read_record(file) for file in sorted(self.path.glob("runs/*.json")))


@contextlib.contextmanager
def new_bundle(place: Path) -> Iterator[Path]:
    """A draft folder to fill with portable files; `seal` it last. Becomes the bundle at `place`.

    Records of a bundle that stood there before are kept: they name by hash what they speak of.

    Raises:
        BundleError: something that is no bundle stands at `place`.
    """
    refuse_place(place)
    with locked(place), atomic_folder(place) as draft:
        if (place / "runs").is_dir():
            shutil.copytree(place / "runs", draft / "runs")
        yield draft


def refuse_place(place: Path) -> None:
    """Refuse to put a bundle where something else would be lost.

    Raises:
        BundleError: a file, or a folder that is neither empty nor a bundle, stands there.
    """
    if place.exists() and not is_bundle(place) and (not place.is_dir() or any(place.iterdir())):
        raise BundleError(
            "something that is no bundle stands there", where=place, mend="choose another --out"
        )


def seal(draft: Path, manifest: Manifest) -> None:
    """Write the manifest of a draft whose portable files are all there."""
    names = sorted(file.name for file in draft.iterdir() if file.is_file())
    files = {name: digest_of_file(draft / name) for name in names}
    _write_sealed(draft / _MANIFEST, dataclasses.replace(manifest, files=files).as_dict())


def is_bundle(path: Path) -> bool:
    """Whether a bundle's manifest lies there, whole or not."""
    return (path / _MANIFEST).is_file()


def _write_sealed(path: Path, data: dict[str, Any]) -> None:
    """JSON whose last key, "seal", is the digest of all the others."""
    plain = json.loads(json.dumps(data))
    text = json.dumps({**plain, "seal": digest_of(plain)}, indent=1, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def _read_sealed(path: Path, *, bundle: Path) -> dict[str, Any]:
    if not path.is_file():
        raise BundleError(f"no bundle: {path.name} is missing", where=bundle, mend="cnnx export makes one")
    try:
        text = path.read_bytes().decode("utf-8")
        data: dict[str, Any] = json.loads(text)
        seal = data.pop("seal")
        canonical = json.dumps({**data, "seal": seal}, indent=1, ensure_ascii=False) + "\n"
    except (ValueError, KeyError, AttributeError) as error:
        raise BundleError(f"{path.name} is damaged: {error}", where=path, mend=_MEND) from None
    # The text is compared too: a changed space or digit form would survive parsing.
    if digest_of(data) != seal or canonical != text:
        raise BundleError(f"{path.name} was changed after it was written", where=path, mend=_MEND)
    if data.get("schema") != SCHEMA:
        raise BundleError(
            f"{path.name} has schema {data.get('schema')}, this cnnx reads {SCHEMA}",
            where=path,
            mend="use the cnnx that wrote it, or export again",
        )
    return data


_MEND = "copy the bundle again from where it was made, or export it again"


def _check_file(file: Path, digest: str, *, bundle: Path) -> None:
    if not file.is_file():
        raise BundleError(f"{file.relative_to(bundle)} is missing", where=bundle, mend=_MEND)
    found = digest_of_file(file)
    if found != digest:
        raise BundleError(
            f"{file.relative_to(bundle)} was changed: its SHA-256 is {found[:12]}, not {digest[:12]}",
            where=bundle,
            mend=_MEND,
        )


def _from_dict(
    cls: type[Any], data: Mapping[str, Any], *, where: Path, later: frozenset[str] = frozenset()
) -> Any:
    """Build a dataclass from plain data that has its fields; `later` ones may be absent."""
    names = {f.name for f in dataclasses.fields(cls)}
    if odd := ", ".join(sorted((set(data) - names) | (names - set(data) - later))):
        raise BundleError(f"{where.name} has other fields than schema {SCHEMA} has: {odd}", where=where)
    return cls(**data)


def _manifest_from_dict(data: dict[str, Any], *, where: Path) -> Manifest:
    def tensor(info: dict[str, Any]) -> TensorInfo:
        return TensorInfo(**{**info, "shape": tuple(info["shape"])})

    def listed(images: dict[str, Any]) -> ImageList:
        return ImageList(**{**images, "skipped": tuple(images["skipped"])})

    try:
        parsed = {
            **data,
            "inputs": tuple(map(tensor, data["inputs"])),
            "outputs": tuple(map(tensor, data["outputs"])),
            "batch": tuple(data["batch"]),
            "layers": tuple(data["layers"]),
            "warnings": tuple(data["warnings"]),
            "images": {role: listed(images) for role, images in data["images"].items()},
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise BundleError(
            f"{where.name} does not have the fields of schema {SCHEMA}: {error}", where=where
        ) from None
    manifest: Manifest = _from_dict(Manifest, parsed, where=where)
    return manifest
