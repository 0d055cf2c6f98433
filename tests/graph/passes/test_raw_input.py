"""A graph that takes pixels gives the network the same values as normalization outside."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper
from PIL import Image

from cnnx.data.geometry import crop
from cnnx.data.network_input import network_input
from cnnx.graph.passes.raw_input import with_raw_input
from cnnx.preprocessing import CHANNELS, Preprocessing, contradiction
from cnnx.preprocessing.geometry import resized
from cnnx.preprocessing.input_format import InputFormat, format_contradiction, input_format
from tests.inputs.graphs import run

SIDES = (20, 24)
FLOATS = "float32-nchw"


def images_through(form: InputFormat, preprocessing: Preprocessing, crops) -> np.ndarray:
    """What a network behind the pixels sees of crops."""
    return seen_of(network_input(crops, preprocessing, form), form, preprocessing)


def seen_of(pixels, form: InputFormat, preprocessing: Preprocessing) -> np.ndarray:
    """What a network behind the pixels sees."""
    shape = (CHANNELS[preprocessing.color], *SIDES)
    entry, seen = (helper.make_tensor_value_info(name, 1, ["N", *shape]) for name in ("input", "seen"))
    nodes = [helper.make_node("Identity", ["input"], ["seen"], name="network")]
    model = helper.make_model(
        helper.make_graph(nodes, "network", [entry], [seen]),
        opset_imports=[helper.make_opsetid("", 19)],
        ir_version=9,
    )
    raw = with_raw_input(model, form, preprocessing, shape=shape)
    assert model.graph.input[0].type.tensor_type.elem_type == 1, "the given graph was changed"
    return run(raw, pixels)["seen"]


@st.composite
def preprocessings(draw, **stated) -> Preprocessing:
    color = draw(st.sampled_from(list(CHANNELS)))
    values = st.floats(0.0625, 300, width=32)
    mean, std = (tuple(draw(values) for _ in range(CHANNELS[color])) for _ in range(2))
    divisor = draw(st.sampled_from([255.0, 1.0, 127.5]))
    return Preprocessing(color, 24, mean=mean, std=std, divisor=divisor, **stated)


def crops_of(preprocessing: Preprocessing, seed: int) -> np.ndarray:
    shape = (2, *SIDES, CHANNELS[preprocessing.color])
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def order(draw_reversed: bool, preprocessing: Preprocessing) -> str:
    if preprocessing.color == "gray":
        return "gray"
    return {"rgb": "bgr", "bgr": "rgb"}[preprocessing.color] if draw_reversed else preprocessing.color


@settings(max_examples=60, deadline=None)
@given(preprocessings(), st.sampled_from(["nhwc", "nchw"]), st.booleans(), st.integers(0, 99))
def test_normalization_in_the_graph_is_the_same_to_the_last_bit(preprocessing, layout, flipped, seed):
    form = input_format(f"uint8-{layout}-{order(flipped, preprocessing)}", preprocessing)
    crops = crops_of(preprocessing, seed)
    expected = network_input(crops, preprocessing, input_format(FLOATS, preprocessing))
    assert images_through(form, preprocessing, crops).tobytes() == expected.tobytes()


@settings(max_examples=80, deadline=None)
@given(
    preprocessings(exif=True),
    st.sampled_from([("nearest", 1), ("bilinear", 2), ("bicubic", 4)]),
    st.sampled_from([("shorter", 24), ("shorter", (22, 30)), ("squash", (24, 26)), ("none", None)]),
    st.tuples(st.floats(1, 4), st.floats(1, 4)),
    st.booleans(),
)
def test_crops_survive_as_frames_that_the_graph_shrinks(preprocessing, how, fit, scale, flipped):
    interpolation, least = how
    preprocessing = dataclasses.replace(preprocessing, fit=fit[0], resize=fit[1], interpolation=interpolation)
    assert contradiction(preprocessing, (CHANNELS[preprocessing.color], *SIDES)) is None
    frame = tuple(int(least * each * side) + 12 * least for each, side in zip(scale, (24, 30), strict=True))
    if fit[0] == "none":
        frame = (SIDES[0] + 5, SIDES[1] + 8)
    wide, high = resized(frame[1], frame[0], preprocessing)
    form = input_format(f"uint8-nhwc-{order(flipped, preprocessing)}:{frame[0]}x{frame[1]}", preprocessing)
    assert format_contradiction(form, preprocessing) is None
    exact = fit[0] == "none" or min(frame[0] / high, frame[1] / wide) >= least
    crops = crops_of(preprocessing, 0)
    seen = images_through(form, preprocessing, crops)
    expected = network_input(crops, preprocessing, input_format(FLOATS, preprocessing))
    if exact:
        assert seen.tobytes() == expected.tobytes()


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(["letterbox", "longer"]), st.integers(40, 90), st.integers(40, 90))
def test_frames_are_padded_as_crops_are(fit, high, wide):
    """A white frame, which no resampling changes, is white inside and has the fill around it."""
    resize = SIDES if fit == "letterbox" else max(SIDES)
    preprocessing = Preprocessing(
        "rgb", resize, mean=(0,) * 3, std=(1,) * 3, divisor=1.0, fit=fit, fill=(114,)
    )
    form = input_format(f"uint8-nhwc:{high}x{wide}", preprocessing)
    white = np.full((1, high, wide, 3), 255, np.uint8)
    seen = images_through(form, preprocessing, white)[0].transpose(1, 2, 0)
    assert np.array_equal(seen, crop(Image.fromarray(white[0]), preprocessing, (3, *SIDES)))
    assert {114.0, 255.0} >= set(np.unique(seen))


@pytest.mark.parametrize(
    ("interpolation", "resampling", "levels"),
    [
        ("nearest", "pillow", [0, 90, 255]),
        ("bilinear", "pillow", [0, 90, 255]),
        ("bicubic", "pillow", [70, 90, 180]),  # Pillow clips between rows and columns, too
        ("bicubic", "opencv", [0, 90, 255]),
    ],
)
def test_frames_are_enlarged_as_in_training(interpolation, resampling, levels):
    """Without shrinking there is no antialiasing to differ by; in noise, a cubic curve leaves 0..255."""
    how = {"interpolation": interpolation, "resampling": resampling, "fit": "squash"}
    preprocessing = Preprocessing("rgb", (40, 48), mean=(0,) * 3, std=(1,) * 3, divisor=1.0, **how)
    form = input_format("uint8-nhwc:25x30", preprocessing)
    noise = np.random.default_rng(0).choice(levels, (1, 25, 30, 3)).astype(np.uint8)
    seen = seen_of(noise, form, preprocessing)[0].transpose(1, 2, 0)
    apart = np.abs(seen - crop(Image.fromarray(noise[0]), preprocessing, (3, *SIDES)).astype(np.float32))
    assert apart.max() <= 1 and apart.mean() < 0.4


@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_colors_become_gray_as_in_pillow(order):
    preprocessing = Preprocessing("gray", SIDES, mean=(0,), std=(1,), divisor=1.0, fit="none")
    form = input_format(f"uint8-nhwc-{order}", preprocessing)
    colors = np.random.default_rng(1).integers(0, 256, (*SIDES, 3)).astype(np.uint8)
    pixels = np.ascontiguousarray(colors[None, ..., :: 1 if order == "rgb" else -1])
    expected = np.asarray(Image.fromarray(colors).convert("L"), np.float32)
    apart = np.abs(seen_of(pixels, form, preprocessing)[0, 0] - expected)
    assert apart.max() <= 1 and apart.mean() < 0.01
