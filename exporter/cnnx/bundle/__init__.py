"""The bundle: one folder that holds all an engine was made from, and what it was judged to be.

    <bundle>/
      manifest.json      what it is; the SHA-256 of every portable file and of itself
      model.onnx         the typed or Q/DQ graph that every target compiles
      calibration.json   ranges and maxima (fp16 and int8)
      reference.npz      self-test: uint8 crops with the original's logits and the graph's
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
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from cnnx.bundle.engine import Engine, engine_from_dict
from cnnx.bundle.manifest import CALIBRATION as CALIBRATION
from cnnx.bundle.manifest import LABELS as LABELS
from cnnx.bundle.manifest import MODEL as MODEL
from cnnx.bundle.manifest import REFERENCE as REFERENCE
from cnnx.bundle.manifest import Manifest, manifest_from_dict
from cnnx.bundle.reference import Reference, read_reference
from cnnx.bundle.sealed import MEND, check_file, check_inside, read_sealed, write_sealed
from cnnx.errors import BundleError
from cnnx.machine.environment import detect
from cnnx.record import Record, RecordKind, Subject, read_record
from cnnx.store.cache import locked
from cnnx.store.drafts import settle
from cnnx.store.files import atomic_file, atomic_files, check_folder

MANIFEST, ENGINE = "manifest.json", "engine.json"


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
        settle(path)
        data = read_sealed(path / MANIFEST, bundle=path)
        bundle = cls(path, manifest_from_dict(data, where=path / MANIFEST))
        if verify:
            bundle.verify()
        return bundle

    def verify(self) -> None:
        """Check every portable file against the manifest.

        Raises:
            BundleError: a file is missing or has another hash.
        """
        for name, digest in self.manifest.files.items():
            check_file(self.path / name, digest, bundle=self.path)

    @property
    def model(self) -> Path:
        """The ONNX graph."""
        return self.path / MODEL

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes; empty where there are none.

        Raises:
            BundleError: the file is no text, or has another number of lines.
        """
        if LABELS not in self.manifest.files:
            return ()
        file, classes = self.path / LABELS, self.manifest.classes
        try:
            names = file.read_text(encoding="utf-8").removesuffix("\n").split("\n")
        except UnicodeDecodeError as error:
            raise BundleError(f"{LABELS} is not UTF-8: {error}", where=file, mend=MEND) from None
        if len(names) != classes:
            what = f"{LABELS} has {len(names)} lines, the network {classes} classes"
            raise BundleError(what, where=file, mend=MEND)
        return tuple(names)

    def reference(self) -> Reference:
        """The self-test, its file's hash checked.

        Raises:
            BundleError: it is missing, changed, or not as `cnnx.bundle.reference` writes it.
        """
        if REFERENCE not in self.manifest.files:
            raise BundleError(f"the manifest lists no {REFERENCE}", where=self.path, mend="export it again")
        file = self.path / REFERENCE
        check_file(file, self.manifest.files[REFERENCE], bundle=self.path)
        _, *shape = self.manifest.inputs[0].shape
        channels, height, width = (int(length or 0) for length in shape)
        return read_reference(file, shape=(channels, height, width), classes=self.manifest.classes)

    def engines(self) -> tuple[Engine, ...]:
        """Engines that were built from this graph, their descriptions verified."""
        return tuple(engine for engine in self._all_engines() if self._is_current(engine))

    def stale_engines(self) -> tuple[Engine, ...]:
        """Engines of another graph, as of the bundle that stood there before: nothing uses them."""
        return tuple(engine for engine in self._all_engines() if not self._is_current(engine))

    def _is_current(self, engine: Engine) -> bool:
        return engine.graph_digest == self.manifest.files.get(MODEL)

    def _all_engines(self) -> tuple[Engine, ...]:
        found = []
        for folder in self.path.glob("engines/*"):
            settle(folder)
        for file in sorted(self.path.glob(f"engines/*/{ENGINE}")):
            data = read_sealed(file, bundle=self.path)
            found.append(engine_from_dict(data, where=file))
        return tuple(found)

    def engine_file(self, engine: Engine) -> Path:
        """The engine's file, its hash checked.

        Raises:
            BundleError: it is missing, or a byte changed.
        """
        file = self.path / "engines" / engine.identity / engine.file
        check_file(file, engine.digest, bundle=self.path)
        return file

    def add_engine(self, engine: Engine, plan: Path) -> None:
        """Put an engine beside the portable part, replacing one of the same identity."""
        place = self.path / "engines" / engine.identity
        with locked(self.path), atomic_files(place, own=lambda: self._engine_files(place, engine)) as draft:
            shutil.copyfile(plan, draft / engine.file)
            write_sealed(draft / ENGINE, dataclasses.asdict(engine))

    def _engine_files(self, place: Path, engine: Engine) -> set[str]:
        """Names that this engine takes, and those of one that it replaces."""
        standing = [each.file for each in self._all_engines() if each.identity == place.name]
        return {ENGINE, engine.file, *standing}

    def check_place(self, folder: Literal["engines", "runs"]) -> None:
        """Find out, before long work, whether an engine or a record could be kept.

        Raises:
            WriteFailed: it could not.
        """
        check_folder(self.path / folder)

    def keep(self, kind: RecordKind, subject: Subject, result: Mapping[str, Any]) -> Record:
        """Keep what was judged, measured or diagnosed on this machine as a record under runs/.

        Raises:
            WriteFailed: it cannot be written.
        """
        record = Record(kind, subject, detect().as_dict(), result)
        self.add_record(record)
        return record

    def add_record(self, record: Record) -> Path:
        """Keep a record under runs/; gives its path."""
        place = self.path / "runs" / record.file_name
        with atomic_file(place) as draft:
            draft.write_text(json.dumps(record.as_dict(), indent=1) + "\n", encoding="utf-8")
        return place

    def records(self) -> tuple[Record, ...]:
        """Records under runs/, oldest first; damaged ones are left out.

        Results have any content here: `cnnx.pipeline.records.verified` checks them, and what they are worth.
        """
        found = []
        for file in self.record_files():
            with contextlib.suppress(BundleError):
                found.append(self.record(file))
        return tuple(found)

    def record_files(self) -> tuple[Path, ...]:
        """Files of records under runs/, oldest first."""
        return tuple(sorted(self.path.glob("runs/*.json")))

    def record(self, file: Path) -> Record:
        """One record under runs/.

        Raises:
            BundleError: it is damaged, of another schema, or lies outside the bundle.
        """
        check_inside(file, bundle=self.path)
        return read_record(file)


def is_bundle(path: Path) -> bool:
    """Whether a bundle's manifest lies there, whole or not."""
    return (path / MANIFEST).is_file()
