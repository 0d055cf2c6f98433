"""Signatures of bundles, and the keys that they are checked with."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path
from random import Random
from typing import Any, ClassVar

from tools.check.fuzz.bundled import apart, files_of_bundle, small_bundle
from tools.check.fuzz.door import Door, Files
from tools.check.fuzz.doors.recipes import text_of
from tools.check.fuzz.mutators import octets, plain, text

_SIGNATURE, _KEY = "b/model.sig", "key.pub"


class SignedDoor(Door):
    """A signed bundle, of which the signature is changed."""

    name, reads = "signature", "model.sig of a bundle"
    changes: ClassVar[str] = _SIGNATURE

    def prepare(self) -> None:
        import cnnx.pipeline.sign.openssf
        import cnnx.pipeline.sign.verify  # noqa: F401

        import model_signing.verifying  # noqa: F401  isort: skip

    def seeds(self, scratch: Path) -> dict[str, Files]:
        bundle = scratch / "signed"
        shutil.copytree(small_bundle(), bundle)
        apart(sign, bundle, scratch)
        files = {
            f"b/{name}": content
            for name, content in files_of_bundle().items()
            if not name.startswith("runs/")
        }
        signature, public = (bundle / "model.sig").read_bytes(), (scratch / "key.pub").read_bytes()
        return {"key": {**files, _SIGNATURE: signature, _KEY: public}}

    def mutate(self, dice: Random, files: Files) -> tuple[Files, str]:
        data = json.loads(text_of(files, _SIGNATURE))
        if dice.random() < 0.5:
            changed, how = plain.json_text(dice, data)
            return {**files, _SIGNATURE: changed}, how
        payload = base64.b64decode(data["dsseEnvelope"]["payload"])
        inner, how = plain.json_text(dice, json.loads(payload))
        data["dsseEnvelope"]["payload"] = base64.b64encode(inner).decode()
        return {**files, _SIGNATURE: json.dumps(data).encode()}, f"payload: {how}"

    def read(self, folder: Path) -> Any:
        from cnnx.pipeline.sign.trust import open_bundle

        return open_bundle(folder / "b", folder / _KEY).signed

    def command(self, folder: Path) -> list[str]:
        return ["verify", str(folder / "b"), "--key", str(folder / _KEY)]


def sign(bundle: Path, folder: Path) -> None:
    """Sign a bundle with a key pair that is made in a folder."""
    import cnnx
    from tests.inputs.keys import key_pair

    private, _ = key_pair(folder, "key")
    cnnx.sign(bundle, key=private)


class SignedFilesDoor(SignedDoor):
    """A signed bundle, of which any other file is changed, added or removed."""

    name, reads = "signed files", "the files of a signed bundle"

    def mutate(self, dice: Random, files: Files) -> tuple[Files, str]:
        name = dice.choice([name for name in files if name not in (_SIGNATURE, _KEY)])
        match dice.randrange(4):
            case 0:
                return {path: content for path, content in files.items() if path != name}, "missing file"
            case 1:
                added = dice.choice(("b/x", "b/engines/x/y", "b/runs/x", "b/.git/x", f"{name}x"))
                return {**files, added: b"x"}, "added file"
            case 2:
                target = dice.choice((Path("/etc/passwd"), Path("model.onnx"), Path("absent")))
                return {**files, name: target}, "link"
            case _:
                content = files[name]
                assert isinstance(content, bytes)
                changed, how = octets.damage(dice, content)
                return {**files, name: changed}, how

    def legitimate(self, before: Any, after: Any, folder: Path) -> str:
        return ""


class KeyDoor(SignedDoor):
    """The public key that a signature is checked with."""

    name, reads = "key", "a public key (PEM)"

    def mutate(self, dice: Random, files: Files) -> tuple[Files, str]:
        content = text_of(files, _KEY)
        if dice.random() < 0.15:
            made = (
                "-----BEGIN CERTIFICATE-----\nMAo=\n-----END CERTIFICATE-----\n",
                content + content,
                "",
                "PRIVATE KEY",
            )
            return {**files, _KEY: dice.choice(made).encode()}, "other PEM"
        damage = octets.damage(dice, content.encode()) if dice.random() < 0.5 else text.encoded(dice, content)
        return {**files, _KEY: damage[0]}, damage[1]


DOORS = (SignedDoor(), SignedFilesDoor(), KeyDoor())
