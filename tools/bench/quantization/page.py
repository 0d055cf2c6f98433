"""Writes docs/quantization.md and its plot from records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from cnnx.stats import Verdict
from tools.bench.quantization import plot, rows
from tools.bench.quantization.records import (
    FLOOR,
    JUDGED,
    LARGE,
    MOST_WORSE,
    OURS,
    PEERS,
    PHOTOGRAPHED,
    TILES,
    TWINS,
    WAYS,
    Cells,
    best_sqnr,
    gap_to_best,
    sqnr,
)
from tools.markdown import table as markdown
from tools.markdown import write_page
from tools.resumable import Record

PAGE, CHART = "quantization.md", "quantization.svg"
RATIO = (", ratio", ", aim", ", INT8")
# If a peer has less of the MACs in INT8 by at least this share, the page names it as an advantage.
_LESS = 0.05

TEXT = """\
# cnnx beside onnxruntime.quantization and ModelOpt

Every way below was given the same FP32 graph (exported and simplified by cnnx, channels not equalized) and
the same {calibration} calibration images, and worked in a process of its own. Each graph was judged by ONNX
Runtime as it is written (`session.disable_quant_qdq=1`), on {images} validation images of `shapes100`,
EfficientNet-Lite (with ImageNet weights) on {tiles} tiles of photographs that come with Debian, which have no
labels, and were calibrated on tiles of other photographs. Networks whose names end with `-hostile`, `-parts`
or `-branches` compute what the network before them computes, with channels scaled inside
([how](trained.md)). By `python -m tools.bench.quantization`. {machine}; {dates}; {versions}.

{ways}

ONNX Runtime's is set as its code and its example for TensorRT advise: symmetric, weights per output channel,
Q/DQ pairs on weights and a pair for each reader, outputs of weighted operators and biases not quantized, sums
only before a mean. ModelOpt chooses by itself what it quantizes.

{verdict}

## Divergence

Mean Kullback-Leibler divergence of the class probabilities from the original's, in thousandths of a nat, the
least of a row in bold. *{floor}* is the floor: no layer in INT8.

{divergence}

Over that of the best peer, the one of least divergence, chosen on these very images, which favors it; with
the 95 % interval of a paired bootstrap. The aim is half of the peer's on hard twins and networks with
depthwise convolutions, 0.8 of it on the others: *reached* if the interval ends below it, *missed* if it
begins above, *open* if it lies in it. *INT8* is the share of the MACs.

{ratios}

{changes}

## Accuracy

Top-1 in percent on the validation images, the best of a row in bold.

{accuracy}

Top-1 agreement / top-1 in top-5 / top-5 agreement with the original, in percent:

{rates}

Signal-to-noise ratio of the logits in dB, the best of a row in bold:

{sqnr}

![signal-to-noise ratio of the logits]({image})

## Against the best peer

The peer of highest accuracy, chosen on these very images, which favors it. The difference is cnnx less
that peer, in points, with its 95 % paired interval. *Not worse*: the interval begins above -{most:.1f};
*worse*: it ends below; *open*: -{most:.1f} lies in it. The column in dB is cnnx less the best ratio of a
peer, which may be another.

{paired}

{losses}

Where a peer's max has the better signal-to-noise ratio, few large activations carry much of the largest
logits: clipping them costs decibels and can win agreement. cnnx chooses by what class probabilities lose
([decisions](decisions.md)).

## What it costs

Seconds, once the packages are imported, from the FP32 graph and the images to the INT8 graph, the better
of two runs where one took less than a minute; in brackets, over plain inference of as many images. Of
{large} it is the clock's time, with nothing else on the machine; of the others the processor's, for
other work ran beside them. Then the peak of the process's memory in MiB, imports included.

{costs}

cnnx runs the first 64 images twice, once to equalize channels and once for ranges by every method, and
holds the graphs that it makes against each other: of few images and a large network that is slower than one
pass for MinMax. `auto` then tries each method on 128 further images.

