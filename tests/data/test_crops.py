from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cnnx.data.crops import Crops, fingerprint, write_crops
from cnnx.data.images import ImageItem, ImageSet
from cnnx.data.normalize import normalize
from cnnx.data.sets import open_images
from cnnx.errors import ImageError, WriteFailed
from cnnx.preprocessing import Preprocessing
from tests.inputs.images import image as image_file

SMALL = Preprocessing(resize=24)
SHAPE = (3, 20, 22)


def opened(path: Path, **more: Any) -> ImageSet:
    return open_images(str(path), size=24, color="rgb", split="validation", **more)


def written(images: ImageSet, folder: Path, **more: Any) -> Crops:
    arguments: dict[str, Any] = {"shape": SHAPE, "count": 1000, "progress": lambda done, wanted: None}
    return write_crops(images, SMALL, folder=folder, **{**arguments, **more})


@pytest.fixture
def twenty(tmp_path: Path) -> Path:
    """Twenty valid images with labels."""
    root = tmp_path / "set"
    for index in range(20):
        image_file(root / f"{index:02d}.png")
    (root / "labels.csv").write_text("".join(f"{index:02d}.png,{index % 3}\n" for index in range(20)))
    return root


def break_(path: Path, how: str) -> None:
    """Damage one file in a way that occurs in practice."""
    if how == "truncated":
        image_file(path.with_suffix(".jpg"), size=(64, 64))
        content = path.with_suffix(".jpg").read_bytes()
        path.with_suffix(".jpg").unlink()
        path.write_bytes(content[: len(content) // 2])
    elif how == "text":
        path.write_text("<html>404</html>")
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "oversized":
        Image.new("1", (8000, 6251)).save(path)
    elif how == "bomb":  # declared only in the header: decoding would take 30 GB
        header = b"P5\n100000 100000\n255\n"
        path.write_bytes(header)
    elif how == "thread":
        Image.new("L", (1, 3_000_000)).save(path)
    elif how == "deep":
        Image.fromarray(np.full((30, 30), 4000, np.uint16)).save(path)
    else:
        raise AssertionError(how)


REASONS = {
    "truncated": "truncated",
    "text": "not one of the formats",
    "empty": "not one of the formats",
    "oversized": "8000 x 6251 pixels",
    "bomb": "50,000,000 pixels",
    "thread": "the resized image",
    "deep": "more than 8 bits",
}


@pytest.mark.parametrize("how", sorted(REASONS))
def test_a_bad_image_is_named_skipped_and_replaced(twenty: Path, tmp_path: Path, how: str) -> None:
    bad = opened(twenty)[2].id
    break_(twenty / bad, how)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        crops = written(opened(twenty), tmp_path / "out", count=19)
    assert [each.id for each in crops.skipped] == [bad]
    assert REASONS[how] in crops.skipped[0].reason
    assert str(tmp_path) not in crops.skipped[0].reason
    assert len(crops) == 19
    assert bad not in crops.ids


def test_labels_that_miss_an_image_are_not_used_and_that_is_said(twenty: Path, tmp_path: Path) -> None:
    lines = (twenty / "labels.csv").read_text().splitlines()
    (twenty / "labels.csv").write_text("\n".join(lines[:-1]))
    crops = written(opened(twenty), tmp_path / "out")
    assert crops.labels is None and crops.note == "1 of 20 images have no label: labels unused"


def test_a_file_that_vanished_is_skipped(twenty: Path, tmp_path: Path) -> None:
    images = opened(twenty)
    (twenty / images[0].id).unlink()
    assert len(written(images, tmp_path / "out").skipped) == 1


def test_what_is_written_is_what_the_set_holds(twenty: Path, tmp_path: Path) -> None:
    images = opened(twenty)
    seen: list[tuple[int, int]] = []
    crops = written(images, tmp_path / "out", count=7, progress=lambda *at: seen.append(at))
    assert seen == [(done, 7) for done in range(1, 8)]
    assert crops.ids == tuple(images[index].id for index in range(7))
    assert crops.digests == tuple(
        hashlib.sha256((twenty / name).read_bytes()).hexdigest() for name in crops.ids
    )
    assert crops.labels is not None
    assert crops.labels.dtype == np.int64
    assert crops.labels.tolist() == [int(Path(name).stem) % 3 for name in crops.ids]
    assert crops.pixels.shape == (7, 20, 22, 3)
    assert crops.pixels.dtype == np.uint8
    assert not crops.pixels.flags.writeable
    assert [len(batch) for batch in crops.batches(3)] == [3, 3, 1]
    assert np.array_equal(np.concatenate(list(crops.batches(3))), crops.pixels)
    again = Crops.open(tmp_path / "out")
    assert (again.ids, again.list_digest, again.source) == (crops.ids, crops.list_digest, crops.source)


def test_a_key_tells_the_same_images_decoded_otherwise(twenty: Path, tmp_path: Path) -> None:
    first, again = (written(opened(twenty), tmp_path / name) for name in ("a", "b"))
    coarse = write_crops(
        opened(twenty),
        replace(SMALL, resize=30),
        shape=SHAPE,
        count=1000,
        folder=tmp_path / "c",
        progress=lambda done, wanted: None,
    )
    assert first.list_digest == coarse.list_digest
    assert first.key == again.key != coarse.key
    some = np.array([1, 2])
    assert first.only(some).key == again.only(some).key not in (first.key, coarse.only(some).key)


def test_the_list_digest_is_that_of_sha256sum(tmp_path: Path) -> None:
    root = tmp_path / "set"
    for index in range(5):
        image_file(root / f"{index}.png")
    crops = written(opened(root), tmp_path / "out")
    printed = subprocess.run(["sha256sum", *crops.ids], cwd=root, capture_output=True, check=True).stdout
    assert crops.list_digest == hashlib.sha256(printed).hexdigest()
    assert crops.labels is None


def test_images_of_another_set_are_left_out_and_counted(twenty: Path, tmp_path: Path) -> None:
    calibration = written(opened(twenty), tmp_path / "calibration", count=8)
    validation = written(opened(twenty), tmp_path / "validation", exclude=frozenset(calibration.digests))
    assert not set(calibration.digests) & set(validation.digests)
    assert (len(validation), validation.excluded, validation.skipped) == (12, 8, ())
    everything = frozenset(calibration.digests + validation.digests)
    with pytest.raises(ImageError, match="no image is left: another set contains all 20") as caught:
        written(opened(twenty), tmp_path / "none", exclude=everything)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("bad", "count", "passes"), [(2, 3, True), (3, 9, False), (3, 30, True), (4, 30, False)]
)
def test_two_bad_images_are_forgiven_and_one_in_ten(
    tmp_path: Path, bad: int, count: int, passes: bool
) -> None:
    root = tmp_path / "set"
    names = [f"{index}.png" for index in range(30 if count == 30 else count + bad)]
    for index, name in enumerate(names):
        image_file(root / name, size=(24, 24))
        if index < bad:
            break_(root / name, "text")
    (root / "list").write_text("\n".join(names))
    images = opened(root / "list")
    if passes:
        assert len(written(images, tmp_path / "out", count=count).skipped) == bad
    else:
        with pytest.raises(ImageError, match=rf"{bad} of \d+ images cannot be used: 0.png cannot be decoded"):
            written(images, tmp_path / "out", count=count)


def test_a_set_of_rubbish_is_given_up_early(tmp_path: Path) -> None:
    for index in range(60):
        (tmp_path / f"{index}.jpg").write_text("rubbish")
    with pytest.raises(ImageError, match="3 of 3 images cannot be used"):
        written(opened(tmp_path), tmp_path / "out", count=10)


def test_one_file_that_is_not_an_image_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("rubbish")
    with pytest.raises(ImageError, match=r"1 of 1 images cannot be used: a\.jpg"):
        written(opened(tmp_path), tmp_path / "out")


@settings(deadline=None)  # shared machines pause
@given(
    width=st.integers(1, 300),
    height=st.integers(1, 300),
    crop=st.tuples(st.integers(1, 24), st.integers(1, 24)),
    color=st.sampled_from(["rgb", "gray"]),
    interpolation=st.sampled_from(["bilinear", "bicubic", "nearest"]),
)
def test_crops_follow_torchvisions_rule(
    tmp_path_factory: pytest.TempPathFactory,
    width: int,
    height: int,
    crop: tuple[int, int],
    color: Any,
    interpolation: Any,
) -> None:
    """Compare with an independent implementation of the formulas in torchvision.transforms.functional."""
    folder = tmp_path_factory.mktemp("crops")
    source = image_file(folder / "a.png", size=(width, height))
    preprocessing = Preprocessing(color=color, resize=24, interpolation=interpolation)
    channels = 3 if color == "rgb" else 1
    crops = write_crops(
        opened(folder),
        preprocessing,
        shape=(channels, *crop),
        count=1,
        folder=folder / "out",
        progress=lambda done, wanted: None,
    )
    long = 24 * max(width, height) // min(width, height)
    size = (24, long) if width <= height else (long, 24)
    with Image.open(source) as file:
        full = file.convert({"rgb": "RGB", "gray": "L"}[color])
    pixels = np.asarray(full.resize(size, getattr(Image.Resampling, interpolation.upper())))

    def start(length: int, wanted: int) -> int:  # rounds halves, exact ties to the even neighbour
        half, odd = divmod(length - wanted, 2)
        return half + (half % 2 if odd else 0)

    top, left = start(size[1], crop[0]), start(size[0], crop[1])
    expected = pixels[top : top + crop[0], left : left + crop[1]]
    assert np.array_equal(crops.pixels[0], expected.reshape(*crop, channels))


def test_orientation_tags_are_not_applied_and_alpha_is_dropped(tmp_path: Path) -> None:
    red, blue = Image.new("RGB", (24, 12), "red"), Image.new("RGB", (24, 12), "blue")
    both = Image.new("RGB", (24, 24))
    both.paste(red, (0, 0))
    both.paste(blue, (0, 12))
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    both.save(tmp_path / "turned.png", exif=exif)
    both.convert("P").save(tmp_path / "palette.png", transparency=b"\0" * 256)
    both.putalpha(0)
    both.save(tmp_path / "clear.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        crops = written(opened(tmp_path), tmp_path / "out", shape=(3, 24, 24))
    for crop in crops.pixels:
        assert crop[2, 12].tolist() == [255, 0, 0]
        assert crop[21, 12].tolist() == [0, 0, 255]


def test_one_changed_image_changes_the_fingerprint_if_it_could_be_tried(twenty: Path) -> None:
    images = opened(twenty)
    before = fingerprint(images, count=5)
    assert before == fingerprint(opened(twenty), count=5)
    image_file(twenty / images[19].id, seed=1)
    assert fingerprint(images, count=5) == before
    for index in range(7):  # five wanted, two skips forgiven
        last = fingerprint(images, count=5)
        image_file(twenty / images[index].id, seed=1)
        assert fingerprint(images, count=5) != last


def test_the_fingerprint_covers_labels_count_and_what_is_left_out(twenty: Path) -> None:
    images = opened(twenty)
    before = fingerprint(images, count=5)
    first = images[0].digest()
    for count in (5, 1000):  # all images are read in both cases: excluded ones are outside the window too
        assert fingerprint(images, count=count, exclude=frozenset({first})) != fingerprint(
            images, count=count
        )
    assert fingerprint(images, count=6) != before
    (twenty / "labels.csv").write_text(f"{images[0].id},2\n")
    assert fingerprint(opened(twenty), count=5) != before


def test_all_that_was_tried_lies_under_the_fingerprint(twenty: Path, tmp_path: Path) -> None:
    """Skipped and excluded images move the window; a change at its end must still change the fingerprint."""
    images = opened(twenty)
    exclude = frozenset(images[index].digest() for index in (0, 3, 4))
    for index in (1, 6):
        break_(twenty / images[index].id, "empty")
    crops = written(images, tmp_path / "out", count=5, exclude=exclude)
    before = fingerprint(images, count=5, exclude=exclude)
    image_file(twenty / crops.ids[-1], seed=1)
    assert fingerprint(images, count=5, exclude=exclude) != before


def removed(path: Path) -> None:
    path.unlink()


def replaced(path: Path) -> None:
    image_file(path.with_name("new.png"), seed=1)
    path.with_name("new.png").replace(path)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


@dataclass(frozen=True)
class Changing:
    """An item that changes when it is decoded."""

    item: ImageItem
    change: Callable[[], None]

    id = property(lambda self: self.item.id)
    label = property(lambda self: self.item.label)

    def digest(self) -> str:
        return self.item.digest()

    def load(self) -> Image.Image:
        found = self.item.load()
        self.change()
        return found


@pytest.mark.parametrize("change", [removed, replaced, cut])
@pytest.mark.parametrize("index", [0, 4])
def test_an_image_that_changes_before_or_while_it_is_read_is_refused(
    twenty: Path, tmp_path: Path, index: int, change: Callable[[Path], None]
) -> None:
    """Otherwise its pixels would be stored under the fingerprint of the image that was there before."""
    images = opened(twenty)
    name, excluded = images[index].id, frozenset({images[index].digest()})
    changed = f"{name} was changed while the images were read"
    for exclude in (frozenset[str](), excluded):
        image_file(twenty / name)
        found = fingerprint(images, count=5, exclude=exclude).images
        change(twenty / name)
        with pytest.raises(ImageError, match=changed) as caught:
            written(images, tmp_path / "out", count=5, found=found, exclude=exclude)
        assert "run again" in str(caught.value.hint)
    image_file(twenty / name)
    found, within = fingerprint(images, count=5).images, list(images)
    within[index] = Changing(within[index], partial(change, twenty / name))
    with pytest.raises(ImageError, match=changed):
        written(replace(images, items=within), tmp_path / "out", count=5, found=found)


def test_an_image_that_cannot_be_read_all_the_time_is_skipped_as_ever(twenty: Path, tmp_path: Path) -> None:
    images = opened(twenty)
    (twenty / images[1].id).unlink()
    crops = written(images, tmp_path / "out", count=5, found=fingerprint(images, count=5).images)
    assert [each.id for each in crops.skipped] == [images[1].id] and len(crops) == 5
    assert crops.skipped[0].reason.startswith("cannot be read")


@dataclass(frozen=True)
class Watched:
    """An item that records that it was decoded."""

    item: ImageItem
    decoded: list[str]

    id = property(lambda self: self.item.id)
    label = property(lambda self: self.item.label)

    def digest(self) -> str:
        return self.item.digest()

    def load(self) -> Image.Image:
        self.decoded.append(self.id)
        return self.item.load()


def test_each_image_is_decoded_once_and_few_beyond_the_last(tmp_path: Path) -> None:
    threads = threading.active_count()
    digits = open_images("digits", size=8, color="rgb", split="validation")
    decoded: list[str] = []
    images = replace(digits, items=[Watched(item, decoded) for item in digits])
    crops = written(images, tmp_path / "out", count=50)
    assert len(set(decoded)) == len(decoded) <= 60
    assert set(crops.ids) <= set(decoded)
    assert threading.active_count() == threads


def test_what_cannot_be_written_says_so(twenty: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteFailed, match="a file exists where a folder is needed"):
        written(opened(twenty), tmp_path / "file" / "out")


def test_a_full_disk_is_an_error_not_a_crash(twenty: Path, tmp_path: Path) -> None:
    """/dev/full fails every write with ENOSPC."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "crops.npy").symlink_to("/dev/full")
    with pytest.raises(WriteFailed, match="the disk is full") as caught:
        written(opened(twenty), tmp_path / "out")
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.ENOSPC


def damages() -> Iterator[tuple[str, Any]]:
    yield "absent", lambda folder: (folder / "crops.json").unlink()
    yield "no JSON", lambda folder: (folder / "crops.json").write_text("{")
    yield "a list", lambda folder: (folder / "crops.json").write_text("[]")
    yield "short", lambda folder: (folder / "crops.npy").write_bytes((folder / "crops.npy").read_bytes()[:-1])
    yield "pickled", lambda folder: np.save(folder / "crops.npy", np.array([{}], object), allow_pickle=True)

    def fewer(folder: Path) -> None:
        facts = json.loads((folder / "crops.json").read_text())
        facts["ids"].pop()
        (folder / "crops.json").write_text(json.dumps(facts))

    yield "fewer names", fewer


@pytest.mark.parametrize("damage", [pytest.param(do, id=name) for name, do in damages()])
def test_damaged_crops_are_refused(twenty: Path, tmp_path: Path, damage: Any) -> None:
    written(opened(twenty), tmp_path / "out")
    damage(tmp_path / "out")
    with pytest.raises(ImageError, match="stored crops cannot be read") as caught:
        Crops.open(tmp_path / "out")
    assert caught.value.hint


def test_names_that_are_no_utf8_are_kept_escaped(tmp_path: Path) -> None:
    image_file(tmp_path / "set" / "a.png").rename(os.fsdecode(bytes(tmp_path / "set") + b"/\xff.png"))
    crops = written(opened(tmp_path / "set"), tmp_path / "out")
    assert Crops.open(tmp_path / "out").ids == crops.ids == ("\\xff.png",)


def test_memory_does_not_grow_with_the_count(tmp_path: Path) -> None:
    """2,000 crops of 224 x 224 are 301 MB; the process that writes them uses far less memory."""
    image_file(tmp_path / "set" / "a.png", size=(230, 230))
    program = """
import pathlib, resource, sys
from cnnx.data.crops import write_crops
from cnnx.data.images import ImageFile, ImageSet
from cnnx.preprocessing import Preprocessing
root = pathlib.Path(sys.argv[1])
images = ImageSet("many", "", [ImageFile(str(i), root / "set" / "a.png") for i in range(2000)])
def peak_kib(count):
    at, out = Preprocessing(resize=224), root / str(count)
    write_crops(images, at, shape=(3, 224, 224), count=count, folder=out, progress=print)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print("grown by KiB", -peak_kib(10) + peak_kib(2000))
"""
    ran = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert int(ran.stdout.split()[-1]) < 60_000


@settings(deadline=None)  # shared machines pause
@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5), st.sampled_from([1, 3]), st.data())
def test_normalisation_is_that_of_the_published_formula(
    count: int, height: int, width: int, channels: int, data: st.DataObject
) -> None:
    values = data.draw(
        st.binary(min_size=count * height * width * channels, max_size=count * height * width * channels)
    )
    crops = np.frombuffer(values, np.uint8).reshape(count, height, width, channels)
    numbers = st.lists(st.floats(0.01, 1), min_size=channels, max_size=channels).map(tuple)
    mean, std = data.draw(numbers), data.draw(numbers)
    images = normalize(crops, Preprocessing(mean=mean, std=std))
    assert images.shape == (count, channels, height, width)
    assert images.dtype == np.float32
    assert images.flags.c_contiguous
    expected = (crops / 255 - np.array(mean)) / np.array(std)
    np.testing.assert_allclose(images, expected.transpose(0, 3, 1, 2), rtol=1e-5, atol=1e-5 / min(std))


def test_normalisation_equals_torchvisions_arithmetic_to_the_last_bit() -> None:
    torch = pytest.importorskip("torch")
    crops = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
    preprocessing = Preprocessing()
    image = torch.from_numpy(crops.transpose(0, 3, 1, 2).copy()).to(torch.float32).div(255)
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (preprocessing.mean, preprocessing.std))
    assert np.array_equal(normalize(crops, preprocessing), image.sub(mean).div(std).numpy())
