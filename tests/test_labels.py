"""Class names from text and CSV."""

from __future__ import annotations

from pathlib import Path

import pytest

from cnnx.errors import RecipeError
from cnnx.labels import read_labels
from cnnx.resources import shared_folder


def test_the_shipped_labels_are_in_the_order_of_published_checkpoints() -> None:
    names = read_labels(shared_folder("recipes") / "labels" / "imagenet.csv", 1000)
    assert (names[0], names[207], names[999]) == ("tench", "golden retriever", "toilet tissue")
    assert len(set(names)) == 1000
    assert read_labels(shared_folder("recipes") / "labels" / "digits.txt", 10) == tuple("0123456789")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("two.txt", b"a\nb\n", "2 labels for 3 classes"),
        ("hole.txt", b"a\n\nc\n", "class 1 has an empty name"),
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


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="absent"):
        read_labels(tmp_path / "none.txt", 2)
