"""Calibration: pictures go through the network, a range for each tensor that INT8 will carry comes out."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnnx.errors import BundleError, GraphError, ImageError, UsageError
from cnnx.quant.histogram import TensorStatistics
from cnnx.quant.methods import METHODS, needs_histogram

SCHEMA = 1
"""Counts up when a field changes its meaning. 1: first."""

Observer = Callable[[NDArray[np.float32]], tuple[NDArray[np.float32], Mapping[str, NDArray[Any]]]]
"""Runs one batch (N, C, H, W); gives max |x| of every watched tensor and the values of some, by name."""


@dataclass(frozen=True, slots=True)
class TensorRange:
    """The range one tensor is quantized to.

    Attributes:
        amax: |x| that becomes 127; 0 where no range could be had (all zeros, or values not finite).
        maximum: largest finite |x| seen.
        method: a name in `cnnx.quant.methods.METHODS`.
        saturated_share: share of the non-zero values beyond amax.
        zeros_share: share of exact zeros; None where the method watches no values.
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
        maxima: tensor -> largest finite |x|, for every watched tensor: FP16's safety hangs on it.
        nonfinite: tensor -> NaN and infinite values, at least that many; only tensors that had some.
    """

    method: str
    images: int
    images_digest: str
    ranges: dict[str, TensorRange] = field(default_factory=dict)
    maxima: dict[str, float] = field(default_factory=dict)
    nonfinite: dict[str, int] = field(default_factory=dict)

    def to_json(self) -> str:
        """The same text for the same calibration, whatever the order of its tables; floats are exact."""
        return (
            json.dumps({"schema": SCHEMA, **asdict(self)}, sort_keys=True, indent=1, allow_nan=False) + "\n"
        )

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


def calibrate(
    observe: Observer,
    batches: Iterable[NDArray[np.float32]],
    *,
    maxima_names: Sequence[str],
    tensors: Sequence[str],
    method: str,
    images_digest: str,
    progress: Callable[[int], None],
) -> Calibration:
    """Run every batch once and choose a range for each tensor.

    Args:
        observe: see `Observer`. Where `needs_histogram(method)` it must give the values of `tensors`;
            otherwise maxima suffice.
        batches: pictures, normalised, (N, C, H, W) each. One batch is held at a time.
        maxima_names: the tensors of the observer's maxima, in its order.
        tensors: those that need a range, among `maxima_names`.
        method: a name in `METHODS`.
        images_digest: hash of the list of pictures, to be kept.
        progress: called after each batch with the number of pictures done so far.

    NaN and infinite values stop nothing: they are counted, and their tensor gets amax 0.

    Raises:
        UsageError: an unknown method, or a tensor that is not watched.
        GraphError: the observer gives other tensors than named.
        ImageError: there was no picture.
    """
    with_values = needs_histogram(method)
    _refuse_unwatched(tensors, maxima_names)
    maxima = _Maxima(maxima_names)
    statistics = {name: TensorStatistics() for name in tensors} if with_values else {}
    images = 0
    for batch in batches:
        vector, values = observe(batch)
        maxima.take(vector)
        for name, running in statistics.items():
            if name not in values:
                raise GraphError(
                    "the observed graph does not put out a tensor that needs a range", where=name
                )
            running.update(values[name])
        images += len(batch)
        progress(images)
    if images == 0:
        raise ImageError("the calibration set is empty", mend="give at least one picture; 512 is usual")
    if not with_values:
        statistics = {name: maxima.statistics(name) for name in tensors}
    nonfinite = maxima.nonfinite()
    nonfinite.update((name, s.nonfinite) for name, s in statistics.items() if s.nonfinite)
    ranges = {name: _range(s, method, usable=name not in nonfinite) for name, s in statistics.items()}
    return Calibration(
        method, images, images_digest, ranges=ranges, maxima=maxima.finite(), nonfinite=nonfinite
    )


class _Maxima:
    """Largest finite |x| of every watched tensor, and how many batches had one that was not finite."""

    def __init__(self, names: Sequence[str]) -> None:
        self._places = {name: place for place, name in enumerate(names)}
        self._highest = np.zeros(len(names), np.float32)
        self._bad = np.zeros(len(names), np.int64)

    def take(self, vector: NDArray[np.float32]) -> None:
        if vector.shape != self._highest.shape:
            raise GraphError(
                f"the observed graph gives maxima of shape {vector.shape} for {len(self._places)} tensors"
            )
        finite = np.isfinite(vector)
        self._bad += ~finite
        np.maximum(self._highest, np.where(finite, vector, 0), out=self._highest)

    def statistics(self, name: str) -> TensorStatistics:
        place = self._places[name]
        return TensorStatistics.of_maximum(float(self._highest[place]), nonfinite=int(self._bad[place]))

    def finite(self) -> dict[str, float]:
        return {name: float(self._highest[place]) for name, place in self._places.items()}

    def nonfinite(self) -> dict[str, int]:
        return {name: int(self._bad[place]) for name, place in self._places.items() if self._bad[place]}


def _range(statistics: TensorStatistics, method: str, *, usable: bool) -> TensorRange:
    amax = METHODS[method](statistics) if usable else 0.0
    return TensorRange(
        amax=amax,
        maximum=statistics.maximum,
        method=method,
        saturated_share=statistics.share_above(amax) if usable else 0.0,
        zeros_share=statistics.zeros_share,
    )


def _refuse_unwatched(tensors: Sequence[str], watched: Sequence[str]) -> None:
    for name in sorted(set(tensors) - set(watched)):
        near = difflib.get_close_matches(name, watched, n=1)
        raise UsageError(
            "a tensor needs a range and is not watched",
            where=name,
            mend=f"did you mean {near[0]!r}?" if near else "add it to maxima_names",
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
    "nonfinite": dict,
}


def _from_data(data: Mapping[str, Any]) -> Calibration:
    plain = dict(_checked(Calibration, data))
    plain["ranges"] = {name: TensorRange(**_checked(TensorRange, r)) for name, r in data["ranges"].items()}
    plain["maxima"] = {name: float(value) for name, value in data["maxima"].items()}
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
