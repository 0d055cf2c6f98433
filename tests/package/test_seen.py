"""The copy of the geometry that packages carry, and what consumers cannot do."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import cnnx
from cnnx.data.geometry import crop
from cnnx.errors import BundleError
from cnnx.package.seen import seen
from cnnx.preprocessing import Preprocessing, contradiction
from cnnx.preprocessing.geometry import offset, resized


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(["shorter", "longer", "letterbox", "squash", "none"]),
    st.one_of(st.integers(20, 60), st.tuples(st.integers(20, 60), st.integers(24, 60))),
    st.tuples(st.integers(1, 300), st.integers(1, 300)),
)
def test_the_part_of_an_image_that_the_network_sees(fit, resize, size):
    stated = Preprocessing(resize=None if fit == "none" else resize, fit=fit)
    if contradiction(stated, (3, 20, 24)):
        return
    box, place = seen(*size, fit=fit, resize=stated.resize, size=(20, 24))
    for axis, scaled, length, side in zip((0, 1), resized(*size, stated), size, (24, 20), strict=True):
        start = offset(scaled, side)  # of the crop in the resized image; negative: padding
        assert place[axis] == max(0, -start)
        assert place[axis + 2] - place[axis] == min(side, scaled)
        assert box[axis] == pytest.approx(max(0, start) * length / scaled)
        assert box[axis + 2] == pytest.approx((max(0, start) + min(side, scaled)) * length / scaled)


def test_resizing_that_part_gives_nearly_the_crop():
    """Pillow resizes a part with its own rounding: few pixels differ, by little."""
    stated = Preprocessing(resize=32)
    rows, columns = np.mgrid[0:90, 0:140]
    image = Image.fromarray(np.stack([rows, columns, rows + columns], 2).astype(np.uint8))
    box, _ = seen(140, 90, fit=stated.fit, resize=stated.resize, size=(28, 28))
    found = np.asarray(image.resize((28, 28), Image.Resampling.BILINEAR, box=box), int)
    assert np.abs(found - crop(image, stated, (3, 28, 28))).max() <= 1


@pytest.mark.parametrize(
    "kind, consumers, words",
    [
        (
            "pixels",
            ["deepstream", "isaac-ros", "jetson-inference"],
            "gives a network floats, but this graph takes uint8-nhwc-bgr",
        ),
        (
            "four",
            ["deepstream", "isaac-ros", "jetson-inference"],
            "runs single images, but the smallest batch of this graph is 4",
        ),
    ],
)
def test_what_a_consumer_cannot_do_is_refused_by_name(bundles, tmp_path, kind, consumers, words):
    for consumer in consumers:
        with pytest.raises(BundleError, match=words) as caught:
            cnnx.write_package(bundles(kind), consumer=consumer, out=tmp_path / consumer)
        assert str(caught.value.hint).startswith("export again")
        assert not (tmp_path / consumer).exists()


def test_padding_that_consumers_do_not_have_is_refused(bundles, tmp_path, tiny):
    gray = tmp_path / "gray"
    cnnx.export(
        tiny,
        precision="fp32",
        out=gray,
        resize="longer:40",
        validation_data="digits",
        validation_images=16,
    )
    for consumer in ("deepstream", "isaac-ros"):
        with pytest.raises(BundleError, match=r"pads them with black, but this network takes .* 40 x 40"):
            cnnx.write_package(gray, consumer=consumer, out=tmp_path / consumer)
    assert cnnx.write_package(gray, consumer="jetson-inference", out=tmp_path / "jetson").files
