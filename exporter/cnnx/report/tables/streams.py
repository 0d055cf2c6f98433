"""Tables of concurrent streams: a row for each number of streams, and one for each stream."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from cnnx.report.table import Case, Cell, Column, Figures, Remark, Suite, Table, table_of
from cnnx.report.words import Run, graph_words, mib, on_cpu, scaled, several, shared

_MS = 1e-6
_HOW = (
    "Streams are threads of one Python process over one loaded network. p50: lowest and highest of the "
    "streams{highest}. Fairness: Jain's index of the streams' images/s, 1 if all are equal."
)
_FRAMES = (
    "All cameras deliver at the same moment. Latency counts from when a frame is due; the frame is missed if "
    "its result comes after the next one is due."
)


@dataclass(frozen=True, slots=True)
class _Count:
    """A number of streams of a run."""

    run: Run
    count: Mapping[str, Any]

    @property
    def each(self) -> Sequence[Mapping[str, Any]]:
        """Figures of each stream."""
        found: Sequence[Mapping[str, Any]] = self.count["each"]
        return found


def streams_table(runs: Sequence[Run]) -> Table:
    """What each number of streams achieved."""
    groups = [[_Count(run, count) for count in run.result["counts"]] for run in runs]
    device, paces = shared(runs, _device), shared(runs, _pace)
    percentiles = sorted({run.result["percentile"] for run in runs} - {50.0})
    columns: tuple[Column[_Count], ...] = (
        Column("date", lambda row: row.run.date, fixed=True, once=True, known=True),
        Column("what", lambda row: row.run.name, fixed=True, once=True),
        Figures("batch", lambda row: str(row.run.result["batch"]), once=True),
        Column("CUDA graph", lambda row: _graph(row.run), fixed=True, once=True, known=True),
        Column("frames", lambda row: "" if paces else _pace(row.run), fixed=True, once=True, known=True),
        Figures("streams", lambda row: str(row.count["streams"])),
        Figures("images/s", lambda row: scaled(row.count["images_per_second"], 1, 1)),
        Figures("x one", _scaling, known=True, drop=3),
        Figures("p50 ms", lambda row: _range(row, "p50_ns")),
        *(_percentile(each) for each in percentiles),
        Figures("fairness", lambda row: scaled(row.count["fairness"], 1, 3), drop=2),
        Figures("of frames", lambda row: _number(row, "frames"), known=True, drop=4),
        Figures("missed", lambda row: _number(row, "missed"), known=True),
        Column("fits", _fits, fixed=True, known=True),
        *_memory(),
    )
    title = ", ".join(filter(None, (f"Streams on {device}" if device else "Streams", paces)))
    return table_of(title, columns, groups, lined=len(groups) > 1, remarks=_remarks(runs), suite=_suite(runs))


def each_stream_table(runs: Sequence[Run]) -> Table:
    """Each stream of each number of streams."""
    groups = [
        [(_Count(run, count), place) for place in range(len(count["each"]))]
        for run in runs
        for count in run.result["counts"]
    ]
    shares = sorted({run.result["percentile"] for run in runs} - {50.0})
    columns: tuple[Column[tuple[_Count, int]], ...] = (
        Column("what", lambda row: row[0].run.name, fixed=True, once=True),
        Figures("streams", lambda row: str(row[0].count["streams"]), once=True),
        Figures("stream", lambda row: str(row[1] + 1)),
        Figures("images/s", lambda row: scaled(row[0].each[row[1]]["images_per_second"], 1, 1)),
        Figures("p50 ms", lambda row: scaled(row[0].each[row[1]]["p50_ns"], _MS, 3)),
        *(Figures(f"p{share:g} ms", partial(_at, share)) for share in shares),
        Figures("runs", lambda row: f"{row[0].each[row[1]]['runs']:,}"),
    )
    return table_of("Each stream", columns, groups, lined=True)


def _at(share: float, row: tuple[_Count, int]) -> str:
    """A stream's percentile, if it is the one that was requested for its run."""
    count, place = row
    asked = count.run.result["percentile"] == share
    return scaled(count.each[place]["percentile_ns"], _MS, 3) if asked else ""


def _percentile(share: float) -> Column[_Count]:
    return Figures(
        f"p{share:g} ms",
        lambda row: _highest(row, "percentile_ns") if row.run.result["percentile"] == share else "",
    )


def _memory() -> Iterator[Column[_Count]]:
    kinds = {"host MiB": "added_bytes", "GPU MiB": "gpu_bytes", "CPU and GPU MiB": "shared_bytes"}
    for heading, key in kinds.items():
        yield Figures(heading, partial(_mib, key), known=True, drop=1)


def _mib(key: str, row: _Count) -> str:
    return mib(row.count["memory"].get(key))


def _device(run: Run) -> str:
    return f"{run.result['subject']['runtime']}, {run.result['subject']['device']}"


def _pace(run: Run) -> str:
    fps = run.result["fps"]
    return "back to back" if fps is None else f"at {fps:g} fps"


def _graph(run: Run) -> str:
    return graph_words(run.result).removeprefix("CUDA graph ")


def _number(row: _Count, key: str) -> str:
    value = row.count[key]
    return "" if value is None or row.run.result["fps"] is None else f"{value:,}"


def _scaling(row: _Count) -> str:
    """Images per second over those of one stream, back to back."""
    alone = row.run.result["counts"][0]["images_per_second"]
    if row.run.result["fps"] is not None or not alone:
        return ""
    return scaled(row.count["images_per_second"], 1 / alone, 2)


