"""Turns results into the tables, facts and remarks that commands show."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from cnnx.pipeline.plain import plain
from cnnx.pipeline.report.about import provenance
from cnnx.report.table import Block, Facts, Remark, Table
from cnnx.report.tables.bundle import engine_table, lint_blocks, precision_table, unverified_blocks
from cnnx.report.tables.costs import memory_table, prediction, unmeasured_table
from cnnx.report.tables.energy import energy_table
from cnnx.report.tables.latency import latency_table, latency_warnings
from cnnx.report.tables.layers import layer_table
from cnnx.report.tables.soak import soak_table
from cnnx.report.tables.streams import each_stream_table, streams_table
from cnnx.report.tables.trtexec import trtexec_table
from cnnx.report.tables.verdicts import again_table, flip_table, self_test_table, verdict_table
from cnnx.report.words import Run, names_of, scaled
from cnnx.stats import Verdict

if TYPE_CHECKING:
    from cnnx.agreement import Validation
    from cnnx.bundle.manifest import Manifest
    from cnnx.pipeline.bench.bench import BenchResult
    from cnnx.pipeline.bench.energy_use import EnergyUse
    from cnnx.pipeline.bench.load.soak import SoakMeasurement
    from cnnx.pipeline.bench.load.stream_counts import StreamsMeasurement
    from cnnx.pipeline.bench.measurement import Measurement, Unmeasured
    from cnnx.pipeline.export.result import ExportResult
    from cnnx.pipeline.inspect import Inspection
    from cnnx.pipeline.validate import ValidateResult
    from cnnx.record import Subject

_MIB = 2**20


def export_blocks(result: ExportResult, *, verbose: bool) -> Iterator[Block]:
    """`cnnx export`: verdict, warnings, figures, the bundle's path and the next command.

    `verbose` adds flipped images, all figures of the search, latency, memory and engines.
    """
    manifest = result.bundle.manifest
    runs = _runs(result.measurements, [one.subject for one in result.measurements])
    if result.unchanged:
        yield Remark(
            f"Unchanged: this bundle was made from the same inputs and validated on {result.judged[:19]}."
        )
    yield verdict_table(result.validation)
    if verbose and result.validation.flips:
        yield flip_table(result.validation.flips, result.bundle.labels, whole=True)
    yield from _search(result, verbose=verbose)
    if verbose:
        yield from _costs(runs) if runs else ()
        yield from [engine_table(result.engines)] if result.engines else ()
    else:
        yield from latency_warnings(runs)
        yield from engine_table(result.engines).remarks
    yield from (Remark(note, "note", "open") for note in result.notes)
    yield from lint_blocks(manifest.warnings, whole=verbose)
    yield _summary(result, runs, verbose=verbose)


def _search(result: ExportResult, *, verbose: bool) -> Iterator[Block]:
    """The choice of a method, and the repair: in full, or a line each and what still fails."""
    from cnnx.report.tables.calibration import candidate_table, repair_block

    if result.candidates:
        images = result.bundle.manifest.images["selection"].images
        if verbose:
            yield candidate_table(plain(result.candidates), images)
        else:
            chosen = result.candidates[0].method
            yield Remark(f"{chosen}, the best of {len(result.candidates)} on {images} images", "method")
    if result.repair:
        block = repair_block(result.repair)
        if verbose or not isinstance(block, Table):
            yield block
        else:
            yield Remark(block.title)
            yield from (remark for remark in block.remarks if remark.tone)


def validation_blocks(validation: Validation, labels: Sequence[str], *, verbose: bool) -> Iterator[Block]:
    """A verdict, and the images whose class changed."""
    yield verdict_table(validation)
    if validation.flips:
        yield flip_table(validation.flips, labels, whole=verbose)


def _summary(result: ExportResult, runs: Sequence[Run], *, verbose: bool) -> Facts:
    bundle, manifest = result.bundle, result.bundle.manifest
    share = "" if result.int8_share is None else f" ({result.int8_share:.1%} of the MACs)"
    size = f"{bundle.model.stat().st_size / _MIB:.2f} MiB"
    rows = {"layers": f"{_placement(manifest)}{share}, {bundle.model.name} {size}"}
    if verbose:
        sets = {role: f"{listed.images} images of {listed.name}" for role, listed in manifest.images.items()}
        took = f"{result.seconds:.1f} s, peak memory {result.peak_bytes / _MIB:,.0f} MiB"
        prepared = ", ".join(f"{key} {value}" for key, value in manifest.recipe["preprocessing"].items())
        rows |= {"weights": manifest.weights["origin"], "preprocessing": prepared, **sets, "time": took}
    elif runs:
        rows["latency"] = f"p50 {', '.join(map(_median, runs))}"
    if result.engines and not verbose:
        rows["engines"] = ", ".join(engine.identity for engine in result.engines)
    if source := bundle.source_sizes():
        rows["source"] = _sizes(source)
    rows |= {"bundle": str(bundle.path), "next": _next(result)}
    return Facts(tuple(rows.items()))


def _sizes(files: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {size / _MIB:.2f} MiB" for name, size in files.items())


def _median(run: Run) -> str:
    figures, batch = run.result["figures"], run.result["latency"]["batch"]
    return f"{scaled(figures['p50_ns'], 1e-6, 3)} ms ({run.name}{'' if batch == 1 else f', batch {batch}'})"


def _next(result: ExportResult) -> str:
    """The command to run after an export."""
    path = shlex.quote(str(result.bundle.path))
    verdict = result.validation.verdict
    if verdict is Verdict.FAILED and result.bundle.manifest.precision == "int8":
        return f"cnnx diagnose {path}"
    if verdict in (Verdict.FAILED, Verdict.INCONCLUSIVE):
        return f"cnnx validate {path} --validation-data FOLDER"
    return f"cnnx bench {path}" if result.engines else f"cnnx build {path}  # on the device"


def _placement(manifest: Manifest) -> str:
    counts = Counter(layer["precision"].upper() for layer in manifest.layers)
    return ", ".join(f"{count} in {precision}" for precision, count in sorted(counts.items()))


def inspection_blocks(inspection: Inspection, *, verbose: bool) -> Iterator[Block]:
    """`cnnx inspect`: verdicts, sources, every layer with its precision and the reason, engines."""
    manifest = inspection.bundle.manifest
    rows = {
        "bundle": str(inspection.bundle.path),
        "network": f"{manifest.recipe['title'] or manifest.recipe['name']}, {manifest.precision}",
        "verdict": inspection.verdict,
        **({"validated again": "; ".join(inspection.judgements)} if inspection.judgements else {}),
        "self-test": "; ".join(inspection.self_tests) or "not run yet (cnnx validate)",
        **provenance(manifest),
        **{
            f"memory at batch {batch}": prediction(plain(predicted))
            for batch, predicted in inspection.predicted.items()
        },
        **({"source": _sizes(inspection.source)} if inspection.source else {}),
        "hashes": "all verified",
    }
    yield Facts(tuple(rows.items()))
    yield precision_table(inspection.layers, manifest.layers)
    if inspection.engines:
        yield engine_table(inspection.engines)
    yield from lint_blocks(manifest.warnings, whole=verbose)
    yield from unverified_blocks(inspection.unverified, whole=verbose)


def validate_blocks(result: ValidateResult, *, verbose: bool) -> Iterator[Block]:
    """`cnnx validate`: the self-test, or the verdict on the given images."""
    if result.self_test:
        yield self_test_table(result.self_test)
    if result.validation:
        yield from validation_blocks(result.validation, result.bundle.labels, verbose=verbose)
    if result.again:
        yield again_table(result.again.subject, result.again.gates, result.again.records)
        yield from (Remark(note, "note", "open") for note in result.again.notes)


def bench_blocks(result: BenchResult, *, verbose: bool) -> Iterator[Block]:
    """`cnnx bench`: latency, memory, layers, energy, and failed measurements."""
    runs = _runs(result.measurements, result.subjects)
    if runs:
        yield from _costs(runs)
    if result.trtexec:
        rows = [row.as_dict() for row in result.trtexec.rows]
        yield trtexec_table(rows, result.trtexec.remarks)
    if result.unmeasured:
        yield _unmeasured("Not measured", result.unmeasured, result.subjects)
    yield from (layer_table(run, whole=verbose, hint=" (--verbose)") for run in runs if run.result["layers"])
    for advice in result.advice:
        yield Remark(str(advice), tone="good" if advice.recommended == "int8" else "open")
    yield from _loads(result, verbose=verbose)
    yield from energy_blocks(result)


def _loads(result: BenchResult, *, verbose: bool) -> Iterator[Block]:
    """Streams and soaks of a benchmark, and those that failed; `verbose` adds each stream."""
    if runs := _runs(result.streams, result.subjects):
        yield streams_table(runs)
        yield from [each_stream_table(runs)] if verbose else ()
    if result.streams_unmeasured:
        yield _unmeasured("Streams not measured", result.streams_unmeasured, result.subjects)
    if runs := _runs(result.soaks, result.subjects):
        yield soak_table(runs)
    if result.soaks_unmeasured:
        yield _unmeasured("Not soaked", result.soaks_unmeasured, result.subjects)


def energy_blocks(result: BenchResult) -> Iterator[Block]:
    """Energy of a benchmark, failed measurements, and INT8 compared with FP16."""
    if runs := _runs(result.energy, result.subjects):
        yield energy_table(runs, rails=len(runs) == 1)
    if result.energy_unmeasured:
        yield _unmeasured("Energy not measured", result.energy_unmeasured, result.subjects)
    yield from (Remark(str(ratio)) for ratio in result.energy_ratios)
    if result.energy_ratios:
        yield Remark(
            "In brackets: quotients of the ends of both 95 % intervals, wider than an interval of the ratio."
        )


def _costs(runs: Sequence[Run]) -> tuple[Block, ...]:
    return latency_table(runs), memory_table(runs)


def _runs(
    found: Sequence[Measurement | EnergyUse | StreamsMeasurement | SoakMeasurement], among: Sequence[Subject]
) -> list[Run]:
    """Results as records hold them, with names that are unique among all subjects."""
    short, full = names_of(among), names_of(among, network=True)
    return [Run(short[one.subject], full[one.subject], one.as_dict()) for one in found]


def _unmeasured(title: str, rows: Sequence[Unmeasured], among: Sequence[Subject]) -> Block:
    full = names_of(among, network=True)
    return unmeasured_table(title, [(full[row.subject], row.as_dict()) for row in rows])
