"""Builds the rows of the tables. A cell without a record is a dash."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator, Sequence

from cnnx.stats import Verdict
from tools.bench.quantization.records import (
    FLOOR,
    JUDGED,
    MOST_WORSE,
    OURS,
    WAYS,
    Cells,
    best_sqnr,
    divergence,
    gap_to_best,
    goal_of,
    ratio_to_best,
    ratio_to_plain,
    sqnr,
    time_of,
)
from tools.resumable import Record


def accuracy_rows(small: dict[str, Cells]) -> Iterator[list[str]]:
    """Accuracy of each network."""
    for name, cells in small.items():
        original = next((r["original"] for r in cells.values() if "original" in r), None)
        values = [cells.get(way, {}).get("accuracy") for way in JUDGED]
        yield [
            name,
            "-" if original is None else f"{original:.2%}"[:-1],
            *_best_bold(values, "{:.2%}", cells),
        ]


def sqnr_rows(small: dict[str, Cells]) -> Iterator[list[str]]:
    """Difference of each network's logits from the original's."""
    for name, cells in small.items():
        yield [name, *_best_bold([sqnr(cells, way) for way in JUDGED], "{:.1f}", cells)]


def divergence_rows(small: dict[str, Cells]) -> Iterator[list[str]]:
    """Each network's divergence from the original, in thousandths of a nat."""
    for name, cells in small.items():
        values = [divergence(cells, way) for way in (FLOOR, *JUDGED)]
        least = min((value for value in values[1:] if value is not None), default=None)
        texts = ["-" if value is None else f"{1000 * value:.3g}" for value in values]
        bold = [f"**{text}**" if value == least else text for value, text in zip(values, texts, strict=True)]
        yield [name, texts[0], *bold[1:]]


def ratio_rows(small: dict[str, Cells]) -> Iterator[list[str]]:
    """Each network's divergence over the best peer's, with both shares in INT8."""
    for name, cells in small.items():
        peer, compared = "-", []
        for way in OURS:
            if (ratio := ratio_to_best(cells, way)) is None:
                compared += [no_value(cells, way)] * 3
                continue
            value, interval, peer = ratio
            compared += [
                f"{value:.2g} ({interval.low:.2g} .. {interval.high:.2g})",
                _GOAL[interval.against(goal_of(name))],
                _share(cells, way),
            ]
        yield [name, peer, _share(cells, peer), f"{goal_of(name)}", *compared]


# The interval lies above the goal, below it, or on both sides.
_GOAL = {Verdict.PASSED: "missed", Verdict.FAILED: "reached", Verdict.INCONCLUSIVE: "open"}


def _share(cells: Cells, way: str) -> str:
    share = cells.get(way, {}).get("int8_share")
    return "-" if share is None else f"{share:.1%}"


def rates_rows(small: dict[str, Cells]) -> Iterator[list[str]]:
    """The three rates of agreement."""
    for name, cells in small.items():
        row = [name]
        for way in JUDGED:
            found = cells.get(way, {}).get("likeness")
            rates = [found[k] for k in ("top1_agreement", "top1_in_top5", "top5_agreement")] if found else []
            row.append(" / ".join(f"{100 * rate:.1f}" for rate in rates) or no_value(cells, way))
        yield row


def paired_rows(small: dict[str, Cells]) -> Iterator[list[str]]:
    """Each network compared with its best peer."""
    words = {Verdict.PASSED: "not worse", Verdict.FAILED: "worse", Verdict.INCONCLUSIVE: "open"}
    for name, cells in small.items():
        row, peer = [name], "-"
        for way in OURS:
            gap, ours, best = gap_to_best(cells, way), sqnr(cells, way), best_sqnr(cells)
            if gap is None:
                row += [no_value(cells, way)] * 3
                continue
            difference, interval, peer = gap
            row.append(f"{100 * difference:+.2f} ({100 * interval.low:+.2f} .. {100 * interval.high:+.2f})")
            row.append(words[interval.against(-MOST_WORSE)])
            row.append("-" if ours is None or best is None else f"{ours - best:+.1f}")
        yield [row[0], peer, *row[1:]]


def cost_rows(found: dict[str, Cells]) -> Iterator[list[str]]:
    """Time and memory of every cell."""
    for name, cells in found.items():
        row = [name]
        for way in WAYS:
            record = cells.get(way, {})
            if "seconds" not in record:
                row.append(no_value(cells, way))
                continue
            ratio = ratio_to_plain(cells, way)
            over = "" if ratio is None or way == "plain" else f" ({ratio:.1f})"
            few = _fewer(cells, way)
            row.append(f"{time_of(record):.1f}{over}, {record['peak_bytes'] / 2**20:,.0f}{few}")
        yield row


def cost_summary_rows(found: dict[str, Cells]) -> Iterator[list[str]]:
    """Summary over all networks."""
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
    """Linter and TensorRT for RTX results for each tool's graphs."""
    for way in JUDGED:
        graphs = [cells[way] for cells in found.values() if "rtx" in cells.get(way, {})]
        if not graphs:
            continue
        shares = [record["int8_share"] for record in graphs if record["int8_share"] is not None]
        refused = (each["rtx"] for each in graphs if each["rtx"] != "built")
        reasons = Counter(what for what in refused if not what.startswith("not tried"))
        yield [
            way,
            str(len(graphs)),
            str(sum(record["rtx"] == "built" for record in graphs)),
            f"{statistics.median(shares):.0%}" if shares else "-",
            f"{min(shares):.0%}" if shares else "-",
            _rules(graphs, "errors"),
            _rules(graphs, "warnings"),
            "; ".join(f"{one_line(what)} ({times})" for what, times in reasons.most_common()) or "-",
        ]


def _fewer(cells: Cells, way: str) -> str:
    """A note if a method got fewer images than others."""
    count = cells[way]["calibration_images"]
    most = max(record.get("calibration_images", 0) for record in cells.values())
    return f" (of {count} images, not {most})" if count < most else ""


def no_value(cells: Cells, way: str) -> str:
    return "failed" if "failed" in cells.get(way, {}) else "-"


def _best_bold(values: Sequence[float | None], form: str, cells: Cells) -> list[str]:
    shown = [None if value is None else form.format(value).removesuffix("%") for value in values]
    best = max((float(text) for text in shown if text is not None), default=None)
    return [
        no_value(cells, way) if text is None else f"**{text}**" if float(text) == best else text
        for way, text in zip(JUDGED, shown, strict=True)
    ]


def _rules(graphs: Sequence[Record], severity: str) -> str:
    times, where = Counter[str](), Counter[str]()
    for record in graphs:
        times.update(record[severity])
        where.update(list(record[severity]))
    return ", ".join(f"`{rule}` x {times[rule]} ({where[rule]})" for rule in sorted(times)) or "-"


def one_line(text: str) -> str:
    """A reason on one line, escaped for a table."""
    return " ".join(text.replace("|", "/").split())[:300]
