"""What each command shows of its result, as tables, facts and remarks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from cnnx.pipeline.plain import plain
from cnnx.report.table import Block, Facts, Remark
from cnnx.report.tables.bundle import engine_table, lint_blocks, precision_table, unverified_blocks
from cnnx.report.tables.costs import layer_table, memory_table, prediction, unmeasured_table
from cnnx.report.tables.energy import energy_table
from cnnx.report.tables.latency import latency_table
from cnnx.report.tables.verdicts import flip_table, self_test_table, verdict_table
from cnnx.report.words import Run, names_of, shape

if TYPE_CHECKING:
    from cnnx.agreement import Validation
    from cnnx.bundle.manifest import Manifest, TensorInfo
    from cnnx.pipeline.bench.bench import BenchResult
    from cnnx.pipeline.bench.energy_use import EnergyUse
    from cnnx.pipeline.bench.measurement import Measurement, Unmeasured
    from cnnx.pipeline.export.result import ExportResult
    from cnnx.pipeline.inspect import Inspection
    from cnnx.pipeline.validate import ValidateResult
    from cnnx.record import Subject

_MIB = 2**20


def export_blocks(result: ExportResult, *, verbose: bool) -> Iterator[Block]:
    """`cnnx export`: the verdict, what it rests on, what it costs, where the bundle is."""
    manifest = result.bundle.manifest
    if result.unchanged:
        yield Remark(
            f"Unchanged: this bundle was made from exactly these inputs and judged on {result.judged[:19]}. "
            "Test what runs here with cnnx validate, measure it again with cnnx bench."
        )
    yield from _verdict(result.validation, result.bundle.labels, verbose=verbose)
    if result.candidates or result.repair:
        from cnnx.report.tables.calibration import candidate_table, repair_block

        if result.candidates:
            yield candidate_table(plain(result.candidates), manifest.images["selection"].images)
        if result.repair:
            yield repair_block(result.repair)
    if result.measurements:
        yield from _costs(_runs(result.measurements, [one.subject for one in result.measurements]))
    if result.engines:
        yield engine_table(result.engines)
    yield _summary(result)
    yield from (Remark(note, "note", "open") for note in (*result.over_budget, *result.notes))
    yield from lint_blocks(manifest.warnings, whole=verbose)


def _verdict(validation: Validation, labels: Sequence[str], *, verbose: bool) -> Iterator[Block]:
    yield verdict_table(validation)
    if validation.flips:
        yield flip_table(validation.flips, labels, whole=verbose)


def _summary(result: ExportResult) -> Facts:
    bundle, manifest = result.bundle, result.bundle.manifest
    share = "" if result.int8_share is None else f" ({result.int8_share:.1%} of the MACs)"
    rows = {
        "bundle": f"{bundle.path} ({bundle.model.stat().st_size / _MIB:.2f} MiB of graph)",
        "weights": manifest.weights["origin"],
        "layers": _placement(manifest) + share,
        **{role: f"{listed.images} images of {listed.name}" for role, listed in manifest.images.items()},
        "took": f"{result.seconds:.1f} s, at most {result.peak_bytes / _MIB:,.0f} MiB",
    }
    return Facts(tuple(rows.items()))


def _placement(manifest: Manifest) -> str:
    counts = Counter(layer["precision"].upper() for layer in manifest.layers)
    return ", ".join(f"{count} in {precision}" for precision, count in sorted(counts.items()))


def inspection_blocks(inspection: Inspection, *, verbose: bool) -> Iterator[Block]:
    """`cnnx inspect`: every layer with its precision and the reason, engines, verdicts."""
    manifest = inspection.bundle.manifest
    rows = {
        "bundle": str(inspection.bundle.path),
        "network": f"{manifest.recipe['title'] or manifest.recipe['name']}, {manifest.precision}",
        "verdict": inspection.verdict,
        **({"judged anew": "; ".join(inspection.judgements)} if inspection.judgements else {}),
        "self-test": "; ".join(inspection.self_tests) or "not run yet: cnnx validate",
        "weights": f"{manifest.weights['origin']} ({manifest.weights['digest'][:12]})",
        "input": _tensors(manifest.inputs),
        "output": _tensors(manifest.outputs),
        **{
            role: f"{listed.images} images of {listed.name}: {listed.source}"
            for role, listed in manifest.images.items()
        },
        **{
            f"memory at batch {batch}": prediction(plain(predicted))
            for batch, predicted in inspection.predicted.items()
        },
        "made by": ", ".join(f"{name} {version}" for name, version in manifest.versions.items()),
        "hashes": "all intact",
    }
    yield Facts(tuple(rows.items()))
    yield precision_table(inspection.layers, manifest.layers)
    if inspection.engines:
        yield engine_table(inspection.engines)
    yield from lint_blocks(manifest.warnings, whole=verbose)
    yield from unverified_blocks(inspection.unverified, whole=verbose)


def _tensors(tensors: Sequence[TensorInfo]) -> str:
    return ", ".join(f"{t.name} {t.type} {shape(t.shape)} {t.layout}" for t in tensors)


def validate_blocks(result: ValidateResult, *, verbose: bool) -> Iterator[Block]:
    """`cnnx validate`: the self-test, or the verdict on other images."""
    if result.self_test:
        yield self_test_table(result.self_test)
    if result.validation:
        yield from _verdict(result.validation, result.bundle.labels, verbose=verbose)


def bench_blocks(result: BenchResult, *, verbose: bool) -> Iterator[Block]:
    """`cnnx bench`: figures, memory, layers, energy, and what could not be measured."""
    runs = _runs(result.measurements, result.subjects)
    if runs:
        yield from _costs(runs)
    if result.unmeasured:
        yield _unmeasured("Not measured", result.unmeasured, result.subjects)
    yield from (layer_table(run, whole=verbose, hint=" (--verbose)") for run in runs if run.result["layers"])
    for advice in result.advice:
        yield Remark(str(advice), tone="good" if advice.recommended == "int8" else "open")
    yield from energy_blocks(result)


def energy_blocks(result: BenchResult) -> Iterator[Block]:
    """All passes of a benchmark, those that failed with their reason, and INT8 beside FP16."""
    if runs := _runs(result.energy, result.subjects):
        yield energy_table(runs, rails=len(runs) == 1)
    if result.energy_unmeasured:
        yield _unmeasured("Energy not measured", result.energy_unmeasured, result.subjects)
    yield from (Remark(str(ratio)) for ratio in result.energy_ratios)
    if result.energy_ratios:
        yield Remark(
            "In brackets the ends of both 95 % intervals divided, wider than an interval of the ratio."
        )


def _costs(runs: Sequence[Run]) -> tuple[Block, ...]:
    return latency_table(runs), memory_table(runs)


def _runs(found: Sequence[Measurement | EnergyUse], among: Sequence[Subject]) -> list[Run]:
    """Results as their records hold them, by names that tell them from all subjects beside them."""
    short, full = names_of(among), names_of(among, network=True)
    return [Run(short[one.subject], full[one.subject], one.as_dict()) for one in found]


def _unmeasured(title: str, rows: Sequence[Unmeasured], among: Sequence[Subject]) -> Block:
    full = names_of(among, network=True)
    return unmeasured_table(title, [(full[row.subject], row.as_dict()) for row in rows])
