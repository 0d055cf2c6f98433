"""Networks, precisions and batches on this device, cell by cell; a stopped survey goes on where it was."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

from cnnx.bundle import Bundle, is_bundle
from cnnx.errors import CnnxError, UsageError
from cnnx.pipeline.benching import bench, energy_of
from cnnx.pipeline.energy import PowerPass, choose_sampler, how_long
from cnnx.pipeline.finished import build, validate
from cnnx.pipeline.measurements import Measurement
from cnnx.pipeline.progress import Event, Listener, Steps, silent
from cnnx.pipeline.results import plain
from cnnx.pipeline.running import choose_runtime, open_subject
from cnnx.recipe import Precision
from cnnx.report.survey import write_survey
from cnnx.store import atomic_file

PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")
_ROWS = "rows"
_DIED_IN_PASS = "the survey was stopped or died in the pass"
_DIED = "the process died in this cell, for want of memory perhaps"

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class SurveyPlan:
    """What is done in each cell.

    Attributes:
        target: "auto" or a runtime's name.
        weights: "pretrained", "standin" or a checkpoint.
        seconds: the least time to measure latency for.
        percentile: to be told, in percent.
        cuda_graph: launch an engine as one CUDA graph; None: where that is possible.
        power: how to measure energy, a pass for each cell after its latency; None: not.
        images: calibration and validation pictures at most; None: the recipe's.
    """

    target: str = "auto"
    weights: str = "pretrained"
    seconds: float = 3.0
    percentile: float = 99.0
    cuda_graph: bool | None = None
    power: PowerPass | None = None
    images: int | None = None


@dataclass(frozen=True, slots=True)
class SurveyResult:
    """Every cell as a row, in order.

    Attributes:
        folder: with journal, bundles and report files.
        rows: each `model`, `precision`, `batch`, `status` ("done", "failed"), `reason`, `mend`, `verdict`,
            and the figures of what was done.
    """

    folder: Path
    rows: tuple[Row, ...]

    @property
    def exit_code(self) -> int:
        """0 unless nothing at all was measured (6): a failed cell is a finding, too."""
        return 0 if any(row["status"] == "done" for row in self.rows) else 6

    def as_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return {"folder": str(self.folder.absolute()), "rows": list(self.rows)}


def survey(
    models: Sequence[str | Path],
    *,
    out: str | Path,
    precisions: Sequence[Precision] = ("fp16", "int8"),
    batches: Sequence[int] = (1, 2, 4, 8, 16, 32),
    plan: SurveyPlan | None = None,
    again: bool = False,
    listener: Listener = silent,
) -> SurveyResult:
    """Export, build, validate and measure every cell, precisions of one network side by side.

    Rows lie under `out`, one file a cell, written when the cell begins and when it ends. Cells that have
    ended are not done again, so a stopped survey goes on; one that was killed in a cell says so in its row.
    A cell whose energy cannot be measured keeps its latency and says why; one without energy is done again
    where that is asked for now.
    Records with raw samples are kept in the bundles under `out`. Report files: survey.md and survey.json.

    Args:
        models: recipes' names, recipe files, ONNX files; or folders of finished bundles, which need no
            PyTorch and keep their precision.
        out: a folder, new or of an earlier survey.
        precisions: of the networks that are exported.
        batches: pictures a run.
        plan: what is done in each cell.
        again: do failed cells once more, and those whose energy failed or had no sensor.
        listener: told of progress.

    Raises:
        UsageError: nothing to do, or a precision that is none.
    """
    chosen = plan or SurveyPlan()
    _check(models, precisions, batches)
    journal = _Journal(Path(out), again=again, energy=chosen.power is not None)
    networks = _networks(models, precisions)
    if chosen.power and (passes := len(journal.open_cells(networks, batches))):
        text = f"Energy, where a sensor sees the device: {how_long(chosen.power.plan, passes)}."
        listener(Event(text, note=True))
    for name, finished in networks.items():
        _network(name, finished, batches, journal=journal, plan=chosen, listener=listener)
    rows = journal.rows(networks, batches)
    write_survey(rows, Path(out))
    return SurveyResult(Path(out), rows)


def _check(models: Sequence[str | Path], precisions: Sequence[str], batches: Sequence[int]) -> None:
    if not models or not precisions or not batches:
        raise UsageError("a survey needs a model, a precision and a batch")
    if wrong := [one for one in precisions if one not in PRECISIONS]:
        raise UsageError(f"no precision is called {wrong[0]!r}", mend=f"choose among {', '.join(PRECISIONS)}")
    if min(batches) < 1:
        raise UsageError("a batch has at least one picture")


def _networks(
    models: Sequence[str | Path], precisions: Sequence[Precision]
) -> dict[str, dict[str, str | Path | None]]:
    """Network -> precision -> a finished bundle, or the model to export."""
    found: dict[str, dict[str, str | Path | None]] = {}
    for model in models:
        if is_bundle(Path(model)):
            manifest = Bundle.open(Path(model), verify=False).manifest
            found.setdefault(manifest.recipe["name"], {})[manifest.precision] = Path(model)
        else:
            name = Path(model).stem if Path(model).suffix else str(model)
            found.setdefault(name, {}).update(dict.fromkeys(precisions, str(model)))
    return found


def _cells(networks: dict[str, dict[str, Any]], batches: Sequence[int]) -> list[tuple[str, str, int]]:
    """Every network, precision and batch, in order."""
    return [
        (name, precision, batch)
        for name, kinds in networks.items()
        for precision in kinds
        for batch in batches
    ]


class _Journal:
    """Rows on disk: a file a cell."""

    def __init__(self, folder: Path, *, again: bool, energy: bool) -> None:
        self.folder, self._again, self._energy = folder, again, energy
        self._done: set[Path] = set()

    def is_over(self, name: str, precision: str, batch: int) -> bool:
        """Whether a cell needs nothing more."""
        file = self._file(name, precision, batch)
        row = self._read(file)
        if row is None:
            return False
        asked = self._energy and row["status"] == "done"
        if asked and "energy" not in row:
            return False  # it was surveyed without
        failed = row["status"] == "failed" or (asked and row["energy"] != "measured")
        return not failed or not self._again or file in self._done

    def write(self, row: Row) -> None:
        """Write a row; one that says "running" stays if the process is killed."""
        file = self._file(row["model"], row["precision"], row["batch"])
        if row["status"] != "running":
            self._done.add(file)
        with atomic_file(file) as draft:
            draft.write_text(json.dumps(plain(row), indent=1) + "\n", encoding="utf-8")

    def rows(self, networks: dict[str, dict[str, Any]], batches: Sequence[int]) -> tuple[Row, ...]:
        """All cells asked for, in order."""
        found = (self._read(self._file(*cell)) for cell in _cells(networks, batches))
        return tuple(row for row in found if row is not None)

    def open_cells(
        self, networks: dict[str, dict[str, Any]], batches: Sequence[int]
    ) -> list[tuple[str, str, int]]:
        """Cells asked for that need something."""
        return [cell for cell in _cells(networks, batches) if not self.is_over(*cell)]

    def _file(self, name: str, precision: str, batch: int) -> Path:
        return self.folder / _ROWS / f"{name}-{precision}-b{batch}.json"

    def _read(self, file: Path) -> Row | None:
        if not file.is_file():
            return None
        row: Row = json.loads(file.read_text(encoding="utf-8"))
        if row["status"] == "running":
            row |= {
                "status": "failed",
                "reason": _DIED,
                "mend": "try a smaller batch; --again tries once more",
            }
        return row


def _network(
    name: str,
    sources: dict[str, Any],
    batches: Sequence[int],
    *,
    journal: _Journal,
    plan: SurveyPlan,
    listener: Listener,
) -> None:
    """One network in all its precisions: bundles first, then batch by batch side by side."""
    open_cells = {
        precision: left
        for precision in sources
        if (left := [batch for batch in batches if not journal.is_over(name, precision, batch)])
    }
    bundles: dict[str, tuple[Path, str]] = {}
    for precision, left in open_cells.items():
        cells = [_row(name, precision, batch) for batch in left]
        for row in cells:
            journal.write({**row, "status": "running"})
        wanted = (min(batches), max(batches))
        work = partial(_bundle, name, precision, sources[precision], wanted, journal.folder, plan, listener)
        made = _attempt(work, cells, journal)
        if made is not None:
            bundles[precision] = made
    for batch in batches:
        cells = [
            {**_row(name, precision, batch), "verdict": bundles[precision][1]}
            for precision in bundles
            if batch in open_cells[precision]
        ]
        if cells:
            places = [bundles[row["precision"]][0] for row in cells]
            _side_by_side(cells, places, journal, plan, listener)


def _side_by_side(
    cells: Sequence[Row], places: Sequence[Path], journal: _Journal, plan: SurveyPlan, listener: Listener
) -> None:
    """Together where that works; else each alone, so that one's failure is not the other's."""
    if len(cells) > 1:
        with contextlib.suppress(Exception):  # each alone will say what it was
            _measure(cells, places, journal, plan, listener)
            return
    for cell, place in zip(cells, places, strict=True):
        _attempt(partial(_measure, [cell], [place], journal, plan, listener), [cell], journal)


def _row(name: str, precision: str, batch: int) -> Row:
    return {
        "model": name,
        "precision": precision,
        "batch": batch,
        "status": "done",
        "reason": "",
        "mend": "",
        "verdict": None,
    }


def _attempt(work: Callable[[], Any], cells: Iterable[Row], journal: _Journal) -> Any:
    """What work gives; where it fails, each cell is a row with the reason."""
    try:
        return work()
    except Exception as error:  # a fault of cnnx, or of a library, too: the other cells are worth having
        what, mend = _reason(error)
    for row in cells:
        journal.write({**row, "status": "failed", "reason": what, "mend": mend})
    return None


def _reason(error: Exception) -> tuple[str, str]:
    """What failed, and what mends it."""
    if isinstance(error, CnnxError):
        return error.what, error.mend or ""
    return f"{type(error).__name__}: {error}", "report this"


def _bundle(
    name: str,
    precision: str,
    source: str | Path,
    batch: tuple[int, int],
    folder: Path,
    plan: SurveyPlan,
    listener: Listener,
) -> tuple[Path, str]:
    """A bundle with an engine where one can be built, and its verdict."""
    if isinstance(source, Path):
        runtime = choose_runtime(plan.target, ())
        if runtime.engine_suffix is not None:
            build(source, target=plan.target, listener=listener)
        return source, validate(source, target=plan.target, listener=listener).validation.verdict.value
    from cnnx.pipeline.export import export  # needs PyTorch where the source is a recipe

    place = folder / "bundles" / f"{name}-{precision}"
    result = export(
        source,
        precision=cast("Precision", precision),
        target=plan.target,
        weights=plan.weights,
        out=place,
        batch=batch,
        calibration_images=plan.images,
        validation_images=plan.images,
        listener=listener,
    )
    return place, result.validation.verdict.value


def _measure(
    cells: Sequence[Row], places: Sequence[Path], journal: _Journal, plan: SurveyPlan, listener: Listener
) -> None:
    batch = cells[0]["batch"]
    result = bench(
        places,
        target=plan.target,
        batch=batch,
        seconds=plan.seconds,
        percentile=plan.percentile,
        cuda_graph=plan.cuda_graph,
        listener=listener,
    )
    measured = {one.subject.precision: one for one in result.measurements}
    failed = {one.subject.precision: one for one in result.unmeasured}
    advice = "; ".join(map(str, result.advice))
    done: list[tuple[Row, Path, Measurement]] = []
    for row, place in zip(cells, places, strict=True):
        precision = row["precision"]
        if precision in measured:
            found = {**row, **_figures(measured[precision]), "advice": advice}
            journal.write({**found, **(_no_energy("failed", _DIED_IN_PASS) if plan.power else {})})
            done.append((found, place, measured[precision]))
        else:
            error = failed[precision].error
            journal.write({**row, "status": "failed", "reason": error.what, "mend": error.mend or ""})
    if plan.power:
        for found, place, one in done:
            journal.write({**found, **_energy(place, one, plan.power, plan.target, listener)})


def _figures(measured: Measurement) -> Row:
    data = measured.as_dict()
    return {
        "subject": data["subject"],
        "cuda_graph": measured.conditions.cuda_graph,
        "valid": measured.validity.valid,
        "findings": [finding.reason for finding in measured.validity.findings],
        **data["figures"],
        "memory": data["memory"],
        "predicted": data["predicted"],
    }


def _energy(place: Path, measured: Measurement, power: PowerPass, target: str, listener: Listener) -> Row:
    """Of a picture; a sensor that is not there or fails is a reason, not the cell's end."""
    try:
        chosen = choose_sampler(power, measured.subject.device)
    except CnnxError as error:
        return _no_energy("unsupported", f"{error.what} ({error.where})" if error.where else error.what)
    try:
        bundle = Bundle.open(place)
        subject = open_subject(bundle, target)
        use = energy_of(bundle, subject, measured, power=power, chosen=chosen, steps=Steps(listener))
    except Exception as error:  # as of a cell: its latency is worth having
        return _no_energy("failed", _reason(error)[0])
    total = use.total
    return {
        "energy": "measured",
        "sensor": use.sensor,
        "gross_mj": total.gross_mj if total else None,
        "net_mj": total.net_mj if total else None,
        "no_energy": use.no_total,
        "energy_doubts": list(use.measured.doubts),
    }


def _no_energy(how: Literal["unsupported", "failed"], why: str) -> Row:
    return {
        "energy": how,
        "sensor": None,
        "gross_mj": None,
        "net_mj": None,
        "no_energy": why,
        "energy_doubts": [],
    }
