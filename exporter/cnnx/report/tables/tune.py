"""Tables of a search for where Q/DQ go."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from cnnx.report.table import Block, Cell, Column, Facts, Figures, Remark, Said, Table, table_of
from cnnx.report.words import duration, percent, scaled, several

if TYPE_CHECKING:
    from cnnx.pipeline.tune.result import TuneResult

_Plain = Mapping[str, Any]
# An expected regret above this is worth another search.
_TELLS = 0.01


def tune_blocks(result: TuneResult, *, verbose: bool) -> Iterator[Block]:
    """`cnnx tune`: the Pareto front, the verdict, what was chosen, the new bundle and the next command."""
    from cnnx.report.tables.bundle import engine_table
    from cnnx.report.tables.verdicts import verdict_table

    yield from tuning_blocks(result.tuning.as_dict(), whole=verbose)
    if result.validation:
        yield verdict_table(result.validation)
    if result.engines and verbose:
        yield engine_table(result.engines)
    if result.bundle:
        path = shlex.quote(str(result.bundle.path))
        rows = [
            ("bundle", str(result.bundle.path)),
            ("next", f"cnnx bench {path} {shlex.quote(result.source)}"),
        ]
        if result.engines:
            rows.insert(0, ("engine", result.engines[0].identity))
        yield Facts(tuple(rows))
    elif result.undecided:
        yield Remark(f"{result.undecided}.", "nothing was written", "open")
    else:
        yield Remark(_unreachable(result.tuning.as_dict()), "nothing was written", "bad")


def tuning_blocks(tuning: _Plain, *, whole: bool) -> Iterator[Said]:
    """The front, or with `whole` all placements; conclusions, notes."""
    yield _placements(tuning, whole=whole)
    if whole:
        yield _sites(tuning)
    yield from map(Remark, _conclusions(tuning))
    yield from (Remark(note, "note", "open") for note in tuning.get("notes", ()))


def _placements(tuning: _Plain, *, whole: bool) -> Table:
    base = tuning["base"].upper()
    rows = [each for each in tuning["placements"] if whole or each["front"] or each["roles"]]
    rows.sort(key=lambda each: (each["ratio"] is None, each["ratio"] or 0.0))
    columns: tuple[Column[_Plain], ...] = (
        Column("placement", lambda row: _name(row, base)),
        Figures("INT8 layers", lambda row: str(row["layers"])),
        Figures("shortcuts", lambda row: str(row["shortcuts"]), drop=2),
        Figures("MACs in INT8", lambda row: percent(row["share"]), drop=3),
        Figures(f"time / {base}", _ratio),
        Figures("95 % interval", _interval, drop=1),
        Figures("divergence, nats", lambda row: _nats(row["likeness"])),
        Figures("top-1 agreement", lambda row: percent(row["likeness"]["top1_agreement"])),
        Column(
            "gates", lambda row: Cell("passes", "good") if row["passes"] else Cell("fails", "bad"), fixed=True
        ),
    )
    number = len(tuning["placements"])
    what = "All placements" if whole else "Pareto front of placements"
    title = f"{what}: {several(number, 'placement')} built, judged on {_images(tuning)}"
    more = (
        [] if whole or len(rows) == number else [Remark(f"{number - len(rows)} more (--verbose shows them)")]
    )
    return table_of(title, columns, [rows], remarks=more)


def _sites(tuning: _Plain) -> Table:
    columns: tuple[Column[_Plain], ...] = (
        Column("site", lambda site: site["name"]),
        Column("of", lambda site: "shortcut" if site["shortcut"] else "layer", fixed=True),
        Figures("kind", lambda site: str(site["kind"])),
        Column("before", lambda site: _state(site["given"], tuning), fixed=True),
        Column("now", lambda site: _state(site["chosen"], tuning), fixed=True),
    )
    title = f"{several(len(tuning['sites']), 'site')} of {several(tuning['kinds'], 'kind')}"
    return table_of(title, columns, [tuning["sites"]])


def _conclusions(tuning: _Plain) -> Iterator[str]:
    base = tuning["base"].upper()
    chosen = next((each for each in tuning["placements"] if "chosen" in each["roles"]), None)
    if chosen is not None:
        yield _of_chosen(chosen, tuning, base)
    refused = [each for each in tuning["placements"] if each["refused"]]
    if refused:
        yield f"The builder refused {several(len(refused), 'placement')}: {refused[-1]['refused']}."
    regret = tuning["expected_regret"]
    lost = "" if regret is None else f"; {percent(regret, 2)} are expected to be lost to the best placement"
    yield (
        f"The search took {duration(tuning['seconds'])} of {duration(tuning['budget_seconds'])} and judged "
        f"{several(tuning['judged'], 'placement')}. It ended because {tuning['ended']}{lost}."
    )
    if regret is not None and regret > _TELLS:
        yield "The model of latency is still uncertain: a larger --budget may find a faster placement."


def _of_chosen(chosen: _Plain, tuning: _Plain, base: str) -> str:
    if not chosen["layers"]:
        return f"No placement of Q/DQ that passes is shown to be faster than {base}, so the graph has none."
    shortcuts = f" and {several(chosen['shortcuts'], 'shortcut')}" if chosen["shortcuts"] else ""
    text = (
        f"{several(chosen['layers'], 'layer')}{shortcuts} with Q/DQ: {_ratio(chosen)} of the time of {base} "
        f"({_interval(chosen)})"
    )
    if (before := tuning["against_given"]) is not None:
        text += f", and {before['low']:.4f} .. {before['high']:.4f} of that of the bundle before"
    return f"{text}."


def _unreachable(tuning: _Plain) -> str:
    best = min(tuning["placements"], key=lambda each: _finite(each["likeness"]["divergence"]))
    return (
        f"the gates cannot be reached, as {tuning['ended']}. The closest placement has "
        f"{several(best['layers'], 'layer')} in INT8, a divergence of {_nats(best['likeness'])} nats and "
        f"{percent(best['likeness']['top1_agreement'])} top-1 agreement."
    )


def _name(row: _Plain, base: str) -> str:
    names = {"fp16": base, "given": "the bundle's", "chosen": "chosen"}
    return ", ".join(names[role] for role in row["roles"]) or f"number {row['number']}"


def _state(chosen: bool, tuning: _Plain) -> str:
    return "INT8" if chosen else str(tuning["base"]).upper()


def _images(tuning: _Plain) -> str:
    return f"{several(tuning['images'], 'image')} of {tuning['image_set']}"


def _ratio(row: _Plain) -> str:
    return "-" if row["ratio"] is None else f"{row['ratio']:.4f}"


def _interval(row: _Plain) -> str:
    found = row["interval"]
    return "-" if found is None else f"{found['low']:.4f} .. {found['high']:.4f}"


def _nats(likeness: _Plain) -> str:
    return scaled(likeness["divergence"], 1, 5)


def _finite(value: float | None) -> float:
    return float("inf") if value is None else value
