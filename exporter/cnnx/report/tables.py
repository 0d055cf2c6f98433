"""What records tell, as tables of words for Markdown and HTML; the screen shows memory and layers by them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cnnx.record import Record, Unverified
from cnnx.selftest import self_test_from_dict

_LAYERS_SHOWN = 10
_MIB = 2**20
_UNKNOWN = "not known"


@dataclass(frozen=True, slots=True)
class Table:
    """A title, columns, rows of cells, and what is to be read with them.

    Attributes:
        right: columns of figures.
        remarks: a sentence each.
    """

    title: str
    columns: tuple[str, ...]
    right: frozenset[str]
    rows: tuple[tuple[str, ...], ...]
    remarks: tuple[str, ...] = ()


def tables_from_records(records: Sequence[Record]) -> tuple[Table, ...]:
    """Verdicts, later judgements, self-tests, latency, memory, layers and energy; none without a record."""
    kinds = ("validation", "judgement", "selftest", "benchmark", "energy")
    judged, anew, tested, measured, used = (_of(records, kind) for kind in kinds)
    tables = []
    if judged:
        tables.append(_verdict_table("Verdicts", judged))
    if anew:
        tables.append(_verdict_table("Verdicts, judged anew on other images", anew))
    if tested:
        tables.append(self_test_table(tested))
    if measured:
        tables += measured_tables(measured)
    if used:
        tables.append(_energy_table(used))
    return tuple(tables)


def unverified_tables(unverified: Sequence[Unverified]) -> tuple[Table, ...]:
    """Records whose figures are not shown, with the reason; no table where there are none."""
    rows = tuple(
        (
            one.file,
            one.record.date[:19] if one.record else "-",
            one.record.kind if one.record else "-",
            one.reason,
        )
        for one in unverified
    )
    columns = ("file", "date", "kind", "why it is not shown")
    return (Table("Unverified records", columns, frozenset(), rows),) if rows else ()


def measured_tables(records: Sequence[Record]) -> tuple[Table, ...]:
    """Latency, memory, and layers where they were timed."""
    memory, layers = [], []
    for record in records:
        name, batch, result = str(record.subject), record.result["latency"]["batch"], record.result
        memory.append(MemoryTold(name, batch, result["memory"], result.get("predicted") or {}))
        if result.get("layers"):
            layers.append(layer_table(f"{name}, batch {batch}", result["layers"]))
    return _latency_table(records), memory_table(memory), *layers


def _of(records: Iterable[Record], kind: str) -> list[Record]:
    return [record for record in records if record.kind == kind]


def _verdict_table(title: str, records: Iterable[Record]) -> Table:
    """A row a gate."""
    figures = ("value", "threshold")
    rows = tuple(
        (
            record.date[:19],
            str(record.subject),
            gate["name"],
            f"{gate['value']:.4f}",
            f"{gate['interval']['low']:.4f} .. {gate['interval']['high']:.4f}",
            f"{gate['threshold']:g}",
            gate["verdict"],
        )
        for record in records
        for gate in record.result["gates"]
    )
    columns = ("date", "subject", "rate", "value", "95 % interval", "threshold", "verdict")
    return Table(title, columns, frozenset(figures), rows)


def self_test_table(records: Iterable[Record]) -> Table:
    """A row a check: whether what ran computes what was judged at export."""
    figures = ("value", "limit", "margin")
    rows = tuple(
        (
            record.date[:19],
            str(record.subject),
            check.name,
            with_unit(check.value, check.unit),
            with_unit(check.limit, check.unit),
            with_unit(check.margin, "dB", signed=True),
            check.verdict.value,
        )
        for record in records
        for check in self_test_from_dict(record.result).checks
    )
    columns = ("date", "subject", "check", *figures, "verdict")
    return Table("Self-tests: does it compute what was judged at export?", columns, frozenset(figures), rows)


def with_unit(value: float, unit: str, *, signed: bool = False) -> str:
    """A quantity of a self-test, in decibels or nats."""
    return f"{value:{'+' if signed else ''}{'.1f' if unit == 'dB' else '.2g'}} {unit}"


def _latency_table(records: Sequence[Record]) -> Table:
    """A row a measurement; below what makes one invalid, and what its figures do not say."""
    times = ("p50 ms", "p90 ms", "p99 ms")
    rows = []
    for record in records:
        figures = record.result["figures"]
        p50, p90, p99 = (_scaled(figures[key], 1e-6, 3) for key in ("p50_ns", "p90_ns", "p99_ns"))
        graph = record.result.get("conditions", {}).get("cuda_graph")
        rows.append(
            (
                record.date[:19],
                str(record.subject),
                str(record.result["latency"]["batch"]),
                {True: "on", False: "off", None: "-"}[graph],
                figures["of"],
                p50,
                _bounds_ms(figures.get("p50_interval")),
                p90,
                p99,
                f"{figures['images_per_second']:.1f}",
            )
        )
    columns = ("date", "subject", "batch", "CUDA graph", "of", times[0], "95 % interval", *times[1:])
    remarks = [*_invalid(records), *(record.result["remark"] for record in records)]
    return Table(
        "Latency",
        (*columns, "images/s"),
        frozenset({"batch", *times, "images/s"}),
        tuple(rows),
        tuple(filter(None, dict.fromkeys(remarks))),
    )


@dataclass(frozen=True, slots=True)
class MemoryTold:
    """Memory of one subject at one batch, as `Footprint.as_dict` and a `Prediction`'s plain data have it."""

    name: str
    batch: int
    measured: Mapping[str, Any]
    predicted: Mapping[str, Any]


