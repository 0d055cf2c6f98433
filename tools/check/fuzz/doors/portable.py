"""The portable files of a bundle beside its manifest, under a seal and hashes that fit again."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

from cnnx.errors import CnnxError
from tools.check.fuzz.bundled import digit, small_bundle
from tools.check.fuzz.door import Files
from tools.check.fuzz.doors.bundles import BundleDoor, bytes_of
from tools.check.fuzz.doors.graphs import GraphDoor
from tools.check.fuzz.mutators import archives, octets, text
from tools.check.fuzz.states import states


class CalibrationDoor(BundleDoor):
    """calibration.json."""

    name, reads, file = "calibration", "calibration.json of a bundle", "calibration.json"

    def read(self, folder: Path) -> Any:
        """As `diagnose` reads it, which then compares the graph that follows from it with the bundle's."""
        import dataclasses

        from cnnx.bundle import Bundle
        from cnnx.quant.calibration import calibration_in

        Bundle.open(folder)
        return dataclasses.asdict(calibration_in(folder / self.file))

    def legitimate(self, before: Any, after: Any, folder: Path) -> str:
        document = json.loads((folder / self.file).read_text(encoding="utf-8"))
        del document["schema"]
        document["means"] = {name: list(map(float, row.split())) for name, row in document["means"].items()}
        return "other ranges, as it states" if states(after, document) else ""

    def command(self, folder: Path) -> list[str]:
        network = str(small_bundle().parent / "tiny.onnx")
        return ["diagnose", str(folder), "--images", "8", "--model", network]


class SourceDoor(BundleDoor):
    """source.onnx and source-statistics.npz, from which a bundle can be typed again."""

    name, reads = "source", "source.onnx and source-statistics.npz of a bundle"
    lenient = True  # `inspect` reads no more than their hashes

    def mutate(self, dice: Random, files: Files) -> tuple[Files, str]:
        if dice.random() < 0.5:
            graph, how = GraphDoor().mutate(dice, {"m.onnx": files["source.onnx"]})
            return {**files, "source.onnx": graph["m.onnx"]}, how
        name = "source-statistics.npz"
        changed, how = archives.zip_edit(dice, bytes_of(files[name]), archives.npy)
        return {**files, name: changed}, how

    def read(self, folder: Path) -> Any:
        """The statistics, and whether the graph that follows is the bundle's."""
        import tempfile

        from cnnx.bundle import Bundle
        from cnnx.pipeline.source import read_source

        bundle = Bundle.open(folder)
        source = read_source(bundle)
        assert source.statistics is not None
        found = source.statistics.read()
        with tempfile.TemporaryDirectory() as scratch:
            typed = source.write_typed(Path(scratch)).read_bytes()
        return sorted(found.sampled), typed == bundle.model.read_bytes()

    def legitimate(self, before: Any, after: Any, folder: Path) -> str:
        return "another source, of which another graph follows" if not after[1] else ""

    def command(self, folder: Path) -> list[str]:
        return ["inspect", str(folder)]


class ReferenceDoor(BundleDoor):
    """reference.npz."""

    name, reads, file = "self-test", "reference.npz of a bundle", "reference.npz"

    def change(self, dice: Random, content: bytes) -> tuple[bytes, str]:
        return archives.zip_edit(dice, content, archives.npy)

    def read(self, folder: Path) -> Any:
        from cnnx.bundle import Bundle

        found = Bundle.open(folder).reference()
        arrays = (found.crops, found.original, found.graph, found.labels)
        return (
            [None if each is None else (each.shape, each.tobytes()) for each in arrays],
            found.ids,
            found.used,
        )

    def legitimate(self, before: Any, after: Any, folder: Path) -> str:
        """NumPy reads the same arrays."""
        import numpy as np

        with np.load(folder / self.file, allow_pickle=False) as other:
            names = ("crops", "original", "graph", "labels")
            theirs = [(other[name].shape, other[name].tobytes()) if name in other else None for name in names]
        return "another self-test, as NumPy reads it" if repr(theirs) == repr(after[0]) else ""

    def command(self, folder: Path) -> list[str]:
        return ["validate", str(folder), "--target", "ort"]


class LabelsDoor(BundleDoor):
    """labels.txt."""

    name, reads, file = "labels.txt", "labels.txt of a bundle", "labels.txt"

    def change(self, dice: Random, content: bytes) -> tuple[bytes, str]:
        return octets.damage(dice, content) if dice.random() < 0.3 else text.encoded(dice, content.decode())

    def read(self, folder: Path) -> Any:
        from cnnx.bundle import Bundle

        return Bundle.open(folder).labels

    def legitimate(self, before: Any, after: Any, folder: Path) -> str:
        """Lines end with line feeds only; carriage returns end lines as Python's own reading has it."""
        content = (folder / self.file).read_bytes().decode("utf-8")
        lines = content.replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n").split("\n")
        return "other names, as the file states" if list(after) == lines else ""

    def command(self, folder: Path) -> list[str]:
        return ["classify", str(folder), str(digit())]


class BundleGraphDoor(BundleDoor):
    """model.onnx."""

    name, reads, file = "model.onnx", "model.onnx of a bundle", "model.onnx"

    def change(self, dice: Random, content: bytes) -> tuple[bytes, str]:
        changed, how = GraphDoor().mutate(dice, {"m.onnx": content})
        return bytes_of(changed["m.onnx"]), how

    def read(self, folder: Path) -> Any:
        """What it computes for images of the self-test, in ONNX Runtime as the bundle's commands run it."""
        import cnnx

        with cnnx.load(folder, target="ort") as net:
            crops = net.bundle.reference().crops[:2]
            return net.names, net.predict_crops(crops).logits.tobytes()

    def legitimate(self, before: Any, after: Any, folder: Path) -> str:
        """The names are as before, and the self-test judges what the network computes."""
        from cnnx.bundle import Bundle
        from cnnx.pipeline.progress import Steps, silent
        from cnnx.pipeline.target import open_subject
        from cnnx.pipeline.validate import run_self_test

        bundle = Bundle.open(folder)
        try:
            tested = run_self_test(open_subject(bundle, "ort"), bundle, steps=Steps(silent))
        except CnnxError:
            return "another network, which the self-test refuses"
        word = {"failed": "fails", "passed": "passes"}.get(tested.verdict.value, "is not decided by")
        return f"another network, which {word} the self-test" if after[0] == before[0] else ""

    def command(self, folder: Path) -> list[str]:
        return ["validate", str(folder), "--target", "ort"]


DOORS = (CalibrationDoor(), SourceDoor(), ReferenceDoor(), LabelsDoor(), BundleGraphDoor())
