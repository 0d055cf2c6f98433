from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnx.data.class_names import read_wnids
from cnnx.data.images import ImageSet
from cnnx.data.sets import BUILT_IN, open_images
from cnnx.errors import ImageError, UsageError
from cnnx.resources import shared_folder
from tests.inputs.pictures import picture
from tools import ROOT


def opened(spec: str | Path, **more: object) -> ImageSet:
    return open_images(str(spec), **{"size": 32, "color": "rgb", "split": "validation", **more})  # type: ignore[arg-type]


def refused(spec: str | Path, says: str, **more: object) -> None:
    """The set is refused with this message, a location and a hint."""
    with pytest.raises(ImageError, match=says) as caught:
        opened(spec, **more)
    assert caught.value.where
    assert caught.value.hint


def imagenet() -> tuple[str, ...]:
    wnids = read_wnids(shared_folder("recipes") / "labels" / "imagenet.csv", 1000)
    assert wnids
    return wnids


def touched(root: Path, *names: str) -> Path:
    """Create empty files: opening a set decodes none."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def labels_of(images: ImageSet) -> dict[str, int | None]:
    return {item.id: item.label for item in images}


def classes_folder(root: Path) -> Path:
    for name in ("cat", "dog", "dog/puppies"):
        for index in range(3):
            picture(root / name / f"{index}.png")
    (root / "eel").mkdir()
    (root / ".thumbnails").mkdir()
    picture(root / ".thumbnails" / "0.png")
    (root / "notes.txt").write_text("not an image")
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
    assert "labels unused" in images.note


def test_a_few_of_imagenets_class_folders_are_labelled_by_their_ids(tmp_path: Path) -> None:
    """By position, labels would be 0 to 3, not tench, sea snake, golden retriever and toilet tissue."""
    root = touched(
        tmp_path,
        "n15075141/a.JPEG",
        "n01440764/a.JPEG",
        "n02099601/a.JPEG",
        "n02099601/more/b.JPEG",
        "n01751748/a.JPEG",
        "n02084071/notes.txt",  # not a class of the network; ignored, because it has no images
    )
    images = opened(root, classes=1000, class_ids=imagenet())
    assert labels_of(images) == {
        "n15075141/a.JPEG": 999,
        "n01440764/a.JPEG": 0,
        "n02099601/a.JPEG": 207,
        "n02099601/more/b.JPEG": 207,
        "n01751748/a.JPEG": 65,
    }
    assert images.class_names is not None
    assert images.class_names[207] == "n02099601"


def test_class_folders_of_which_some_are_no_ids_are_refused_by_name(tmp_path: Path) -> None:
    root = touched(tmp_path, *(f"{name}/a.png" for name in ("n01440764", "n02084071", "x", "y", "z")))
    with pytest.raises(ImageError) as caught:
        opened(root, classes=1000, class_ids=imagenet())
    said = str(caught.value)
    assert "4 of 5 class folders" in said
    assert "n02084071, x, y and 1 more" in said
    assert "--labels" in said
    assert "n01440764" not in caught.value.what
    (tmp_path / "truth.csv").write_text("x/a.png,7\n")
    images = opened(root, labels=tmp_path / "truth.csv", classes=1000, class_ids=imagenet())
    assert labels_of(images)["x/a.png"] == 7


def test_a_thousand_class_folders_with_other_names_are_no_guess(tmp_path: Path) -> None:
    """Sorted names are not sorted IDs: a cougar would become a lacewing. Without IDs, names are sorted."""
    names = sorted(hashlib.sha256(str(index).encode()).hexdigest()[:9] + "x" for index in range(1000))
    root = touched(tmp_path, *(f"{name}/a.png" for name in names))
    images = opened(root, classes=1000, class_ids=imagenet())
    assert {item.label for item in images} == {None} and "neither by WordNet IDs" in images.note
    images = opened(root, classes=1000)
    assert labels_of(images) == {f"{name}/a.png": index for index, name in enumerate(names)}


def test_class_folders_one_level_deeper_are_pointed_at(tmp_path: Path) -> None:
    """ImageNet's root has train/ and val/, which are neither two classes nor one set."""
    first, second = imagenet()[:2]
    root = touched(tmp_path, f"train/{first}/a.png", f"val/{second}/b.png")
    with pytest.raises(ImageError, match="one level deeper, in train/") as refusal:
        opened(root, classes=1000, class_ids=imagenet())
    assert str(root / "train") in str(refusal.value)
    assert labels_of(opened(root / "val", classes=1000, class_ids=imagenet())) == {f"{second}/b.png": 1}


def test_as_many_ids_of_other_classes_give_no_labels(tmp_path: Path) -> None:
    """Ten breeds of dogs are not the ten classes of the network."""
    root = touched(tmp_path, *(f"{wnid}/a.png" for wnid in imagenet()[151:161]))
    images = opened(root, classes=10, class_ids=imagenet()[:10])
    assert {item.label for item in images} == {None}
    assert "labels unused" in images.note


