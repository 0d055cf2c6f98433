"""Networks, precisions and batches on this device, cell by cell; a stopped survey goes on where it was."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

from cnnx.bundle import Bundle
from cnnx.errors import CnnxError, EnvironmentLacks
from cnnx.machine.environment import detect, installed_version
from cnnx.options import Precision, takes
from cnnx.options.bundles import SurveyOptions, SurveyPlan
from cnnx.pipeline.bench.bench import bench, energy_of
from cnnx.pipeline.bench.energy import PowerPass, choose_sampler, how_long, power_pass
from cnnx.pipeline.bench.measurement import Measurement
from cnnx.pipeline.build import build
from cnnx.pipeline.progress import Listener, ProgressEvent, Steps, silent
from cnnx.pipeline.records.verified import latest_validation, records_of
from cnnx.pipeline.survey.journal import Cell, Journal, Row, cell_of
from cnnx.pipeline.survey.plan import Sources, planned
from cnnx.pipeline.target import choose_runtime, open_subject
from cnnx.pipeline.validate import ValidateResult, validate
from cnnx.report.markdown import markdown
from cnnx.report.tables.survey import survey_blocks
from cnnx.stats import Verdict
from cnnx.store.digests import digest_of, digest_of_file
from cnnx.store.files import atomic_file, check_place

_DIED_IN_PASS = "the process died in the pass"
_TRY_AGAIN = "--again measures it once more"

_Placed = tuple[Row, Path]
"""A row to fill, and its bundle."""


@dataclass(frozen=True, slots=True)
class SurveyResult:
    """Every cell as a row, in order.

    Attributes:
        folder: with journal, bundles and report files.
        rows: each `model`, `precision`, `batch`, `status` ("done", "failed"), `reason`, `hint`, `verdict`,
            `follows_from`, and the figures of what was done.
    """

    folder: Path
    rows: tuple[Row, ...]

    @property
    def exit_code(self) -> int:
        """See `exit_code_of`."""
        return exit_code_of(self.rows)

    def as_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return {"folder": str(self.folder.absolute()), "rows": list(self.rows)}


def exit_code_of(rows: Iterable[Row]) -> int:
    """0 unless nothing at all was measured (6): a failed cell is a finding, too."""
    return 0 if any(row["status"] == "done" for row in rows) else 6


@takes(SurveyOptions, "plan")
def survey(models: Sequence[str | Path], plan: SurveyOptions, *, listener: Listener = silent) -> SurveyResult:
    """Export, build, validate and measure every cell, precisions of one network side by side.

    Rows lie under `out`, one file a cell. Cells that have ended are not done again, so a stopped survey goes
    on; a cell that it was killed in is tried once more, alone, and killed again it is a row that says so.
    A row whose bundle, weights, options, runtime or device are not those of now is done again, and that is
    said.
    A cell whose energy cannot be measured keeps its latency and says why; one without energy is done again
    where that is asked for now.
    Records with raw samples are kept in the bundles under `out`. Report files, written after each network:
    survey.md and survey.json.

    Args:
        models: recipes' names, recipe files, ONNX files; or folders of finished bundles, which need no
            PyTorch and keep their precision.
        plan: options as an object, which may be a `SurveyPlan`; each can be given by keyword, too. `power`
            may be a `PowerPass`. The folder is new, or of an earlier survey.
        listener: told of progress.

    Raises:
        UsageError: options that make no sense, or two models of one name. As with those below, no row is
            touched.
        RecipeError: models that are none.
        WeightsError: a checkpoint is not there.
        ImageError: images that a recipe names are not there.
        EnvironmentLacks: a named target or sensor cannot be used here.
        WriteFailed: `out` or the cache cannot be written, which is reported before any work.
    """
    chosen = dataclasses.replace(plan, power=power_pass(plan))
    out = Path(plan.out)
    networks = planned(models, plan.precisions, plan.batches, chosen)
    check_place(out / "survey.json")
    sizes = tuple(dict.fromkeys(plan.batches))
    follows = _follows(networks, sizes, chosen)
    journal = Journal(out, follows, again=plan.again, energy=chosen.power is not None)
    cells = [
        (name, precision, batch)
        for name, sources in networks.items()
        for precision in sources
        for batch in sizes
    ]
    _tell(journal, cells, chosen, listener)
    try:
        for name, sources in networks.items():
            _network(name, sources, sizes, journal=journal, plan=chosen, listener=listener)
            _write(journal.rows(cells), out)  # a kill leaves it a network old at most
    except BaseException:  # a stop by hand, too
        text = f"What is done lies in {out}: the same command, with that folder, goes on."
        listener(ProgressEvent(text, note=True))
        _write(journal.rows(cells), out)
        raise
    return SurveyResult(out, journal.rows(cells))


def _write(rows: Sequence[Row], folder: Path) -> None:
    pages = {"survey.json": json.dumps(rows, indent=1) + "\n", "survey.md": markdown(survey_blocks(rows))}
    for name, text in pages.items():
        with atomic_file(folder / name) as draft:
            draft.write_text(text, encoding="utf-8")


def _follows(
    networks: Sources, batches: Sequence[int], plan: SurveyPlan
) -> dict[tuple[str, str], dict[str, Any]]:
    """Of each network and precision, what its figures follow from: rows of other figures are not current."""
    runtime = choose_runtime(plan.target, ())
    common: dict[str, Any] = {
        "seconds": plan.seconds,
        "percentile": plan.percentile,
        "cuda_graph": plan.cuda_graph,
        "runtime": f"{runtime.name} {runtime.version()}",
        "device": None if runtime.cannot_run() else str(runtime.device()),
        "power_mode": detect().power_mode,
        "cnnx": installed_version("cnnx"),
    }
    if plan.power:
        common["power"] = {"sensor": plan.power.sensor, **dataclasses.asdict(plan.power.plan)}
    sources = {source for kinds in networks.values() for source in kinds.values()}
    own = {source: _origin(source, batches, plan) for source in sources}
    return {
        (name, precision): {**own[source], **common}
        for name, kinds in networks.items()
        for precision, source in kinds.items()
    }


def _origin(source: str | Path, batches: Sequence[int], plan: SurveyPlan) -> dict[str, Any]:
    """What a bundle is made from, files by their digests; None of what cannot be read: cells will say why."""
    network = None
    if isinstance(source, Path):
        with contextlib.suppress(CnnxError):
            network = Bundle.open(source, verify=False).manifest.fingerprint
        return {"network": network}
    weights = plan.weights_of(source)
    with contextlib.suppress(Exception):
        network = _digest_of_model(source)
    return {
        "network": network,
        "weights": digest_of_file(Path(weights)) if Path(weights).is_file() else weights,
        "images": plan.images,
        "batches": [min(batches), max(batches)],  # an engine is built for this range
    }


def _digest_of_model(model: str) -> str:
    """Of a recipe, with its graph where it has one."""
    from cnnx.pipeline.steps.definition import resolve
    from cnnx.pipeline.steps.original import OnnxOriginal

    recipe = resolve(model, trust_recipe=False)
    return digest_of([recipe.as_dict(), OnnxOriginal(recipe).weights.digest if recipe.is_onnx else None])


def _tell(journal: Journal, cells: Sequence[Cell], plan: SurveyPlan, listener: Listener) -> None:
    """What who waits should know before."""
    changed = [keys for cell in cells if (keys := journal.changed(cell))]
    if changed:
        what = ", ".join(dict.fromkeys(itertools.chain.from_iterable(changed))).replace("_", " ")
        many = f"{len(changed)} cell{'s are' if len(changed) > 1 else ' is'}"
        listener(ProgressEvent(f"{many} done again, for what has changed since: {what}.", note=True))
    passes = sum(not journal.is_over(cell) for cell in cells)
    if plan.power and passes and _seen(plan.power, plan.target):
        listener(ProgressEvent(f"Energy after latency: {how_long(plan.power.plan, passes)}.", note=True))


def _seen(power: PowerPass, target: str) -> bool:
    """Whether a sensor sees the device that the target stands for; where none does, rows say why.

    Raises:
        EnvironmentLacks: a sensor is named, and it is not that one.
    """
    runtime = choose_runtime(target, ())
    try:
        return runtime.cannot_run() is None and bool(choose_sampler(power, runtime.device()))
    except EnvironmentLacks:
        if power.sensor is not None:
            raise
        return False


def _network(
    name: str,
    sources: Mapping[str, str | Path],
    batches: Sequence[int],
    *,
    journal: Journal,
    plan: SurveyPlan,
    listener: Listener,
) -> None:
    """One network in all its precisions: bundles first, then batch by batch side by side."""
    placed: list[_Placed] = []
    for precision, source in sources.items():
        cells = [(name, precision, batch) for batch in batches]
        rows = [journal.blank(cell) for cell in cells if not journal.is_over(cell)]
        if not rows:
            continue
        wanted = (min(batches), max(batches))
        work = partial(_bundle, name, precision, source, wanted, journal.folder, plan, listener)
        made = _attempt(work, rows, journal)
        if made is not None:
            place, verdict = made
            placed += [({**row, "verdict": verdict}, place) for row in rows]
    for batch in batches:
        _side_by_side([cell for cell in placed if cell[0]["batch"] == batch], journal, plan, listener)


def _side_by_side(cells: list[_Placed], journal: Journal, plan: SurveyPlan, listener: Listener) -> None:
    """Together; what that fails for, or was killed in, each alone: memory may hold one and not two."""
    if len(cells) > 1 and not any(journal.was_killed(cell_of(row)) for row, _ in cells):
        with contextlib.suppress(Exception):  # each alone will say what it was
            cells = _measure(cells, journal, plan, listener)
    for cell in cells:
        _attempt(partial(_measure, [cell], journal, plan, listener), [cell[0]], journal)


def _attempt(work: Callable[[], Any], cells: Iterable[Row], journal: Journal) -> Any:
    """What work gives; where it fails, each cell is a row with the reason.

    Figures that a cell has stay, where it is done again for its energy alone.
    """
    try:
        return work()
    except Exception as error:  # a fault of cnnx, or of a library, too: the other cells are worth having
        what, hint = _reason(error)
    for row in cells:
        if standing := journal.standing(cell_of(row)):
            journal.write({**standing, **_no_energy("failed", what, hint)})
        else:
            journal.write({**row, "status": "failed", "reason": what, "hint": hint})
    return None


def _reason(error: Exception) -> tuple[str, str]:
    """What failed, and a hint."""
    if isinstance(error, CnnxError):
        return error.what, error.hint or ""
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
        return source, _verdict_of(validate(source, target=plan.target, listener=listener))
    from cnnx.pipeline.export.export import export  # needs PyTorch where the source is a recipe

    place = folder / "bundles" / f"{name}-{precision}"
    result = export(
        source,
        precision=cast("Precision", precision),
        target=plan.target,
        weights=plan.weights_of(source),
        out=place,
        batch=batch,
        calibration_images=plan.images,
        validation_images=plan.images,
        listener=listener,
    )
    return place, result.validation.verdict.value


def _verdict_of(tested: ValidateResult) -> str:
    """What the bundle was judged to be, unless what runs here does not compute that."""
    if tested.verdict is Verdict.FAILED:
        return "self-test failed"
    judged = latest_validation(records_of(tested.bundle).verified)
    return (judged[1].verdict if judged else Verdict.NOT_JUDGED).value


def _measure(
    cells: Sequence[_Placed], journal: Journal, plan: SurveyPlan, listener: Listener
) -> list[_Placed]:
    """Measure them side by side; gives those that were not, unless it was none: that is raised."""
    with journal.marked({**row, "status": "running"} for row, _ in cells):
        result = bench(
            [place for _, place in cells],
            target=plan.target,
            batch=cells[0][0]["batch"],
            seconds=plan.seconds,
            percentile=plan.percentile,
            cuda_graph=plan.cuda_graph,
            listener=listener,
        )
        measured = {one.subject.precision: one for one in result.measurements}
        advice = "; ".join(map(str, result.advice))
        done = [
            ({**row, **_figures(one), "advice": advice}, place, one)
            for row, place in cells
            if (one := measured.get(row["precision"]))
        ]
        for row, _, _ in done:
            journal.write(row)
    if plan.power:
        for row, place, one in done:
            with journal.marked([{**row, **_no_energy("failed", _DIED_IN_PASS, _TRY_AGAIN)}]):
                journal.write({**row, **_energy(place, one, plan.power, plan.target, listener)})
    return [cell for cell in cells if cell[0]["precision"] not in measured]


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
        chosen = choose_sampler(power, measured.subject.on)
    except CnnxError as error:
        why = f"{error.what} ({error.where})" if error.where else error.what
        return _no_energy("unsupported", why, error.hint or "")
    try:
        bundle = Bundle.open(place)
        subject = open_subject(bundle, target)
        use = energy_of(bundle, subject, measured, power=power, chosen=chosen, steps=Steps(listener))
    except Exception as error:  # as of a cell: its latency is worth having
        return _no_energy("failed", *_reason(error))
    total = use.total
    return {
        "energy": "measured",
        "sensor": use.sensor,
        "gross_mj": total.gross_mj if total else None,
        "net_mj": total.net_mj if total else None,
        "no_energy": use.no_total,
        "energy_doubts": list(use.measured.doubts),
    }


def _no_energy(how: Literal["unsupported", "failed"], why: str, hint: str) -> Row:
    return {
        "hint": hint,
        "energy": how,
        "sensor": None,
        "gross_mj": None,
        "net_mj": None,
        "no_energy": why,
        "energy_doubts": [],
    }