def _range(row: _Count, key: str) -> str:
    known = [each[key] for each in row.each if each[key] is not None]
    if len(known) < len(row.each):
        return "-"
    low, high = (scaled(choose(known), _MS, 3) for choose in (min, max))
    return low if low == high else f"{low} .. {high}"


def _highest(row: _Count, key: str) -> str:
    known = [each[key] for each in row.each if each[key] is not None]
    return scaled(max(known), _MS, 3) if len(known) == len(row.each) else "-"


def _fits(row: _Count) -> Cell:
    if row.count["fits"] is None:
        return Cell("")
    return Cell("yes", "good") if row.count["fits"] else Cell("no", "bad")


def _remarks(runs: Sequence[Run]) -> Iterator[Remark]:
    percentiles = sorted({run.result["percentile"] for run in runs} - {50.0})
    highest = f"; {', '.join(f'p{each:g}' for each in percentiles)}: highest" if percentiles else ""
    yield Remark(_HOW.format(highest=highest))
    if any(run.result["fps"] is not None for run in runs):
        yield Remark(_FRAMES)
    for run in runs:
        yield from _answer(run)
        yield from _validity(run)
    yield from (Remark(run.result["remark"]) for run in runs if run.result["remark"])


def _answer(run: Run) -> Iterator[Remark]:
    """How many cameras fit, and why no more were tried."""
    result = run.result
    if (cameras := result["cameras"]) is not None:
        text = f"{run.full}: {several(cameras, 'camera')} at {result['fps']:g} fps {_fit(cameras)}"
        yield Remark(f"{text}{_evidence(result, cameras)}.", tone="good" if cameras else "bad")
    if cameras and cameras == result["asked"]:
        yield Remark(f"{run.full}: all streams that were requested fit; a larger --streams may fit, too.")
    if result["ended"] in ("no room", "failed", "interrupted"):
        yield Remark(f"{run.full}: {result['reason']}", result["ended"], "bad")
    elif result["reason"]:
        yield Remark(f"{run.full}: more streams were not tried: {result['reason']}.")


def _fit(cameras: int) -> str:
    return "fits" if cameras == 1 else "fit"


def _evidence(result: Mapping[str, Any], cameras: int) -> str:
    """The number of frames behind the answer, and a doubt if a larger number of cameras fits."""
    counts, period = result["counts"], f"{1e3 / result['fps']:.1f} ms"
    later = [count["streams"] for count in counts[cameras + 1 :] if count["fits"]]
    doubt = f"; {later[-1]} streams missed none, so measure longer on a quiet machine" if later else ""
    if cameras == 0:
        missed, frames = counts[0]["missed"], counts[0]["frames"]
        return f": one alone missed {missed:,} of {frames:,} frames{doubt}"
    frames = counts[cameras - 1]["frames"]
    # No event in n trials: the rate is at most 1 - 0.05^(1/n), at 95 % confidence.
    most = 1 - 0.05 ** (1 / max(1, frames))
    sure = f"95 % confidence: at most {most:.2%} do"
    return f": none of {frames:,} frames took longer than {period} ({sure}){doubt}"


def _validity(run: Run) -> Iterator[Remark]:
    """Findings about validity, each once with the numbers of streams. A valid run on a CPU gets no remark."""
    found: dict[Remark, list[int]] = {}
    for count in run.result["counts"]:
        for remark in _findings(count["validity"]):
            found.setdefault(remark, []).append(count["streams"])
    if not on_cpu(run.result["subject"]) and all(each["validity"]["valid"] for each in run.result["counts"]):
        yield Remark(f"{run.full}, streams", "valid", "good")
    for remark, numbers in found.items():
        which = f"{', '.join(map(str, numbers))} stream{'s' * (numbers != [1])}"
        yield Remark(f"{run.full}, {which}: {remark.text}", remark.label, remark.tone)


def _findings(validity: Mapping[str, Any]) -> Iterator[Remark]:
    for finding in validity["findings"]:
        yield Remark(f"{finding['reason']}; {finding['hint']}", "invalid", "bad")
    for judged in validity["percentiles"]:
        if judged["reason"] and validity["valid"]:
            yield Remark(f"p{judged['percentile']:g}: {judged['reason']}", "invalid", "open")
    for finding in validity["remarks"]:
        yield Remark(f"{finding['reason']}; {finding['hint']}", "remark", "open")


def _suite(runs: Sequence[Run]) -> Suite:
    """A case for each run: cameras that fit, or images per second of the most streams."""
    return Suite("streams", "cnnx.streams", cases=tuple(map(_case, runs)))


def _case(run: Run) -> Case:
    result, subject, last = run.result, run.result["subject"], run.result["counts"][-1]
    rules = [finding["rule"] for count in result["counts"] for finding in count["validity"]["findings"]]
    if result["cameras"] is not None:
        name, value, unit = f"cameras at {result['fps']:g} fps", float(result["cameras"]), ""
    else:
        name, value, unit = f"{several(last['streams'], 'stream')}", last["images_per_second"], "images/s"
    return Case(
        ", ".join(filter(None, (name, f"batch {result['batch']}", graph_words(result)))),
        f"cnnx.{subject['network']}.{subject['precision']}",
        "open" if rules else "good",
        f"{'invalid' if rules else 'measured'}: {value:.6g} {unit}".strip(),
        tuple(dict.fromkeys(rules)),
        figures={"value": value},
        unit=unit,
    )
