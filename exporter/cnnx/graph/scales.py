"""Scales that a file gives in its own Q/DQ, by layer, once these are removed from its graph."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cnnx.errors import BundleError
from cnnx.schema import Quantity, from_plain, read_json

if TYPE_CHECKING:
    from onnx import ModelProto


@dataclass(frozen=True, slots=True)
class FileScales:
    """Scales of a file that was quantized before, such as by quantization-aware training.

    They are kept by node, because simplification renames tensors and scales weights, but keeps the names of
    layers and sums.

    Attributes:
        inputs: node -> range, the |x| that maps to 127, of the data of a weighted layer (one value) or of
            both inputs of an Add (two); 0 if the file gives no scale.
        weights: weighted layer -> largest |w| of each output channel, in steps of its scale. Folding a
            BatchNormalization multiplies both by the same factor, so that the quotient stays.
        notes: notes for the user on scales that could not be kept as they are.
    """

    inputs: Mapping[str, tuple[Quantity, ...]]
    weights: Mapping[str, tuple[Quantity, ...]]
    notes: tuple[str, ...] = ()

    def to_json(self) -> str:
        """Serialize to JSON with exact floats."""
        return json.dumps(asdict(self)) + "\n"

    @classmethod
    def from_json(cls, text: str, *, where: Path) -> FileScales:
        """Read what `to_json` wrote to the file `where`.

        Raises:
            BundleError: the text is something else.
        """
        hint = "copy the file again, or export again"
        data = read_json(text, where=where, error=BundleError, hint=hint)
        return from_plain(cls, data, where=where, error=BundleError, hint=hint)

    def ranges(self, model: ModelProto) -> dict[str, float]:
        """Activation -> range, for each that the file gives a scale: the largest that a reader has."""
        found: dict[str, float] = {}
        for node in model.graph.node:
            for tensor, amax in zip(node.input, self.inputs.get(node.name, ()), strict=False):
                if amax:
                    found[tensor] = max(amax, found.get(tensor, 0.0))
        return found