Over all networks (imports: the process's memory before the work began):

{cost_summary}

## Linter and TensorRT

The graphs as each tool wrote them, through cnnx's linter and through TensorRT for RTX {rtx}, which
builds without a GPU; *in INT8*: share of the MACs. Errors are what TensorRT refuses or misreads, warnings
what costs speed; `rule` x count (number of graphs).

{tensorrt}
{failures}"""


def write(found: dict[str, Cells], *, folder: Path) -> None:
    """Write the page, and the plot if there are results."""
    write_page(folder / PAGE, page(found))
    plot.draw({name: cells for name, cells in found.items() if _small(cells)}, folder / CHART)


def page(found: dict[str, Cells]) -> str:
    """The text of the page. Cells without a record are dashes; failed cells are listed at the end."""
    every = [record for cells in found.values() for record in cells.values()]
    small = {name: cells for name, cells in found.items() if _small(cells)}
    dates = sorted(record["date"] for record in every if "date" in record)
    return TEXT.format(
        calibration=_listed(
            r["calibration_images"] for c in small.values() for r in c.values() if "date" in r
        ),
        images=_listed(
            f"{record['images']:,}"
            for name, cells in small.items()
            if name not in PHOTOGRAPHED
            for record in cells.values()
        ),
        machine="; ".join(sorted({record["machine"] for record in every if "machine" in record})),
        dates=" to ".join(dict.fromkeys((dates[0], dates[-1]))) if dates else "no date",
        versions=", ".join(sorted(_versions(every))),
        ways="\n".join(f"- **{way}**: {what}" for way, what in WAYS.items()),
        verdict=verdict(small),
        floor=FLOOR,
        tiles=f"{TILES:,}",
        divergence=markdown(("network", FLOOR, *JUDGED), rows.divergence_rows(small)),
        ratios=markdown(
            ("network", "best peer", "its INT8", "aim", *(f"{way}{what}" for way in OURS for what in RATIO)),
            rows.ratio_rows(small),
        ),
        changes=changes(small),
        accuracy=markdown(("network", "FP32", *JUDGED), rows.accuracy_rows(small)),
        rates=markdown(("network", *JUDGED), rows.rates_rows(small)),
        sqnr=markdown(("network", *JUDGED), rows.sqnr_rows(small)),
        image=CHART,
        large=" and ".join(LARGE),
        most=100 * MOST_WORSE,
        paired=markdown(
            ("network", "best peer", *(f"{way}{what}" for way in OURS for what in ("", ", verdict", ", dB"))),
            rows.paired_rows(small),
        ),
        losses=losses(small),
        costs=markdown(("network", *WAYS), rows.cost_rows(found)),
        cost_summary=markdown(
            ("way", "over plain, median", "largest", "peak MiB, median", "largest", "of it imports"),
            rows.cost_summary_rows(found),
        ),
        rtx=_listed(record.get("rtx_version") for record in every if record.get("rtx_version")),
        tensorrt=markdown(
            ("way", "graphs", "built", "in INT8, median", "least", "errors", "warnings", "refused with"),
            rows.tensorrt_rows(found),
            left=(0, 5, 6, 7),
        ),
        failures=failures(found),
    )


def verdict(small: dict[str, Cells]) -> str:
    """A paragraph that counts how often each aim is met."""
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


def changes(small: dict[str, Cells]) -> str:
    """What exports changed by themselves."""
    kept = [
        [name, way, record["remedies"]]
        for name, cells in small.items()
        for way, record in cells.items()
        if record.get("remedies")
    ]
    if not kept:
        return "No export changed anything by itself ([choosing](choosing.md))."
    table = markdown(("network", "way", "change"), kept, left=(0, 1, 2))
    return f"Where INT8 was far from FP32, exports made changes ([choosing](choosing.md)):\n\n{table}"


def losses(small: dict[str, Cells]) -> str:
    """Where and why cnnx falls short: fewer correct than the best peer, or no better logits for a twin."""
    short = []
    for name, cells in small.items():
        for way in OURS:
            gap, ours, best = gap_to_best(cells, way), sqnr(cells, way), best_sqnr(cells)
            if gap is not None and gap[0] < 0:
                why = _why(cells, way, gap[2], by_chance=gap[1].high > 0)
                short.append([name, way, f"{100 * gap[0]:+.2f} points", gap[2], why])
            if name.endswith(TWINS) and ours is not None and best is not None and ours <= best:
                peer = next(each for each in PEERS if sqnr(cells, each) == best)
                why = _why(cells, way, peer, by_chance=False)
                short.append([name, way, f"{ours - best:+.1f} dB", peer, why])
    if not short:
        return "Nowhere has cnnx fewer images right than the best peer, or a twin's logits no better."
    head = ("network", "way", "short by", "peer", "why")
    table = markdown(head, short, left=(0, 1, 3, 4))
    return f"Where cnnx has fewer images right than the best peer, or a twin's logits no better:\n\n{table}"


def _why(cells: Cells, way: str, peer: str, *, by_chance: bool) -> str:
    theirs, mine = (cells[each]["int8_share"] or 0 for each in (peer, way))
    if theirs < mine - _LESS:
        return f"{peer} leaves {1 - theirs:.0%} of the MACs out of INT8, {way} {1 - mine:.0%}"
    return "these images cannot tell it from chance" if by_chance else "not known"


def failures(found: dict[str, Cells]) -> str:
    """Failed cells with their reasons, and cells not run."""
    failed = [
        [name, way, rows.one_line(record["failed"])]
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
    if failed:
        text += f"\n## What failed\n\n{markdown(('network', 'way', 'reason'), failed, left=(0, 1, 2))}\n"
    if absent:
        text += f"\nNot run yet: {'; '.join(absent)}.\n"
    return text


def _of_all(names: Sequence[str], every: Iterable[str]) -> str:
    """Names of some networks, or of the exceptions if those are fewer."""
    others = [name for name in every if name not in names]
    if len(others) < len(names):
        return f"all but {', '.join(others)}" if others else "all"
    return ", ".join(names)


def _small(cells: Cells) -> bool:
    return any(record["images"] for record in cells.values())


def _versions(every: Iterable[Record]) -> set[str]:
    """Tool versions; versions in ModelOpt's venv are listed if they differ."""
    ours, theirs = set[str](), set[str]()
    for record in every:
        found = {f"{tool} {version}" for tool, version in record.get("versions", {}).items()}
        (theirs if record["way"].startswith("modelopt-") else ours).update(found)
    return ours | {f"{each} (for ModelOpt)" if " " in each else each for each in theirs - ours}


def _listed(values: Iterable[Any]) -> str:
    return ", ".join(sorted({str(value) for value in values})) or "no"
