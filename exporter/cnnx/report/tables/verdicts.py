"""Tables of verdicts: gates of a validation, checks of a self-test, flipped images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from cnnx.agreement import Flip, Validation
from cnnx.gates import Gate
from cnnx.record import Subject
from cnnx.report.cases import gate_case
from cnnx.report.table import Case, Cell, Column, Figures, Remark, Suite, Table, judged, table_of
from cnnx.report.words import first_of
from cnnx.selftest import Check, SelfTest
from cnnx.stats import Verdict, worst

_FLIPS_SHOWN = 5
_NO_NOISE = 1e-6  # nats: a noise floor below it is not worth a line


def gate_verdict(gate: Gate | None) -> Cell:
    """The verdict of a gate, with the number that would decide it."""
    if gate is None:
        return judged(Verdict.NOT_JUDGED.value)
    if gate.verdict is Verdict.PASSED and not gate.at_most and gate.threshold == 0:
        return Cell("shown")  # it cannot fail
    note = f" ({gate.decides_at:,} {gate.counted} would decide)" if gate.decides_at else ""
    return judged(gate.verdict.value, note)


def gate_reasons(gates: Iterable[Gate]) -> Iterator[Remark]:
    """Why gates were not judged, or failed without a value; gates with one reason share a remark."""
    found: dict[str, list[str]] = {}
    for gate in gates:
        if gate.reason:
            found.setdefault(gate.reason, []).append(gate.name)
    for reason, names in found.items():
        yield Remark(reason, ", ".join(names), "open")


def gate_limit(gate: Gate) -> str:
    """The limit: a minimum for rates, a maximum (with <=) for what costs something."""
    if not gate.at_most and gate.threshold == 0:
        return "-"
    return f"{'<= ' if gate.at_most else ''}{gate.threshold:g}{_unit(gate)}"


def gate_interval(gate: Gate) -> str:
    """The interval; "-" for a value without one, such as a file's size."""
    if gate.interval is None:
        return "-"
    return f"{gate_figure(gate, gate.interval.low)} .. {gate_figure(gate, gate.interval.high)}"


def gate_figure(gate: Gate, value: float) -> str:
    """A value of a gate: rates, ratios and milliseconds with four digits after the point or of precision."""
    return f"{value:.4f}" if not gate.unit else f"{value:.4g}"


def _unit(gate: Gate) -> str:
    return f" {gate.unit}" if gate.unit else ""


GATES: tuple[Column[Gate | None], ...] = (
    Column("gate", lambda g: g.name if g else "agreement", fixed=True),
    Figures("value", lambda g: f"{gate_figure(g, g.value)}{_unit(g)}" if g and g.value is not None else "-"),
    Figures("95 % interval", lambda g: gate_interval(g) if g else "-"),
    Figures("threshold", lambda g: gate_limit(g) if g else "-"),
    Column("verdict", gate_verdict),
)
"""Columns of a gate; None stands for agreement that could not be judged."""


def verdict_table(validation: Validation, *, date: str = "", later: bool = False) -> Table:
    """One row per gate, and one if agreement could not be judged. `later`: validated after export."""
    subject, named = validation.subject, _named(validation.subject)
    open_agreement = validation.reasons and all(g.verdict is not Verdict.NOT_JUDGED for g in validation.gates)
    name = f"{subject}, validated again on {validation.images} images" if later else str(subject)
    verdict = f"{validation.verdict.value.upper()}{_assumed(validation)}"
    return table_of(
        f"{named}{', validated again' if later else ''}: {verdict}",
        GATES,
        [(*validation.gates, *([None] if open_agreement else []))],
        remarks=[*gate_reasons(validation.gates), *_remarks(validation, date)],
        suite=gate_suite(name, subject, validation.gates, date=date, unjudged=validation.reasons),
    )


def again_table(subject: Subject, gates: Sequence[Gate], records: Sequence[str]) -> Table:
    """One row per gate that records decided again."""
    verdict = worst(gate.verdict for gate in gates).value.upper() if gates else "no gate is set"
    return table_of(
        f"{_named(subject)}, judged again: {verdict}",
        GATES,
        [gates],
        remarks=[
            *gate_reasons(gates),
            *(Remark(record, "from") for record in records),
            Remark(str(subject), "about"),
        ],
        suite=gate_suite(f"{subject}, judged again", subject, gates),
    )


def _assumed(validation: Validation) -> str:
    """The end of the first line if the preprocessing is assumed: the verdict holds only under it."""
    return " under assumed preprocessing (see --preprocessing)" if validation.assumed_preprocessing else ""


