"""Calibration through its public door, with networks that are plain numpy functions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cnnx.errors import BundleError, CnnxError, GraphError, ImageError, UsageError
from cnnx.quant.calibration import Calibration, calibrate

NAMES = ("input", "relu", "dead")
Observed = tuple[NDArray[np.float32], Mapping[str, NDArray[Any]]]


def network(batch: NDArray[np.float32]) -> Observed:
    """Watches its input, a ReLU of it and a tensor of zeros."""
    tensors = {"input": batch, "relu": np.maximum(batch, 0), "dead": np.zeros_like(batch)}
    return np.array([np.abs(tensors[name]).max() for name in NAMES], np.float32), tensors


def maxima_only(batch: NDArray[np.float32]) -> Observed:
    return network(batch)[0], {}


def pictures(count: int = 5, seed: int = 0) -> list[NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((2, 3, 20, 20)).astype(np.float32) for _ in range(count)]


def run(batches: list[NDArray[np.float32]], method: str = "entropy", **other: Any) -> Calibration:
    options: dict[str, Any] = {"maxima_names": NAMES, "tensors": ("relu", "dead"), "images_digest": "d1"}
    observe = other.pop("observe", network if method == "entropy" else maxima_only)
    options |= {"progress": lambda done: None, **other}
    return calibrate(observe, batches, method=method, **options)


def test_every_picture_counts_and_only_once() -> None:
    done: list[int] = []
    batches = pictures()
    found = run(batches, progress=done.append)
    whole = np.maximum(np.concatenate(batches), 0)
    assert (found.images, done) == (10, [2, 4, 6, 8, 10])
    assert found.maxima == {
        "input": np.abs(np.concatenate(batches)).max(), "relu": whole.max(), "dead": 0.0
    }  # fmt: skip
    assert set(found.ranges) == {"relu", "dead"}
    relu = found.ranges["relu"]
    assert 2 < relu.amax < relu.maximum == whole.max()
    assert relu.zeros_share == np.mean(whole == 0)
    assert relu.saturated_share == pytest.approx(np.mean(whole[whole > 0] > relu.amax), abs=1e-3)
    assert found.ranges["dead"].amax == 0
    assert run(batches[::-1]).ranges == found.ranges


def test_max_needs_no_values() -> None:
    batches = pictures()
    found = run(batches, "max")
    assert found.ranges["relu"].amax == np.concatenate(batches).max()
    assert (found.ranges["relu"].saturated_share, found.ranges["relu"].zeros_share) == (0, None)
    assert found.maxima == run(batches).maxima


@pytest.mark.parametrize("method", ["entropy", "max"])
def test_values_that_are_not_finite_are_recorded_and_give_no_range(method: str) -> None:
    batches = pictures(3)
    batches[1][0, 0, 0, :7] = np.inf
    found = run(batches, method, tensors=("relu",))
    assert found.ranges["relu"].amax == 0
    assert found.ranges["relu"].maximum > 1
    assert found.nonfinite == {"input": 1, "relu": 7 if method == "entropy" else 1}
    assert all(np.isfinite(value) for value in found.maxima.values())
    assert Calibration.from_json(found.to_json()) == found


def test_json_is_the_same_for_the_same_and_exact() -> None:
    found = run(pictures())
    shuffled = Calibration(
        found.method, found.images, found.images_digest,
        ranges=dict(reversed(found.ranges.items())), maxima=dict(reversed(found.maxima.items())),
    )  # fmt: skip
    assert shuffled.to_json() == found.to_json()
    assert Calibration.from_json(found.to_json()) == found
    assert run(pictures(seed=1)).to_json() != found.to_json()


def broken(change: str) -> str:
    data = json.loads(run(pictures(1)).to_json())
    if change == "schema":
        data["schema"] = 2
    elif change == "missing":
        del data["maxima"]
    elif change == "unknown":
        data["ranges"]["relu"]["amx"] = 1
    elif change == "type":
        data["ranges"]["relu"]["amax"] = "4"
    elif change == "infinite":
        data["maxima"]["relu"] = float("inf")
    elif change == "list":
        data = [data]
    return json.dumps(data)[: -1 if change == "cut" else None]


@pytest.mark.parametrize("change", ["schema", "missing", "unknown", "type", "infinite", "list", "cut"])
def test_what_is_not_a_calibration_is_refused(change: str) -> None:
    with pytest.raises(BundleError) as refusal:
        Calibration.from_json(broken(change), where="here/calibration.json")
    assert refusal.value.where == "here/calibration.json"
    assert ("schema 2" in refusal.value.what) == (change == "schema")


@pytest.mark.parametrize(
    ("error", "words", "options"),
    [
        (UsageError, "entrpy", {"method": "entrpy"}),
        (UsageError, "not watched", {"tensors": ("rely",)}),
        (GraphError, "shape", {"maxima_names": (*NAMES, "more")}),
        (GraphError, "put out", {"observe": maxima_only}),
        (ImageError, "empty", {"batches": []}),
    ],
)
def test_refusals(error: type[CnnxError], words: str, options: dict[str, Any]) -> None:
    arguments = {"batches": pictures(1), **options}
    with pytest.raises(error, match=words):
        run(arguments.pop("batches"), **arguments)
