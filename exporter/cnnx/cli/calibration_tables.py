"""`cnnx calibrate` as tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cnnx.cli.columns import titled
from cnnx.cli.tables import candidate_table

if TYPE_CHECKING:
    from cnnx.pipeline.export.calibrate import CalibrateResult, MethodRange, TensorMethods
    from cnnx.pipeline.search.folds import Fold, Folds

_SHOWN = 12


def print_calibration(out: Console, result: CalibrateResult, *, verbose: bool) -> None:
    """Ranges by every method; with folds, how far they and the error move."""
    if result.candidates:
        out.print(candidate_table(result.candidates, result.selection_images))
    if result.tensors:
        out.print(_ranges(result, verbose=verbose))
        out.print(
            "Each method's largest |x| that INT8 represents, and the share of non-zero values it clips."
        )
    if folds := result.folds:
        out.print(_spreads(folds, verbose=verbose))
        ratios = [spread.ratio for spread in folds.spreads]
        if ratios:
            median = sorted(ratios)[len(ratios) // 2]
            out.print(
                f"largest over smallest range: {_times(ratios[0])} at most, {_times(median)} in the median"
            )
        out.print(_errors(folds, result.selection_images))
        state = "settled" if folds.settled else "not settled"
        out.print(f"divergence may still move by {folds.still_moves:.2g} nats: {state}")
    channels = "channels equalized" if result.equalized else "channels as they are"
    out.print(f"{result.images} pictures of {result.image_set}, {channels}; took {result.seconds:.1f} s")
    for note in result.notes:
        out.print(f"[yellow]note:[/] {escape(note)}", soft_wrap=True)


def _ranges(result: CalibrateResult, *, verbose: bool) -> Table:
    tensors = result.tensors if verbose else result.tensors[:_SHOWN]
    methods = list(tensors[0].methods)
    title = f"{result.network}: ranges of {len(result.tensors)} tensors"
    if len(tensors) < len(result.tensors):
        title += f", the first {len(tensors)} (--verbose shows all)"
    made = titled(title, "tensor", "zeros", *methods, right=("zeros", *methods))
    for tensor in tensors:
        zeros = "-" if tensor.zeros_share is None else f"{tensor.zeros_share:.1%}"
        cells = (_range(tensor, tensor.methods[method]) for method in methods)
        made.add_row(escape(tensor.tensor), zeros, *cells)
    return made


def _range(tensor: TensorMethods, found: MethodRange) -> str:
    if tensor.nonfinite:
        return "not finite"
    if found.amax == 0:
        return "all zero"
    return f"{found.amax:.4g} ({found.saturated_share:.2%})" if found.saturated_share else f"{found.amax:.4g}"


def _spreads(folds: Folds, *, verbose: bool) -> Table:
    shown = folds.spreads if verbose else folds.spreads[:_SHOWN]
    title = f"Ranges ({folds.method}) by {len(folds.folds)} folds"
    if len(shown) < len(folds.spreads):
        title += f", the {len(shown)} that move most (--verbose shows all)"
    columns = ("smallest fold", "largest fold", "largest / smallest", "all pictures")
    made = titled(title, "tensor", *columns, right=columns)
    for spread in shown:
        ends = (min(spread.folds), max(spread.folds))
        cells = (f"{ends[0]:.4g}", f"{ends[1]:.4g}", _times(spread.ratio), f"{spread.amax:.4g}")
        made.add_row(escape(spread.tensor), *cells)
    return made


def _times(ratio: float) -> str:
    return f"{ratio:.3f}" if math.isfinite(ratio) else "no range in some fold"


def _errors(folds: Folds, images: int) -> Table:
    columns = ("divergence", "SQNR dB", "top-1 agreement")
    title = f"The quantized network against FP32, on {images} held-out pictures"
    made = titled(title, "ranges of", *columns, right=columns)
    sizes = sorted({fold.images for fold in folds.folds})
    pictures = " or ".join(map(str, sizes))
    made.add_row(f"{len(folds.folds)} folds of {pictures}", *_extent(folds.folds))
    made.add_row(f"all {folds.whole.images} pictures", *_extent((folds.whole,)))
    return made


def _extent(networks: tuple[Fold, ...]) -> tuple[str, ...]:
    """Each figure of some networks, from the smallest to the largest."""
    found = [network.likeness for network in networks]
    noises = [each.logit_sqnr_db for each in found if each.logit_sqnr_db is not None]
    figures = (
        ([each.divergence for each in found], ".5f"),
        (noises, ".1f"),
        ([each.top1_agreement for each in found], ".4f"),
    )
    return tuple(_ends(values, form) for values, form in figures)


def _ends(values: Sequence[float], form: str) -> str:
    ends = (min(values), max(values)) if values else ()
    return " .. ".join(dict.fromkeys(f"{end:{form}}" for end in ends)) or "-"
