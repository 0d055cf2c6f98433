"""The cards at the top of a report: the answer for each subject."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cnnx.agreement import Validation, validation_from_dict
from cnnx.gates import KINDS, Estimate
from cnnx.pipeline.judge.costs import energy_estimate, invalid, memory_of
from cnnx.record import Record, Subject
from cnnx.report.document import Card, CardFigure
from cnnx.report.table import TONES, Tone
from cnnx.report.words import duration, ends, graph_words, scaled

_MIB = 2**20
_MS = 1e-6
_BESIDE = ("network", "runtime", "device")


@dataclass(frozen=True, slots=True)
class Holding:
    """What is known of a bundle beside its records.

    Attributes:
        records: its verified records, oldest first.
        sizes: digest of the graph and of each engine -> bytes of its file.
        int8_share: share of the MACs in INT8; None if the bundle is not at hand.
    """

    records: tuple[Record, ...]
    sizes: dict[str, int]
    int8_share: float | None = None


def cards_of(holdings: Sequence[Holding]) -> Iterator[Card]:
    """A card for each subject that has a record: what was judged first, then the originals.

    A comparison of tensors makes none, as the engine that it was of is not the bundle's.
    """
    every = [record for holding in holdings for record in holding.records]
    groups: dict[tuple[str, ...], list[Record]] = {}
    held: dict[tuple[str, ...], Holding] = {}
    for holding in holdings:
        for record in (each for each in holding.records if each.kind != "tensors"):
            groups.setdefault(_key(record.subject), []).append(record)
            held.setdefault(_key(record.subject), holding)
    for key in sorted(groups, key=lambda key: groups[key][0].subject.artefact == "original"):
        own = sorted(groups[key], key=lambda record: record.date)
        yield _card(own[-1].subject, own, every, held[key])


def _key(subject: Subject) -> tuple[str, ...]:
    """One file on one device; an original is the same for all bundles that were exported from it."""
    names = ("network", "artefact", "digest", "precision", "runtime", "device", "engine")
    return tuple(getattr(subject, name) for name in names)


def _card(subject: Subject, own: Sequence[Record], every: Sequence[Record], holding: Holding) -> Card:
    validations = [
        validation_from_dict(each.result) for each in own if each.kind in ("validation", "judgement")
    ]
    verdict = validations[-1].verdict.value if validations else "not validated"
    if any(each.result["verdict"] == "failed" for each in _self_tests(own)):
        verdict = "self-test failed"
    tone: Tone | None = "bad" if verdict == "self-test failed" else TONES.get(verdict, "open")
    if subject.artefact == "original":
        verdict, tone = "original", None
    where = f"{subject.artefact} {subject.engine}" if subject.engine else subject.artefact
    figures = (
        *(_agreement(validations[-1]) if validations else ()),
        *_self_test(own),
        *_latency(own),
        *_ratio(subject, own, every),
        *_memory(own),
        *_cameras(own),
        *_energy(own),
        *_soak(own),
        *_size(subject, holding),
    )
    return Card(
        f"{subject.network} {subject.precision}",
        f"{where} on {subject.runtime}, {subject.device}",
        verdict,
        tone,
        figures,
    )


def _agreement(validation: Validation) -> Iterator[CardFigure]:
    if accuracy := validation.accuracy:
        yield CardFigure("top-1 accuracy", f"{accuracy.engine:.2%}", f"original {accuracy.original:.2%}")
    for gate in validation.gates:
        if (
            gate.name in (KINDS["top1_agreement"].name, KINDS["clear_agreement"].name)
            and gate.value is not None
        ):
            detail = f"{gate.interval.low:.4f} .. {gate.interval.high:.4f}" if gate.interval else ""
            shown = gate.threshold == 0
            limit = "" if shown else f", at least {gate.threshold:g}"
            tone = None if shown else TONES.get(gate.verdict.value)
            yield CardFigure(gate.name, f"{gate.value:.4f}", f"{detail}{limit}", tone)
    if found := validation.divergence:
        yield CardFigure("divergence", f"{found.mean:.2g} nats", f"{validation.images} images")


def _self_test(own: Sequence[Record]) -> Iterator[CardFigure]:
    for record in _self_tests(own):
        verdict = record.result["verdict"]
        yield CardFigure("self-test", verdict, f"{record.result['images']} images", TONES.get(verdict))


def _self_tests(own: Iterable[Record]) -> list[Record]:
    """The newest self-test, if there is one."""
    return [each for each in own if each.kind == "selftest"][-1:]


def _smallest(own: Iterable[Record]) -> Record | None:
    """The benchmark at the smallest batch; the fastest of those that differ in CUDA graphs."""
    newest = {_conditions(record): record for record in own if record.kind == "benchmark"}
    return min(newest.values(), key=_batch_and_median, default=None)


def _batch_and_median(record: Record) -> tuple[int, float]:
    return record.result["latency"]["batch"], record.result["figures"]["p50_ns"] or float("inf")


def _latency(own: Sequence[Record]) -> Iterator[CardFigure]:
    record = _smallest(own)
    if record is None:
        return
    figures, batch = record.result["figures"], record.result["latency"]["batch"]
    conditions = ", ".join(filter(None, (f"batch {batch}", graph_words(record.result))))
    interval = ends(figures.get("p50_interval"), _MS, 3)
    reason = invalid(record.result)
    detail = f"{conditions}; {reason}" if reason else f"{conditions}, {interval}"
    median = "-" if figures["p50_ns"] is None else f"{scaled(figures['p50_ns'], _MS, 3)} ms"
    yield CardFigure("latency p50", median, detail, "bad" if reason else None)
    rate = figures["images_per_second"]
    yield CardFigure("images per second", f"{rate:,.{0 if rate >= 100 else 1}f}", f"batch {batch}")


def _ratio(subject: Subject, own: Sequence[Record], every: Sequence[Record]) -> Iterator[CardFigure]:
    """Latency in INT8 over that in FP16, where both were measured alike."""
    record = _smallest(own)
    if subject.precision != "int8" or record is None:
        return
    fp16 = [each for each in every if each.kind == "benchmark" and each.subject.precision == "fp16"]
    alike = [each for each in fp16 if _alike(record, each) and each.result["figures"]["p50_ns"]]
    ours = record.result["figures"]["p50_ns"]
    if not alike or not ours:
        return
    alike = [each for each in alike if not invalid(each.result)]
    if invalid(record.result) or not alike:
        yield CardFigure("INT8 / FP16 latency", "-", "a measurement is invalid", "open")
        return
    turns = [each for each in alike if _together(each) and _together(each) == _together(record)]
    other = (turns or alike)[-1].result["figures"]
    theirs = other["p50_ns"]
    details = (
        _ratio_ends(record.result["figures"], other),
        "taking turns" if turns else "",
        "no forecast for a GPU" if record.result["remark"] else "",
    )
    yield CardFigure("INT8 / FP16 latency", f"{ours / theirs:.2f}", ", ".join(filter(None, details)))


def _ratio_ends(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    """Quotients of the ends of both 95 % intervals, wider than an interval of the ratio; empty if unknown."""
    one, other = ours.get("p50_interval"), theirs.get("p50_interval")
    if not one or not other or other["low"] <= 0:
        return ""
    return f"{one['low'] / other['high']:.2f} .. {one['high'] / other['low']:.2f}"


def _alike(one: Record, other: Record) -> bool:
    same_subject = all(getattr(one.subject, key) == getattr(other.subject, key) for key in _BESIDE)
    return same_subject and _conditions(one) == _conditions(other)


def _conditions(record: Record) -> tuple[Any, ...]:
    conditions = record.result.get("conditions") or {}
    return record.result["latency"]["batch"], record.result["figures"]["of"], conditions.get("cuda_graph")


def _together(record: Record) -> str:
    return str((record.result.get("conditions") or {}).get("together") or "")


def _memory(own: Sequence[Record]) -> Iterator[CardFigure]:
    record = _smallest(own)
    found = memory_of(record.result.get("memory") or {}) if record else ""
    if isinstance(found, tuple):
        yield CardFigure("memory", f"{found[1] / _MIB:.1f} MiB", found[0])


def _cameras(own: Sequence[Record]) -> Iterator[CardFigure]:
    """How many cameras fit, at the smallest batch and for each frame rate."""
    found = [each.result for each in own if each.kind == "streams" and each.result["cameras"] is not None]
    for fps in dict.fromkeys(result["fps"] for result in found):
        result = min((each for each in found if each["fps"] == fps), key=lambda each: int(each["batch"]))
        cameras, asked, batch = result["cameras"], result["asked"], result["batch"]
        more = ", or more" if cameras == asked else ""
        valid = all(count["validity"]["valid"] for count in result["counts"])
        detail = ", ".join(filter(None, (f"batch {batch}", graph_words(result), "" if valid else "invalid")))
        yield CardFigure(f"cameras at {fps:g} fps", f"{cameras}{more}", detail, None if valid else "bad")


def _soak(own: Sequence[Record]) -> Iterator[CardFigure]:
    """How far the median moved from the first part of the soak to the last, at the smallest batch."""
    soaks = [record.result for record in own if record.kind == "soak"]
    result = min(soaks, key=lambda each: int(each["batch"]), default=None)
    if result is None:
        return
    drift, took = result["drift"], duration(result["seconds"])
    cut = "" if result["ended"] == "complete" else f" of {duration(result['asked_s'])}"
    conditions = ", ".join(filter(None, (f"batch {result['batch']}", graph_words(result), f"{took}{cut}")))
    value = f"{drift['ends']:+.1%}" if drift else "-"
    yield CardFigure("drift of p50 in the soak", value, conditions, "open" if cut else None)


def _energy(own: Sequence[Record]) -> Iterator[CardFigure]:
    used = [record for record in own if record.kind == "energy"]
    record = min(used, key=lambda each: each.result["batch"], default=None)
    if record is None:
        return
    found, batch = energy_estimate(record.result), f"batch {record.result['batch']}"
    if isinstance(found, Estimate) and found.interval:
        interval = f"{found.interval.low:.2f} .. {found.interval.high:.2f}"
        yield CardFigure("energy per image", f"{found.value:.2f} mJ", f"{batch}, {interval}")
    else:
        yield CardFigure("energy per image", "-", f"{batch}; {found}", "open")


def _size(subject: Subject, holding: Holding) -> Iterator[CardFigure]:
    if subject.artefact == "original":
        return
    if (size := holding.sizes.get(subject.digest)) is not None:
        yield CardFigure(f"size of the {subject.artefact}", f"{size / _MIB:.2f} MiB")
    if subject.precision == "int8" and holding.int8_share is not None:
        yield CardFigure("MACs in INT8", f"{holding.int8_share:.1%}")
