"""Calibration: the INT8 range of each tensor, and its format in calibration.json."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from cnnx.errors import BundleError
from cnnx.limits import JSON_BYTES
from cnnx.schema import Count, Positive, Quantity, Rate, from_plain, read_json
from cnnx.store.reading import read_text

SCHEMA: Literal[2] = 2
"""Version of the format; increment when a field changes its meaning. 1: first; 2: means."""

_NUMBER = r"-?[0-9]{1,9}(\.[0-9]{1,20})?(e[+-]?[0-9]{1,2})?"
Numbers = Annotated[
    str,
    Meta(pattern=rf"^({_NUMBER}( {_NUMBER})*)?(?![\s\S])", description="numbers with spaces between them"),
]


@dataclass(frozen=True, slots=True)
class TensorRange:
    """The range to which one tensor is quantized.

    Attributes:
        amax: |x| that maps to 127; 0 if there is no range (all zeros, values that are not finite, or no scale
            in the file).
        maximum: largest finite |x|.
        method: name in `cnnx.quant.methods.METHODS`, or `FILE`.
        saturated_share: share of the sampled non-zero values beyond amax.
        zeros_share: share of exact zeros among the sampled values; None if none was finite.
        one_sided: x to represent at most if the tensor is centered (`cnnx.graph.passes.center`); None if it
            can be negative.
    """

    amax: Quantity
    maximum: Quantity
    method: str
    saturated_share: Rate
    zeros_share: Rate | None
    one_sided: Quantity | None = None


@dataclass(frozen=True, slots=True)
class Calibration:
    """Statistics of a network on a calibration set, and the ranges chosen from them.

    Attributes:
        method: name in `cnnx.quant.methods.METHODS`, or `FILE`.
        images: number of calibration images.
        images_digest: hash of the list of images.
        ranges: tensor -> range, for the calibrated tensors.
        maxima: tensor -> exact largest finite |x|, for every watched tensor; the FP16 overflow check uses it.
        means: tensor -> mean of each channel, for the calibrated tensors, except those with values that are
            not finite or beyond FP16; empty with the file's scales, as nothing is corrected by them then.
        nonfinite: tensor -> number of batches with NaN or infinite values, for tensors that had any.
    """

    method: str
    images: int
    images_digest: str
    ranges: dict[str, TensorRange] = field(default_factory=dict)
    maxima: dict[str, float] = field(default_factory=dict)
    means: dict[str, tuple[float, ...]] = field(default_factory=dict)
    nonfinite: dict[str, int] = field(default_factory=dict)

    def to_json(self) -> str:
        """Serialize to JSON with exact floats; equal calibrations give equal text in any table order."""
        # One line per tensor, because networks have up to 100,000 channels.
        means = {name: " ".join(map(repr, values)) for name, values in self.means.items()}
        data = {"schema": SCHEMA, **asdict(self), "means": means}
        return json.dumps(data, sort_keys=True, indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str, *, where: Path | str = "calibration.json") -> Calibration:
        """Read what `to_json` wrote.

        Raises:
            BundleError: the text is not JSON, has a different schema version, or has missing, unknown or
                mistyped fields.
        """
        hint = "calibrate again with `cnnx calibrate`"
        data = read_json(text, where=where, error=BundleError, hint=hint)
        if isinstance(data, dict) and data.get("schema", SCHEMA) != SCHEMA:
            raise BundleError(
                f"the calibration has schema version {data['schema']!r}; this version of cnnx reads {SCHEMA}",
                where=where,
                hint="calibrate again, or use the version of cnnx that wrote it",
            )
        file = from_plain(CalibrationFile, data, where=where, error=BundleError, hint=hint)
        return file.calibration()


def calibration_in(file: Path) -> Calibration:
    """Read a calibration.json.

    Raises:
        BundleError: it cannot be read; or see `Calibration.from_json`.
    """
    hint = "calibrate again with `cnnx calibrate`"
    try:
        text = read_text(file, most=JSON_BYTES)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"it is not UTF-8: {error}"
        raise BundleError(f"{file.name} cannot be read: {reason}", where=file, hint=hint) from None
    return Calibration.from_json(text, where=file)


@dataclass(frozen=True, slots=True)
class CalibrationFile:
    """A calibration as stored in calibration.json: means as text, one line per tensor."""

    method: str
    images: Count
    images_digest: str
    ranges: dict[str, TensorRange]
    maxima: dict[str, Quantity]
    means: dict[str, Numbers]
    nonfinite: dict[str, Positive]
    schema: Literal[2]

    def calibration(self) -> Calibration:
        """Convert to a `Calibration`."""
        values = {f.name: getattr(self, f.name) for f in fields(Calibration)}
        values["means"] = {name: tuple(map(float, row.split())) for name, row in self.means.items()}
        return Calibration(**values)
