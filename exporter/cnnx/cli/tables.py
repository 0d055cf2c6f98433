"""Results as tables. Nothing is computed here that a report would need."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.markup import escape
from rich.table import Table

from cnnx.cli.columns import titled
from cnnx.cli.measurements import prediction, print_measurements
from cnnx.report.tables import with_unit
from cnnx.stats import Verdict

if TYPE_CHECKING:
    from cnnx.agreement import Flip, Validation
    from cnnx.bundle.engine import Engine
    from cnnx.bundle.manifest import Manifest
    from cnnx.graph.inspect import Layer
    from cnnx.pipeline.export.result import ExportResult
    from cnnx.pipeline.inspect import Inspection
    from cnnx.pipeline.networks import Architecture, Network
    from cnnx.pipeline.search.method import Candidate
    from cnnx.quant.repair import Repair
    from cnnx.record import LayerRow, Unverified
    from cnnx.selftest import SelfTest

_COLORS = {
    Verdict.PASSED: "green",
    Verdict.FAILED: "red",
    Verdict.INCONCLUSIVE: "yellow",
    Verdict.NOT_JUDGED: "yellow",
}
_FLIPS_SHOWN = 5
_MIB = 2**20


def _verdict(verdict: Verdict) -> str:
    return f"[{_COLORS[verdict]}]{verdict.value}[/]"


_COUNTS = ("parameters", "multiply-\nadds", "top-1 %", "top-5 %")
_NETWORK = ("name", "family", "input", *_COUNTS, "protocol", "weights")


def _fitting(
    out: Console, make: Callable[[Sequence[str]], Table], columns: Sequence[str], optional: Sequence[str]
) -> Table:
    """The table with as many columns as the terminal has room for; those of `optional` go first to last."""
    for dropped in range(len(optional) + 1):
        table = make([column for column in columns if column not in optional[:dropped]])
        if out.measure(table, options=out.options.update(max_width=1000)).maximum <= out.width:
            break
    return table


def print_networks(out: Console, networks: Sequence[Network]) -> None:
    """`cnnx list`."""
    if not networks:
        out.print("No network fits these filters; cnnx list alone shows all.")
        return
    optional = ("family", "top-5 %", "input", "protocol")
    out.print(_fitting(out, partial(_network_table, networks), _NETWORK, optional))


def _network_table(networks: Sequence[Network], columns: Sequence[str]) -> Table:
    table = titled(f"{len(networks)} network{'s' if len(networks) != 1 else ''}", *columns, right=_COUNTS)
    for position, network in enumerate(networks):
        if position and network.family != networks[position - 1].family:
            table.add_section()
        accuracy = network.accuracy
        figures = (accuracy.top1, accuracy.top5) if accuracy else (0, 0)
        cells = (
            network.name,
            network.family,
            _shape(network.input_shape),
            _short_count(network.parameters),
            _short_count(network.multiply_adds),
            *(f"{figure:.2f}" if figure else "" for figure in figures),
            accuracy.protocol if accuracy else "",
            network.weights,
        )
        table.add_row(*(cell for column, cell in zip(_NETWORK, cells, strict=True) if column in columns))
    return table


def _short_count(count: int) -> str:
    """Three or four digits and a unit: "25.6 M"."""
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= size:
            return f"{count / size:#.3g}".rstrip(".") + f" {unit}"
    return str(count) if count else ""


_ARCHITECTURE = ("layer", "op", "output", "memory KiB", "parameters", "multiply-adds")


def print_architecture(out: Console, architecture: Architecture) -> None:
    """`cnnx show`."""
    out.print(_fitting(out, partial(_architecture_table, architecture), _ARCHITECTURE, ("op", "memory KiB")))


def _architecture_table(architecture: Architecture, columns: Sequence[str]) -> Table:
    table = titled(
        f"{architecture.title}, input {_shape(architecture.input_shape)}", *columns, right=_ARCHITECTURE[2:]
    )
    if "memory KiB" in columns:
        table.caption = (
            "Memory: what a layer newly writes for one picture. A runtime uses memory again and needs less."
        )
        table.caption_justify = "left"
    *layers, total = (
        [cell for column, cell in zip(_ARCHITECTURE, row, strict=True) if column in columns]
        for row in _architecture_rows(architecture)
    )
    for row in layers:
        table.add_row(*map(escape, row))
    table.add_section()
    table.add_row(*total)
    return table


def architecture_markdown(architecture: Architecture) -> str:
    """`cnnx show --markdown`."""
    lines = [_ARCHITECTURE, ("---", "---", "---:", "---:", "---:", "---:"), *_architecture_rows(architecture)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"**{architecture.title}**, input {_shape(architecture.input_shape)}\n\n{table}"


def _architecture_rows(architecture: Architecture) -> list[tuple[str, ...]]:
    """Cells of each layer, and of the totals at the end."""

    def cells(row: LayerRow | Architecture) -> tuple[str, ...]:
        memory = f"{row.activation_bytes / 1024:,.1f}" if row.activation_bytes else ""
        return memory, *(f"{count:,}" if count else "" for count in (row.parameters, row.multiply_adds))

    rows = [
        (layer.name, layer.op, _shape(layer.output_shape), *cells(layer)) for layer in architecture.layers
    ]
    return [*rows, ("total", "", "", *cells(architecture))]


def print_export(out: Console, result: ExportResult, *, verbose: bool) -> None:
    """`cnnx export`: the verdict, what it rests on, what it costs, where the bundle is."""
    manifest = result.bundle.manifest
    if result.unchanged:
        out.print(
            f"Unchanged: this bundle was made from exactly these inputs and judged on {result.judged[:19]}. "
            "Test what runs here with cnnx validate, measure it again with cnnx bench."
        )
    print_validation(out, result.validation, result.bundle.labels, verbose=verbose)
    if result.candidates:
        out.print(candidate_table(result.candidates, manifest.images["selection"].images))
    if result.repair:
        _print_repair(out, result.repair)
    if result.measurements:
        print_measurements(out, result.measurements)
    if result.engines:
        print_engines(out, result.engines)
    out.print(_summary(result, manifest))
    for note in (*result.over_budget, *result.notes):
        out.print(f"[yellow]note:[/] {escape(note)}", soft_wrap=True)
    _print_warnings(out, manifest, verbose=verbose)


def candidate_table(candidates: Sequence[Candidate], images: int) -> Table:
    """What a method was chosen from."""
    title = f"Methods on {images} selection pictures; the first was taken"
    columns = ("method", "divergence", "top-1 agreement", "top-5 agreement", "SQNR dB")
    table = titled(title, *columns, right=columns[1:])
    for candidate in candidates:
        likeness = candidate.likeness
        noise = "-" if likeness.logit_sqnr_db is None else f"{likeness.logit_sqnr_db:.1f}"
        table.add_row(
            candidate.method,
            f"{likeness.divergence:.5f}",
            f"{likeness.top1_agreement:.4f}",
            f"{likeness.top5_agreement:.4f}",
            noise,
        )
    return table


def _print_repair(out: Console, repair: Repair) -> None:
    change = (
        f"divergence {repair.before.distance:.5f} -> {repair.after.distance:.5f} in {repair.tried} trials"
    )
    if not repair.put_back:
        found = (
            "nothing had to be put back" if repair.before.passes else "even FP16 in every layer would not do"
        )
        out.print(f"repair: {'no trials were left, give more' if repair.exhausted else found}; {change}")
        return
    title = f"Put back into FP16 by repair: {change}"
    table = titled(title, "layer", "alone in INT8", "spared", right=("alone in INT8", "spared"))
    for each in repair.put_back:
        spared = "-" if each.spared is None else f"{each.spared:.5f}"
        table.add_row(escape(each.layer), f"{each.alone:.5f}", spared)
    out.print(table)
    out.print("alone: nats of divergence with this layer alone in INT8; spared: what it would add now")
    if not repair.after.passes:
        out.print("[yellow]The selection pictures would still not pass: give more --repair-trials.[/]")


def _summary(result: ExportResult, manifest: Manifest) -> Table:
    table = Table.grid(padding=(0, 2))
    rows = {
        "bundle": f"{result.bundle.path} ({result.bundle.model.stat().st_size / _MIB:.2f} MiB of graph)",
        "weights": manifest.weights["origin"],
        "layers": _placement(manifest)
        + ("" if result.int8_share is None else f" ({result.int8_share:.1%} of the multiply-adds)"),
        **{role: f"{listed.images} pictures of {listed.name}" for role, listed in manifest.images.items()},
        "took": f"{result.seconds:.1f} s, at most {result.peak_bytes / _MIB:,.0f} MiB",
    }
    for name, value in rows.items():
        table.add_row(f"[bold]{name}[/]", escape(value))
    return table


def _placement(manifest: Manifest) -> str:
    counts: dict[str, int] = {}
    for layer in manifest.layers:
        counts[layer["precision"]] = counts.get(layer["precision"], 0) + 1
    return ", ".join(f"{count} in {precision.upper()}" for precision, count in sorted(counts.items()))


def print_validation(out: Console, validation: Validation, labels: Sequence[str], *, verbose: bool) -> None:
    """The rates, their gates, the verdict and the images that flipped."""
    title = f"{validation.subject.network} {validation.subject.precision}: {validation.verdict.value.upper()}"
    table = titled(title, "rate", "value", "95 % interval", "threshold", "verdict", right=("value",))
    for gate in validation.gates:
        verdict = _verdict(gate.verdict)
        if gate.decides_at:
            verdict += f" (decided at {gate.decides_at:,} images)"
        interval = f"{gate.interval.low:.4f} .. {gate.interval.high:.4f}"
        table.add_row(gate.name, f"{gate.value:.4f}", interval, f"{gate.threshold:g}", verdict)
    out.print(table)
    for reason in validation.reasons:
        out.print(f"[yellow]not judged:[/] {escape(reason)}")
    if accuracy := validation.accuracy:
        change = f"{accuracy.original:.4f} -> {accuracy.engine:.4f}"
        out.print(f"top-1 accuracy {change} (McNemar p = {accuracy.mcnemar:.3g})")
    noise = "" if validation.logit_sqnr_db is None else f", logit SQNR {validation.logit_sqnr_db:.1f} dB"
    if validation.nonfinite:
        out.print(f"[red]{validation.nonfinite} images gave logits that are not finite[/]")
    out.print(f"{validation.images} images of {escape(validation.image_set)}{noise}", soft_wrap=True)
    out.print(f"judged: {escape(str(validation.subject))}", soft_wrap=True)
    _print_flips(out, validation.flips, labels, verbose=verbose)


def print_self_test(out: Console, tested: SelfTest) -> None:
    """Each check with its limit and margin, and the images that are furthest off where one failed."""
    title = f"{tested.subject.network} {tested.subject.precision}, self-test: {tested.verdict.value.upper()}"
    figures = ("value", "limit", "margin")
    table = titled(title, "check", *figures, "verdict", right=figures)
    for check in tested.checks:
        table.add_row(
            check.name,
            with_unit(check.value, check.unit),
            f"{'at least' if check.at_least else 'at most'} {with_unit(check.limit, check.unit)}",
            with_unit(check.margin, "dB", signed=True),
            _verdict(check.verdict),
        )
    out.print(table)
    if tested.nonfinite:
        out.print(f"[red]{tested.nonfinite} images gave logits that are not finite[/]")
    if tested.verdict is Verdict.FAILED:
        worst = ", ".join(f"{name} ({ratio:.1f} dB)" for name, ratio in tested.worst_images)
        out.print(f"furthest off: {escape(worst)}", soft_wrap=True)
    if tested.verdict is Verdict.INCONCLUSIVE:
        out.print(f"[yellow]{tested.images} images are too few to tell; 100 or more decide.[/]")
    out.print(f"{tested.images} images of {escape(tested.image_set)}", soft_wrap=True)
    out.print(f"tested: {escape(str(tested.subject))}", soft_wrap=True)
    out.print("Compared with the graph's own logits at export; accuracy is export's verdict (cnnx inspect).")


def _print_flips(out: Console, flips: Sequence[Flip], labels: Sequence[str], *, verbose: bool) -> None:
    if not flips:
        return
    shown = flips if verbose else flips[:_FLIPS_SHOWN]
    table = titled(f"{len(flips)} images whose first class changed", "image", "label", "original", "now")

    def names(classes: Sequence[int]) -> str:
        return ", ".join(labels[c] if labels else str(c) for c in (classes if verbose else classes[:1]))

    for flip in shown:
        label = "" if flip.label is None else names([flip.label])
        table.add_row(*map(escape, (flip.image, label, names(flip.original), names(flip.engine))))
    out.print(table)
    if len(shown) < len(flips):
        out.print(f"and {len(flips) - len(shown)} more (--verbose shows all)")


def print_engines(out: Console, engines: Sequence[Engine]) -> None:
    """Engines of a bundle, and what their builds remarked."""
    out.print(engine_table(engines))
    for engine in engines:
        for remark in engine.remarks:
            out.print(f"[yellow]{escape(engine.identity)}:[/] {escape(remark)}", soft_wrap=True)


def engine_table(engines: Sequence[Engine]) -> Table:
    """Engines of a bundle."""
    table = titled("Engines", "identity", "file", "precision", "layers in INT8", "SHA-256")
    for engine in engines:
        types = list(engine.layer_types.values())
        share = f"{types.count('int8')} of {len(types)} weighted"
        table.add_row(engine.identity, engine.file, engine.precision, share, engine.digest[:12])
    return table


def print_inspection(out: Console, inspection: Inspection, *, verbose: bool) -> None:
    """`cnnx inspect`: every layer with its precision and the reason, engines, verdicts."""
    manifest = inspection.bundle.manifest
    facts = Table.grid(padding=(0, 2))
    rows = {
        "bundle": str(inspection.bundle.path),
        "network": f"{manifest.recipe['title'] or manifest.recipe['name']}, {manifest.precision}",
        "verdict": inspection.verdict,
        **({"judged anew": "; ".join(inspection.judgements)} if inspection.judgements else {}),
        "self-test": "; ".join(inspection.self_tests) or "not run yet: cnnx validate",
        "weights": f"{manifest.weights['origin']} ({manifest.weights['digest'][:12]})",
        "input": ", ".join(f"{t.name} {t.type} {_shape(t.shape)} {t.layout}" for t in manifest.inputs),
        "output": ", ".join(f"{t.name} {t.type} {_shape(t.shape)} {t.layout}" for t in manifest.outputs),
        **{
            role: f"{listed.images} pictures of {listed.name}: {listed.source}"
            for role, listed in manifest.images.items()
        },
        **{
            f"memory at batch {batch}": prediction(predicted)
            for batch, predicted in inspection.predicted.items()
        },
        "made by": ", ".join(f"{name} {version}" for name, version in manifest.versions.items()),
        "hashes": "all intact",
    }
    for name, value in rows.items():
        facts.add_row(f"[bold]{name}[/]", escape(value))
    out.print(Group(facts, _layer_table(inspection.layers, manifest)))
    if inspection.engines:
        print_engines(out, inspection.engines)
    _print_warnings(out, manifest, verbose=verbose)
    _print_unverified(out, inspection.unverified, verbose=verbose)


def _print_unverified(out: Console, unverified: Sequence[Unverified], *, verbose: bool) -> None:
    """Records that say nothing about this bundle: damaged ones each, others counted."""
    for one in unverified:
        if verbose or one.record is None:
            what = "damaged" if one.record is None else "unverified"
            out.print(f"[yellow]{what}:[/] {escape(one.file)}: {escape(one.reason)}", soft_wrap=True)
    others = sum(one.record is not None for one in unverified)
    if others and not verbose:
        out.print(f"{others} unverified record{'s' * (others > 1)} not counted (--verbose shows them)")


def _layer_table(layers: Sequence[Layer], manifest: Manifest) -> Table:
    from cnnx.graph.inspect import int8_share

    share = int8_share(layers)
    plan: dict[str, Any] = {layer["node"]: layer for layer in manifest.layers}
    title = f"Layers, {share:.1%} of the multiply-adds in INT8"
    table = titled(title, "layer", "op", "data", "multiply-adds", "reason", right=("multiply-adds",))
    for layer in layers:
        reason = plan[layer.name]["reason"] if layer.name in plan else ""
        cost = f"{layer.multiply_adds:,}" if layer.multiply_adds else ""
        table.add_row(layer.name, layer.op, layer.data_type, cost, escape(reason))
    return table


def _shape(shape: Sequence[int | None]) -> str:
    return "x".join("N" if length is None else str(length) for length in shape)


def _print_warnings(out: Console, manifest: Manifest, *, verbose: bool) -> None:
    if not manifest.warnings:
        return
    if not verbose:
        count = len(manifest.warnings)
        out.print(f"{count} remark{'s' * (count > 1)} of the linter (--verbose shows them)")
        return
    table = titled("Remarks of the linter", "rule", "node", "remark", "mend")
    for warning in manifest.warnings:
        table.add_row(*(escape(warning[key]) for key in ("rule", "node", "message", "mend")))
    out.print(table)