def _remarks(validation: Validation, date: str) -> Iterator[Remark]:
    for reason in validation.reasons:
        yield Remark(reason, "not judged", "open")
    if accuracy := validation.accuracy:
        change = f"{accuracy.original:.4f} -> {accuracy.engine:.4f}"
        right = validation.right
        counts = (
            f"; right: both {right.both}, only the original {right.only_original}, "
            f"only the engine {right.only_engine}, neither {right.neither}"
            if right
            else ""
        )
        yield Remark(f"top-1 accuracy {change} (McNemar p = {accuracy.mcnemar:.3g}){counts}")
    if validation.nonfinite:
        yield Remark(f"{validation.nonfinite} images with logits that are not finite", tone="bad")
    noise = "" if validation.logit_sqnr_db is None else f", logit SQNR {validation.logit_sqnr_db:.1f} dB"
    yield Remark(f"{validation.images} images of {validation.image_set}{noise}{_flips(validation)}")
    if (floor := validation.floor) and (floor.flips or floor.divergence_nats > _NO_NOISE):
        yield Remark(
            f"the original's FP32 graph on {floor.runtime} changes {floor.flips} top-1 classes and "
            f"diverges by {floor.divergence_nats:.2g} nats",
            "noise floor",
        )
    yield _of(validation.subject, "validated", date)


def _flips(validation: Validation) -> str:
    """The number of flips, and how sure the original was of the surest of them."""
    if not validation.flips:
        return ""
    text = f", {len(validation.flips)} top-1 classes changed"
    found = validation.outcomes
    if found is None or found.margins is None:
        return text
    of_flips = [m for a, b, m in zip(found.original, found.engine, found.margins, strict=True) if a != b]
    return f"{text}, by a margin of at most {max(of_flips, default=0):.2g}"


def flip_table(flips: Sequence[Flip], labels: Sequence[str], *, whole: bool) -> Table:
    """Images whose top-1 class changed; classes without labels are shown by index."""

    def names(classes: Sequence[int]) -> str:
        return ", ".join(labels[c] if labels else str(c) for c in (classes if whole else classes[:1]))

    shown, more = first_of(flips, _FLIPS_SHOWN, whole=whole)
    columns: tuple[Column[Flip], ...] = (
        Column("image", lambda flip: flip.image),
        Column("label", lambda flip: "" if flip.label is None else names([flip.label])),
        Column("original", lambda flip: names(flip.original)),
        Column("now", lambda flip: names(flip.engine)),
    )
    return table_of(f"{len(flips)} images whose top-1 class changed", columns, [shown], remarks=more)


def self_test_table(tested: SelfTest, *, date: str = "") -> Table:
    """One row per check: does this runtime compute what was validated at export?"""
    columns: tuple[Column[Check | None], ...] = (
        Column("check", lambda c: c.name if c else "images with non-finite logits"),
        Figures("value", lambda c: _with_unit(c.value, c.unit) if c else str(tested.nonfinite)),
        Figures(
            "limit",
            lambda c: (
                f"{'at least' if c.at_least else 'at most'} {_with_unit(c.limit, c.unit)}"
                if c
                else "at most 0"
            ),
        ),
        Figures("margin", lambda c: _with_unit(c.margin, "dB", signed=True) if c else "-"),
        Column("verdict", lambda c: judged((c.verdict if c else Verdict.FAILED).value), fixed=True),
    )
    return table_of(
        f"{_named(tested.subject)}, self-test: {tested.verdict.value.upper()}",
        columns,
        [(*tested.checks, *([None] if tested.nonfinite else []))],
        remarks=_self_test_remarks(tested, date),
        suite=_suite(f"self-test of {tested.subject}", tested.subject, date),
    )


def _self_test_remarks(tested: SelfTest, date: str) -> Iterator[Remark]:
    if tested.verdict is Verdict.FAILED:
        worst = ", ".join(f"{name} ({ratio:.1f} dB)" for name, ratio in tested.worst_images)
        yield Remark(worst, "worst images")
    if tested.verdict is Verdict.INCONCLUSIVE:
        yield Remark(f"{tested.images} images are too few to decide; use 100 or more.", tone="open")
    yield Remark(f"{tested.images} images of {tested.image_set}")
    yield _of(tested.subject, "tested", date)
    yield Remark("Compared with the graph's logits at export; for accuracy, see cnnx inspect.")


def _with_unit(value: float, unit: str, *, signed: bool = False) -> str:
    """A value in decibels or nats."""
    return f"{value:{'+' if signed else ''}{'.1f' if unit == 'dB' else '.2g'}} {unit}"


def _named(subject: Subject) -> str:
    return f"{subject.network} {subject.precision}"


def _of(subject: Subject, how: str, date: str) -> Remark:
    return Remark(f"{subject}{f', {date}' if date else ''}", how)


def gate_suite(
    name: str, subject: Subject, gates: Sequence[Gate], *, date: str = "", unjudged: Sequence[str] = ()
) -> Suite:
    """The suite of gates: a case for each, and one if agreement could not be judged (`unjudged`: why)."""
    classname = f"cnnx.{subject.network}.{subject.precision}"
    cases = [
        gate_case(gate, classname, unjudged if gate.verdict is Verdict.NOT_JUDGED else ()) for gate in gates
    ]
    if unjudged and all(gate.verdict is not Verdict.NOT_JUDGED for gate in gates):
        cases.append(Case("agreement", classname, "open", Verdict.NOT_JUDGED.value, tuple(unjudged)))
    return Suite(name, classname, date, tuple(cases))


def _suite(name: str, subject: Subject, date: str) -> Suite:
    return Suite(name, f"cnnx.{subject.network}.{subject.precision}", date)
