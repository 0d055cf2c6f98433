"""Class names and WordNet IDs from text and CSV."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import cnnx
from cnnx.data.class_names import read_labels, read_wnids
from cnnx.errors import RecipeError
from cnnx.resources import shared_folder


def test_the_shipped_labels_are_in_the_order_of_published_checkpoints() -> None:
    imagenet, digits = (shared_folder("recipes") / "labels" / name for name in ("imagenet.csv", "digits.txt"))
    names, wnids = read_labels(imagenet, 1000), read_wnids(imagenet, 1000)
    assert wnids is not None
    assert [(names[index], wnids[index]) for index in (0, 207, 999)] == [
        ("tench", "n01440764"),
        ("golden retriever", "n02099601"),
        ("toilet tissue", "n15075141"),
    ]
    assert len(set(names)) == len(set(wnids)) == 1000
    assert list(wnids) == sorted(wnids)
    assert read_labels(digits, 10) == tuple("0123456789")
    assert read_wnids(digits, 10) is None


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("two.txt", b"a\nb\n", "2 names for 3 classes"),
        ("hole.txt", b"a\n\nc\n", "the name of class 1 is empty"),
        ("latin.txt", b"a\nb\n\xff\n", "UTF-8"),
        ("head.csv", b"0,a\n1,b\n2,c\n", "no column 'name'"),
        ("order.csv", b"index,name\n0,a\n2,b\n1,c\n", "row 1 has index 2"),
    ],
)
def test_labels_that_do_not_fit_are_refused(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RecipeError) as refusal:
        read_labels(tmp_path / name, 3)
    assert says in str(refusal.value)
    assert name in str(refusal.value)


def test_csv_names_may_hold_commas_and_text_may_end_in_blank_lines(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text('\ufeffname\n"crane, bird"\nb\n')
    (tmp_path / "x.txt").write_text("crane, bird\nb\n\n\n")
    assert read_labels(tmp_path / "x.csv", 2) == read_labels(tmp_path / "x.txt", 2) == ("crane, bird", "b")


@pytest.mark.parametrize(
    ("wnids", "says"),
    [
        (("n00000001", "n00000002", "n2"), "invalid WordNet ID 'n2' for class 2"),
        (("n00000001", "", "n00000002"), "invalid WordNet ID '' for class 1"),
        (("n00000001", "n00000002", "n00000001"), "classes 0 and 2 have the same WordNet ID n00000001"),
    ],
)
def test_ids_that_would_mislead_are_refused(tmp_path: Path, wnids: tuple[str, ...], says: str) -> None:
    rows = "".join(f"{wnid},class {index}\n" for index, wnid in enumerate(wnids))
    (tmp_path / "x.csv").write_text("wnid,name\n" + rows)
    assert read_labels(tmp_path / "x.csv", 3) == ("class 0", "class 1", "class 2")
    with pytest.raises(RecipeError) as refusal:
        read_wnids(tmp_path / "x.csv", 3)
    assert says in str(refusal.value)
    assert refusal.value.hint


def test_the_recipes_ids_label_the_pictures_of_an_export(tmp_path: Path) -> None:
    """Two of ten classes in folders named by IDs; the calibration list has labels of other classes."""
    pytest.importorskip("torch", reason="exports need PyTorch")
    wnids = [f"n{10 * index:08d}" for index in range(10)]
    rows = "".join(f"{index},{wnid},class {index}\n" for index, wnid in enumerate(wnids))
    (tmp_path / "ten.csv").write_text("index,wnid,name\n" + rows)
    (tmp_path / "mine.toml").write_text(
        'name = "mine"\n'
        'model = { definition = "lenet5", classes = 10, labels = "ten.csv" }\n'
        "input = { shape = [1, 32, 32] }\n"
        'preprocessing = { color = "gray", resize = 32, mean = [0.5], std = [0.5] }\n'
    )
    random = np.random.default_rng(0)
    for name in ("val/n00000070/a.png", "val/n00000030/b.png", "train/c.png", "train/d.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 255, (40, 40), dtype=np.uint8)).save(tmp_path / name)
    (tmp_path / "train.txt").write_text("train/c.png 999\r\ntrain/d.png n01440764\r\n")
    result = cnnx.export(
        str(tmp_path / "mine.toml"),
        precision="int8",
        weights="standin",
        calibration_data=str(tmp_path / "train.txt"),
        validation_data=str(tmp_path / "val"),
        out=tmp_path / "out",
    )
    reference = result.bundle.reference()
    assert reference.labels is not None
    labels = dict(zip(reference.ids, reference.labels.tolist(), strict=True))
    assert labels == {"n00000070/a.png": 7, "n00000030/b.png": 3}
    assert result.bundle.manifest.images["calibration"].images == 2


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="absent"):
        read_labels(tmp_path / "none.txt", 2)
