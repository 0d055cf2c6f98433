"""Explains the layer profile of a measurement, from the graph and what the builder reported of the engine."""

from __future__ import annotations

import dataclasses

from cnnx.bundle import Bundle
from cnnx.bundle.manifest import recipe_of
from cnnx.errors import CnnxError
from cnnx.graph.inspect import depthwise_nodes, layers
from cnnx.graph.load import load_model
from cnnx.machine.environment import Environment, detect
from cnnx.measure.roofline.explanation import Profiled, explain, refined
from cnnx.measure.roofline.peaks import Peaks, peaks_of
from cnnx.measure.roofline.work import Network
from cnnx.pipeline.bench.measurement import LayerProfile, Measurement
from cnnx.quant.methods import FILE
from cnnx.runtimes.evidence import kernels_in


def explained(measured: Measurement, bundle: Bundle) -> Measurement:
    """A measurement whose layer profile, if there is one, has an explanation."""
    if measured.layers is None:
        return measured
    network = network_of(bundle)
    profiled = Profiled(
        measured.layers.layers,
        kernels_in(bundle.evidence(measured.subject.engine), network.layers)
        if measured.subject.engine
        else (),
        network,
        measured.latency.batch,
        _inspected(bundle, measured.subject.engine),
        measured.latency,
        measured.conditions.cuda_graph,
        measured.subject.artefact == "engine",
    )
    peaks, unknown = _peaks(measured, bundle, detect())
    profile = LayerProfile(measured.layers.runs, refined(profiled), explain(profiled, peaks, unknown=unknown))
    return dataclasses.replace(measured, layers=profile)


def network_of(bundle: Bundle) -> Network:
    """What a bundle's graph and recipe have to do with its speed; no layers if the graph cannot be read."""
    manifest, recipe = bundle.manifest, recipe_of(bundle.manifest)
    network = Network(
        reasons={layer["node"]: layer["reason"] for layer in manifest.layers},
        precision=manifest.precision,
        pixels=manifest.inputs[0].type == "uint8",
        own_scales=recipe.calibration.method == FILE,
        floating_sums=recipe.precision.residual == "fp16",
    )
    try:
        model = load_model(bundle.model)
        rows = {layer.name: layer for layer in layers(model)}
        return dataclasses.replace(network, layers=rows, depthwise=depthwise_nodes(model))
    except CnnxError:
        return network


def _inspected(bundle: Bundle, engine: str) -> int:
    """Batch that the builder reported shapes for, which is the optimal one; 0 if it is unknown."""
    batches = [each.batch[1] for each in bundle.engines() if each.identity == engine and each.batch]
    return batches[0] if batches else 0


def _peaks(measured: Measurement, bundle: Bundle, here: Environment) -> tuple[Peaks | None, str]:
    """Peak rates, or why they are not known."""
    cores = [each.dla_core for each in bundle.engines() if each.identity == measured.subject.engine]
    if any(core is not None for core in cores):
        return None, "no peak rates are listed for DLAs"
    modes = [state.power_mode for state in measured.states if state.power_mode]
    try:
        peaks = peaks_of(
            measured.subject.on,
            measured.states,
            board=here.board,
            memory_bytes=here.memory_bytes,
            power_mode=modes[-1] if modes else here.power_mode,
        )
    except CnnxError as error:
        return None, error.what
    return peaks, ""
