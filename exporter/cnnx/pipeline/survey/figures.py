"""The ten figures of Canziani, Paszke and Culurciello 2016, from the rows of a survey.

Each figure is a chart with a row a mark. Accuracies are marked as measured, with the image set, or as
published. The paper's own points stand beside them in the figures that it published numbers for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from cnnx.pipeline.survey.canziani import POINTS, SOURCE, Point
from cnnx.report.document import Chart, Scalar

_MIB = 2**20
_BYTES_OF = {"fp32": 4, "fp16": 2, "int8": 1}

Row = Mapping[str, Any]
Marks = list[dict[str, Scalar]]


def figures_of(rows: Sequence[Row]) -> Iterator[Chart]:
    """The figures that the finished rows of one device give, in the order of the paper."""
    done = [row for row in rows if row["status"] == "done" and row.get("valid", True)]
    smallest = at_smallest(done)
    largest = at_largest(done)
    marks: tuple[tuple[str, str, str, Marks], ...] = (
        ("top1", "Top-1 accuracy", "Accuracy of each network.", _top1(smallest)),
        (
            "accuracy-ops",
            "Accuracy and operations",
            "Accuracy against operations for one image; the area is the number of parameters.",
            _accuracy_ops(smallest),
        ),
        ("time-batch", "Time and batch", "Time per image against the batch size.", _time_batch(done)),
        ("power-batch", "Power and batch", "Power under load against the batch size.", _power_batch(done)),
        ("memory-batch", "Memory and batch", "Memory against the batch size.", _memory_batch(done)),
        (
            "memory-parameters",
            "Memory and parameters",
            "Memory at the smallest batch against the size of the parameters.",
            _memory_parameters(smallest),
        ),
        (
            "ops-time",
            "Operations and time",
            "Operations against time per image, at the smallest and the largest batch.",
            _ops_time(smallest, largest),
        ),
        (
            "ops-power",
            "Operations and power",
            "Operations against power under load, at the largest batch of each network.",
            _ops_power(largest),
        ),
        (
            "accuracy-rate",
            "Accuracy and speed",
            "Accuracy against images per second at the largest batch of each network. The line is the Pareto "
            "front: no network is faster and more accurate.",
            _accuracy_rate(largest),
        ),
        (
            "density",
            "Information density",
            "Accuracy in percent per million parameters.",
            _density(smallest),
        ),
    )
    yield from (Chart(kind, title, text, tuple(found)) for kind, title, text, found in marks if found)


def accuracy_of(row: Row) -> tuple[float, float | None, float | None, str] | None:
    """Top-1 accuracy in percent, the ends of its interval, and where it is from; None if it is unknown.

    A measured accuracy comes first; where the weights are stand-ins, the published one stands in. That is of
    FP32, and says nothing about INT8.
    """
    if (measured := row.get("accuracy")) is not None:
        ends = (100 * measured["low"], 100 * measured["high"])
        return 100 * measured["top1"], *ends, f"measured, {measured['image_set']}"
    published = row.get("published_top1")
    if published and row["precision"] != "int8":
        return published, None, None, f"published, {row.get('published_on', 'ImageNet')}"
    return None


def at_smallest(rows: Sequence[Row]) -> list[Row]:
    """The row of the smallest batch of each network and precision."""
    return list({(row["model"], row["precision"]): row for row in _by_batch(rows)[::-1]}.values())[::-1]


def at_largest(rows: Sequence[Row]) -> list[Row]:
    """The row of the largest batch of each network and precision."""
    return list({(row["model"], row["precision"]): row for row in _by_batch(rows)}.values())


def _by_batch(rows: Sequence[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: row["batch"])


def _named(row: Row) -> dict[str, Scalar]:
    return {
        "network": row["model"],
        "precision": row["precision"],
        "series": f"{row['model']} {row['precision']}",
    }


def _accuracies(rows: Sequence[Row]) -> Iterator[tuple[Row, dict[str, Scalar]]]:
    for row in rows:
        if (found := accuracy_of(row)) is not None:
            top1, low, high, origin = found
            yield row, {**_named(row), "top1": top1, "low": low, "high": high, "origin": origin}


def _with_theirs(marks: Marks, figures: Callable[[Point], dict[str, Scalar]]) -> Marks:
    """The marks, and the paper's own points with these figures beside them; nothing without marks."""
    theirs: Marks = [
        {
            "network": point.network,
            "precision": None,
            "series": point.network,
            "name": point.network,
            "top1": point.top1,
            "low": None,
            "high": None,
            "origin": SOURCE,
            **figures(point),
        }
        for point in POINTS
    ]
    return [*marks, *theirs] if marks else []


def _once(found: Sequence[tuple[Row, dict[str, Scalar]]]) -> dict[Scalar, tuple[Row, dict[str, Scalar]]]:
    """Name of a bar -> its row and mark: a published accuracy is the same in every precision."""
    named: dict[Scalar, tuple[Row, dict[str, Scalar]]] = {}
    for row, mark in found:
        published = str(mark["origin"]).startswith("published")
        name = mark["network"] if published else mark["series"]
        named[name] = row, {**mark, "name": name}
    return named


