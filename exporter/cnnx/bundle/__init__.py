"""Bundles: folders with everything that engines are built from, and the records of their validation.

    <bundle>/
      manifest.json      description; SHA-256 of every portable file and of the manifest itself
      model.onnx         typed or Q/DQ graph that every target compiles
      calibration.json   ranges and maxima (fp16 and int8)
      reference.npz      self-test: uint8 crops with the logits of the original and of the graph
      labels.txt         one class name per line, if the network has class names
      engines/<identity>/    engine file of a runtime, and its engine.json
      runs/              records

The files outside engines/ and runs/ are portable and never change once written. No file is loaded before its
hash is checked.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
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
from cnnx.bundle.sealed import HINT, check_file, check_inside, read_sealed, write_sealed
from cnnx.errors import BundleError
from cnnx.machine.environment import detect
from cnnx.record import Record, RecordKind, Subject, read_record
from cnnx.store.cache import locked
from cnnx.store.drafts import settle
from cnnx.store.files import atomic_file, atomic_files, check_folder

MANIFEST, ENGINE = "manifest.json", "engine.json"


class Bundle:
    """An opened bundle with a verified manifest; its files are verified on request."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest

    @classmethod
    def open(cls, path: Path, *, verify: bool = True) -> Bundle:
        """Open a bundle.

        Args:
            path: folder of the bundle.
            verify: check the hash of every portable file, not only of the manifest.

        Raises:
            BundleError: not a bundle, incomplete, modified, or with a schema that this cnnx does not know.
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
            BundleError: a file is missing or has a different hash.
        """
        for name, digest in self.manifest.files.items():
            check_file(self.path / name, digest, bundle=self.path)

    @property
    def model(self) -> Path:
        """Path of the ONNX graph."""
        return self.path / MODEL

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names; empty if the bundle has none.

        Raises:
            BundleError: the file is not UTF-8 text, or its number of lines is not the number of classes.
        """
        if LABELS not in self.manifest.files:
            return ()
        file, classes = self.path / LABELS, self.manifest.classes
        try:
            names = file.read_text(encoding="utf-8").removesuffix("\n").split("\n")
        except UnicodeDecodeError as error:
            raise BundleError(f"{LABELS} is not UTF-8: {error}", where=file, hint=HINT) from None
        if len(names) != classes:
            what = f"{LABELS} has {len(names)} lines, but the network has {classes} classes"
            raise BundleError(what, where=file, hint=HINT)
        return tuple(names)

    def reference(self) -> Reference:
        """Read the self-test after checking its hash.

        Raises:
            BundleError: the file is missing, modified, or not in the format of `cnnx.bundle.reference`.
        """
        if REFERENCE not in self.manifest.files:
            what = f"the manifest does not list {REFERENCE}"
            raise BundleError(what, where=self.path / MANIFEST, hint="export the bundle again")
        file = self.path / REFERENCE
        check_file(file, self.manifest.files[REFERENCE], bundle=self.path)
        _, *shape = self.manifest.inputs[0].shape
        channels, height, width = (int(length or 0) for length in shape)
        return read_reference(file, shape=(channels, height, width), classes=self.manifest.classes)

    def engines(self) -> tuple[Engine, ...]:
        """Engines built from this graph, with verified descriptions."""
        return tuple(engine for engine in self._all_engines() if self._is_current(engine))

    def stale_engines(self) -> tuple[Engine, ...]:
        """Engines built from a different graph, such as that of a replaced bundle; they are not used."""
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
        """Path of an engine file after checking its hash.

        Raises:
            BundleError: the file is missing or modified.
        """
        file = self.path / "engines" / engine.identity / engine.file
        check_file(file, engine.digest, bundle=self.path)
        return file

    def add_engine(self, engine: Engine, plan: Path) -> None:
        """Add an engine to the bundle; replaces an engine with the same identity."""
        folder = self.path / "engines" / engine.identity
        with locked(self.path), atomic_files(folder, own=lambda: self._engine_files(folder, engine)) as draft:
            shutil.copyfile(plan, draft / engine.file)
            write_sealed(draft / ENGINE, dataclasses.asdict(engine))

    def _engine_files(self, folder: Path, engine: Engine) -> set[str]:
        """File names of an engine and of the engine it replaces."""
        replaced = [each.file for each in self._all_engines() if each.identity == folder.name]
        return {ENGINE, engine.file, *replaced}

    def check_place(self, folder: Literal["engines", "runs"]) -> None:
        """Check before long work that an engine or a record can be written.

        Raises:
            WriteFailed: it cannot be written.
        """
        check_folder(self.path / folder)

    def keep(self, kind: RecordKind, subject: Subject, result: Mapping[str, Any]) -> Record:
        """Write a validation, measurement or diagnosis on this machine as a record under runs/.

        Raises:
            WriteFailed: the record cannot be written.
        """
        record = Record(kind, subject, detect().as_dict(), result)
        self.add_record(record)
        return record

    def add_record(self, record: Record) -> Path:
        """Write a record under runs/ and return its path."""
        file = self.path / "runs" / record.file_name
        with atomic_file(file) as draft:
            draft.write_text(_with_short_lists(json.dumps(record.as_dict(), indent=1)) + "\n", "utf-8")
        return file

    def records(self) -> tuple[Record, ...]:
        """Records under runs/, oldest first, without damaged records.

        The contents of the results are not checked here; see `cnnx.pipeline.records.verified`.
        """
        found = []
        for file in self.record_files():
            with contextlib.suppress(BundleError):
                found.append(self.record(file))
        return tuple(found)

    def record_files(self) -> tuple[Path, ...]:
        """Record files under runs/, oldest first."""
        return tuple(sorted(self.path.glob("runs/*.json")))

    def record(self, file: Path) -> Record:
        """Read a record under runs/.

        Raises:
            BundleError: the record is damaged, has a different schema, or is outside the bundle.
        """
        check_inside(file, bundle=self.path)
        return read_record(file)


def _with_short_lists(text: str) -> str:
    """Indented JSON with each list of numbers on one line: a record can have 100,000 of them."""
    return re.sub(r"\[\n[-+.\deE,\s]*\]", lambda found: re.sub(r"\s+", " ", found[0]), text)


def is_bundle(path: Path) -> bool:
    """Whether a folder has a bundle manifest, valid or not."""
    return (path / MANIFEST).is_file()
