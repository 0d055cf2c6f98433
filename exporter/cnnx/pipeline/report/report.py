"""`report`: writes reports of the records of bundles."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cnnx.bundle import MODEL
from cnnx.errors import RecordError
from cnnx.graph.inspect import Layer, int8_share, layers
from cnnx.graph.load import load_model
from cnnx.options import takes
from cnnx.options.bundles import ThumbnailOptions
from cnnx.pipeline.report.about import about_bundles, machines_of
from cnnx.pipeline.report.cards import Holding, cards_of
from cnnx.pipeline.report.flips import flips_of
from cnnx.pipeline.report.rows import frame_of, rows_of
from cnnx.pipeline.report.sections import sections_of
from cnnx.pipeline.report.sources import Source, read_sources, records_in
from cnnx.record import Record
from cnnx.report.document import Flips, Report, Section, made_report
from cnnx.report.files import check, write_document
from cnnx.report.result import Result
from cnnx.report.table import Block, Remark
from cnnx.report.tables.cards import card_table


@dataclass(frozen=True, slots=True, repr=False)
class ReportResult(Result):
    """A report that was written.

    Attributes:
        report: the report.
        files: where it was written.
    """

    report: Report
    files: tuple[Path, ...]

    def blocks(self, *, verbose: bool = False) -> Iterable[Block]:
        """What the command prints."""
        cards = [card_table(self.report.cards)] if self.report.cards else []
        return [*cards, *(Remark(str(file), "written") for file in self.files)]

    def as_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return {"files": [str(file.absolute()) for file in self.files], "cards": list(self.report.cards)}


@takes(ThumbnailOptions)
def write_report(
    runs: str | Path | Sequence[str | Path],
    path: str | Path | Sequence[str | Path],
    options: ThumbnailOptions,
) -> ReportResult:
    """Write a report of verdicts, measurements and diagnoses in the format of the path's suffix.

    Only the newest verdict and diagnosis of each subject are reported, and the newest measurement for each
    batch, with and without a CUDA graph. The same holds for energy, also for each rate and sensor, for
    streams, also for each frame rate, and for soaks. Records that are damaged or not about the bundle's
    current contents are listed without figures.

    Args:
        runs: a bundle, a record in its runs/, a survey's folder, or a report in JSON; or several of them.
        path: file of the report; its suffix chooses the format. Or several.
        options: options as an object; each can also be given by keyword.

    Returns:
        The report, and where it was written.

    Raises:
        UsageError: the suffix is not one of the formats.
        RecordError: a record or report cannot be read.
        BundleError: a bundle is damaged.
        MissingExtra: HTML is requested, and the packages that draw it are not installed.
        WriteFailed: a file cannot be written.

    Examples:
        >>> cnnx.write_report("lenet5-int8", "report.html").report.cards[0].title
        'lenet5 int8'
    """
    files = checked_files(path)
    return written(report_of(_several(runs), images=options.images, thumbnails=not options.no_images), files)


def checked_files(path: str | Path | Sequence[str | Path]) -> tuple[Path, ...]:
    """The files of a report, one or several, all of which can be written; raises as `write_report` does."""
    files = tuple(map(Path, _several(path)))
    for file in files:
        check(file)
    return files


def written(report: Report, files: tuple[Path, ...]) -> ReportResult:
    """Write a report to each file."""
    for file in files:
        write_document(report, file)
    return ReportResult(report, files)


def _several(paths: str | Path | Sequence[str | Path]) -> Sequence[str | Path]:
    return [paths] if isinstance(paths, (str, Path)) else paths


def report_of(
    runs: Sequence[str | Path], *, images: str | Path | None = None, thumbnails: bool = True
) -> Report:
    """The report that `write_report` writes; raises as it does while reading."""
    once = {Path(run).resolve(): Path(run) for run in runs}.values()
    read = [each for run in once for each in read_sources(run)]
    reports = [each for each in read if isinstance(each, Report)]
    sources = [
        replace(each, records=tuple(_newest(each.records))) for each in read if isinstance(each, Source)
    ]
    if not thumbnails:
        reports = [_without_thumbnails(each) for each in reports]
    if sources and not any(each.records or each.unverified for each in sources):
        raise RecordError(
            "nothing was recorded",
            where=", ".join(map(str, runs)),
            hint="cnnx validate and cnnx bench record what they find in the bundle",
        )
    if sources:
        reports.append(_report(sources, images=images, thumbnails=thumbnails))
    if len(reports) == 1:
        return reports[0]
    if len({each.about for each in reports}) > 1:
        kinds = ", ".join(dict.fromkeys(each.about for each in reports))
        raise RecordError(
            f"reports about different things cannot be joined: {kinds}",
            where=", ".join(map(str, runs)),
            hint="write one report for each",
        )
    return made_report(
        reports[0].about,
        "cnnx report",
        cards=[card for each in reports for card in each.cards],
        sections=[section for each in reports for section in each.sections],
        rows=[row for each in reports for row in each.rows],
    )


def _report(sources: Sequence[Source], *, images: str | Path | None, thumbnails: bool) -> Report:
    records = records_in(sources)
    unverified = [one for source in sources for one in source.unverified]
    bundles = [
        (source.bundle, layers(load_model(source.bundle.model))) for source in sources if source.bundle
    ]
    graphs = {str(bundle.path): found for bundle, found in bundles}
    flips, remarks = _flips(sources, images=images, thumbnails=thumbnails)
    names = dict.fromkeys(
        [
            *(bundle.manifest.recipe["name"] for bundle, _ in bundles),
            *(each.subject.network for each in records),
        ]
    )
    return made_report(
        "records",
        f"cnnx report: {', '.join(names)}" if names else "cnnx report",
        cards=cards_of([_holding(source, graphs) for source in sources]),
        sections=sections_of(
            records,
            unverified,
            flips=Section("Flipped images", tuple(dict.fromkeys(remarks)), flips=tuple(flips))
            if flips
            else None,
            about=[*about_bundles(bundles), *machines_of(records)],
        ),
        rows=frame_of(rows_of(records, unverified)).to_dicts(),
    )


def _holding(source: Source, graphs: dict[str, tuple[Layer, ...]]) -> Holding:
    bundle = source.bundle
    if bundle is None:
        return Holding(source.records, {})
    sizes = {bundle.manifest.files[MODEL]: bundle.model.stat().st_size}
    for engine in bundle.engines():
        file = bundle.path / "engines" / engine.identity / engine.file
        if file.is_file():
            sizes[engine.digest] = file.stat().st_size
    return Holding(source.records, sizes, int8_share(graphs[str(bundle.path)]))


def _flips(
    sources: Sequence[Source], *, images: str | Path | None, thumbnails: bool
) -> tuple[list[Flips], list[Remark]]:
    flips: list[Flips] = []
    remarks: list[Remark] = []
    for source in sources:
        for record in source.records:
            if record.kind in ("validation", "judgement"):
                found, why = flips_of(record, source.bundle, images=images, thumbnails=thumbnails)
                flips += [found] if found else []
                remarks += why
    return flips, remarks


def _without_thumbnails(report: Report) -> Report:
    def plain(flips: Flips) -> Flips:
        return replace(flips, images=tuple(replace(each, thumbnail="") for each in flips.images))

    sections = (replace(each, flips=tuple(map(plain, each.flips))) for each in report.sections)
    return replace(report, sections=tuple(sections))


def _newest(records: Iterable[Record]) -> Iterable[Record]:
    return {(record.kind, record.subject, *_conditions(record)): record for record in records}.values()


def _conditions(record: Record) -> tuple[Any, ...]:
    """The conditions that distinguish measurements or validations of one subject."""
    result = record.result
    if record.kind == "judgement":
        return result["image_set"], result["images"]
    if record.kind == "benchmark":
        return result["latency"]["batch"], (result.get("conditions") or {}).get("cuda_graph")
    if record.kind == "energy":
        return result["batch"], result.get("cuda_graph"), result["rate"], result["sensor"]
    if record.kind == "streams":
        return result["batch"], result["cuda_graph"], result["fps"]
    if record.kind == "soak":
        return result["batch"], result["cuda_graph"]
    return ()
