"""Table of a preflight: both sides of each check."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from cnnx.report.table import Block, Cell, Column, Remark, Tone, table_of

if TYPE_CHECKING:
    from cnnx.pipeline.preflight.checks import Check
    from cnnx.pipeline.preflight.preflight import PreflightResult

_TONES: Mapping[str, Tone] = {"fits": "good", "differs": "bad", "unknown": "open"}


def preflight_blocks(result: PreflightResult) -> Iterator[Block]:
    """Every check, and what to do about those that differ."""
    columns: tuple[Column[Check], ...] = (
        Column("engine", lambda check: check.engine, known=True),
        Column("check", lambda check: check.name, fixed=True),
        Column("bundle", lambda check: check.bundle),
        Column("this machine", lambda check: check.machine),
        Column("outcome", lambda check: Cell(check.outcome, _TONES[check.outcome]), fixed=True),
    )
    fixes: dict[str, list[str]] = {}
    for check in result.checks:
        if check.fix:
            fixes.setdefault(check.fix, []).append(check.name)
    remarks = [Remark(fix, ", ".join(dict.fromkeys(names)), "bad") for fix, names in fixes.items()]
    yield table_of("Preflight", columns, [result.checks], remarks=remarks)
    if result.rebuilt:
        yield Remark(", ".join(result.rebuilt), "built and self-tested", "good")
    engines = {check.engine for check in result.checks if check.engine}
    if not engines:
        yield Remark("The bundle has no engine: cnnx build makes one, and its graph runs on ONNX Runtime.")
    else:
        ready = ", ".join(result.ready) or "none"
        yield Remark(ready, "engines that fit", "good" if result.ready else "bad")
