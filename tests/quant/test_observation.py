"""Statistics of a network on images: nothing is lost by splitting, saving or stopping."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cnnx.errors import BundleError, GraphError, ImageError
from cnnx.quant.observation import Observation, Seen, observe
from cnnx.quant.ranges import calibration_of

Floats = NDArray[np.float32]
CHANNELS = {"input": slice(0, 3), "pre": slice(3, 6), "relu": slice(3, 6)}
SAMPLES = {"input": slice(0, 150), "relu": slice(150, 300)}


def watch(batch: Floats) -> Seen:
    """Watch the input and a ReLU of it, and sample both."""
    both = [batch, np.maximum(batch, 0)]
    maxima = np.concatenate([np.abs(x).max(axis=(0, 2, 3)) for x in both])
    means = np.concatenate([x.mean(axis=(0, 2, 3)) for x in both])
    return Seen(maxima, means, np.concatenate([x.reshape(-1)[:150] for x in both]))


def images(count: int, seed: int = 0) -> list[Floats]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((1, 3, 10, 10)).astype(np.float32) for _ in range(count)]


def seen(batches: list[Floats], progress: Callable[[int], None] = lambda done: None) -> Observation:
    made = Observation(CHANNELS, SAMPLES)
    observe(watch, batches, made, progress=progress)
    return made


def content(observation: Observation, folder: Path) -> bytes:
    file = folder / "observation.npz"
    observation.save(file)
    with np.load(file) as saved:
        return b"".join(saved[key].tobytes() for key in sorted(saved))


def test_every_image_counts_once() -> None:
    done: list[int] = []
    batches = images(40)
    found = seen(batches, done.append)
    whole = np.concatenate(batches)
    assert done == list(range(1, 41)) and found.images == 40
    assert found.maxima() == {
        "input": np.abs(whole).max(), "pre": whole.max(), "relu": whole.max()
    }  # fmt: skip
    np.testing.assert_array_equal(found.channel_maxima("relu"), whole.max(axis=(0, 2, 3)))
    np.testing.assert_allclose(found.means("input"), whole.mean(axis=(0, 2, 3)), atol=1e-7)
    relu = found.statistics("relu")
    assert relu.count == 40 * 150 and relu.maximum == whole.max()
    sample = np.concatenate([np.maximum(x, 0).reshape(-1)[:150] for x in batches])
    assert relu.zeros == np.count_nonzero(sample == 0)
    assert found.nonfinite() == {}


@settings(deadline=None, max_examples=20)
@given(cut=st.integers(1, 39), turned=st.booleans())
def test_two_halves_are_the_whole(tmp_path_factory: pytest.TempPathFactory, cut: int, turned: bool) -> None:
    folder, batches = tmp_path_factory.mktemp("halves"), images(40)
    whole = content(seen(batches), folder)
    one, other = seen(batches[:cut]), seen(batches[cut:])
    if turned:
        one, other = other, one
    one.merge(other)
    assert content(one, folder) == whole


def test_statistics_of_different_networks_are_not_merged() -> None:
    with pytest.raises(GraphError, match="different networks"):
        Observation(CHANNELS, SAMPLES).merge(Observation(CHANNELS, {"relu": slice(0, 300)}))


@pytest.mark.parametrize("sampled", [2, 1, 0])
def test_what_was_saved_is_gone_on_with(tmp_path: Path, sampled: int) -> None:
    batches, samples = images(40), dict([*SAMPLES.items()][:sampled])

    def watch_some(batch: Floats) -> Seen:
        return watch(batch)._replace(sample=watch(batch).sample[: 150 * sampled])

    part, whole = Observation(CHANNELS, samples), Observation(CHANNELS, samples)
    observe(watch_some, batches, whole, progress=lambda done: None)
    observe(watch_some, batches[:21], part, progress=lambda done: None)
    part.save(tmp_path / "part")
    continued = Observation.load(tmp_path / "part")
    assert continued.images == 21 and continued.sampled == tuple(samples)
    observe(watch_some, batches[21:], continued, progress=lambda done: None)
    assert content(continued, tmp_path) == content(whole, tmp_path)


def test_values_that_are_not_finite_are_counted_by_batch() -> None:
    batches = images(3)
    batches[1][0, 0, 0, :7] = np.inf
    batches[2][0, 1, 0, 0] = np.nan
    found = seen(batches)
    assert found.nonfinite()["input"] == 1  # a different channel in each
    assert np.isfinite(list(found.maxima().values())).all()
    assert found.statistics("input").nonfinite == 8
    assert found.means("input") is None and found.means("relu") is None


@pytest.mark.parametrize(("value", "known"), [(65504, True), (65536, False)])
def test_there_are_no_means_of_what_fp16_cannot_hold(value: float, known: bool) -> None:
    batches = images(3)
    batches[1][0, 0, 0, 0] = -value
    assert (seen(batches).means("input") is not None) == known
    assert Observation(CHANNELS, SAMPLES).means("input") is None


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_file_of_anything_else_is_refused_or_gives_statistics(tmp_path: Path, data: Any) -> None:
    """Wrong shapes, types, slices and values, as a bundle from elsewhere may hold."""
    seen(images(3)).save(tmp_path / "whole.npz")
    with np.load(tmp_path / "whole.npz") as saved:
        arrays = dict(saved)
    name = data.draw(st.sampled_from(sorted(arrays)))
    change = data.draw(st.sampled_from(["gone", "type", "shape", "negative", "huge", "layout"]))
    if change == "gone":
        del arrays[name]
    elif change == "type":
        arrays[name] = arrays[name].astype(np.complex64)
    elif change == "shape":
        arrays[name] = np.repeat(arrays[name].reshape(-1), 2)
    elif change == "layout":
        end = data.draw(st.sampled_from([-1, 2**70, None, "x", [], 1.5]))
        text = json.dumps([{"input": [0, end]}, data.draw(st.sampled_from([{}, [], {"other": [0, 1]}]))])
        arrays["layout"] = np.frombuffer(text.encode(), np.uint8)
    else:
        flat = arrays[name].reshape(-1).copy()
        flat[0] = np.array(-1 if change == "negative" else 2**62).astype(flat.dtype)
        arrays[name] = flat.reshape(arrays[name].shape)
    np.savez(tmp_path / "other.npz", **arrays)
    try:
        found = Observation.load(tmp_path / "other.npz")
        assert all(len(found.channel_maxima(each)) for each in found.watched) and found.maxima()
        calibration_of(found, method="mse", images_digest="0" * 64)
    except BundleError as refusal:
        assert refusal.hint


def test_a_small_file_does_not_fill_the_memory(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "large.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        stream = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            stream, {"descr": "<i8", "fortran_order": False, "shape": (2**40,)}
        )
        archive.writestr("sums.npy", stream.getvalue() + bytes(2**20))
    with pytest.raises(BundleError, match="cannot be read: the array sums has another type or size"):
        Observation.load(tmp_path / "large.npz")


@pytest.mark.parametrize("damage", ["cut", "text", "empty", "absent", "shorter"])
def test_damaged_files_are_refused(tmp_path: Path, damage: str) -> None:
    file = tmp_path / "statistics.npz"
    seen(images(3)).save(file)
    whole = file.read_bytes()
    if damage == "absent":
        file.unlink()
    elif damage == "shorter":
        with np.load(file) as saved:
            arrays = dict(saved)
        arrays["highest"] = arrays["highest"][:-1]
        np.savez_compressed(file, **arrays)
    else:
        file.write_bytes({"cut": whole[: len(whole) // 2], "text": b"no archive", "empty": b""}[damage])
    with pytest.raises(BundleError, match="cannot be read"):
        Observation.load(file)


def test_refusals() -> None:
    with pytest.raises(GraphError, match="the observed graph gives"):
        five = np.zeros(5, np.float32)
        Observation(CHANNELS, SAMPLES).take(Seen(five, five, np.zeros(300, np.float32)), 1)
    with pytest.raises(ImageError, match="empty"):
        seen([])
