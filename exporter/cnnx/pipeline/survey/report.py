"""`report --survey`: the charts, findings and table of a survey."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from cnnx.errors import MissingExtra, RecordError
from cnnx.pipeline.plain import plain
from cnnx.pipeline.report.report import ReportResult, checked_files, written
from cnnx.pipeline.survey.canziani import SOURCE
from cnnx.pipeline.survey.figures import figures_of
from cnnx.pipeline.survey.findings import findings_of
from cnnx.pipeline.survey.journal import Row, is_survey, read_rows
from cnnx.report.document import Report, Section, made_report
from cnnx.report.files import write_document
from cnnx.report.markdown import markdown
from cnnx.report.page import missing
from cnnx.report.table import Remark, Table
from cnnx.report.tables.survey import finding_table, survey_blocks
from cnnx.report.words import several
from cnnx.store.files import atomic_file

PAGE = "survey.html"
_FIGURES = ("images_per_second", "p50_ns", "p90_ns", "p99_ns", "parameters", "multiply_adds")
_ENERGY = ("gross_mj", "net_mj", "power_mw")


def write_survey_report(folder: str | Path, path: str | Path | Sequence[str | Path]) -> ReportResult:
    """Write the charts of Canziani, Paszke and Culurciello 2016 from a survey's rows, with its table.

    Devices stay apart: each has its own charts.

    Args:
        folder: folder of a survey, finished or not.
        path: file of the report; its suffix chooses the format. Or several.

    Returns:
        The report, and where it was written.

    Raises:
        UsageError: the suffix is not one of the formats.
        RecordError: the folder is not that of a survey, or nothing in it is finished.
        InputRefused: a row is damaged.
        MissingExtra: HTML is requested, and the packages that draw it are not installed.
        WriteFailed: a file cannot be written.

    Examples:
        >>> _ = cnnx.survey(["lenet5"], out="nets", batches=(1,), seconds=0.1, images=16)
        >>> cnnx.write_survey_report("nets", "nets.html").report.title
        'cnnx survey of 1 network'
    """
    files = checked_files(path)
    return written(survey_report(Path(folder)), files)


def write_rows(rows: Sequence[Row], folder: Path) -> None:
    """Write survey.json and survey.md into a survey's folder."""
    pages = {"survey.json": json.dumps(rows, indent=1) + "\n", "survey.md": markdown(survey_blocks(rows))}
    for name, text in pages.items():
        with atomic_file(folder / name) as draft:
            draft.write_text(text, encoding="utf-8")


def draw_rows(rows: Sequence[Row], folder: Path) -> Path | MissingExtra:
    """Write the page with charts into a survey's folder; return it, or the package that it needs."""
    if lacks := missing("drawing a survey"):
        return lacks
    write_document(report_of_rows(rows), folder / PAGE)
    return folder / PAGE


def survey_report(folder: Path) -> Report:
    """The report that `write_survey_report` writes; raises as it does while reading."""
    if not is_survey(folder):
        raise RecordError(
            "this is not a survey's folder",
            where=folder,
            hint="give the folder that cnnx survey --out named",
        )
    rows = read_rows(folder)
    if not any(row["status"] == "done" for row in rows):
        hint = f"resume it with the options it was started with: cnnx survey --out {folder}"
        raise RecordError("the survey holds no figures", where=folder, hint=hint)
    return report_of_rows(rows)


def report_of_rows(rows: Sequence[Row]) -> Report:
    """A report of a survey's rows, of one device or several."""
    devices = list(dict.fromkeys(device for row in rows if (device := _device(row))))
    if len(devices) < 2:
        sections = [*_sections(rows, "")]
    else:
        sections = [
            section
            for device in devices
            for section in _sections([row for row in rows if _device(row) == device], device)
        ]
        if unmeasured := [row for row in rows if not _device(row)]:
            sections += [replace(each, title="Not measured") for each in _sections(unmeasured, "")]
    names = dict.fromkeys(row["model"] for row in rows)
    title = f"cnnx survey of {several(len(names), 'network')}"
    return made_report("survey", title, sections=sections, rows=map(_flat, rows))


def _device(row: Row) -> str:
    """Name in a fleet, runtime and device; empty for a row without figures."""
    subject = row.get("subject")
    name = f"{row['on']}: " if row.get("on") else ""
    return f"{name}{subject['runtime']}, {subject['device']}" if subject else ""


def _sections(rows: Sequence[Row], device: str) -> Iterator[Section]:
    on = f" on {device}" if device else ""
    charts = tuple(replace(chart, title=f"{chart.title}{on}") for chart in figures_of(rows))
    if charts:
        published = Remark(f"The gray points were published by {SOURCE} (arXiv:1605.07678).")
        yield Section(f"Charts{on}", (published,), charts)
        precisions = dict.fromkeys(row["precision"] for row in rows if row["status"] == "done")
        yield Section(f"Findings{on}", tables=tuple(_findings(rows, each) for each in precisions))
    blocks = survey_blocks(rows)
    yield Section(
        f"Survey{on}",
        tuple(block for block in blocks if isinstance(block, Remark)),
        tables=tuple(block for block in blocks if isinstance(block, Table)),
    )


def _findings(rows: Sequence[Row], precision: str) -> Table:
    found = findings_of([row for row in rows if row["precision"] == precision])
    return finding_table(plain(list(found)), precision)


def _flat(row: Row) -> dict[str, object]:
    """A row of the CSV file."""
    subject, accuracy = row.get("subject") or {}, row.get("accuracy") or {}
    return {
        **{key: row[key] for key in ("model", "precision", "batch", "status", "reason", "verdict")},
        "on": row.get("on"),
        **{key: subject.get(key) for key in ("artefact", "engine", "runtime", "device")},
        "undecided": row.get("undecided"),
        "valid": row.get("valid"),
        "accuracy": accuracy.get("top1"),
        "accuracy_low": accuracy.get("low"),
        "accuracy_high": accuracy.get("high"),
        "accuracy_images": accuracy.get("images"),
        "image_set": accuracy.get("image_set"),
        "published_top1": row.get("published_top1"),
        **{key: row.get(key) for key in (*_FIGURES, *_ENERGY)},
        **{key: (row.get("memory") or {}).get(key) for key in ("added_bytes", "gpu_bytes", "shared_bytes")},
    }