@pytest.mark.parametrize(
    ("names", "ids", "labels"),
    [
        # ImageNetV2's folders; in torchvision's ImageFolder, "10" would be the third class.
        ([str(index) for index in range(12)], True, list(range(12))),
        ([str(index) for index in range(12)], False, None),
        # Numbered from 1, possibly in the order of ILSVRC's devkit.
        ([str(index) for index in range(1, 13)], True, None),
        # Only a few: folders "0" and "1" may be cats and dogs rather than tench and goldfish.
        (["0", "1"], True, None),
        # Unambiguous, because numeric and text order agree.
        ([f"{index:02d}" for index in range(12)], True, list(range(12))),
        ([f"{index:02d}" for index in range(12)], False, list(range(12))),
        ([f"{index:02d}" for index in range(1, 13)], False, list(range(12))),
    ],
)
def test_class_folders_named_by_numbers_are_labelled_where_there_is_one_reading(
    tmp_path: Path, names: list[str], ids: bool, labels: list[int] | None
) -> None:
    root = touched(tmp_path, *(f"{name}/a.png" for name in names))
    images = opened(root, classes=12, class_ids=imagenet()[:12] if ids else None)
    expected = labels or [None] * len(names)
    assert labels_of(images) == {f"{name}/a.png": label for name, label in zip(names, expected, strict=True)}
    assert ("labels unused" in images.note) == (labels is None)


@settings(deadline=None, max_examples=30)  # shared machines pause
@given(st.lists(st.integers(0, 999), min_size=1, max_size=12, unique=True))
def test_an_id_gives_the_same_label_in_whatever_company(indices: list[int]) -> None:
    wnids = imagenet()
    with tempfile.TemporaryDirectory() as folder:
        touched(Path(folder), *(f"{wnids[index]}/a.png" for index in indices))
        images = opened(folder, classes=1000, class_ids=wnids)
    assert labels_of(images) == {f"{wnids[index]}/a.png": index for index in indices}


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


@pytest.mark.parametrize("name", ["labels.txt", "list"])
@pytest.mark.parametrize("separator", [",", " ", "\t", ", "])
def test_a_label_may_be_a_wordnet_id(tmp_path: Path, name: str, separator: str) -> None:
    validation = [f"ILSVRC2012_val_0000000{index}.JPEG" for index in (1, 2, 3)]
    touched(tmp_path, *validation)
    rows = zip(validation, ("n01751748", "65", "n15075141"), strict=True)
    text = "file,wnid\n" + "".join(separator.join(row) + "\n" for row in rows)
    (tmp_path / name).write_text(text)
    images = opened(tmp_path / name if name == "list" else tmp_path, classes=1000, class_ids=imagenet())
    assert labels_of(images) == dict(zip(validation, (65, 65, 999), strict=True))


@pytest.mark.parametrize(
    ("text", "ids", "says"),
    [
        ("a.png n02084071\n", True, "label n02084071 of a.png: not a WordNet ID of this network"),
        ("a.png n01440764\n", False, "label n01440764 of a.png: .* are not known"),
        # The devkit's numbers next to the names: among 50,000 images, one of them is 1000.
        ("a.png 490\na.png 1000\n", True, "label 1000 of a.png is out of range"),
        ("490\r\n361\r\n490\r\n1000\r\n", True, "devkit's order of classes"),
    ],
)
def test_labels_of_another_order_are_refused(tmp_path: Path, text: str, ids: bool, says: str) -> None:
    touched(tmp_path, "a.png")
    (tmp_path / "truth").write_text(text)
    (tmp_path / "labels.txt").write_text(text)
    known = {"classes": 1000, "class_ids": imagenet() if ids else None}
    refused(tmp_path, says, **known)
    refused(tmp_path, says, labels=tmp_path / "truth", **known)
    refused(tmp_path / "truth", says, **known)


def test_the_devkits_ground_truth_is_told_from_a_list_of_files_named_by_numbers(tmp_path: Path) -> None:
    (tmp_path / "ILSVRC2012_validation_ground_truth.txt").write_text("490\n361\n")
    truth = tmp_path / "ILSVRC2012_validation_ground_truth.txt"
    with pytest.raises(ImageError) as caught:
        opened(truth, classes=1000)
    assert "'ILSVRC2012_val_00000001.JPEG n01751748'" in str(caught.value.hint)
    assert "meta.mat" in str(caught.value.hint)
    touched(tmp_path, "490", "361")
    assert labels_of(opened(truth, classes=1000)) == {"490": None, "361": None}


