"""Reports as files: Markdown and HTML for people, JUnit for CI, JSON and CSV for what comes after."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from cnnx.errors import MissingExtra, UsageError
from cnnx.record import Record
from cnnx.report.frame import frame_from_records
from cnnx.store import atomic_file, check_place


def write_records(records: Sequence[Record], path: Path) -> None:
    """Write a report; its format follows from the path's suffix.

    Raises:
        UsageError: a suffix that means no format.
        MissingExtra: HTML is asked for and what draws it is absent.
        WriteFailed: the file cannot be written.
    """
    text = _writer_for(path)(records)
    with atomic_file(path) as draft:
        draft.write_text(text, encoding="utf-8")


def check(path: Path) -> None:
    """Refuse what could not be written, before the work whose report it will be.

    Raises:
        UsageError: a suffix that means no format.
        MissingExtra: HTML is asked for and what draws it is absent.
        WriteFailed: no file can be written there.
    """
    if _writer_for(path) is html_from_records:
        for name in ("jinja2", "matplotlib"):
            if importlib.util.find_spec(name) is None:
                raise MissingExtra(name, "report", purpose="an HTML report")
    check_place(path)


def _writer_for(path: Path) -> Callable[[Sequence[Record]], str]:
    """What makes a report of this suffix.

    Raises:
        UsageError: a suffix that means no format.
    """
    if path.suffix not in FORMATS:
        known = ", ".join(FORMATS)
        raise UsageError(
            f"no report is called {path.suffix or path.name!r}", mend=f"end it with one of: {known}"
        )
    return FORMATS[path.suffix]


def json_from_records(records: Sequence[Record]) -> str:
    """The table, row by row."""
    return frame_from_records(records).write_json() + "\n"


def csv_from_records(records: Sequence[Record]) -> str:
    """The table, for spreadsheets."""
    return frame_from_records(records).write_csv()


def markdown_from_records(records: Sequence[Record]) -> str:
    """Verdicts and measurements as two tables; energy, where it was measured, as a third."""
    lines = ["# Verdicts", "", "| date | subject | rate | value | 95 % interval | threshold | verdict |"]
    lines.append("|---|---|---|---:|---|---:|---|")
    for record in (r for r in records if r.kind == "validation"):
        for gate in record.result["gates"]:
            interval = f"{gate['interval']['low']:.4f} .. {gate['interval']['high']:.4f}"
            cells = (record.date[:19], str(record.subject), gate["name"], f"{gate['value']:.4f}", interval)
            lines.append(_line(*cells, f"{gate['threshold']:g}", gate["verdict"]))
    lines += [
        "",
        "# Measurements",
        "",
        "| date | subject | batch | CUDA graph | of | p50 ms | p90 ms | p99 ms | images/s | added MiB |",
    ]
    lines.append("|---|---|---:|---|---|---:|---:|---:|---:|---:|")
    frame = frame_from_records(r for r in records if r.kind == "benchmark")
    subjects = [str(r.subject) for r in records if r.kind == "benchmark"]
    for subject, row in zip(subjects, frame.iter_rows(named=True), strict=True):
        times = [_scaled(row[key], 1e-6, 3) for key in ("p50_ns", "p90_ns", "p99_ns")]
        rest = (_scaled(row["images_per_second"], 1, 1), _scaled(row["added_bytes"], 2**-20, 0))
        how = (str(row["batch"]), {True: "on", False: "off", None: "-"}[row["cuda_graph"]], row["of"])
        lines.append(_line(row["date"][:19], subject, *how, *times, *rest))
    lines += [line for text in invalid(records) for line in ("", text)]
    used = [record for record in records if record.kind == "energy"]
    return "\n".join([*lines, *(_energy_lines(used) if used else ())]) + "\n"


def invalid(records: Sequence[Record]) -> list[str]:
    """A sentence for each thing that makes a measurement invalid."""
    return [
        f"Invalid: {record.subject}, batch {record.result['latency']['batch']}: {finding['reason']}"
        for record in records
        if record.kind == "benchmark"
        for finding in record.result.get("validity", {}).get("findings", ())
    ]


def _energy_lines(records: Sequence[Record]) -> list[str]:
    """The total's energy a picture, or each rail's where there is no total; then what speaks against it."""
    lines = ["", "# Energy of a picture", ""]
    lines.append(
        "| date | subject | batch | runs | sensor | of | gross mJ | 95 % interval | net mJ | 95 % interval "
        "| mW | at rest |"
    )
    lines.append("|---|---|---:|---|---|---|---:|---|---:|---|---:|---:|")
    remarks: list[str] = []
    for record in records:
        result = record.result
        head = (record.date[:19], str(record.subject), str(result["batch"]), pace(result), result["sensor"])
        told = [result["total"]] if result["total"] else result["rails"]
        lines += [_line(*head, *energy_cells(energy)) for energy in told]
        remarks += [text for text in (result["no_total"], result["remark"]) if text]
        name = f"{record.subject}, batch {result['batch']}"
        remarks += [f"Doubtful: {name}: {doubt}" for doubt in result["doubts"]]
    return [*lines, *(line for remark in dict.fromkeys(remarks) for line in ("", remark))]


def pace(result: Mapping[str, Any]) -> str:
    """How runs followed each other while energy was measured."""
    rate = "back to back" if result["rate"] is None else f"{result['rate']:g} a second"
    return rate + graph_words(result)


def graph_words(result: Mapping[str, Any]) -> str:
    """Whether it ran as one CUDA graph, to be added to what tells measurements apart."""
    wanted = result.get("conditions", result).get("cuda_graph")
    return ", CUDA graph" if wanted else ""


def energy_cells(energy: Mapping[str, Any]) -> tuple[str, ...]:
    """What it is of, gross and net with their intervals in mJ, power under load and at rest in mW."""
    cells = [energy["covers"]]
    for side in ("gross", "net"):
        bounds = energy[side]
        cells += [f"{energy[f'{side}_mj']:.4g}", f"{bounds['low']:.4g} .. {bounds['high']:.4g}"]
    rest = (energy["idle_before_mw"] + energy["idle_after_mw"]) / 2
    return (*cells, f"{energy['power_mw']:.0f}", f"{rest:.0f}")


def _line(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _scaled(value: float | None, factor: float, digits: int) -> str:
    return "-" if value is None else f"{value * factor:.{digits}f}"


def junit_from_records(records: Sequence[Record]) -> str:
    """One suite a verdict, one case a gate; what is open or not judged counts as skipped, with its reason."""
    suites = ElementTree.Element("testsuites", name="cnnx")
    for record in (r for r in records if r.kind == "validation"):
        gates = record.result["gates"]
        outcomes = [gate["verdict"] for gate in gates]
        suite = ElementTree.SubElement(
            suites,
            "testsuite",
            name=str(record.subject),
            timestamp=record.date[:19],
            tests=str(len(gates)),
            failures=str(outcomes.count("failed")),
            errors="0",
            skipped=str(len(gates) - outcomes.count("failed") - outcomes.count("passed")),
        )
        for gate in gates:
            name = f"cnnx.{record.subject.network}.{record.subject.precision}"
            case = ElementTree.SubElement(suite, "testcase", name=gate["name"], classname=name)
            if gate["verdict"] != "passed":
                kind = "failure" if gate["verdict"] == "failed" else "skipped"
                ElementTree.SubElement(case, kind, message=_said(gate, record.result["reasons"]))
    ElementTree.indent(suites)
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(suites, encoding="unicode") + "\n"
    )


def _said(gate: dict[str, Any], reasons: Sequence[str]) -> str:
    interval = f"{gate['interval']['low']:.4f} .. {gate['interval']['high']:.4f}"
    text = f"{gate['verdict']}: {gate['value']:.4f}, 95 % interval {interval}, threshold {gate['threshold']}"
    if gate["decides_at"]:
        text += f"; {gate['decides_at']} images would decide"
    return "; ".join([text, *reasons])


def html_from_records(records: Sequence[Record]) -> str:
    """One page with pictures and no link out of it."""
    from cnnx.report.page import page_from_records

    return page_from_records(records)


FORMATS: dict[str, Callable[[Sequence[Record]], str]] = {
    ".html": html_from_records,
    ".md": markdown_from_records,
    ".xml": junit_from_records,
    ".json": json_from_records,
    ".csv": csv_from_records,
}
