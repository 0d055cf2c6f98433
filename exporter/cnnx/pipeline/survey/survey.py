"""`survey`: measures networks in several precisions and batches, cell by cell; a stopped survey resumes."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

from cnnx.bundle import Bundle
from cnnx.errors import CnnxError, EnvironmentLacks, MissingExtra, WriteFailed
from cnnx.machine.environment import detect, installed_version
from cnnx.options import Precision, takes
from cnnx.options.bundles import SurveyOptions, SurveyPlan
from cnnx.pipeline.bench.bench import bench
from cnnx.pipeline.bench.energy import PowerPass, choose_sampler, how_long, power_pass
from cnnx.pipeline.bench.measurement import Measurement
from cnnx.pipeline.bench.passes import energy_of
from cnnx.pipeline.build import build
from cnnx.pipeline.progress import Listener, ProgressEvent, Steps, silent
from cnnx.pipeline.records.verified import latest_validation, records_of
from cnnx.pipeline.survey.facts import facts_of
from cnnx.pipeline.survey.journal import Cell, Journal, Row, cell_of
from cnnx.pipeline.survey.plan import Sources, check_target, planned
from cnnx.pipeline.survey.report import PAGE, draw_rows, write_rows
from cnnx.pipeline.target import choose_runtime, open_subject
from cnnx.pipeline.validate import ValidateResult, validate
from cnnx.report.result import Result
from cnnx.report.table import Block, Remark
from cnnx.report.tables.survey import survey_blocks
from cnnx.stats import Verdict
from cnnx.store.digests import digest_of, digest_of_file
from cnnx.store.files import check_place

_DIED_IN_PASS = "the process died in the energy pass"
_TRY_AGAIN = "retry with --again"

_Placed = tuple[Row, Path]
"""A new row, and its bundle's folder."""


@dataclass(frozen=True, slots=True, repr=False)
class SurveyResult(Result):
    """All cells of a survey, in order.

    Attributes:
        folder: folder with rows, bundles and report files.
        rows: rows with `model`, `precision`, `batch`, `status` ("done", "failed"), `reason`, `hint`,
            `verdict`, `follows_from`, and the figures if done.
        drawn: whether the page with charts was written.
    """

    folder: Path
    rows: tuple[Row, ...]
    drawn: bool = False

    @property
    def exit_code(self) -> int:
        """See `exit_code_of`."""
        return exit_code_of(self.rows)

    def blocks(self, *, verbose: bool = False) -> Iterable[Block]:
        """What the command prints."""
        files = Remark(f"{self.folder}: {f'{PAGE}, ' if self.drawn else ''}survey.md, survey.json", "written")
        return [*survey_blocks(self.rows), files]

    def as_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return {"folder": str(self.folder.absolute()), "rows": list(self.rows)}


def exit_code_of(rows: Iterable[Row]) -> int:
    """6 if nothing was measured, else 0, as a failed cell is also a finding."""
    return 0 if any(row["status"] == "done" for row in rows) else 6


@takes(SurveyOptions, "plan")
def survey(models: Sequence[str | Path], plan: SurveyOptions, *, listener: Listener = silent) -> SurveyResult:
    """Export, build, validate and measure every cell, with the precisions of a network side by side.

    Rows are kept in `out`, one file per cell. Finished cells are not repeated, so a stopped survey resumes.
    A cell in which the process was killed is retried once, alone; if it is killed again, the cell fails.
    A row is measured again if its bundle, weights, options, runtime or device have changed, and that is
    reported. If energy cannot be measured, the row keeps its latency and gives the reason. A row without
    energy is measured again if energy is now requested.
    Records with raw samples are kept in the bundles in `out`. The files survey.md and survey.json are
    written after each network, and survey.html with charts at the end, if the extra `report` is installed.

    Args:
        models: names of recipes, recipe files, ONNX files, or folders of bundles. Bundles need no PyTorch
            and keep their precision.
        plan: options as an object, which may be a `SurveyPlan`; each can also be given by keyword. `power`
            may be a `PowerPass`. `out` is a new folder, or that of an earlier survey.
        listener: receives progress events.

    Raises:
        UsageError: an option is invalid, or two models have the same name. Neither this nor the errors
            below change any row.
        RecipeError: a model does not exist.
        WeightsError: a checkpoint does not exist.
        ImageError: images that a recipe names do not exist.
        EnvironmentLacks: the named target or sensor cannot be used here.
        WriteFailed: `out` or the cache cannot be written; raised before any work.

    Examples:
        >>> result = cnnx.survey(["lenet5"], out="survey", batches=(1,), seconds=0.2)
        >>> [(row["precision"], row["status"]) for row in result.rows]
        [('fp16', 'done'), ('int8', 'done')]
    """
    rows = survey_rows(models, plan, listener=listener)
    out = Path(plan.out)
    return SurveyResult(out, rows, drawn=draw_page(rows, out, listener))


