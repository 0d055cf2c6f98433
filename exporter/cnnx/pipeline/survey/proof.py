"""What one machine can do, as one archive to send back: doctor, and networks built, judged, measured."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import io
import json
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnnx.bundle import Bundle, is_bundle
from cnnx.bundle.sealed import check_inside
from cnnx.errors import BundleError, CnnxError, UsageError
from cnnx.options import Precision, takes
from cnnx.options.bundles import ProofOptions, SurveyPlan
from cnnx.pipeline.bench.energy import power_pass
from cnnx.pipeline.doctor.doctor import DoctorResult, doctor
from cnnx.pipeline.plain import plain
from cnnx.pipeline.progress import Listener, ProgressEvent, silent
from cnnx.pipeline.survey.journal import Row
from cnnx.pipeline.survey.plan import planned
from cnnx.pipeline.survey.survey import exit_code_of, survey
from cnnx.report.markdown import markdown
from cnnx.report.tables.survey import survey_blocks
from cnnx.store.files import atomic_file, check_place

SCHEMA = 1
"""Of proof.json in the archive."""

PROVEN: tuple[tuple[str, str], ...] = (
    ("lenet5", "pretrained"),
    ("resnet20", "pretrained"),
    ("resnet50", "standin"),
)
"""Networks and their weights. Two ship with theirs; the large one is for speed: nothing is downloaded."""
PRECISIONS: tuple[Precision, ...] = ("fp16", "int8")
BATCHES = (1, 8)


@dataclass(frozen=True, slots=True)
class Proof:
    """What went into an archive."""

    archive: Path
    diagnosis: DoctorResult
    rows: tuple[Row, ...]

    @property
    def exit_code(self) -> int:
        """As a survey's: 6 where nothing at all was measured."""
        return exit_code_of(self.rows)


@takes(ProofOptions)
def prove(
    archive: str | Path,
    options: ProofOptions,
    *,
    batches: Sequence[int] = BATCHES,
    plan: SurveyPlan | None = None,
    listener: Listener = silent,
) -> Proof:
    """Run the proof and write the archive. What fails is a row in it, with its reason.

    The archive holds what doctor says, every row, and records with raw samples; no graph, no engine, no
    picture, no path of this machine but the bundles' names.

    Args:
        archive: a .tar.gz to write.
        options: as an object; each can be given by keyword, too. No bundles: `PROVEN` are exported here, in
            `PRECISIONS`. No folder: a temporary one, which stays where the proof fails or is stopped, and
            the listener is told.
        batches: images per run.
        plan: how each cell is measured; None: 3 s each, then energy by a sensor that sees the device. Where
            none does, rows say "unsupported" with each sensor's reason.
        listener: told of progress.

    Raises:
        UsageError: the archive's name does not end with .tar.gz, a bundle is named twice, or there is no
            folder of which something could be done again.
        BundleError: what is named is no bundle.
        WriteFailed: it or the folder cannot be written, which is told before any work.
    """
    place, folder, bundles = Path(archive), options.folder, options.bundles
    if not place.name.endswith(".tar.gz"):
        raise UsageError(f"an archive is called something.tar.gz, not {place.name!r}", hint="proof.tar.gz")
    if options.again and folder is None:
        raise UsageError("only what lies in a folder can be done again", hint="give --folder, too")
    if wrong := [bundle for bundle in bundles if not is_bundle(Path(bundle))]:
        raise BundleError("no bundle", where=wrong[0], hint="cnnx export makes one")
    asked = plan or SurveyPlan(power=True)
    power = power_pass(asked) if not options.no_power else None
    chosen = dataclasses.replace(asked, weights=dict(PROVEN), power=power)
    models = list(bundles) or [name for name, _ in PROVEN]
    planned(models, PRECISIONS, batches, chosen)  # before there is a folder, and before doctor's look around
    check_place(place)
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
        homes = [Path(bundle) for bundle in bundles] or sorted((work / "bundles").glob("*"))
        said = {
            "schema": SCHEMA,
            "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "diagnosis": plain(diagnosis),
            "rows": rows,
        }
        _write(place, {"proof.json": said}, markdown(survey_blocks(rows)), homes)
    return Proof(place, diagnosis, rows)


@contextlib.contextmanager
def _work_folder(folder: str | Path | None, listener: Listener) -> Iterator[Path]:
    """The one that was given; else a temporary one, which stays where the proof does not come to its end."""
    if folder is not None:
        yield Path(folder)
        return
    place = Path(tempfile.mkdtemp(prefix="cnnx-proof-"))
    try:
        yield place
    except BaseException:  # a stop by hand, too
        kept = f"Unfinished work is kept in {place}; --folder {place} resumes it."
        listener(ProgressEvent(kept, note=True))
        raise
    shutil.rmtree(place, ignore_errors=True)


def _write(place: Path, documents: dict[str, Any], page: str, bundles: Sequence[Path]) -> None:
    with atomic_file(place) as draft, tarfile.open(draft, "w:gz") as tar:
        for name, content in documents.items():
            _add(tar, name, json.dumps(content, indent=1))
        _add(tar, "survey.md", page)
        for bundle in bundles:
            if not is_bundle(bundle):
                continue
            for file in sorted(bundle.glob("runs/*.json")):
                with contextlib.suppress(CnnxError):  # a link to what is not the bundle's own
                    check_inside(file, bundle=bundle)
                    text = file.read_text(encoding="utf-8", errors="replace")
                    _add(tar, f"runs/{bundle.name}/{file.name}", text)
            with contextlib.suppress(CnnxError):  # a damaged one: its rows say so
                for engine in Bundle.open(bundle, verify=False).engines():
                    text = json.dumps(dataclasses.asdict(engine), indent=1)
                    _add(tar, f"engines/{bundle.name}/{engine.identity}.json", text)


def _add(tar: tarfile.TarFile, name: str, text: str) -> None:
    content = text.encode()
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))
