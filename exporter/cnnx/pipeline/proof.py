"""What one machine can do, as one archive to send back: doctor, and networks built, judged, measured."""

from __future__ import annotations

import dataclasses
import datetime
import io
import json
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnnx.bundle import Bundle, is_bundle
from cnnx.errors import UsageError
from cnnx.pipeline.doctor import Diagnosis, doctor
from cnnx.pipeline.energy import PowerPass
from cnnx.pipeline.journal import Row
from cnnx.pipeline.progress import Listener, silent
from cnnx.pipeline.results import plain
from cnnx.pipeline.survey import SurveyPlan, survey
from cnnx.recipe import Precision
from cnnx.report.survey import markdown_from_rows
from cnnx.store import atomic_file

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
    diagnosis: Diagnosis
    rows: tuple[Row, ...]


def prove(
    archive: str | Path,
    *,
    bundles: Sequence[str | Path] = (),
    batches: Sequence[int] = BATCHES,
    plan: SurveyPlan | None = None,
    folder: str | Path | None = None,
    listener: Listener = silent,
) -> Proof:
    """Run the proof and write the archive. What fails is a row in it, with its reason.

    The archive holds what doctor says, every row, and records with raw samples; no graph, no engine, no
    picture, no path of this machine but the bundles' names.

    Args:
        archive: a .tar.gz to write.
        bundles: finished bundles: no PyTorch is needed. None: `PROVEN` are exported here, in `PRECISIONS`.
        batches: pictures a run.
        plan: how each cell is measured; None: 3 s each, then energy by a sensor that sees the device. Where
            none does, rows say "unsupported" with each sensor's reason.
        folder: where bundles and rows go, so that a stopped proof goes on; None: a temporary one.
        listener: told of progress.

    Raises:
        UsageError: the archive's name does not end with .tar.gz, or what is named is no bundle.
        WriteFailed: it cannot be written.
    """
    place = Path(archive)
    if not place.name.endswith(".tar.gz"):
        raise UsageError(f"an archive is called something.tar.gz, not {place.name!r}", mend="proof.tar.gz")
    if wrong := [bundle for bundle in bundles if not is_bundle(Path(bundle))]:
        raise UsageError(f"{wrong[0]} is no bundle", mend="cnnx export makes one")
    chosen = plan or SurveyPlan(power=PowerPass())
    with tempfile.TemporaryDirectory(prefix="cnnx-proof-") as temporary:
        work = Path(folder or temporary)
        diagnosis = doctor()
        rows = _rows(bundles, batches, chosen, work, listener)
        homes = [Path(bundle) for bundle in bundles] or sorted((work / "bundles").glob("*"))
        said = {
            "schema": SCHEMA,
            "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "diagnosis": plain(diagnosis),
            "rows": rows,
        }
        _write(place, {"proof.json": said}, markdown_from_rows(rows), homes)
    return Proof(place, diagnosis, rows)


def _rows(
    bundles: Sequence[str | Path], batches: Sequence[int], plan: SurveyPlan, work: Path, listener: Listener
) -> tuple[Row, ...]:
    if bundles:
        return survey(bundles, out=work, batches=batches, plan=plan, listener=listener).rows
    found: list[Row] = []
    for model, weights in PROVEN:
        with_weights = dataclasses.replace(plan, weights=weights)
        result = survey(
            [model], out=work, precisions=PRECISIONS, batches=batches, plan=with_weights, listener=listener
        )
        found += result.rows
    return tuple(found)


def _write(place: Path, documents: dict[str, Any], page: str, bundles: Sequence[Path]) -> None:
    with atomic_file(place) as draft, tarfile.open(draft, "w:gz") as tar:
        for name, content in documents.items():
            _add(tar, name, json.dumps(content, indent=1))
        _add(tar, "survey.md", page)
        for bundle in bundles:
            if not is_bundle(bundle):
                continue
            for file in sorted(bundle.glob("runs/*.json")):
                _add(tar, f"runs/{bundle.name}/{file.name}", file.read_text(encoding="utf-8"))
            for engine in Bundle.open(bundle, verify=False).engines():
                text = json.dumps(dataclasses.asdict(engine), indent=1)
                _add(tar, f"engines/{bundle.name}/{engine.identity}.json", text)


def _add(tar: tarfile.TarFile, name: str, text: str) -> None:
    content = text.encode()
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))
