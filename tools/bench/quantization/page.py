"""docs/quantization.md and its picture, from the records of the cells."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from cnnx.stats import Verdict
from tools.bench.cells import table as markdown
from tools.bench.quantization.records import (
    JUDGED,
    LARGE,
    MOST_WORSE,
    OURS,
    PEERS,
    TWINS,
    WAYS,
    Cells,
    Record,
    best_sqnr,
    gap_to_best,
    ratio_to_plain,
    sqnr,
    time_of,
)

PAGE, PICTURE = "quantization.md", "quantization.svg"
# Share of the multiply-adds by which a peer must have less in INT8 for that to be named as its advantage.
_LESS = 0.05

TEXT = """\
# cnnx beside onnxruntime.quantization and ModelOpt

Every way below was given the same FP32 graph (exported and simplified by cnnx, channels not equalized) and
the same {calibration} calibration pictures, and worked in a process of its own. Each graph was judged by ONNX
Runtime as it is written (`session.disable_quant_qdq=1`), on {images} validation pictures of `shapes100`.
Networks whose names end with `-hostile`, `-parts` or `-branches` compute what the network before them
computes, with channels scaled inside ([how](trained.md)). By `python -m tools.bench.quantization`.
{machine}; {dates}; {versions}.

{ways}

ONNX Runtime's is set as its code and its example for TensorRT advise: symmetric, weights per output channel,
Q/DQ pairs on weights and a pair for each reader, outputs of weighted operators and biases not quantized, sums
only before a mean. ModelOpt chooses by itself what it quantizes.

{verdict}

## Accuracy

Top-1 in percent on the validation pictures, the best of a row in bold.

{accuracy}

Top-1 agreement / top-1 in top-5 / top-5 agreement with the original, in percent:

{rates}

Signal-to-noise ratio of the logits in dB, the best of a row in bold:

{sqnr}

![signal-to-noise ratio of the logits]({picture})

## Against the best peer

The peer of highest accuracy, chosen on these very pictures, which favours it. The difference is cnnx less
that peer, in points, with its 95 % paired interval. *Not worse*: the interval begins above -{most:.1f};
*worse*: it ends below; *open*: -{most:.1f} lies in it. The column in dB is cnnx less the best ratio of a
peer, which may be another.

{paired}

{losses}

Where a peer's max has the better signal-to-noise ratio, few large activations carry much of the largest
logits: clipping them costs decibels and can win agreement. cnnx chooses by what class probabilities lose
([decisions](decisions.md)).

## What it costs

Seconds, once the packages are imported, from the FP32 graph and the pictures to the INT8 graph, the better
of two runs where one took less than a minute; in brackets, over plain inference of as many pictures. Of
{large} it is the clock's time, with nothing else on the machine; of the others the processor's, for
other work ran beside them. Then the peak of the process's memory in MiB, imports included.

{costs}

cnnx runs the first 64 pictures twice, once to equalize channels and once for ranges by every method, and
holds the graphs that it makes against each other: of few pictures and a large network that is slower than one
pass for MinMax. `auto` then tries each method on 128 further pictures.

