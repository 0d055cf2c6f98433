"""The files that steps keep in the cache, by type, so that steps need not import one another."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnnx.graph.scales import FileScales
from cnnx.quant.calibration import Calibration
from cnnx.quant.observation import Observation
from cnnx.store.cache import Entry

MODEL = "model.onnx"
NOTES = "notes.json"
SCALES = "scales.json"
LOGITS = "logits.npy"
STATISTICS = "statistics.npz"
RANGES = "calibration.json"
LAYERS = "layers.json"
BUILT = "built.json"


@dataclass(frozen=True, slots=True)
class Artefact:
    """The files of one finished step."""

    entry: Entry

    @property
    def key(self) -> str:
        """Its cache key, for the inputs of steps that read it."""
        return self.entry.key

    @property
    def folder(self) -> Path:
        """The folder of its files."""
        return self.entry.folder


class Fp32Graph(Artefact):
    """The simplified FP32 graph of the original, as exported or with its channels equalized."""

    __slots__ = ()

    @property
    def model(self) -> Path:
        """The ONNX file."""
        return self.folder / MODEL

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes of loading the weights; only for the graph as exported."""
        return tuple(json.loads((self.folder / NOTES).read_text(encoding="utf-8")))

    @property
    def scales_file(self) -> Path:
        """Where `scales` are kept; no file if there are none."""
        return self.folder / SCALES

    @property
    def scales(self) -> FileScales | None:
        """The scales of the file's Q/DQ; None if it had none, or equalization changed what they scale."""
        file = self.scales_file
        return FileScales.from_json(file.read_text(encoding="utf-8"), where=file) if file.is_file() else None


class ReferenceLogits(Artefact):
    """The logits of the original."""

    __slots__ = ()

    @property
    def logits(self) -> NDArray[np.float32]:
        """(N, classes), for the validation images in their order."""
        logits: NDArray[np.float32] = np.load(self.folder / LOGITS, allow_pickle=False)
        return logits


def write_logits(folder: Path, logits: NDArray[np.float32]) -> None:
    """Write logits, (N, classes), to `LOGITS` in a folder.

    NumPy's own writing to a file gives its error on a full disk no errno.
    """
    content = io.BytesIO()
    np.save(content, logits)
    (folder / LOGITS).write_bytes(content.getbuffer())


class Statistics(Artefact):
    """Statistics of an FP32 graph's activations; they serve every range method."""

    __slots__ = ()

    @property
    def file(self) -> Path:
        """The file of the observation."""
        return self.folder / STATISTICS

    def read(self) -> Observation:
        """The observation."""
        return Observation.load(self.file)


class Ranges(Artefact):
    """The ranges that one method chose."""

    __slots__ = ()

    @property
    def file(self) -> Path:
        """`calibration.json`, as in a bundle."""
        return self.folder / RANGES

    def read(self) -> Calibration:
        """The calibration."""
        return Calibration.from_json(self.file.read_text(encoding="utf-8"))


class TypedGraph(Artefact):
    """The typed or Q/DQ graph, which every target compiles."""

    __slots__ = ()

    @property
    def model(self) -> Path:
        """The ONNX file."""
        return self.folder / MODEL

    @property
    def described(self) -> dict[str, Any]:
        """The plan of its layers and the linter's findings; see `typed_graph.type_graph`."""
        described: dict[str, Any] = json.loads((self.folder / LAYERS).read_text(encoding="utf-8"))
        return described

    @property
    def input_notes(self) -> tuple[str, ...]:
        """What a graph that resizes changes; only for one that takes frames."""
        return tuple(self.described.get("input_notes", ()))


class Engines(Artefact):
    """Engines built from a typed graph, one folder each."""

    __slots__ = ()

    def read(self) -> list[tuple[Path, dict[str, Any]]]:
        """Each engine's file, and what its build reported."""
        folders = sorted(path for path in self.folder.iterdir() if path.is_dir())
        return [(path / built["file"], built) for path in folders if (built := read_built(path))]


def read_built(folder: Path) -> dict[str, Any]:
    """What the build of the engine in a folder reported."""
    built: dict[str, Any] = json.loads((folder / BUILT).read_text(encoding="utf-8"))
    return built
