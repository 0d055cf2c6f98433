"""Calibration: a range for each tensor that INT8 will carry, as calibration.json keeps it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from cnnx.errors import BundleError

SCHEMA = 2
"""Counts up when a field changes its meaning. 1: first; 2: means."""


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

    amax: float
    maximum: float
    method: str
    saturated_share: float
    zeros_share: float | None


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
        try:
            data = json.loads(text, parse_constant=_refuse_constant)
            schema = data.pop("schema")
            if schema == SCHEMA:
                return _from_data(data)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BundleError(
                f"the calibration cannot be read: {error}", where=where, mend="calibrate again"
            ) from None
        raise BundleError(
            f"the calibration has schema {schema!r}, this cnnx reads {SCHEMA}",
            where=where,
            mend="calibrate again, or use the cnnx that wrote it",
        )


_NUMBER = (float, int)
_KINDS: dict[str, Any] = {
    "amax": _NUMBER,
    "maximum": _NUMBER,
    "saturated_share": _NUMBER,
    "zeros_share": (float, int, type(None)),
    "method": str,
    "images": int,
    "images_digest": str,
    "ranges": dict,
    "maxima": dict,
    "means": dict,
    "nonfinite": dict,
}


def _from_data(data: Mapping[str, Any]) -> Calibration:
    plain = dict(_checked(Calibration, data))
    plain["ranges"] = {name: TensorRange(**_checked(TensorRange, r)) for name, r in data["ranges"].items()}
    plain["maxima"] = {name: float(value) for name, value in data["maxima"].items()}
    plain["means"] = {name: tuple(map(float, row.split())) for name, row in data["means"].items()}
    plain["nonfinite"] = {name: int(value) for name, value in data["nonfinite"].items()}
    return Calibration(**plain)


def _checked(cls: type[Calibration] | type[TensorRange], data: Mapping[str, Any]) -> Mapping[str, Any]:
    """The data, once it has each field of a dataclass, of its kind, and no other."""
    known = {f.name for f in fields(cls)}
    if set(data) != known:
        raise ValueError(f"{cls.__name__} has the fields {sorted(known)}, found {sorted(data)}")
    for name, value in data.items():
        if not isinstance(value, _KINDS[name]) or isinstance(value, bool):
            raise ValueError(f"{name} is {value!r}")
    return data


def _refuse_constant(word: str) -> float:
    raise ValueError(f"{word} is no number of JSON")