Over all networks (imports: the process's memory before the work began):

{cost_summary}

## What TensorRT would say

The graphs as each tool wrote them, through cnnx's linter and through TensorRT for RTX {rtx}, which
builds without a GPU; *in INT8*: share of the multiply-adds. An error is what TensorRT refuses or misreads, a
warning what costs speed; `rule` x times (in so many graphs).

{tensorrt}
{failures}"""


def write(found: dict[str, Cells], *, folder: Path) -> None:
    """Write the page, and the picture where anything was judged."""
    (folder / PAGE).write_text(page(found), encoding="utf-8")
    draw({name: cells for name, cells in found.items() if _small(cells)}, folder / PICTURE)


def page(found: dict[str, Cells]) -> str:
    """docs/quantization.md. A cell without a record is a dash, one that failed is named at the end."""
    every = [record for cells in found.values() for record in cells.values()]
    small = {name: cells for name, cells in found.items() if _small(cells)}
    dates = sorted(record["date"] for record in every if "date" in record)
    return TEXT.format(
        calibration=_listed(
            r["calibration_images"] for c in small.values() for r in c.values() if "date" in r
        ),
        images=_listed(f"{record['images']:,}" for cells in small.values() for record in cells.values()),
        machine="; ".join(sorted({record["machine"] for record in every if "machine" in record})),
        dates=" to ".join(dict.fromkeys((dates[0], dates[-1]))) if dates else "no date",
        versions=", ".join(sorted(_versions(every))),
        ways="\n".join(f"- **{way}**: {what}" for way, what in WAYS.items()),
        verdict=verdict(small),
        accuracy=markdown(("network", "FP32", *JUDGED), accuracy_rows(small)),
        rates=markdown(("network", *JUDGED), rates_rows(small)),
        sqnr=markdown(("network", *JUDGED), sqnr_rows(small)),
        picture=PICTURE,
        large=" and ".join(LARGE),
        most=100 * MOST_WORSE,
        paired=markdown(
            ("network", "best peer", *(f"{way}{what}" for way in OURS for what in ("", ", verdict", ", dB"))),
            paired_rows(small),
        ),
        losses=losses(small),
        costs=markdown(("network", *WAYS), cost_rows(found)),
        cost_summary=markdown(
            ("way", "over plain, median", "largest", "peak MiB, median", "largest", "of it imports"),
            cost_summary_rows(found),
        ),
        rtx=_listed(record.get("rtx_version") for record in every if record.get("rtx_version")),
        tensorrt=markdown(
            ("way", "graphs", "built", "in INT8, median", "least", "errors", "warnings", "refused with"),
            tensorrt_rows(found),
            left=(0, 5, 6, 7),
        ),
        failures=failures(found),
    )


def verdict(small: dict[str, Cells]) -> str:
    """The aims in one paragraph, counted."""
    lines = []
    for way in OURS:
        counts = Counter(
            gap[1].against(-MOST_WORSE) for cells in small.values() if (gap := gap_to_best(cells, way))
        )
        hostile = [
            ours - best
            for name, cells in small.items()
            if name.endswith(TWINS)
            and (ours := sqnr(cells, way)) is not None
            and (best := best_sqnr(cells)) is not None
        ]
        lines.append(
            f"**{way}**, against the best peer of each network: not worse by more than "
            f"{100 * MOST_WORSE:.1f} points on {counts[Verdict.PASSED]} networks, worse on "
            f"{counts[Verdict.FAILED]}, open on {counts[Verdict.INCONCLUSIVE]}; better logits (SQNR) on "
            f"{sum(gap > 0 for gap in hostile)} of {len(hostile)} twins."
        )
    return "\n\n".join(lines)


def accuracy_rows(small: dict[str, Cells]) -> Iterator[list[str]]:
    """What is left of each network."""
    for name, cells in small.items():
        original = next((r["original"] for r in cells.values() if "original" in r), None)
        values = [cells.get(way, {}).get("accuracy") for way in JUDGED]
        yield [
            name,
            "-" if original is None else f"{original:.2%}"[:-1],
            *_best_bold(values, "{:.2%}", cells),
        ]


def sqnr_rows(small: dict[str, Cells]) -> Iterator[list[str]]:
    """How far each network's logits are from the original's."""
    for name, cells in small.items():
        yield [name, *_best_bold([sqnr(cells, way) for way in JUDGED], "{:.1f}", cells)]


def rates_rows(small: dict[str, Cells]) -> Iterator[list[str]]:
    """The three rates of agreement."""
    for name, cells in small.items():
        row = [name]
        for way in JUDGED:
            found = cells.get(way, {}).get("likeness")
            rates = [found[k] for k in ("top1_agreement", "top1_in_top5", "top5_agreement")] if found else []
            row.append(" / ".join(f"{100 * rate:.1f}" for rate in rates) or _no_value(cells, way))
        yield row


def paired_rows(small: dict[str, Cells]) -> Iterator[list[str]]:
    """Each network against its best peer."""
    words = {Verdict.PASSED: "not worse", Verdict.FAILED: "worse", Verdict.INCONCLUSIVE: "open"}
    for name, cells in small.items():
        row, peer = [name], "-"
        for way in OURS:
            gap, ours, best = gap_to_best(cells, way), sqnr(cells, way), best_sqnr(cells)
            if gap is None:
                row += [_no_value(cells, way)] * 3
                continue
            difference, interval, peer = gap
            row.append(f"{100 * difference:+.2f} ({100 * interval.low:+.2f} .. {100 * interval.high:+.2f})")
            row.append(words[interval.against(-MOST_WORSE)])
            row.append("-" if ours is None or best is None else f"{ours - best:+.1f}")
        yield [row[0], peer, *row[1:]]


def losses(small: dict[str, Cells]) -> str:
    """Where cnnx falls short of a peer: fewer right than the best, or of a twin no better logits; and why."""
    rows = []
    for name, cells in small.items():
        for way in OURS:
            gap, ours, best = gap_to_best(cells, way), sqnr(cells, way), best_sqnr(cells)
            if gap is not None and gap[0] < 0:
                why = _why(cells, way, gap[2], by_chance=gap[1].high > 0)
                rows.append([name, way, f"{100 * gap[0]:+.2f} points", gap[2], why])
            if name.endswith(TWINS) and ours is not None and best is not None and ours <= best:
                peer = next(each for each in PEERS if sqnr(cells, each) == best)
                why = _why(cells, way, peer, by_chance=False)
                rows.append([name, way, f"{ours - best:+.1f} dB", peer, why])
    if not rows:
        return "Nowhere has cnnx fewer pictures right than the best peer, or a twin's logits no better."
    head = ("network", "way", "short by", "peer", "why")
    table = markdown(head, rows, left=(0, 1, 3, 4))
    return f"Where cnnx has fewer pictures right than the best peer, or a twin's logits no better:\n\n{table}"


def _why(cells: Cells, way: str, peer: str, *, by_chance: bool) -> str:
    theirs, mine = (cells[each]["int8_share"] or 0 for each in (peer, way))
    if theirs < mine - _LESS:
        return f"{peer} leaves {1 - theirs:.0%} of the multiply-adds out of INT8, {way} {1 - mine:.0%}"
    return "these pictures cannot tell it from chance" if by_chance else "not known"


def cost_rows(found: dict[str, Cells]) -> Iterator[list[str]]:
    """Time and memory of every cell."""
    for name, cells in found.items():
        row = [name]
        for way in WAYS:
            record = cells.get(way, {})
            if "seconds" not in record:
                row.append(_no_value(cells, way))
                continue
            ratio = ratio_to_plain(cells, way)
            over = "" if ratio is None or way == "plain" else f" ({ratio:.1f})"
            few = _fewer(cells, way)
            row.append(f"{time_of(record):.1f}{over}, {record['peak_bytes'] / 2**20:,.0f}{few}")
        yield row


def cost_summary_rows(found: dict[str, Cells]) -> Iterator[list[str]]:
    """Over all networks."""
    for way in WAYS:
        known = [cells for cells in found.values() if "seconds" in cells.get(way, {})]
        ratios = [ratio for cells in known if (ratio := ratio_to_plain(cells, way)) is not None]
        peaks = [cells[way]["peak_bytes"] / 2**20 for cells in known]
        imports = [cells[way]["imported_bytes"] / 2**20 for cells in known]
        if known:
            yield [
                way,
                f"{statistics.median(ratios):.1f}" if ratios else "-",
                f"{max(ratios):.1f}" if ratios else "-",
                f"{statistics.median(peaks):,.0f}",
                f"{max(peaks):,.0f}",
                f"{statistics.median(imports):,.0f}",
            ]


def tensorrt_rows(found: dict[str, Cells]) -> Iterator[list[str]]:
    """What the linter and TensorRT for RTX say of each tool's graphs."""
    for way in JUDGED:
        graphs = [cells[way] for cells in found.values() if "rtx" in cells.get(way, {})]
        if not graphs:
            continue
        shares = [record["int8_share"] for record in graphs if record["int8_share"] is not None]
        refused = (each["rtx"] for each in graphs if each["rtx"] != "built")
        said = Counter(what for what in refused if not what.startswith("not tried"))
        yield [
            way,
            str(len(graphs)),
            str(sum(record["rtx"] == "built" for record in graphs)),
            f"{statistics.median(shares):.0%}" if shares else "-",
            f"{min(shares):.0%}" if shares else "-",
            _rules(graphs, "errors"),
            _rules(graphs, "warnings"),
            "; ".join(f"{_cell(what)} ({times})" for what, times in said.most_common()) or "-",
        ]


def failures(found: dict[str, Cells]) -> str:
    """The cells that came to nothing, each with its reason; those not run."""
    rows = [
        [name, way, _cell(record["failed"])]
        for name, cells in found.items()
        for way, record in cells.items()
        if "failed" in record
    ]
    absent = [
        f"{way} on {_of_all(names, found)}"
        for way in WAYS
        if (names := [name for name, cells in found.items() if way not in cells])
    ]
    text = ""
    if rows:
        text += f"\n## What failed\n\n{markdown(('network', 'way', 'reason'), rows, left=(0, 1, 2))}\n"
    if absent:
        text += f"\nNot run yet: {'; '.join(absent)}.\n"
    return text


def _of_all(names: Sequence[str], every: Iterable[str]) -> str:
    """Some of the networks, by those that are not among them where these are fewer."""
    others = [name for name in every if name not in names]
    if len(others) < len(names):
        return f"all but {', '.join(others)}" if others else "all"
    return ", ".join(names)


def draw(small: dict[str, Cells], file: Path) -> None:
    """The signal-to-noise ratio of every graph, a row a network."""
    plt.rcParams["svg.hashsalt"] = "cnnx"  # equal records give an equal file
    figure, axes = plt.subplots(figsize=(9, 0.34 * len(small) + 1.4))
    places = np.arange(len(small))
    for number, way in enumerate(JUDGED):
        values = [sqnr(cells, way) for cells in small.values()]
        dots = [np.nan if value is None else value for value in values]
        mine = way in OURS
        axes.plot(
            dots, places, "D" if mine else "oovsPX^<"[number % 8], label=way, ls="", ms=7 if mine else 5,
            color=f"C{number}", alpha=1 if mine else 0.7,
        )  # fmt: skip
    axes.set_yticks(places, list(small))
    axes.invert_yaxis()
    axes.grid(alpha=0.3)
    axes.set_xlabel("signal-to-noise ratio of the logits, dB")
    axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)


