"""Bundles: folders with everything that engines are built from, and the records of their validation.

    <bundle>/
      manifest.json      description; SHA-256 of every portable file and of the manifest itself
      model.onnx         typed or Q/DQ graph that every target compiles
      calibration.json   ranges and maxima (fp16 and int8)
      reference.npz      self-test: uint8 crops with the logits of the original and of the graph
      labels.txt         one class name per line, if the network has class names
      source.onnx, source-statistics.npz, source-scales.json
                         what model.onnx was made from, if exported with --with-source: the FP32 graph, the
                         statistics of its activations, and the scales of a file that had Q/DQ
      model.sig          signature of cnnx sign, if the bundle was signed
      engines/<identity>/    engine file of a runtime, its engine.json, and what the builder reported: layers
                             (inspector.json, layers.log) and the end of its log (build.log)
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
from cnnx.bundle.manifest import SOURCE as SOURCE
from cnnx.bundle.manifest import SOURCE_SCALES as SOURCE_SCALES
from cnnx.bundle.manifest import SOURCE_STATISTICS as SOURCE_STATISTICS
from cnnx.bundle.manifest import Manifest, manifest_from_dict, recipe_of
from cnnx.bundle.reference import Reference, read_reference
from cnnx.bundle.sealed import HINT, check_file, check_inside, read_sealed, write_sealed
from cnnx.bundle.signature import sign_again
from cnnx.errors import BundleError
from cnnx.limits import JSON_BYTES
from cnnx.machine.environment import detect
from cnnx.record import Record, RecordKind, Subject, read_record
from cnnx.store.cache import locked
from cnnx.store.drafts import settle
from cnnx.store.files import atomic_file, atomic_files, check_folder
from cnnx.store.reading import read_text

MANIFEST, ENGINE = "manifest.json", "engine.json"
EVIDENCE = ("inspector.json", "layers.log", "build.log")
"""Files beside an engine with what its builder reported. They explain its speed, and are not sealed."""


class Bundle:
    """An opened bundle with a verified manifest; its files are verified on request."""

    def __init__(self, path: Path, manifest: Manifest, *, signed: Mapping[str, str] | None = None) -> None:
        self.path = path
        self.manifest = manifest
        self.signed = signed

    @classmethod
    def open(cls, path: Path, *, verify: bool = True, signed: Mapping[str, str] | None = None) -> Bundle:
        """Open a bundle.

        Args:
            path: folder of the bundle.
            verify: check the hash of every portable file, not only of the manifest.
            signed: SHA-256 of each file, from a verified signature (`cnnx.pipeline.sign.trust`). Engines that
                are not among them are refused. None: a signature is not required.

        Raises:
            BundleError: not a bundle, incomplete, modified, or with a schema that this cnnx does not know.
        """
        settle(path)
        digest = None if signed is None else signed.get(MANIFEST, "")
        data = read_sealed(path / MANIFEST, bundle=path, digest=digest)
        bundle = cls(path, manifest_from_dict(data, where=path / MANIFEST), signed=signed)
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

    def source_sizes(self) -> dict[str, int]:
        """Size in bytes of each file of the source; empty if the bundle does not hold it."""
        names = (SOURCE, SOURCE_STATISTICS, SOURCE_SCALES)
        return {name: (self.path / name).stat().st_size for name in names if name in self.manifest.files}

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
        shape = recipe_of(self.manifest).input.shape
        return read_reference(file, shape=shape, classes=self.manifest.classes)

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
            BundleError: the file is missing or modified, or not signed, if a signature is required.
        """
        self.check_signed(engine)
        file = self.path / "engines" / engine.identity / engine.file
        check_file(file, engine.digest, bundle=self.path)
        return file

    def check_signed(self, engine: Engine) -> None:
        """Refuse an engine that the signature does not cover, if a signature is required.

        Raises:
            BundleError: it was added or replaced after the bundle was signed.
        """
        if self.signed is None:
            return
        folder = f"engines/{engine.identity}"
        description = self.signed.get(f"{folder}/{ENGINE}")
        if description is None or self.signed.get(f"{folder}/{engine.file}") != engine.digest:
            raise BundleError(
                f"the signature does not cover {folder}: the engine was added or replaced after signing",
                where=self.path,
                hint=f"if you trust the engine, {sign_again(self.path)}; or run the graph with --target ort",
            )
        read_sealed(self.path / folder / ENGINE, bundle=self.path, digest=description)

    def add_engine(self, engine: Engine, plan: Path) -> None:
        """Add an engine and the files of `EVIDENCE` beside it; replaces an engine with the same identity."""
        folder = self.path / "engines" / engine.identity
        with locked(self.path), atomic_files(folder, own=lambda: self._engine_files(folder, engine)) as draft:
            shutil.copyfile(plan, draft / engine.file)
            for name in EVIDENCE:
                if (plan.parent / name).is_file():
                    shutil.copyfile(plan.parent / name, draft / name)
            write_sealed(draft / ENGINE, dataclasses.asdict(engine))

    def _engine_files(self, folder: Path, engine: Engine) -> set[str]:
        """File names of an engine and of the engine it replaces."""
        replaced = [each.file for each in self._all_engines() if each.identity == folder.name]
        return {ENGINE, engine.file, *EVIDENCE, *replaced}

    def evidence(self, engine: str) -> dict[str, str]:
        """What the builder of an engine reported: name of a file of `EVIDENCE` -> text, where it can be read.

        Args:
            engine: identity of the engine.
        """
        found = {}
        for name in EVIDENCE:
            file = self.path / "engines" / engine / name
            with contextlib.suppress(OSError, UnicodeDecodeError, BundleError):
                check_inside(file, bundle=self.path)
                found[name] = read_text(file, most=JSON_BYTES)
        return found

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
