"""`cnnx diagnose` as tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cnnx.cli.columns import titled

if TYPE_CHECKING:
    from cnnx.pipeline.diagnose.findings import DiagnoseResult, Findings, FlippedImage, Guess
    from cnnx.quant.coverage import Coverage

_LAYERS_SHOWN, _TENSORS_SHOWN, _FLIPS_SHOWN = 15, 5, 10


def print_findings(out: Console, result: DiagnoseResult, *, verbose: bool) -> None:
    """Layers by damage, the tensors that fit their range worst, what flipped, and what it comes to."""
    findings = result.findings
    out.print(_layers(findings, None if verbose else _LAYERS_SHOWN))
    if not verbose and len(findings.layers) > _LAYERS_SHOWN:
        out.print(f"and {len(findings.layers) - _LAYERS_SHOWN} more (--verbose shows all)")
    out.print("alone: divergence with only that layer in INT8; share: of the sum of that over all layers")
    out.print(_tensors(findings.tensors, None if verbose else _TENSORS_SHOWN))
    out.print("Of the values other than zero: cut off beyond the range, or rounded to zero.")
    if findings.flips:
        out.print(_flips(findings.flips, None if verbose else _FLIPS_SHOWN))
        if not verbose and len(findings.flips) > _FLIPS_SHOWN:
            out.print(f"and {len(findings.flips) - _FLIPS_SHOWN} more (--verbose shows all)")
    for sentence in findings.reading:
        out.print(escape(sentence), soft_wrap=True)
    for note in findings.notes:
        out.print(f"[yellow]note:[/] {escape(note)}", soft_wrap=True)


def _layers(findings: Findings, limit: int | None) -> Table:
    columns = ("alone, nats", "share", "SQNR dB", "flips", "weights lost")
    title = f"{len(findings.layers)} layers in INT8, on {findings.images} pictures of {findings.image_set}"
    table = titled(title, "layer", "op", *columns, right=columns)
    for layer in findings.layers[:limit]:
        noise = layer.likeness.logit_sqnr_db
        table.add_row(
            escape(layer.layer),
            layer.op,
            f"{layer.likeness.divergence:.5f}",
            f"{layer.share:.1%}",
            "-" if noise is None else f"{noise:.1f}",
            str(layer.flips),
            f"{layer.weights_lost:.1%}",
        )
    return table


def _tensors(tensors: Sequence[Coverage], limit: int | None) -> Table:
    columns = ("cut off", "to zero", "dead channels", "middle channel", "largest / range")
    table = titled("Tensors that fit their range worst", "tensor", "read by", *columns, right=columns)
    worst = sorted(tensors, key=lambda each: (-each.dead_share, -(each.saturated + each.underflow)))
    for each in worst[:limit]:
        table.add_row(
            escape(each.tensor),
            escape(", ".join(each.read_by)),
            f"{each.saturated:.2%}",
            f"{each.underflow:.1%}",
            f"{each.dead_channels} of {each.channels}",
            f"{each.middle_steps:.1f} steps",
            f"{each.maximum / each.amax:.2f}",
        )
    return table


def _flips(flips: Sequence[FlippedImage], limit: int | None) -> Table:
    title = f"{len(flips)} pictures whose first class changed, the original's surest first"
    table = titled(title, "image", "original", "INT8")

    def listed(guesses: Sequence[Guess]) -> str:
        return "\n".join(f"{each.probability:6.1%} {each.name or each.index}" for each in guesses)

    for number, flip in enumerate(flips[:limit]):
        if number:
            table.add_section()
        table.add_row(*map(escape, (flip.image, listed(flip.original), listed(flip.int8))))
    return table
