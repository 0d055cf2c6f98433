"""Ranges from the statistics of images, and the calibration file."""

from __future__ import annotations

import json

import numpy as np
import pytest
from numpy.typing import NDArray

from cnnx.errors import BundleError, UsageError
from cnnx.quant.calibration import Calibration
from cnnx.quant.methods import METHODS
from cnnx.quant.observation import Observation, Seen
from cnnx.quant.ranges import calibration_of

Floats = NDArray[np.float32]


def seen(values: Floats) -> Observation:
    """Observe one image: the input, a ReLU of it, and a tensor of zeros."""
    tensors = {"input": values, "relu": np.maximum(values, 0), "dead": np.zeros_like(values)}
    places = {name: slice(i, i + 1) for i, name in enumerate(tensors)}
    samples = {name: slice(i * values.size, (i + 1) * values.size) for i, name in enumerate(("relu", "dead"))}
    made = Observation(places, samples)
    maxima = np.array([np.abs(each).max() for each in tensors.values()], np.float32)
    means = np.array([each.mean() for each in tensors.values()], np.float32)
    made.take(Seen(maxima, means, np.concatenate([tensors["relu"], tensors["dead"]])), 1)
    return made


def run(method: str = "entropy", seed: int = 0) -> Calibration:
    values = np.random.default_rng(seed).standard_normal(20_000).astype(np.float32)
    return calibration_of(seen(values), method=method, images_digest="d1")


@pytest.mark.parametrize("method", METHODS)
def test_a_range_says_what_it_clips(method: str) -> None:
    values = np.random.default_rng(1).standard_normal(20_000).astype(np.float32)
    found = calibration_of(seen(values), method=method, images_digest="d1")
    relu = np.maximum(values, 0)
    assert found.images == 1 and set(found.ranges) == {"relu", "dead"}
    assert found.means == {"relu": (pytest.approx(relu.mean(), rel=1e-5),), "dead": (0.0,)}
    assert found.maxima == {"input": np.abs(values).max(), "relu": relu.max(), "dead": 0.0}
    assert 2 < found.ranges["relu"].amax <= found.ranges["relu"].maximum == relu.max()
    assert found.ranges["relu"].zeros_share == np.mean(relu == 0)
    clipped = np.mean(relu[relu > 0] > found.ranges["relu"].amax)
    assert found.ranges["relu"].saturated_share == pytest.approx(clipped, abs=1e-3)
    assert found.ranges["dead"].amax == 0


@pytest.mark.parametrize("method", METHODS)
def test_tensors_with_values_that_are_not_finite_get_no_range(method: str) -> None:
    values = np.random.default_rng(1).standard_normal(2_000).astype(np.float32)
    values[:7] = np.inf
    found = calibration_of(seen(values), method=method, images_digest="d1")
    assert found.ranges["relu"].amax == 0 and found.nonfinite == {"input": 1, "relu": 1}
    assert set(found.means) == {"dead"}
    assert Calibration.from_json(found.to_json()) == found


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(UsageError, match="entrpy"):
        run("entrpy")


def test_json_is_the_same_for_the_same_and_exact() -> None:
    found = run()
    shuffled = Calibration(
        found.method, found.images, found.images_digest,
        ranges=dict(reversed(found.ranges.items())), maxima=dict(reversed(found.maxima.items())),
        means=dict(reversed(found.means.items())),
    )  # fmt: skip
    assert shuffled.to_json() == found.to_json()
    assert Calibration.from_json(found.to_json()) == found
    assert run(seed=1).to_json() != found.to_json()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_not_written(value: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        Calibration("max", 1, "d1", maxima={"input": value}).to_json()


def broken(change: str) -> str:
    data = json.loads(run().to_json())
    if change == "schema":
        data["schema"] = 3
    elif change == "missing":
        del data["maxima"]
    elif change == "unknown":
        data["ranges"]["relu"]["amx"] = 1
    elif change == "type":
        data["ranges"]["relu"]["amax"] = "4"
    elif change == "infinite":
        data["maxima"]["relu"] = float("inf")
    elif change == "count":
        data["nonfinite"]["relu"] = "many"
    elif change == "list":
        data = [data]
    return json.dumps(data)[: -1 if change == "cut" else None]


@pytest.mark.parametrize(
    "change", ["schema", "missing", "unknown", "type", "infinite", "count", "list", "cut"]
)
def test_what_is_not_a_calibration_is_refused(change: str) -> None:
    with pytest.raises(BundleError) as refusal:
        Calibration.from_json(broken(change), where="here/calibration.json")
    assert refusal.value.where == "here/calibration.json"
    assert ("schema version 3" in refusal.value.what) == (change == "schema")
