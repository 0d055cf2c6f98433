"""Tables of a diagnosis record."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cnnx.report.table import Column, Figures, Remark, Said, Table, table_of
from cnnx.report.tables.calibration import nats
from cnnx.report.words import first_of, percent, scaled

_LAYERS_SHOWN, _TENSORS_SHOWN, _FLIPS_SHOWN = 15, 5, 10

_Plain = Mapping[str, Any]


def damage_blocks(findings: _Plain, *, whole: bool) -> Iterator[Said]:
    """Layers by damage, tensors that fit their range worst, flipped images, conclusions, notes."""
    yield _layers(findings, whole=whole)
    yield _tensors(findings["tensors"], whole=whole)
    if findings["flips"]:
        yield _flips(findings["flips"], whole=whole)
    yield from map(Remark, findings.get("reading", ()))
    yield from (Remark(note, "note", "open") for note in findings.get("notes", ()))


def _layers(findings: _Plain, *, whole: bool) -> Table:
    layers, more = first_of(findings["layers"], _LAYERS_SHOWN, whole=whole)
    columns: tuple[Column[_Plain], ...] = (
        Column("layer", lambda layer: layer["layer"]),
        Column("op", lambda layer: layer["op"], fixed=True),
        Figures("alone, nats", lambda layer: f"{nats(layer['likeness']):.5f}"),
        Figures("share", lambda layer: f"{layer['share']:.1%}"),
        Figures("SQNR dB", lambda layer: scaled(layer["likeness"]["logit_sqnr_db"], 1, 1)),
        Figures("flips", lambda layer: str(layer["flips"])),
        Figures("weights lost", lambda layer: f"{layer['weights_lost']:.1%}"),
    )
    images = f"{findings['images']} images of {findings['image_set']}"
    legend = "alone: divergence with only this layer in INT8; share: part of the sum over all layers"
    title = f"Damage by layer: {len(findings['layers'])} layers in INT8, on {images}"
    return table_of(title, columns, [layers], remarks=[*more, Remark(legend)])


def _tensors(tensors: Sequence[_Plain], *, whole: bool) -> Table:
    worst = sorted(tensors, key=_misfit, reverse=True)
    columns: tuple[Column[_Plain], ...] = (
        Column("tensor", lambda each: each["tensor"]),
        Column("read by", lambda each: ", ".join(each["read_by"]), drop=3),
        Figures("clipped", lambda each: percent(each["saturated"], 2)),
        Figures("to zero", lambda each: percent(each["underflow"])),
        Figures("dead channels", lambda each: f"{each['dead_channels']} of {each['channels']}"),
        Figures("median channel", lambda each: f"{scaled(each['middle_steps'], 1, 1)} steps", drop=2),
        Figures("largest / range", lambda each: scaled(each["maximum"], 1 / each["amax"], 2), drop=1),
    )
    legend = Remark("Shares of the non-zero values: clipped to the range, or rounded to zero.")
    shown = worst if whole else worst[:_TENSORS_SHOWN]
    return table_of("Tensors that fit their range worst", columns, [shown], remarks=[legend])


def _misfit(tensor: _Plain) -> tuple[float, float]:
    """Sort key: the share of dead channels, then the share of lost values."""
    dead = tensor["dead_channels"] / tensor["channels"] if tensor["channels"] else 0.0
    return dead, (tensor["saturated"] or 0.0) + (tensor["underflow"] or 0.0)


def _flips(flips: Sequence[_Plain], *, whole: bool) -> Table:
    shown, more = first_of(flips, _FLIPS_SHOWN, whole=whole)
    columns: tuple[Column[_Plain], ...] = (
        Column("image", lambda flip: flip["image"]),
        Column("original", lambda flip: _guesses(flip["original"])),
        Column("INT8", lambda flip: _guesses(flip["int8"])),
    )
    title = f"{len(flips)} images whose top-1 class changed, most confident original first"
    return table_of(title, columns, [[flip] for flip in shown], lined=True, remarks=more)


def _guesses(guesses: Sequence[_Plain]) -> str:
    """One line per class."""
    return "\n".join(f"{percent(each['probability'])} {each['name'] or each['index']}" for each in guesses)