def _top1(rows: Sequence[Row]) -> Marks:
    marks = [mark for _, mark in _once([*_accuracies(rows)]).values()]
    return sorted(_with_theirs(marks, lambda _: {}), key=lambda mark: float(mark["top1"] or 0))


def _accuracy_ops(rows: Sequence[Row]) -> Marks:
    marks: Marks = [
        {**mark, "gops": gops, "parameters_m": row["parameters"] / 1e6}
        for row, mark in _accuracies(rows)
        if (gops := gops_of(row))
    ]
    return _with_theirs(marks, lambda point: {"gops": point.gops, "parameters_m": point.parameters_m})


def per_image_ms(row: Row) -> float | None:
    """Median time per image; None if it is unknown."""
    return None if row.get("p50_ns") is None else row["p50_ns"] / row["batch"] / 1e6


def _time_batch(rows: Sequence[Row]) -> Marks:
    marks: Marks = []
    for row in _by_batch(rows):
        if (time := per_image_ms(row)) is not None:
            ends = row.get("p50_interval") or {}
            low, high = (ends.get(end) and ends[end] / row["batch"] / 1e6 for end in ("low", "high"))
            marks.append({**_named(row), "batch": row["batch"], "ms": time, "low": low, "high": high})
    return marks


def _power_batch(rows: Sequence[Row]) -> Marks:
    return [
        {**_named(row), "batch": row["batch"], "watts": row["power_mw"] / 1e3}
        for row in _by_batch(rows)
        if row.get("power_mw") is not None
    ]


def memory_mib(row: Row) -> float | None:
    """Memory that a network takes, as its platform tells it; None if it does not."""
    from cnnx.pipeline.judge.costs import memory_of

    found = memory_of(row.get("memory") or {})
    # What is too little to be seen has no place on a logarithmic axis.
    return found[1] / _MIB if isinstance(found, tuple) and found[1] > 0 else None


def _memory_batch(rows: Sequence[Row]) -> Marks:
    return [
        {**_named(row), "batch": row["batch"], "mib": mib}
        for row in _by_batch(rows)
        if (mib := memory_mib(row)) is not None
    ]


def parameters_mib(row: Row) -> float | None:
    """Size of the parameters in the row's precision; None if their number is unknown."""
    count = row.get("parameters")
    return count * _BYTES_OF.get(row["precision"], 4) / _MIB if count else None


def _memory_parameters(rows: Sequence[Row]) -> Marks:
    return [
        {**_named(row), "parameters_mib": size, "mib": mib}
        for row in rows
        if (mib := memory_mib(row)) is not None and (size := parameters_mib(row)) is not None
    ]


def gops_of(row: Row) -> float | None:
    """Operations for one image, twice its MACs, in units of 1e9; None if they are unknown."""
    return 2 * row["multiply_adds"] / 1e9 if row.get("multiply_adds") else None


def _ops_time(smallest: Sequence[Row], largest: Sequence[Row]) -> Marks:
    ends = {(row["model"], row["precision"], row["batch"]): row for row in (*smallest, *largest)}
    return [
        {**_named(row), "batch": row["batch"], "gops": gops, "ms": time}
        for row in ends.values()
        if (gops := gops_of(row)) and (time := per_image_ms(row)) is not None
    ]


def _ops_power(rows: Sequence[Row]) -> Marks:
    return [
        {**_named(row), "batch": row["batch"], "gops": gops, "watts": row["power_mw"] / 1e3}
        for row in rows
        if (gops := gops_of(row)) and row.get("power_mw") is not None
    ]


def _accuracy_rate(rows: Sequence[Row]) -> Marks:
    """Accuracies of one image set are compared with each other only: each has its own front."""
    marks: Marks = [
        {**mark, "batch": row["batch"], "rate": row["images_per_second"]}
        for row, mark in _accuracies(rows)
        if row["images_per_second"] > 0
    ]
    for mark in marks:
        among = [each for each in marks if each["origin"] == mark["origin"]]
        mark["front"] = not any(_beats(each, mark) for each in among)
    return sorted(marks, key=lambda mark: float(mark["rate"] or 0))


def _beats(one: Mapping[str, Scalar], other: Mapping[str, Scalar]) -> bool:
    """Whether a network is at least as fast and as accurate as another, and better in one of the two."""
    ours, theirs = ((float(each["rate"] or 0), float(each["top1"] or 0)) for each in (one, other))
    return ours != theirs and ours[0] >= theirs[0] and ours[1] >= theirs[1]


def _density(rows: Sequence[Row]) -> Marks:
    marks: Marks = [
        {**mark, "density": float(mark["top1"] or 0) / (row["parameters"] / 1e6)}
        for row, mark in _once([*_accuracies(rows)]).values()
        if row.get("parameters")
    ]
    marks = _with_theirs(marks, lambda point: {"density": point.top1 / point.parameters_m})
    return sorted(marks, key=lambda mark: -float(mark["density"] or 0))