def _small(cells: Cells) -> bool:
    return any(record["images"] for record in cells.values())


def _fewer(cells: Cells, way: str) -> str:
    """Said where a way got fewer pictures than others of its network."""
    count = cells[way]["calibration_images"]
    most = max(record.get("calibration_images", 0) for record in cells.values())
    return f" (of {count} pictures, not {most})" if count < most else ""


def _no_value(cells: Cells, way: str) -> str:
    return "failed" if "failed" in cells.get(way, {}) else "-"


def _best_bold(values: Sequence[float | None], form: str, cells: Cells) -> list[str]:
    shown = [None if value is None else form.format(value).removesuffix("%") for value in values]
    best = max((float(text) for text in shown if text is not None), default=None)
    return [
        _no_value(cells, way) if text is None else f"**{text}**" if float(text) == best else text
        for way, text in zip(JUDGED, shown, strict=True)
    ]


def _rules(graphs: Sequence[Record], severity: str) -> str:
    times, where = Counter[str](), Counter[str]()
    for record in graphs:
        times.update(record[severity])
        where.update(list(record[severity]))
    return ", ".join(f"`{rule}` x {times[rule]} ({where[rule]})" for rule in sorted(times)) or "-"


def _versions(every: Iterable[Record]) -> set[str]:
    """Tools and versions; of ModelOpt's venv those that differ from ours are named as its own."""
    ours, theirs = set[str](), set[str]()
    for record in every:
        found = {f"{tool} {version}" for tool, version in record.get("versions", {}).items()}
        (theirs if record["way"].startswith("modelopt-") else ours).update(found)
    return ours | {f"{each} (for ModelOpt)" if " " in each else each for each in theirs - ours}


def _listed(values: Iterable[Any]) -> str:
    return ", ".join(sorted({str(value) for value in values})) or "no"


def _cell(text: str) -> str:
    """A reason in one line that breaks no table."""
    return " ".join(text.replace("|", "/").split())[:300]
