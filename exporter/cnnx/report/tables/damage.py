"""Tables of a diagnosis record."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cnnx.report.table import Column, Figures, Remark, Said, Table, table_of
from cnnx.report.tables.calibration import nats
from cnnx.report.words import first_of, percent, scaled

_LAYERS_SHOWN, _TENSORS_SHOWN, _FLIPS_SHOWN, _REMEDIES_SHOWN = 15, 5, 10, 8

_Plain = Mapping[str, Any]


def damage_blocks(findings: _Plain, *, whole: bool) -> Iterator[Said]:
    """Layers by damage, tensors that fit their range worst, flips, remedies tried, conclusions, notes."""
    yield _layers(findings, whole=whole)
    yield _tensors(findings["tensors"], whole=whole)
    if findings["flips"]:
        yield _flips(findings["flips"], whole=whole)
    if findings.get("remedies"):
        yield _remedies(findings, whole=whole)
    yield from map(Remark, findings.get("reading", ()))
    if advice := findings.get("advice"):
        yield from _advice(advice)
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


def _remedies(findings: _Plain, *, whole: bool) -> Table:
    """The changes that were tried, by what they leave of the divergence; the advised one is marked."""
    advice, trials = findings.get("advice"), findings["remedies"]
    advised = next(iter(trials[advice["place"] :]), None) if advice else None
    total = max(findings["multiply_adds"], 1)
    columns: tuple[Column[_Plain], ...] = (
        Column("change", lambda each: each["what"]),
        Figures("divergence, nats", lambda each: f"{nats(each['likeness']):.5f}"),
        Figures("top-1 agreement", lambda each: percent(each["likeness"]["top1_agreement"])),
        Figures("MACs leaving INT8", lambda each: percent(each["cost"] / total) if each["cost"] else "none"),
        Column("gates", lambda each: "pass" if each["passes"] else "fail", drop=2),
        Column("", lambda each: _mark(each, trials, advised), drop=1),
    )
    first, *others = trials
    others.sort(key=lambda each: (each is not advised, nats(each["likeness"])))
    shown, more = first_of(others, _REMEDIES_SHOWN, whole=whole)
    title = f"Remedies tried on {findings['images']} images"
    legend = Remark("by chance: not closer to FP32 than the bundle as it is, beyond chance")
    return table_of(title, columns, [[first], shown], remarks=[*more, legend])


def _mark(each: _Plain, trials: Sequence[_Plain], advised: _Plain | None) -> str:
    if each is trials[0]:
        return ""
    return "advised" if each is advised else "" if each["better"] else "by chance"


def _advice(advice: _Plain) -> Iterator[Said]:
    """The lines to add to the recipe, if any, and the command."""
    if advice["recipe"]:
        yield Remark("\n".join(("Add to the network's recipe:", "", *advice["recipe"])))
    yield Remark(advice["command"], "next")


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