def test_calibration_reads_no_labels_so_that_none_can_disturb_it(tmp_path: Path) -> None:
    touched(tmp_path / "flat", "a.png", "b.png")
    (tmp_path / "flat" / "labels.csv").write_text("no labels\xe9 at all\n")
    lines = "a.png 1000\nb.png,n02084071\n"
    (tmp_path / "flat" / "list").write_text(lines)
    mixed = touched(tmp_path / "mixed", "n01440764/a.png", "x/b.png")
    known = {"classes": 10, "class_ids": imagenet()[:10], "split": "calibration"}
    for spec in (tmp_path / "flat", tmp_path / "flat" / "list", mixed):
        images = opened(spec, **known)
        assert [item.label for item in images] == [None, None], spec
        assert images.class_names is None
    assert [item.id for item in opened(tmp_path / "flat" / "list", **known)] == ["a.png", "b.png"]
    for spec in (tmp_path / "flat", tmp_path / "flat" / "list"):
        with pytest.raises(UsageError, match="does not take labels"):
            opened(spec, labels=tmp_path / "flat" / "labels.csv", **known)


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


NAMES = st.text("aZ0 ,;.-'é\u2028", min_size=1, max_size=8).map(lambda text: f"n{text}.png")
LABELS = st.one_of(st.none(), st.integers(0, 999).map(str), st.sampled_from(imagenet()))


@settings(deadline=None, max_examples=60)
@given(
    rows=st.dictionaries(NAMES, LABELS, min_size=1, max_size=6),
    separator=st.sampled_from([" ", ",", "\t", " ; "]),
    ending=st.sampled_from(["\n", "\r\n"]),
    mark=st.sampled_from(["", "\ufeff"]),
    absolute=st.booleans(),
)
def test_a_list_is_read_as_it_was_written(
    rows: dict[str, str | None], separator: str, ending: str, mark: str, absolute: bool
) -> None:
    """Lists with both line ends, a byte order mark, blanks and commas in names, and absolute paths."""
    with tempfile.TemporaryDirectory() as folder:
        root = touched(Path(folder), *rows)
        written = {f"{root}/{name}" if absolute else name: label for name, label in rows.items()}
        lines = [name if label is None else name + separator + label for name, label in written.items()]
        (root / "list").write_bytes((mark + ending.join([*lines, ""])).encode())
        images = opened(root / "list", classes=1000, class_ids=imagenet())
    indices = {label: index for index, wnid in enumerate(imagenet()) for label in (wnid, str(index))}
    expected = [(name, None if label is None else indices[label]) for name, label in rows.items()]
    assert [(item.id, item.label) for item in images] == expected


def test_absolute_names_may_go_by_way_of_a_link(tmp_path: Path) -> None:
    """Such names are written by `find $PWD` in a shell below a symbolic link."""
    touched(tmp_path / "real", "sub/a.png", "b.png")
    (tmp_path / "link").symlink_to("real")
    for folder, other in (("real", "link"), ("link", "real")):
        (tmp_path / "real" / "list").write_text(f"{tmp_path}/{other}/sub/a.png\n{tmp_path}/{folder}/b.png\n")
        assert [item.id for item in opened(tmp_path / folder / "list")] == ["sub/a.png", "b.png"]


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
        ("a.png cat\n", "no label after"),
        ("a.png 1\na.png 2\n", "labelled twice"),
        ("a.png 1\nb.png 1\nc.png 1\nd.png 0\ne.png 0\n", "not in the set: b.png, c.png, d.png and 1 more"),
        (b"a.png 1\xff\xfe\n", "not UTF-8 text"),
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
        ("", "the list is empty"),
        ("a.png\nabsent.png\n", "absent.png"),
        ("a.png\n./a.png\n", "listed twice"),
        ("x" * 5000 + "\n", "not in the set"),
        ("a.png\0\n", "not a list of file names"),
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
    refused(tmp_path / "list", "both in the list and in a label file", labels=tmp_path / "labels")


def test_what_is_no_set_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, "contains no images")
    refused(tmp_path / "absent", "no folder, list or built-in set")
    refused("", "no folder, list or built-in set")
    refused("x" * 5000, "no folder, list or built-in set")
    refused(picture(tmp_path / "one.png"), "a single image, not a set")
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
    with pytest.raises(UsageError, match="does not take labels"):
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
    made = tmp_path / "digits.npz"
    subprocess.run(
        [sys.executable, "-m", "tools.train.digits", "--out", made], cwd=ROOT, check=True, capture_output=True
    )
    digest = hashlib.sha256(made.read_bytes()).hexdigest()
    assert digest == hashlib.sha256(shipped.read_bytes()).hexdigest()
    assert digest in (shipped.parent / "README.md").read_text()


@pytest.mark.parametrize("spec", ["digits", "shapes100"])
def test_labels_of_other_classes_are_not_used(spec: str) -> None:
    images = open_images(spec, size=32, color="rgb", split="validation", classes=1000)
    assert {item.label for item in images.items[:20]} == {None} and images.class_names is None
    assert "the network 1000" in images.note
    own = open_images(spec, size=32, color="rgb", split="validation")
    assert images[3].id == own[3].id and images[3].digest() == own[3].digest() and own[3].label is not None
    assert images[3].load().tobytes() == own[3].load().tobytes()