def memory_table(told: Sequence[MemoryTold]) -> Table:
    """Memory as predicted and as measured, a row each; no column of what none here tells."""
    always = {"added_bytes": "host peak", "libraries_bytes": "libraries"}
    some = {"context_bytes": "CUDA context", "gpu_bytes": "GPU process", "shared_bytes": "CPU and GPU"}
    known = {
        key: name for key, name in some.items() if any(one.measured.get(key) is not None for one in told)
    }
    found = {**always, **known}
    rows = tuple(
        (
            one.name,
            str(one.batch),
            *(_mib(value, 2) for value in _predicted(one.predicted)),
            *(_mib(one.measured.get(key), 0) for key in found),
        )
        for one in told
    )
    figures = ("batch", "weights", "activations", "I/O", "predicted", *found.values())
    remark = "Memory: each opened and run once in a process of its own; predicted without libraries."
    return Table("Memory, MiB", ("what", *figures), frozenset(figures), rows, (remark,))


def _predicted(told: Mapping[str, Any]) -> tuple[int | None, ...]:
    """Weights, activations, inputs and outputs, and their sum, in bytes."""
    parts = [told.get(key) for key in ("weights_bytes", "scratch_bytes", "io_bytes")]
    known = [part for part in parts if part is not None]
    return *parts, sum(known) if len(known) == len(parts) else None


def layer_table(name: str, profile: Mapping[str, Any], *, whole: bool = False, hint: str = "") -> Table:
    """Layers, the slowest first.

    Args:
        name: of what was measured.
        profile: as `LayerProfile.as_dict` has it.
        whole: all of them, not the first ten alone.
        hint: how the others are shown.
    """
    ordered = sorted(profile["layers"], key=lambda layer: -layer["median_ns"])
    total = sum(layer["median_ns"] for layer in ordered)
    rows = tuple(
        (
            layer["name"],
            layer["op"],
            layer["kind"],
            _scaled(layer["median_ns"], 1e-6, 3),
            f"{100 * layer['median_ns'] / total:.1f}" if total else "-",
        )
        for layer in (ordered if whole else ordered[:_LAYERS_SHOWN])
    )
    said = ", ".join(f"{kind} {share:.1%}" for kind, share in profile["shares"].items())
    more = f"{len(ordered) - len(rows)} more{hint}; " if len(rows) < len(ordered) else ""
    return Table(
        f"Slowest layers of {name}",
        ("layer", "op", "kind", "ms", "%"),
        frozenset({"ms", "%"}),
        rows,
        (f"{more}medians of {profile['runs']} runs, profiled apart: {said}",),
    )


