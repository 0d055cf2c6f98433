"""The files of a bundle: changed as they lie there, or under a seal and hashes that fit again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any, ClassVar

from tools.check.fuzz.bundled import digit, files_of_bundle
from tools.check.fuzz.door import Content, Door, Files
from tools.check.fuzz.mutators import octets, plain
from tools.check.fuzz.states import states

_MANIFEST = "manifest.json"
_PORTABLE = (
    "model.onnx", "calibration.json", "reference.npz", "labels.txt", "source.onnx", "source-statistics.npz",
)  # fmt: skip
_UNSEALED = 0.12
"""Share of changes that leave the seals as they were, so that each must be refused."""


class BundleDoor(Door):
    """A bundle of which one file is changed."""

    file: ClassVar[str]

    def prepare(self) -> None:
        import cnnx.pipeline.classify.classifier
        import cnnx.pipeline.inspect
        import cnnx.pipeline.records.verified
        import cnnx.runtimes.ort.runtime  # noqa: F401

    def seeds(self, scratch: Path) -> dict[str, Files]:
        files = files_of_bundle()
        kept = {name: content for name, content in files.items() if not name.startswith("runs/")}
        return {"bundle": {name: _without_seal(name, content) for name, content in kept.items()}}

    def path(self, files: Files) -> str:
        """Path of the file to change."""
        return self.file

    def mutate(self, dice: Random, files: Files) -> tuple[Files, str]:
        name = self.path(files)
        if dice.random() < _UNSEALED:
            sealed = dict(self.finished(files))
            changed, how = octets.damage(dice, bytes_of(sealed[name]))
            return {**sealed, name: changed}, f"without a seal: {how}"
        changed, how = self.change(dice, bytes_of(files[name]))
        return {**files, name: changed}, how

    def change(self, dice: Random, content: bytes) -> tuple[bytes, str]:
        """A change of the file's content that is sealed afterwards."""
        return plain.json_text(dice, json.loads(content))

    def finished(self, files: Files) -> Files:
        """With fresh hashes in the manifest, and fresh seals, where none is there."""
        sealed = dict(files)
        for name in sorted(files, key=lambda each: each == _MANIFEST):
            if name.endswith(("engine.json", _MANIFEST)):
                sealed[name] = _sealed(name, sealed)
        return sealed

    def command(self, folder: Path) -> list[str]:
        return ["inspect", str(folder)]


class ManifestDoor(BundleDoor):
    """manifest.json."""

    name, reads, file = "manifest", "manifest.json of a bundle", _MANIFEST

    def read(self, folder: Path) -> Any:
        """The manifest, and what the bundle computes by it."""
        import numpy as np

        import cnnx
        from cnnx.schema import plain_of

        with cnnx.load(folder, target="ort") as net:
            crops = net.bundle.reference().crops[:2]
            logits = np.round(net.predict_crops(crops).logits.astype(np.float64), 4)
            return plain_of(net.bundle.manifest), net.names, logits.tolist()

    def legitimate(self, before: Any, after: Any, folder: Path) -> str:
        from cnnx.schema import with_hints

        document = with_hints(json.loads((folder / _MANIFEST).read_text(encoding="utf-8")))
        document.pop("seal")
        named = "labels.txt" in document["files"]
        if not states(after[0], document) or after[1] != (
            before[1] if named else _indices(document["classes"])
        ):
            return ""
        same = repr(before[2]) == repr(after[2])
        return "another description, as it states" if same else "other preprocessing, as it states"

    def command(self, folder: Path) -> list[str]:
        return ["classify", str(folder), str(digit())]


class EngineDoor(BundleDoor):
    """engine.json."""

    name, reads = "engine.json", "engine.json of a bundle"

    def prepare(self) -> None:
        import cnnx.pipeline.preflight.preflight  # noqa: F401
        from cnnx.machine.environment import detect

        super().prepare()
        self.machine = detect()

    def path(self, files: Files) -> str:
        return next(name for name in files if name.endswith("engine.json"))

    def read(self, folder: Path) -> Any:
        """The descriptions, and how they compare with this machine."""
        from cnnx.bundle import Bundle
        from cnnx.pipeline.preflight.checks import engine_checks
        from cnnx.schema import plain_of

        bundle = Bundle.open(folder)
        engines = (*bundle.engines(), *bundle.stale_engines())
        for engine in engines:
            bundle.engine_file(engine)
            for check in engine_checks(engine, self.machine, version="1.7.1", bundle=folder):
                check.error(folder)
        return [plain_of(engine) for engine in engines]

    def legitimate(self, before: Any, after: Any, folder: Path) -> str:
        file = next(folder.glob("engines/*/engine.json"))
        document = json.loads(file.read_text(encoding="utf-8"))
        document.pop("seal")
        return "another description, as it states" if states(after[0], document) else ""

    def command(self, folder: Path) -> list[str]:
        return ["preflight", str(folder)]


class PlanDoor(EngineDoor):
    """An engine's file: its header is read; nothing loads it here."""

    name, reads = "engine", "the file of an engine, of which the header is read"

    def path(self, files: Files) -> str:
        return next(name for name in files if name.endswith("model.engine"))

    def change(self, dice: Random, content: bytes) -> tuple[bytes, str]:
        headed = dice.choice((b"ftrt", b"vtrt", b"xtrt")) + bytes(20) + bytes([10, 3, 0, 26]) + content
        return octets.damage(dice, headed)

    def legitimate(self, before: Any, after: Any, folder: Path) -> str:
        engine = next(folder.glob("engines/*/model.engine")).read_bytes()
        stated = hashlib.sha256(engine).hexdigest()
        return "another engine, described by its hash" if after[0]["digest"] == stated else ""


def _indices(classes: int) -> tuple[str, ...]:
    """Names of classes that have none."""
    return tuple(map(str, range(classes)))


def bytes_of(content: Content) -> bytes:
    """The content of a file that is no link and no pipe."""
    assert isinstance(content, bytes)
    return content


def _without_seal(name: str, content: Content) -> Content:
    if not name.endswith(("engine.json", _MANIFEST)):
        return content
    data = json.loads(bytes_of(content))
    del data["seal"]
    return json.dumps(data, indent=1, ensure_ascii=False).encode()


def _sealed(name: str, files: Mapping[str, Content]) -> bytes:
    """A description with fresh hashes and a fresh seal; as it is if it is damaged, or sealed already."""
    from cnnx.store.digests import digest_of

    content = bytes_of(files[name])
    try:
        data = json.loads(content)
        if "seal" in data:
            return content
        if name == _MANIFEST and isinstance(data.get("files"), dict):
            for file in data["files"].keys() & set(_PORTABLE):
                data["files"][file] = _fresh(data["files"][file], files[file])
        elif name != _MANIFEST:
            plan = next(each for each in files if each.endswith("model.engine"))
            data["digest"] = _fresh(data.get("digest"), files[plan])
        plainly = json.loads(json.dumps(data))
        text_of_it = json.dumps({**plainly, "seal": digest_of(plainly)}, indent=1, ensure_ascii=False) + "\n"
        return text_of_it.encode("utf-8", "surrogatepass")
    except (ValueError, TypeError, AttributeError, RecursionError, KeyError):
        return content


def _fresh(stated: Any, content: Content) -> Any:
    """The hash of a file in place of another; a change of the key's type stays."""
    valid = isinstance(stated, str) and len(stated) == 64
    return hashlib.sha256(bytes_of(content)).hexdigest() if valid else stated


DOORS = (ManifestDoor(), EngineDoor(), PlanDoor())
