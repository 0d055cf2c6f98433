"""Judges what was recorded again, under other gates, without running anything."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cnnx.agreement import recorded_estimates, validation_from_dict
from cnnx.bundle import Bundle
from cnnx.errors import BundleError, RecordError
from cnnx.gates import AGREEMENT, COSTS, SIZES, Estimate, Gate, gates_of
from cnnx.pipeline.judge.costs import measured_estimates, same_subject, size_estimates, size_keys
from cnnx.pipeline.judge.demand import Demand
from cnnx.pipeline.records.verified import checked, doubt_of, intact_engines
from cnnx.record import Record, RecordKind, Subject, read_record
from cnnx.stats import Verdict, worst

_JUDGED: tuple[RecordKind, ...] = ("validation", "judgement", "benchmark", "energy")
_HINT = (
    "give a record of a validation, a benchmark or energy, or a folder of records, such as the bundle's runs/"
)


@dataclass(frozen=True, slots=True)
class Again:
    """Gates decided by records.

    Attributes:
        subject: what the records are about.
        records: files of the records, with their dates.
        gates: every gate that is set, without those that need a base.
        notes: records that were left out, and why.
    """

    subject: Subject
    records: tuple[str, ...]
    gates: tuple[Gate, ...]
    notes: tuple[str, ...]

    @property
    def verdict(self) -> Verdict:
        """The verdict of all gates."""
        return worst(gate.verdict for gate in self.gates)


def judge_again(bundle: Bundle, run: Path, demand: Demand) -> Again:
    """Decide the gates by a record, or by the newest records in a folder that are about one engine or graph.

    Raises:
        RecordError: the path does not exist, a record is damaged or about something else, or none is left.
    """
    if run.is_dir():
        found, notes = _in_folder(bundle, run)
    else:
        file = run if run.exists() else bundle.path / "runs" / run.name
        found, notes = [(file, _named(bundle, file))], []
    if not found:
        raise RecordError("the folder holds no record to judge", where=run, hint=_HINT)
    records = [record for _, record in found]
    validations = [record for record in records if record.kind in ("validation", "judgement")]
    subject = (validations or records)[-1].subject
    about = [(file, record) for file, record in found if same_subject(record.subject, subject)]
    gates = _gates(bundle, subject, [record for _, record in about], demand)
    # The newest of each kind is what counts.
    newest = {record.kind.replace("judgement", "validation"): (file, record) for file, record in about}
    dated = tuple(f"{file.name} of {record.date[:19]}" for file, record in newest.values())
    return Again(subject, dated, gates, tuple(notes))


def _gates(bundle: Bundle, subject: Subject, records: Sequence[Record], demand: Demand) -> tuple[Gate, ...]:
    found: dict[str, Estimate | str] = measured_estimates(records, subject, demand.limits.batch or 1)
    found |= size_estimates(bundle, subject.digest)
    keys = {*demand.stated, *(key for key in COSTS if key not in SIZES), *size_keys(bundle)}
    agreement = (*AGREEMENT, "accuracy")
    if validations := [record for record in records if record.kind in ("validation", "judgement")]:
        validation = validation_from_dict(validations[-1].result)
        estimates = recorded_estimates(validation, margin=demand.limits.margin)
        keys |= {key for key in agreement if isinstance(estimates[key], Estimate)}
        proves_nothing = "; ".join(validation.reasons)
        found |= dict.fromkeys(agreement, proves_nothing) if proves_nothing else estimates
    else:
        found |= dict.fromkeys(agreement, "the run has no validation")
    return gates_of(demand.limits, found, keys & {*agreement, *COSTS})


def _in_folder(bundle: Bundle, folder: Path) -> tuple[list[tuple[Path, Record]], list[str]]:
    """The records in a folder that can be judged, oldest first, and notes on those that are left out."""
    found, notes = [], []
    for file in sorted(folder.glob("*.json")):
        try:
            record = _read(file)
            if not _is_judged(record):
                continue
            _refuse_doubt(bundle, record, file)
        except RecordError as error:
            notes.append(f"{file.name} was left out: {error.what}")
        else:
            found.append((file, record))
    return sorted(found, key=lambda each: each[1].date), notes


def _named(bundle: Bundle, file: Path) -> Record:
    """The record in a file.

    Raises:
        RecordError: it is damaged, of another kind, or not about the bundle's current contents.
    """
    record = _read(file)
    if not _is_judged(record):
        what = f"a {record.kind} record about the {record.subject.artefact} holds nothing to judge"
        raise RecordError(what, where=file, hint=_HINT)
    _refuse_doubt(bundle, record, file)
    return record


def _read(file: Path) -> Record:
    try:
        return checked(read_record(file), where=file)
    except BundleError as error:
        raise RecordError(error.what, where=error.where, hint=_HINT) from None


def _is_judged(record: Record) -> bool:
    return record.kind in _JUDGED and record.subject.artefact != "original"


def _refuse_doubt(bundle: Bundle, record: Record, file: Path) -> None:
    now = datetime.datetime.now(datetime.timezone.utc)
    if doubt := doubt_of(record, bundle, engines=intact_engines(bundle), now=now):
        what = f"the record is not about the bundle: {doubt}"
        raise RecordError(what, where=file, hint="give a record of this bundle")
