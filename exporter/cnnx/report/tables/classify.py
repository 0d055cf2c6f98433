"""Table of classified images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from cnnx.report.table import Block, Cell, Column, Remark, table_of
from cnnx.report.words import first_of, percent, several

if TYPE_CHECKING:
    from cnnx.pipeline.classify.classify import Classified, ClassifyResult

_WHOLE = 4  # images up to which all classes are shown
_SHOWN = 40


def classify_blocks(result: ClassifyResult, *, verbose: bool) -> Iterator[Block]:
    """All classes of a few images, or the first class of many; then the speed."""
    whole = verbose or len(result.images) <= _WHOLE
    shown, more = first_of(result.images, _SHOWN, whole=verbose)
    columns: tuple[Column[Classified], ...] = (
        Column("image", lambda each: each.image),
        Column("classes" if whole else "class", lambda each: _classes(each, whole=whole)),
    )
    subject = result.subject
    where = f"{subject.artefact} on {subject.runtime}, {subject.device}"
    title = f"{subject.network} {subject.precision}, {where}"
    yield table_of(title, columns, [[each] for each in shown], lined=whole, remarks=more)
    count = sum(not each.reason for each in result.images)
    yield Remark(
        f"{several(count, 'image')}: {result.images_per_second:,.1f} images/s with decoding, "
        f"{result.network_images_per_second:,.1f} images/s in the network"
    )


def _classes(each: Classified, *, whole: bool) -> Cell:
    if each.reason:
        return Cell(each.reason, "bad")
    guesses = each.guesses if whole else each.guesses[:1]
    return Cell("\n".join(f"{percent(guess.probability)} {guess.name}" for guess in guesses))
