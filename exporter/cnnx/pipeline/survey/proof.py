"""`doctor --proof`: builds, validates and measures networks on one machine, and writes an archive to send."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import io
import json
import shutil
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnnx.bundle import EVIDENCE, MODEL, Bundle, is_bundle
from cnnx.bundle.sealed import check_inside
from cnnx.errors import BundleError, CnnxError, UsageError
from cnnx.options import Precision, takes
from cnnx.options.bundles import ProofOptions, SurveyPlan
from cnnx.pipeline.bench.energy import power_pass
from cnnx.pipeline.build import refused_builds
from cnnx.pipeline.doctor.doctor import DoctorResult, doctor
from cnnx.pipeline.plain import plain
from cnnx.pipeline.progress import Listener, ProgressEvent, silent
from cnnx.pipeline.survey.journal import Row
from cnnx.pipeline.survey.plan import planned
from cnnx.pipeline.survey.survey import exit_code_of, survey
from cnnx.report.markdown import markdown
from cnnx.report.result import Result
from cnnx.report.table import Block, Remark
from cnnx.report.tables.survey import survey_blocks
from cnnx.store.files import atomic_file, check_place, temporary_root, writing

SCHEMA = 1
"""Schema version of proof.json in the archive."""

PROVEN: tuple[tuple[str, str], ...] = (
    ("lenet5", "pretrained"),
    ("resnet20", "pretrained"),
    ("resnet50", "standin"),
)
"""Networks and their weights. Nothing is downloaded: two ship with weights, the large one is for speed."""
PRECISIONS: tuple[Precision, ...] = ("fp16", "int8")
BATCHES = (1, 8)


@dataclass(frozen=True, slots=True, repr=False)
class Proof(Result):
    """The contents of an archive."""

    archive: Path
    diagnosis: DoctorResult
    rows: tuple[Row, ...]

    @property
    def exit_code(self) -> int:
        """As for a survey: 6 if nothing was measured."""
        return exit_code_of(self.rows)

    def blocks(self, *, verbose: bool = False) -> Iterable[Block]:
        """What the command prints."""
        nothing = "nothing was measured, for the reasons above"
        state = nothing if self.exit_code else "ready to send"
        records = Remark(f"{self.archive}, {state}", "records")
        return [*self.diagnosis.blocks(verbose=verbose), *survey_blocks(self.rows), records]


@takes(ProofOptions)
def prove(
    archive: str | Path,
    options: ProofOptions,
    *,
    batches: Sequence[int] = BATCHES,
    plan: SurveyPlan | None = None,
    listener: Listener = silent,
) -> Proof:
    """Run the proof and write the archive. Anything that fails becomes a row with its reason.

    The archive contains the output of doctor, every row, records with raw samples, and what builders reported
    about engines, including refused ones. It contains no graphs, engines or images, and no paths of this
    machine except the bundles' names.

    Args:
        archive: the .tar.gz file to write.
        options: options as an object; each can also be given by keyword. Without bundles, `PROVEN` are
            exported here, in `PRECISIONS`. Without a folder a temporary one is used. If the proof fails or
            is interrupted, that folder is kept and its path is reported.
        batches: batches to measure.
        plan: how each cell is measured; None: 3 s each, then energy by a sensor that measures the device.
            If there is none, rows are "unsupported", with the reason for each sensor.
        listener: receives progress events.

    Raises:
        UsageError: the archive's name does not end with .tar.gz, a bundle is named twice, or `again` is
            given without a folder.
        BundleError: a path is not a bundle.
        WriteFailed: the archive or the folder cannot be written; raised before any work.

    Examples:
        >>> cnnx.prove("proof.tar.gz").archive.name  # doctest: +SKIP
    """
    path, folder, bundles = Path(archive), options.folder, options.bundles
    if not path.name.endswith(".tar.gz"):
        raise UsageError(
            f"invalid archive name {path.name!r}: expected a name that ends with .tar.gz",
            hint="give proof.tar.gz, for example",
        )
    if options.again and folder is None:
        raise UsageError("--again needs the folder of an earlier proof", hint="add --folder FOLDER")
    if wrong := [bundle for bundle in bundles if not is_bundle(Path(bundle))]:
        raise BundleError("the path is not a cnnx bundle", where=wrong[0], hint="make one with cnnx export")
    request = plan or SurveyPlan(power=True)
    power = power_pass(request) if not options.no_power else None
    chosen = dataclasses.replace(request, weights=dict(PROVEN), power=power)
    models = list(bundles) or [name for name, _ in PROVEN]
    planned(models, PRECISIONS, batches, chosen)  # before creating a folder and running doctor
    check_place(path)
    if folder is not None:
        check_place(Path(folder) / "survey.json")
    with _work_folder(folder, listener) as work:
        diagnosis = doctor()
        rows = survey(
            models,
            out=work,
            precisions=PRECISIONS,
            batches=batches,
            plan=chosen,
            again=options.again,
            listener=listener,
        ).rows
        measured = [Path(bundle) for bundle in bundles] or sorted((work / "bundles").glob("*"))
        document = {
            "schema": SCHEMA,
            "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "diagnosis": plain(diagnosis),
            "rows": rows,
        }
        _write(path, {"proof.json": document}, markdown(survey_blocks(rows)), measured)
    return Proof(path, diagnosis, rows)


@contextlib.contextmanager
def _work_folder(folder: str | Path | None, listener: Listener) -> Iterator[Path]:
    """The given folder, or a temporary one, which is kept if the proof does not finish."""
    if folder is not None:
        yield Path(folder)
        return
    hint = "free disk space there, or name another folder with --folder"
    with writing(temporary_root() / "cnnx-proof", hint=hint):
        temporary = Path(tempfile.mkdtemp(prefix="cnnx-proof-"))
    try:
        yield temporary
    except BaseException:  # also an interrupt
        kept = f"Unfinished work is kept in {temporary}; --folder {temporary} resumes it."
        listener(ProgressEvent(kept, note=True))
        raise
    shutil.rmtree(temporary, ignore_errors=True)


def _write(path: Path, documents: dict[str, Any], page: str, bundles: Sequence[Path]) -> None:
    with atomic_file(path) as draft, tarfile.open(draft, "w:gz") as tar:
        for name, content in documents.items():
            _add(tar, name, json.dumps(content, indent=1))
        _add(tar, "survey.md", page)
        for bundle in bundles:
            if not is_bundle(bundle):
                continue
            for file in sorted(bundle.glob("runs/*.json")):
                with contextlib.suppress(CnnxError):  # a link to a file outside the bundle
                    check_inside(file, bundle=bundle)
                    text = file.read_text(encoding="utf-8", errors="replace")
                    _add(tar, f"runs/{bundle.name}/{file.name}", text)
            with contextlib.suppress(CnnxError):  # a damaged bundle, as its rows report
                for engine in Bundle.open(bundle, verify=False).engines():
                    text = json.dumps(dataclasses.asdict(engine), indent=1)
                    _add(tar, f"engines/{bundle.name}/{engine.identity}.json", text)
                    folder = bundle / "engines" / engine.identity
                    _add_texts(tar, f"engines/{bundle.name}/{engine.identity}", folder, within=bundle)
                graph = Bundle.open(bundle, verify=False).manifest.files[MODEL]
                for name, folder in refused_builds(graph).items():
                    _add_texts(tar, f"refused/{bundle.name}/{name}", folder, within=folder.parent)


def _add_texts(tar: tarfile.TarFile, name: str, folder: Path, *, within: Path) -> None:
    """Add what a builder reported about an engine, where that was kept."""
    for file in (folder / each for each in EVIDENCE):
        with contextlib.suppress(CnnxError, OSError):
            check_inside(file, bundle=within)
            _add(tar, f"{name}/{file.name}", file.read_text(encoding="utf-8", errors="replace"))


def _add(tar: tarfile.TarFile, name: str, text: str) -> None:
    content = text.encode()
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))
