"""Tables of calibration: ranges by method and by fold, method selection, repair.

Input is the data that `--json` prints, except for the repair. There, null stands for a number that is not
finite.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cnnx.report.table import Block, Column, Figures, Remark, Table, table_of
from cnnx.report.words import first_of, percent, scaled, several

if TYPE_CHECKING:
    from cnnx.quant.repair import PutBack, Repair

_SHOWN = 12

_Plain = Mapping[str, Any]


def calibration_blocks(result: _Plain, *, whole: bool) -> Iterator[Block]:
    """`cnnx calibrate`: ranges by method; with folds, how ranges and error vary."""
    if result["candidates"]:
        yield candidate_table(result["candidates"], result["selection_images"])
    if result["tensors"]:
        yield _ranges(result, whole=whole)
    if folds := result["folds"]:
        yield _spreads(folds, whole=whole)
        yield _errors(folds, result["selection_images"])
    channels = "channels equalized" if result["equalized"] else "channels not equalized"
    yield Remark(f"{result['images']} images of {result['image_set']}, {channels}; {result['seconds']:.1f} s")
    yield from (Remark(note, "note", "open") for note in result["notes"])


def candidate_table(candidates: Sequence[_Plain], images: int) -> Table:
    """The methods that were compared, the chosen one first."""
    columns: tuple[Column[_Plain], ...] = (
        Column("method", lambda each: each["method"]),
        Figures("divergence", lambda each: f"{nats(each['likeness']):.5f}"),
        Figures("top-1 agreement", lambda each: scaled(each["likeness"]["top1_agreement"], 1, 4)),
        Figures("top-5 agreement", lambda each: scaled(each["likeness"]["top5_agreement"], 1, 4)),
        Figures("SQNR dB", lambda each: scaled(each["likeness"]["logit_sqnr_db"], 1, 1)),
    )
    return table_of(f"Methods on {images} selection images; the first was chosen", columns, [candidates])


def nats(likeness: _Plain) -> float:
    """Divergence in nats."""
    found = likeness["divergence"]
    return math.inf if found is None else float(found)


def _ranges(result: _Plain, *, whole: bool) -> Table:
    tensors, more = first_of(result["tensors"], _SHOWN, whole=whole)
    methods = list(tensors[0]["methods"])
    columns: tuple[Column[_Plain], ...] = (
        Column("tensor", lambda tensor: tensor["tensor"]),
        Figures("zeros", lambda tensor: percent(tensor["zeros_share"])),
        *(_by_method(method, len(methods) - index) for index, method in enumerate(methods)),
    )
    title = f"{result['network']}: ranges of {len(result['tensors'])} tensors"
    legend = "Largest |x| that INT8 represents, and the share of non-zero values clipped."
    return table_of(title, columns, [tensors], remarks=[*more, Remark(legend)])


def _by_method(method: str, drop: int) -> Column[_Plain]:
    return Figures(method, lambda tensor: _range(tensor, tensor["methods"][method], method), drop=drop)


def _range(tensor: _Plain, found: _Plain, method: str) -> str:
    if tensor["nonfinite"]:
        return "not finite"
    if found["amax"] == 0:
        return "no scale" if method == "file" else "all zero"
    clipped = found["saturated_share"]
    return f"{found['amax']:.4g}" + (f" ({clipped:.2%})" if clipped else "")


def _spreads(folds: _Plain, *, whole: bool) -> Table:
    shown, more = first_of(folds["spreads"], _SHOWN, whole=whole)
    columns: tuple[Column[_Plain], ...] = (
        Column("tensor", lambda spread: spread["tensor"]),
        Figures("smallest fold", lambda spread: f"{min(spread['folds']):.4g}"),
        Figures("largest fold", lambda spread: f"{max(spread['folds']):.4g}"),
        Figures("largest / smallest", lambda spread: _times(spread["ratio"])),
        Figures("all images", lambda spread: f"{spread['amax']:.4g}"),
    )
    remarks = list(more)
    if ratios := [spread["ratio"] for spread in folds["spreads"]]:
        # Ratios are sorted, largest first.
        ends = f"maximum {_times(ratios[0])}, median {_times(ratios[(len(ratios) - 1) // 2])}"
        remarks.append(Remark(f"largest / smallest: {ends}"))
    title = f"Ranges ({folds['method']}) by {len(folds['folds'])} folds, least stable first"
    return table_of(title, columns, [shown], remarks=remarks)


def _times(ratio: float | None) -> str:
    return "no range in a fold" if ratio is None else f"{ratio:.3f}"


def _errors(folds: _Plain, images: int) -> Table:
    sizes = " or ".join(map(str, sorted({fold["images"] for fold in folds["folds"]})))
    rows = {
        f"{len(folds['folds'])} folds of {sizes}": [fold["likeness"] for fold in folds["folds"]],
        f"all {folds['whole']['images']} images": [folds["whole"]["likeness"]],
    }
    columns: tuple[Column[tuple[str, list[_Plain]]], ...] = (
        Column("calibrated on", lambda row: row[0]),
        Figures("divergence", lambda row: _extent(map(nats, row[1]), 5)),
        Figures("SQNR dB", lambda row: _extent((one["logit_sqnr_db"] for one in row[1]), 1)),
        Figures("top-1 agreement", lambda row: _extent((one["top1_agreement"] for one in row[1]), 4)),
    )
    moves = math.inf if folds["still_moves"] is None else folds["still_moves"]
    state = "settled" if folds["settled"] else "not settled"
    return table_of(
        f"Quantized network compared with FP32, on {images} held-out images",
        columns,
        [list(rows.items())],
        remarks=[Remark(f"divergence may still change by {moves:.2g} nats: {state}")],
    )


def _extent(values: Iterable[float | None], digits: int) -> str:
    """The range of the known values."""
    known = [value for value in values if value is not None]
    ends = (min(known), max(known)) if known else ()
    return " .. ".join(dict.fromkeys(f"{end:.{digits}f}" for end in ends)) or "-"


def repair_block(repair: Repair) -> Block:
    """Layers that a repair returned to FP16, and the effect."""
    change = (
        f"divergence {repair.before.distance:.5f} -> {repair.after.distance:.5f} in {repair.tried} trials"
    )
    if not repair.put_back:
        found = (
            "no layer had to return to FP16" if repair.before.passes else "FP16 in every layer is not enough"
        )
        return Remark(
            f"{'no trials left: raise --repair-trials' if repair.exhausted else found}; {change}", "repair"
        )
    columns: tuple[Column[PutBack], ...] = (
        Column("layer", lambda each: each.layer),
        Figures("alone in INT8", lambda each: f"{each.alone:.5f}"),
        Figures("added", lambda each: scaled(each.spared, 1, 5)),
    )
    remarks = [
        Remark("alone in INT8: divergence in nats; added: divergence that INT8 in this layer would add now")
    ]
    if not repair.after.passes:
        text = "The selection images still fail: raise --repair-trials."
        remarks.append(Remark(text, tone="open"))
    title = f"{several(len(repair.put_back), 'layer')} returned to FP16 by repair: {change}"
    return table_of(title, columns, [repair.put_back], remarks=remarks)
