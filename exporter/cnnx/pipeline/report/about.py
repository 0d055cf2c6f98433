"""What a report says about the bundles themselves: layers, provenance and the machines that ran them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cnnx.bundle import Bundle
from cnnx.bundle.manifest import Manifest, TensorInfo, recipe_of
from cnnx.errors import BundleError
from cnnx.graph.inspect import Layer
from cnnx.machine.environment import Environment
from cnnx.preprocessing.words import described
from cnnx.record import Record
from cnnx.report.document import Section
from cnnx.report.table import Table
from cnnx.report.tables.bundle import engine_table, precision_table, provenance_table
from cnnx.report.tables.machine import environment_table
from cnnx.report.words import shape
from cnnx.schema import from_plain


def provenance(manifest: Manifest) -> dict[str, str]:
    """Where everything in a bundle comes from, in words."""
    reference = manifest.reference
    judged_by = {"judged by": f"{reference['origin']} ({reference['digest'][:12]})"} if reference else {}
    return {
        "weights": f"{manifest.weights['origin']} ({manifest.weights['digest'][:12]})",
        **judged_by,
        "preprocessing": _preprocessing(manifest),
        "input": _tensors(manifest.inputs),
        "output": _tensors(manifest.outputs),
        **({"notes": " ".join(manifest.notes)} if manifest.notes else {}),
        **{
            role: f"{listed.images} images of {listed.name}: {listed.source}"
            for role, listed in manifest.images.items()
        },
        "versions": ", ".join(f"{name} {version}" for name, version in manifest.versions.items()),
    }


def _preprocessing(manifest: Manifest) -> str:
    recipe = recipe_of(manifest)
    words = described(recipe.preprocessing, recipe.input.shape, recipe.input_format)
    return f"assumed, not stated: {words}" if recipe.preprocessing.assumed else words


def _tensors(tensors: Sequence[TensorInfo]) -> str:
    return ", ".join(f"{t.name} {t.type} {shape(t.shape)} {t.layout}" for t in tensors)


def about_bundles(bundles: Sequence[tuple[Bundle, Sequence[Layer]]]) -> Iterator[Section]:
    """Layers with their precision and the reason, engines, and where everything comes from."""
    if not bundles:
        return
    yield Section(
        "Layers", tables=tuple(_layers(bundle, layers) for bundle, layers in bundles), background=True
    )
    engines = [(bundle, found) for bundle, _ in bundles if (found := bundle.engines())]
    if engines:
        yield Section("Engines", tables=tuple(engine_table(found) for _, found in engines), background=True)
    tables = tuple(
        provenance_table(
            f"{bundle.manifest.recipe['name']} {bundle.manifest.precision}", provenance(bundle.manifest)
        )
        for bundle, _ in bundles
    )
    yield Section("Provenance", tables=tables, background=True)


def _layers(bundle: Bundle, layers: Sequence[Layer]) -> Table:
    manifest = bundle.manifest
    return precision_table(layers, manifest.layers, name=f"{manifest.recipe['name']} {manifest.precision}")


def machines_of(records: Sequence[Record]) -> Iterator[Section]:
    """Each machine and installation, with the devices that it ran."""
    machines: dict[str, Environment] = {}
    devices: dict[str, dict[str, None]] = {}
    for record in records:
        if not record.environment:
            continue
        plain = record.environment
        machine = from_plain(Environment, plain, where=record.date, error=BundleError, at="environment")
        machines.setdefault(repr(machine), machine)
        devices.setdefault(repr(machine), {})[record.subject.device] = None
    if machines:
        tables = (environment_table(machine, tuple(devices[key])) for key, machine in machines.items())
        yield Section("Environment", tables=tuple(tables), background=True)
