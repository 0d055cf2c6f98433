from __future__ import annotations

import hashlib
import itertools
from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from cnnx.data.builtin.shapes100 import CLASS_NAMES, draw_batch
from cnnx.data.images import Split
from cnnx.data.sets import open_images

SPLITS: tuple[Split, ...] = get_args(Split)


def test_a_thousand_images_are_the_same_to_the_bit_on_every_machine() -> None:
    """Checked with Python 3.10 and NumPy 1.24 and with newer versions. A new hash requires a new VERSION."""
    total = hashlib.sha256()
    for split in SPLITS:
        total.update(draw_batch(split, range(240), size=32, color="rgb")[0].tobytes())
        total.update(draw_batch(split, range(10), size=50, color="gray")[0].tobytes())
    assert total.hexdigest() == "5bf04890439f80fbd0f88b4f3cee762e40a6b7fd1030d80a7dfb9751f8b6f394"


@pytest.mark.parametrize("color", ["rgb", "gray"])
def test_an_image_does_not_depend_on_those_drawn_with_it(color: str) -> None:
    indices = [9999, 3, 41, 3]
    pixels, labels = draw_batch("validation", indices, size=32, color=color)
    assert pixels.shape == (4, 32, 32, {"rgb": 3, "gray": 1}[color])
    assert np.array_equal(pixels[1], pixels[3])
    images = open_images("shapes100", size=32, color=color, split="validation")
    for position, index in enumerate(indices):
        assert np.array_equal(np.asarray(images[index].load()), pixels[position].squeeze())
        assert images[index].label == labels[position]


def test_large_batches_are_drawn_in_parts_that_do_not_show() -> None:
    pixels, _ = draw_batch("train", range(500, 700), size=40, color="rgb")
    assert np.array_equal(pixels[77:80], draw_batch("train", range(577, 580), size=40, color="rgb")[0])


def test_gray_is_what_pillow_makes_of_the_colours() -> None:
    color, gray = (
        open_images("shapes100", size=48, color=each, split="train")[5].load() for each in ("rgb", "gray")
    )
    assert np.array_equal(np.asarray(color.convert("L")), np.asarray(gray))


def test_a_scene_is_the_same_at_every_size() -> None:
    small, large = (draw_batch("train", range(64), size=size, color="gray")[0] for size in (32, 96))
    reduced = large.reshape(64, 32, 3, 32, 3).mean(axis=(2, 4))
    alike = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(reduced, small, strict=True)]
    assert np.median(alike) > 0.85  # the noise differs
    assert abs(np.corrcoef(reduced[0].ravel(), small[1].ravel())[0, 1]) < 0.5


@pytest.mark.parametrize("split", SPLITS)
def test_every_hundred_images_hold_each_class_once(split: Split) -> None:
    images = open_images("shapes100", size=32, color="rgb", split=split)
    assert (
        len(images)
        == {"train": 1_000_000, "calibration": 4096, "selection": 4096, "validation": 10_000}[split]
    )
    assert not images.synthetic
    for start in (0, 1700, 4000 - 100):
        assert {images[index].label for index in range(start, start + 100)} == set(range(100))


def test_classes_are_named_by_their_three_parts() -> None:
    parts = [name.split() for name in CLASS_NAMES]
    assert len(parts) == 100
    assert {each[0] for each in parts} == {"plain", "striped", "checked", "dotted", "ringed"}
    assert {each[1] for each in parts} == {"disc", "square", "triangle", "cross", "star"}
    assert {each[2] for each in parts} == {"alone", "pair", "row", "trio"}
    assert CLASS_NAMES[20 * 2 + 4 * 1 + 3] == "striped triangle trio"


def test_splits_share_no_image() -> None:
    seen = {
        hashlib.sha256(image.tobytes()).digest()
        for split in SPLITS
        for image in draw_batch(split, range(1000), size=32, color="rgb")[0]
    }
    assert len(seen) == 4 * 1000


def test_digest_names_all_that_the_pixels_follow_from() -> None:
    digests = {
        open_images("shapes100", size=size, color=color, split=split)[index].digest()
        for size, color, split, index in itertools.product((32, 33), ("rgb", "gray"), SPLITS, (0, 1))
    }
    assert len(digests) == 32


@pytest.mark.parametrize("index", [-1, 4096])
def test_an_image_outside_the_split_is_refused(index: int) -> None:
    with pytest.raises(IndexError, match="calibration has images 0 to 4095"):
        draw_batch("calibration", [0, index], size=32, color="rgb")


def test_no_linear_classifier_tells_the_classes() -> None:
    """Softmax regression on all pixels of 20,000 images; chance is 1 %."""
    torch.manual_seed(0)
    linear = nn.Linear(32 * 32 * 3, len(CLASS_NAMES))
    optimizer = torch.optim.Adam(linear.parameters(), 3e-3)
    inputs, labels = _pixels_and_labels("train", 20_000)
    for _ in range(4):
        for chosen in torch.split(torch.randperm(len(inputs)), 500):
            optimizer.zero_grad()
            functional.cross_entropy(linear(inputs[chosen]), labels[chosen]).backward()
            optimizer.step()
    assert _accuracy(linear, inputs, labels) > 0.1  # it fits its training images
    assert _accuracy(linear, *_pixels_and_labels("validation", 5000)) < 0.05


def _pixels_and_labels(split: Split, count: int) -> tuple[Tensor, Tensor]:
    pixels, labels = draw_batch(split, range(count), size=32, color="rgb")
    return torch.from_numpy(pixels).flatten(1).float() / 128 - 1, torch.from_numpy(labels)


def _accuracy(network: nn.Module, inputs: Tensor, labels: Tensor) -> float:
    with torch.no_grad():
        return float((network(inputs).argmax(dim=1) == labels).double().mean())
