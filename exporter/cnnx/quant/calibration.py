"""Calibration: a range for each tensor that INT8 will carry, as calibration.json keeps it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from cnnx.errors import BundleError
from cnnx.schema import Count, Positive, Quantity, Rate, from_plain, read_json

SCHEMA: Literal[2] = 2
"""Counts up when a field changes its meaning. 1: first; 2: means."""

_NUMBER = r"-?[0-9]{1,9}(\.[0-9]{1,20})?(e[+-]?[0-9]{1,2})?"
Numbers = Annotated[
    str,
    Meta(pattern=rf"^({_NUMBER}( {_NUMBER})*)?(?![\s\S])", description="numbers with spaces between them"),
]


@dataclass(frozen=True, slots=True)
class TensorRange:
    """The range one tensor is quantized to.

    Attributes:
        amax: |x| that becomes 127; 0 where no range could be had (all zeros, or values not finite).
        maximum: largest finite |x| seen.
        method: a name in `cnnx.quant.methods.METHODS`.
        saturated_share: share of the non-zero values beyond amax, of those sampled.
        zeros_share: share of exact zeros among those sampled; None where none was finite.
    """

    amax: Quantity
    maximum: Quantity
    method: str
    saturated_share: Rate
    zeros_share: Rate | None


@dataclass(frozen=True, slots=True)
class Calibration:
    """What a calibration set showed of a network, and the ranges chosen from it.

    Attributes:
        method: a name in `cnnx.quant.methods.METHODS`.
        images: pictures seen.
        images_digest: hash of the list of pictures.
        ranges: tensor -> range, for the tensors that were to be calibrated.
        maxima: tensor -> largest finite |x|, for every watched tensor, exactly: FP16's safety hangs on it.
        means: tensor -> mean of each channel, for the tensors that were to be calibrated; none of those whose
            values were not finite or beyond FP16.
        nonfinite: tensor -> batches in which it had NaN or infinite values; only tensors that had some.
    """

    method: str
    images: int
    images_digest: str
    ranges: dict[str, TensorRange] = field(default_factory=dict)
    maxima: dict[str, float] = field(default_factory=dict)
    means: dict[str, tuple[float, ...]] = field(default_factory=dict)
    nonfinite: dict[str, int] = field(default_factory=dict)

    def to_json(self) -> str:
        """The same text for the same calibration, whatever the order of its tables; floats are exact."""
        # A line a tensor: networks have 100,000 channels.
        means = {name: " ".join(map(repr, values)) for name, values in self.means.items()}
        data = {"schema": SCHEMA, **asdict(self), "means": means}
        return json.dumps(data, sort_keys=True, indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str, *, where: Path | str = "calibration.json") -> Calibration:
        """Read what `to_json` wrote.

        Raises:
            BundleError: no JSON, another schema, or fields missing, unknown or of the wrong type.
        """
        mend = "calibrate again"
        data = read_json(text, where=where, error=BundleError, mend=mend)
        if isinstance(data, dict) and data.get("schema", SCHEMA) != SCHEMA:
            raise BundleError(
                f"the calibration has schema {data['schema']!r}, this cnnx reads {SCHEMA}",
                where=where,
                mend="calibrate again, or use the cnnx that wrote it",
            )
        file = from_plain(CalibrationFile, data, where=where, error=BundleError, mend=mend)
        return file.calibration()


@dataclass(frozen=True, slots=True)
class CalibrationFile:
    """A calibration as calibration.json has it: means as text, a line a tensor."""

    method: str
    images: Count
    images_digest: str
    ranges: dict[str, TensorRange]
    maxima: dict[str, Quantity]
    means: dict[str, Numbers]
    nonfinite: dict[str, Positive]
    schema: Literal[2]

    def calibration(self) -> Calibration:
        """The calibration itself."""
        values = {f.name: getattr(self, f.name) for f in fields(Calibration)}
        values["means"] = {name: tuple(map(float, row.split())) for name, row in self.means.items()}
        return Calibration(**values)