def _energy_table(records: Sequence[Record]) -> Table:
    """The total's energy a picture, or each rail's where there is no total; below what speaks against it."""
    rows = [
        (
            record.date[:19],
            str(record.subject),
            str(record.result["batch"]),
            pace(record.result),
            record.result["sensor"],
            *_energy_cells(energy),
        )
        for record in records
        for energy in ([record.result["total"]] if record.result["total"] else record.result["rails"])
    ]
    columns = ("date", "subject", "batch", "runs", "sensor", *_ENERGY_COLUMNS)
    remarks = tuple(dict.fromkeys(remark for record in records for remark in _energy_remarks(record)))
    return Table("Energy of a picture", columns, _ENERGY_FIGURES | {"batch"}, tuple(rows), remarks)


def _energy_remarks(record: Record) -> Iterator[str]:
    result = record.result
    yield from (text for text in (result["no_total"], result["remark"]) if text)
    for doubt in result["doubts"]:
        yield f"Doubtful: {record.subject}, batch {result['batch']}: {doubt}"


_ENERGY_COLUMNS = ("of", "gross mJ", "gross 95 %", "net mJ", "net 95 %", "mW", "mW at rest")
_ENERGY_FIGURES = frozenset({"gross mJ", "net mJ", "mW", "mW at rest"})


def rail_table(record: Record) -> Table:
    """Of one measurement of energy: the total, where there is one, and every rail."""
    result = record.result
    total = [result["total"]] if result["total"] else []
    rails = [rail for rail in result["rails"] if not total or rail["rails"] != total[0]["rails"]]
    rows = tuple(_energy_cells(energy) for energy in (*total, *rails))
    doubts = tuple(f"Doubtful: {doubt}" for doubt in result["doubts"])
    return Table("Energy of a picture", _ENERGY_COLUMNS, _ENERGY_FIGURES, rows, doubts)


def _energy_cells(energy: Mapping[str, Any]) -> tuple[str, ...]:
    """What it is of, gross and net with their intervals in mJ, power under load and at rest in mW."""
    cells = [energy["covers"]]
    for side in ("gross", "net"):
        bounds = energy[side]
        cells += [f"{energy[f'{side}_mj']:.4g}", f"{bounds['low']:.4g} .. {bounds['high']:.4g}"]
    rest = (energy["idle_before_mw"] + energy["idle_after_mw"]) / 2
    return (*cells, f"{energy['power_mw']:.0f}", f"{rest:.0f}")


def pace(result: Mapping[str, Any]) -> str:
    """How runs followed each other while energy was measured."""
    rate = "back to back" if result["rate"] is None else f"{result['rate']:g} a second"
    return rate + graph_words(result)


def graph_words(result: Mapping[str, Any]) -> str:
    """Whether it ran as one CUDA graph, to be added to what tells measurements apart."""
    wanted = result.get("conditions", result).get("cuda_graph")
    return ", CUDA graph" if wanted else ""


def _invalid(records: Iterable[Record]) -> list[str]:
    """A sentence for each thing that makes a measurement invalid."""
    return [
        f"Invalid: {record.subject}, batch {record.result['latency']['batch']}: {finding['reason']}"
        for record in records
        for finding in record.result.get("validity", {}).get("findings", ())
    ]


def _bounds_ms(interval: Mapping[str, float] | None) -> str:
    return f"{interval['low'] / 1e6:.3f} .. {interval['high'] / 1e6:.3f}" if interval else "-"


def _scaled(value: float | None, factor: float, digits: int) -> str:
    return "-" if value is None else f"{value * factor:.{digits}f}"


def _mib(value: int | None, digits: int) -> str:
    return _UNKNOWN if value is None else f"{value / _MIB:.{digits}f}"
