"""Table of a verified signature: files that are not as they were signed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from cnnx.report.table import Block, Cell, Column, Facts, Remark, Tone, table_of
from cnnx.report.words import several

if TYPE_CHECKING:
    from cnnx.bundle.signature import Deviation
    from cnnx.pipeline.sign.verify import VerifyResult

_TONES: Mapping[str, Tone] = {"changed": "bad", "missing": "bad", "not signed": "open"}


def verify_blocks(result: VerifyResult, *, again: str, verbose: bool) -> Iterator[Block]:
    """Who signed, what is covered, and every file that is not as it was signed."""
    names = ", ".join(result.files) if verbose else several(len(result.files), "file")
    signed_by = f"{'the root certificates' if result.kind == 'certificate' else 'the key'} {result.key}"
    yield Facts((("bundle", str(result.path)), ("signed by", signed_by), ("as signed", names)))
    if not result.deviations:
        yield Remark("Every file is as it was signed.", tone="good")
        return
    columns: tuple[Column[Deviation], ...] = (
        Column("file", lambda one: one.file),
        Column("state", lambda one: Cell(one.state, _TONES[one.state]), fixed=True),
    )
    yield table_of("Not as signed", columns, [result.deviations])
    added = all(each.state == "not signed" for each in result.deviations)
    way = f"if you trust these files: {again}" if added else "export again"
    yield Remark(f"Get a signed copy; or, {way}", tone="bad")