def draw_page(rows: Sequence[Row], out: Path, listener: Listener) -> bool:
    """Write the page with charts, and return whether it was; a note says what it needs."""
    drawn = draw_rows(rows, out) if exit_code_of(rows) == 0 else None
    if isinstance(drawn, MissingExtra):
        listener(ProgressEvent(f"No {PAGE} was written: {drawn.what}.", note=True))
    return isinstance(drawn, Path)


@contextlib.contextmanager
def keeping_rows(rows: Callable[[], Sequence[Row]], out: Path, listener: Listener) -> Iterator[None]:
    """Write the rows so far if the block ends early, also by an interrupt, and say that they are kept."""
    try:
        yield
    except BaseException:
        text = f"Finished cells are kept in {out}; the same command with --out {out} resumes."
        listener(ProgressEvent(text, note=True))
        write_rows(rows(), out)
        raise


def survey_rows(models: Sequence[str | Path], plan: SurveyOptions, *, listener: Listener) -> tuple[Row, ...]:
    """The rows of a survey, without the page with charts; see `survey`."""
    chosen = dataclasses.replace(plan, power=power_pass(plan))
    out = Path(plan.out)
    networks = planned(models, plan.precisions, plan.batches, chosen)
    check_target(chosen)
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
    _announce(journal, cells, chosen, listener)
    with keeping_rows(lambda: journal.rows(cells), out, listener):
        for name, sources in networks.items():
            _network(name, sources, sizes, journal=journal, plan=chosen, listener=listener)
            write_rows(journal.rows(cells), out)  # after a kill, only the last network is missing
    return journal.rows(cells)


def _follows(
    networks: Sources, batches: Sequence[int], plan: SurveyPlan
) -> dict[tuple[str, str], dict[str, Any]]:
    """(network, precision) -> what the figures depend on; rows that differ from it are not current."""
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
    own = {source: origin_of(source, batches, plan) for source in sources}
    return {
        (name, precision): {**own[source], **common}
        for name, kinds in networks.items()
        for precision, source in kinds.items()
    }


def origin_of(source: str | Path, batches: Sequence[int], plan: SurveyPlan) -> dict[str, Any]:
    """What a bundle depends on, with files by digest; None if unreadable, as its cells give the reason."""
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
    """Digest of a recipe, of its ONNX graph if it has one, and of its reference."""
    from cnnx.pipeline.steps.definition import resolve
    from cnnx.pipeline.steps.original import open_onnx, open_reference

    recipe = resolve(model, trust_recipe=False)
    networks = (open_onnx(recipe) if recipe.is_onnx else None, open_reference(recipe))
    return digest_of([recipe.as_dict(), *(each.weights.digest if each else None for each in networks)])


def _announce(journal: Journal, cells: Sequence[Cell], plan: SurveyPlan, listener: Listener) -> None:
    """Report which cells are measured again, and how long energy takes."""
    changed = [keys for cell in cells if (keys := journal.changed(cell))]
    if changed:
        what = ", ".join(dict.fromkeys(itertools.chain.from_iterable(changed))).replace("_", " ")
        many = f"{len(changed)} cell{'s are' if len(changed) > 1 else ' is'}"
        listener(ProgressEvent(f"{many} measured again, as this has changed: {what}.", note=True))
    passes = sum(not journal.is_over(cell) for cell in cells)
    if plan.power and passes and _has_sensor(plan.power, plan.target):
        text = f"Energy is measured after latency: {how_long(plan.power.plan, passes)}."
        listener(ProgressEvent(text, note=True))


