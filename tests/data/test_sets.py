from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from cnnx.data.images import ImageSet
from cnnx.data.sets import BUILT_IN, open_images
from cnnx.errors import ImageError, UsageError

from .pictures import picture


def opened(spec: str | Path, **more: object) -> ImageSet:
    return open_images(str(spec), **{"size": 32, "color": "rgb", "split": "validation", **more})  # type: ignore[arg-type]


def refused(spec: str | Path, says: str, **more: object) -> None:
    """The set is refused, in these words, with a place and a remedy."""
    with pytest.raises(ImageError, match=says) as caught:
        opened(spec, **more)
    assert caught.value.where
    assert caught.value.mend


def classes_folder(root: Path) -> Path:
    for name in ("cat", "dog", "dog/puppies"):
        for index in range(3):
            picture(root / name / f"{index}.png")
    (root / "eel").mkdir()
    (root / ".thumbnails").mkdir()
    picture(root / ".thumbnails" / "0.png")
    (root / "notes.txt").write_text("not a picture")
    return root


def test_class_folders_number_the_labels_and_empty_ones_keep_their_number(tmp_path: Path) -> None:
    images = opened(classes_folder(tmp_path), classes=3)
    assert images.class_names == ("cat", "dog", "eel")
    assert {item.id: item.label for item in images} == {
        **{f"cat/{i}.png": 0 for i in range(3)},
        **{f"dog/{i}.png": 1 for i in range(3)},
        **{f"dog/puppies/{i}.png": 1 for i in range(3)},
    }
    assert not images.synthetic


def test_class_folders_of_another_number_of_classes_give_no_labels_and_say_so(tmp_path: Path) -> None:
    images = opened(classes_folder(tmp_path), classes=1000)
    assert {item.label for item in images} == {None}
    assert images.class_names is None
    assert "labels unused" in images.source


def test_the_order_is_spread_and_stable_when_pictures_are_added(tmp_path: Path) -> None:
    for index in range(40):
        picture(tmp_path / f"{index:02d}.jpg", size=(4, 4))
    before = [item.id for item in opened(tmp_path)]
    assert before != sorted(before)
    for index in range(40, 60):
        picture(tmp_path / f"{index:02d}.jpg", size=(4, 4))
    after = [item.id for item in opened(tmp_path)]
    assert [name for name in after if name in before] == before
    assert len(after) == 60


@pytest.mark.parametrize("separator", [",", ";", " ", "\t", " , "])
def test_labels_beside_a_flat_folder_are_found(tmp_path: Path, separator: str) -> None:
    for name in ("a b.png", "c.png", "d.png"):
        picture(tmp_path / name)
    (tmp_path / "labels.csv").write_text(
        f"file{separator}label\n# note\n\na b.png{separator}7\nc.png{separator}0\n"
    )
    images = opened(tmp_path, classes=8)
    assert {item.id: item.label for item in images} == {"a b.png": 7, "c.png": 0, "d.png": None}


def test_a_labels_file_overrides_class_folders(tmp_path: Path) -> None:
    root = classes_folder(tmp_path / "set")
    labels = tmp_path / "truth.txt"
    labels.write_text("cat/0.png 281\n")
    images = opened(root, labels=labels, classes=1000)
    assert [item.label for item in images if item.id == "cat/0.png"] == [281]


def test_a_list_keeps_its_order_and_starts_at_its_own_folder_or_at_a_root(tmp_path: Path) -> None:
    for name in ("b.png", "sub/a.png", "c.png"):
        picture(tmp_path / name)
    (tmp_path / "list.txt").write_text("sub/a.png 2\n./c.png 0\nb.png\n")
    images = opened(tmp_path / "list.txt", classes=3)
    assert [(item.id, item.label) for item in images] == [("sub/a.png", 2), ("c.png", 0), ("b.png", None)]
    elsewhere = tmp_path / "elsewhere.txt"
    (tmp_path / "sub" / "list").write_text(f"{tmp_path}/b.png\nc.png\n")
    assert [item.id for item in opened(tmp_path / "sub" / "list", root=tmp_path)] == ["b.png", "c.png"]
    elsewhere.write_text("b.png\n")
    labels = tmp_path / "labels.txt"
    labels.write_text("b.png 5\n")
    assert opened(elsewhere, labels=labels)[0].label == 5