def _has_sensor(power: PowerPass, target: str) -> bool:
    """Whether a sensor measures the target's device; if none does, rows give the reason.

    Raises:
        EnvironmentLacks: the named sensor is not available.
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
    """Survey one network: first make the bundles of all precisions, then measure them batch by batch."""
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
            bundle, verdict = made
            facts = _attempt(partial(facts_of, bundle), rows, journal)
            placed += [({**row, "verdict": verdict, **facts}, bundle) for row in rows if facts is not None]
    for batch in batches:
        _side_by_side([cell for cell in placed if cell[0]["batch"] == batch], journal, plan, listener)


def _side_by_side(cells: list[_Placed], journal: Journal, plan: SurveyPlan, listener: Listener) -> None:
    """Measure cells together. If that fails or was killed before, measure each alone, to use less memory."""
    if len(cells) > 1 and not any(journal.was_killed(cell_of(row)) for row, _ in cells):
        with contextlib.suppress(Exception):  # measuring each alone shows the error
            cells = _measure(cells, journal, plan, listener)
    for cell in cells:
        _attempt(partial(_measure, [cell], journal, plan, listener), [cell[0]], journal)


def _attempt(work: Callable[[], Any], cells: Iterable[Row], journal: Journal) -> Any:
    """Return the result of `work`; if it fails, write a row with the reason for each cell.

    A cell that is measured again only for its energy keeps its figures.
    """
    try:
        return work()
    except WriteFailed:  # no fault of the cell: the survey stops, and the same command tries it again
        raise
    except Exception as error:  # also bugs of cnnx or a library, as the other cells are still useful
        what, hint = reason_of(error)
    for row in cells:
        if standing := journal.standing(cell_of(row)):
            journal.write({**standing, **_no_energy("failed", what, hint)})
        else:
            journal.write({**row, "status": "failed", "reason": what, "hint": hint})
    return None


def reason_of(error: Exception) -> tuple[str, str]:
    """The message of an error, and a hint."""
    if isinstance(error, CnnxError):
        return error.what, error.hint or ""
    return f"{type(error).__name__}: {error}", "this is a bug in cnnx or a library: please report it"


def _bundle(
    name: str,
    precision: str,
    source: str | Path,
    batch: tuple[int, int],
    folder: Path,
    plan: SurveyPlan,
    listener: Listener,
) -> tuple[Path, str]:
    """Make a bundle, with an engine if one can be built; return its folder and verdict."""
    if isinstance(source, Path):
        runtime = choose_runtime(plan.target, ())
        if runtime.engine_suffix is not None:
            build(source, target=plan.target, listener=listener)
        return source, _verdict_of(validate(source, target=plan.target, listener=listener))
    from cnnx.pipeline.export.export import export  # needs PyTorch where the source is a recipe

    out = folder / "bundles" / f"{name}-{precision}"
    result = export(
        source,
        precision=cast("Precision", precision),
        target=plan.target,
        weights=plan.weights_of(source),
        out=out,
        batch=batch,
        calibration_images=plan.images,
        validation_images=plan.images,
        listener=listener,
    )
    return out, result.validation.verdict.value


def _verdict_of(tested: ValidateResult) -> str:
    """The verdict of the bundle's export, or "self-test failed"."""
    if tested.verdict is Verdict.FAILED:
        return "self-test failed"
    judged = latest_validation(records_of(tested.bundle).verified)
    return (judged[1].verdict if judged else Verdict.NOT_JUDGED).value


def _measure(
    cells: Sequence[_Placed], journal: Journal, plan: SurveyPlan, listener: Listener
) -> list[_Placed]:
    """Measure cells side by side; return those that could not be measured, or raise if none could."""
    with journal.marked({**row, "status": "running"} for row, _ in cells):
        result = bench(
            [bundle for _, bundle in cells],
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
            ({**row, **_figures(one), "advice": advice}, bundle, one)
            for row, bundle in cells
            if (one := measured.get(row["precision"]))
        ]
        for row, _, _ in done:
            journal.write(row)
    if plan.power:
        for row, bundle, one in done:
            with journal.marked([{**row, **_no_energy("failed", _DIED_IN_PASS, _TRY_AGAIN)}]):
                journal.write({**row, **_energy(bundle, one, plan.power, plan.target, listener)})
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


def _energy(folder: Path, measured: Measurement, power: PowerPass, target: str, listener: Listener) -> Row:
    """Energy per image as keys of a row, or the reason why it could not be measured."""
    try:
        chosen = choose_sampler(power, measured.subject.on)
    except CnnxError as error:
        why = f"{error.what} ({error.where})" if error.where else error.what
        return _no_energy("unsupported", why, error.hint or "")
    try:
        bundle = Bundle.open(folder)
        subject = open_subject(bundle, target)
        use = energy_of(bundle, subject, measured, power=power, chosen=chosen, steps=Steps(listener))
    except WriteFailed:
        raise
    except Exception as error:  # as in _attempt: the latency is still useful
        return _no_energy("failed", *reason_of(error))
    total = use.total
    return {
        "energy": "measured",
        "sensor": use.sensor,
        "gross_mj": total.gross_mj if total else None,
        "net_mj": total.net_mj if total else None,
        "power_mw": total.power_mw if total else None,
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
        "power_mw": None,
        "no_energy": why,
        "energy_doubts": [],
    }