@pytest.mark.parametrize(
    "line", ["../outside.png", "sub/../../outside.png", "/etc/hostname", "../set-2/a.png"]
)
def test_a_list_may_not_leave_its_folder(tmp_path: Path, line: str) -> None:
    picture(tmp_path / "outside.png")
    picture(tmp_path / "set-2" / "a.png")
    picture(tmp_path / "set" / "a.png")
    (tmp_path / "set" / "list.txt").write_text(f"a.png\n{line}\n")
    refused(tmp_path / "set" / "list.txt", "outside the folder")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a.png 3\n", "out of range"),
        ("a.png -1\n", "out of range"),
        ("a.png cat\n", "no label index after"),
        ("a.png 1\na.png 2\n", "labelled twice"),
        ("a.png 1\nb.png 1\nc.png 1\nd.png 0\ne.png 0\n", "not in the set: b.png, c.png, d.png and 1 more"),
        (b"a.png 1\xff\xfe\n", "no UTF-8 text"),
    ],
)
def test_bad_labels_are_refused(tmp_path: Path, text: str | bytes, says: str) -> None:
    picture(tmp_path / "a.png")
    file = tmp_path / "labels.txt"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    refused(tmp_path, says, classes=3)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "names no pictures"),
        ("a.png\nabsent.png\n", "absent.png"),
        ("a.png\n./a.png\n", "listed twice"),
        ("x" * 5000 + "\n", "not in the set"),
        ("a.png\0\n", "no list of file names"),
        ("a.png 99999999999999999999\n", "not in the set"),
    ],
)
def test_bad_lists_are_refused(tmp_path: Path, text: str, says: str) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "list").write_text(text)
    refused(tmp_path / "list", says)


def test_labels_in_and_beside_a_list_contradict_each_other(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "list").write_text("a.png 1\n")
    (tmp_path / "labels").write_text("a.png 2\n")
    refused(tmp_path / "list", "given twice", labels=tmp_path / "labels")


def test_what_is_no_set_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, "holds no pictures")
    refused(tmp_path / "absent", "no folder, list or built-in set")
    refused("", "no folder, list or built-in set")
    refused("x" * 5000, "no folder, list or built-in set")
    refused(picture(tmp_path / "one.png"), "one picture, not a set")
    (tmp_path / "sub").mkdir()
    assert len(opened(tmp_path)) == 1
    picture(tmp_path / "sub" / "two.png")
    refused(tmp_path, "mixes class folders")
    os.mkfifo(tmp_path / "sub" / "pipe.png")
    assert len(opened(tmp_path / "sub")) == 1


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ImageError) as caught:
        opened("digit")
    assert "did you mean 'digits'" in str(caught.value)
    assert all(name in str(caught.value) for name in BUILT_IN)
    with pytest.raises(UsageError, match="takes no labels"):
        opened("digits", labels=Path("x"))


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_built_in_sets_have_disjoint_splits_and_honest_digests(name: str) -> None:
    sets = [opened(name, split=split) for split in ("calibration", "validation")]
    digests = [{images[i].digest() for i in range(400)} for images in sets]
    pixels = [{images[i].load().tobytes() for i in range(4)} for images in sets]
    assert not digests[0] & digests[1]
    assert not pixels[0] & pixels[1]
    assert all(len(digest) == 64 for digest in digests[0])
    assert sets[0][1].load().tobytes() == opened(name, split="calibration")[1].load().tobytes()


def test_digits_are_those_of_the_source_split_with_each_class_at_its_share() -> None:
    training, held_out = opened("digits", split="calibration"), opened("digits")
    assert (len(training), len(held_out)) == (997, 800)
    counts = np.bincount([item.label for item in training] + [item.label for item in held_out])
    # Class counts of the test part, from the data set's own description (optdigits.names).
    assert counts.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    share = np.bincount([item.label for item in held_out]) - counts * 800 / 1797
    assert np.abs(share).max() < 1
    pixels = np.stack([np.asarray(item.load()) for item in [*training, *held_out]])
    levels = (pixels.astype(int) * 16 + 127) // 255
    assert np.array_equal(np.rint(levels * 255 / 16), pixels)
    assert levels.min() == 0
    assert levels.max() == 16
    assert "CC BY 4.0" in training.source
    assert "Alpaydin" in training.source


def test_digits_are_made_again_byte_for_byte(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    import subprocess
    import sys

    from cnnx.resources import shared_folder

    shipped = shared_folder("calibration") / "digits" / "digits.npz"
    tool = Path(__file__).parents[2] / "tools" / "make_digits.py"
    made = tmp_path / "digits.npz"
    subprocess.run([sys.executable, tool, "--out", made], check=True, capture_output=True)
    digest = hashlib.sha256(made.read_bytes()).hexdigest()
    assert digest == hashlib.sha256(shipped.read_bytes()).hexdigest()
    assert digest in (shipped.parent / "README.md").read_text()
