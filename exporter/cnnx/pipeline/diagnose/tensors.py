"""`diagnose --target`: compares the tensors of an engine with the FP32 graph, to find where it goes wrong."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnnx import runtimes
from cnnx.bundle import MODEL, Bundle
from cnnx.bundle.manifest import recipe_of
from cnnx.data.network_input import network_input
from cnnx.data.normalize import normalize
from cnnx.errors import UsageError
from cnnx.graph.load import load_model
from cnnx.graph.trace import Step, Trace
from cnnx.options import takes
from cnnx.options.bundles import DiagnoseOptions
from cnnx.pipeline.diagnose.rebuild import exported_graph, rebuild_sources, recipe_here
from cnnx.pipeline.diagnose.tensor_findings import FirstFall, TensorFindings, TensorNoise, TensorsResult
from cnnx.pipeline.diagnose.watching import Seen, Watched, watch_engine, watch_graph
from cnnx.pipeline.progress import Listener, Progress, Steps, silent
from cnnx.pipeline.sign.trust import open_bundle
from cnnx.pipeline.source import read_source
from cnnx.pipeline.steps.images import crops_step, image_set
from cnnx.pipeline.target import subject_of_graph
from cnnx.quant.noise import Compared, Noise, decibels, fake_quantized, falls, own_noise
from cnnx.report.words import several
from cnnx.store.digests import digest_of_file
from cnnx.store.files import scratch_folder

IMAGES = 32
"""Number of images by default: each has thousands of values of every tensor."""

_Key = tuple[str, str]
"""A tensor, and the quantized tensor whose scale it is stored with; "" if it is stored as floats."""


@takes(DiagnoseOptions)
def diagnose_tensors(
    bundle: str | Path,
    target: str,
    options: DiagnoseOptions,
    *,
    data: str | Path | None = None,
    listener: Listener = silent,
) -> TensorsResult:
    """Compare the tensors of a bundle's engine or graph with those of its FP32 graph, along the network.

    For an engine, one is built here that emits its tensors. It fuses as ever where TensorRT can mark unfused
    tensors (10.13 and later, TensorRT for RTX 1.7); else tensors are extra outputs, which changes fusion. The
    same tensors of the bundle's graph in ONNX Runtime show what quantization alone costs.

    Args:
        bundle: the bundle's folder.
        target: "tensorrt" or "rtx" for an engine, "ort" for the graph in ONNX Runtime.
        options: options as an object; each can also be given by keyword. The FP32 graph is read from the
            bundle if it was exported with its source, and else exported again.
        data: images to run; None: those of the self-test.
        listener: receives progress events.

    Raises:
        UsageError: no such target, or the FP32 graph is missing and cannot be made again.
        EnvironmentLacks: the runtime cannot run here.
        BuildFailed: the engine cannot be built.
        WriteFailed: the record cannot be written; raised before any work.

    Examples:
        >>> result = cnnx.diagnose_tensors("lenet5-int8", "ort", images=8)
        >>> result.findings.how, result.findings.first is None
        ('graph', True)
    """
    opened = open_bundle(Path(bundle), options.require_signature)
    if options.images is not None and options.images < 1:
        what = f"invalid --images {options.images}: expected at least 1"
        raise UsageError(what, hint=f"give --images {IMAGES}, for example")
    runtime = runtimes.get(target)
    if reason := runtime.cannot_run():
        raise reason
    opened.check_place("runs")
    steps = Steps(listener)
    with scratch_folder() as scratch:
        graphs = _graphs(opened, options, steps, scratch=scratch)
        pixels, name = _images(opened, options, data, steps)
        trace = Trace(load_model(graphs.fp32), load_model(opened.model))
        if runtime.engine_suffix is None:
            watched: Watched = watch_graph(opened.model, trace.tensors, scratch=scratch)
        else:
            watched = watch_engine(opened, runtime, trace, steps, scratch=scratch)
        measured = steps.run(
            "tensors along the network",
            lambda progress: _measured(opened, watched, graphs, pixels, scratch=scratch, progress=progress),
        )
        watched.close()
    findings = _findings(measured, trace, watched, graphs, images=len(pixels), image_set=name)
    record = opened.keep("tensors", subject_of_graph(opened, runtime), findings.as_dict())
    return TensorsResult(opened, findings, record, tuple(steps.times))


@dataclass(frozen=True, slots=True)
class _Graphs:
    """The graphs to compare with.

    Attributes:
        fp32: the FP32 graph.
        expected: the typed graph as the source gives it.
        notes: a note if that is not the bundle's.
    """

    fp32: Path
    expected: Path
    notes: tuple[str, ...] = ()


def _graphs(bundle: Bundle, options: DiagnoseOptions, steps: Steps, *, scratch: Path) -> _Graphs:
    manifest, reference = bundle.manifest, scratch / "reference"
    reference.mkdir()
    if manifest.has_source and options.model is None and options.weights is None:
        source = read_source(bundle)
        folder = scratch / "typed"
        folder.mkdir()
        expected = source.write_typed(folder)
        if digest_of_file(expected) == manifest.files[MODEL]:
            return _Graphs(source.write_reference(reference), bundle.model)
        note = "The bundle's graph is not the one that its source gives here, so that one is expected."
        return _Graphs(source.write_reference(reference), expected, (note,))
    if manifest.precision == "int8":
        rebuilt = rebuild_sources(bundle, options, steps, calibration_data=options.calibration_data)
        return _Graphs(rebuilt.quantizer.write_reference(reference, rebuilt.calibration), bundle.model)
    return _Graphs(exported_graph(bundle, options, steps).model, bundle.model)


def _images(
    bundle: Bundle, options: DiagnoseOptions, data: str | Path | None, steps: Steps
) -> tuple[NDArray[np.uint8], str]:
    """The images to run, in whole batches of the graph's smallest size, and the name of their set."""
    count = options.images or IMAGES
    if data is None:
        crops, name = bundle.reference().crops, "the self-test"
    else:
        recipe = recipe_here(bundle, options)
        given = crops_step(
            steps, image_set(recipe, str(data), "validation", None), recipe, count=count, role="given"
        )
        crops, name = given.pixels, given.name
    batch = bundle.manifest.batch[0]
    wanted = max(batch, min(count, len(crops)) // batch * batch)
    return crops[np.arange(wanted) * len(crops) // wanted], name


def _measured(
    bundle: Bundle,
    watched: Watched,
    graphs: _Graphs,
    pixels: NDArray[np.uint8],
    *,
    scratch: Path,
    progress: Progress,
) -> dict[_Key, tuple[Noise, Noise]]:
    """Noise of each tensor that was seen, and what the graph gives it."""
    recipe, size = recipe_of(bundle.manifest), bundle.manifest.batch[0]
    found: dict[_Key, tuple[Noise, Noise]] = {}
    against: list[Watched] = []
    for start in range(0, len(pixels), size):
        part = pixels[start : start + size]
        images = network_input(part, recipe.preprocessing, recipe.input_format)
        seen = list(watched.run(images))
        if not against:
            names = tuple(dict.fromkeys(each.tensor for each in seen))
            against = [watch_graph(file, names, scratch=scratch) for file in (graphs.fp32, graphs.expected)]
        floats = normalize(part, recipe.preprocessing)
        reference, expected = (
            {each.tensor: each.values for each in graph.run(given)}
            for graph, given in zip(against, (floats, images), strict=True)
        )
        for each in seen:
            _add(each, reference[each.tensor], expected[each.tensor], found)
        progress(start + len(part), len(pixels))
    for graph in against:
        graph.close()
    return found


def _add(
    seen: Seen,
    reference: NDArray[np.float32],
    expected: NDArray[np.float32],
    found: dict[_Key, tuple[Noise, Noise]],
) -> None:
    """Add the values of a batch. Of several ways to read them, the one with the least noise is meant."""
    readings = list(seen.readings())
    if known := [each for each in readings if (seen.tensor, each[0]) in found]:
        readings = known
    scale_of, values = (
        min(readings, key=lambda each: _ratio(reference, each[1])) if len(readings) > 1 else readings[0]
    )
    noise, graph = found.setdefault((seen.tensor, scale_of), (Noise(), Noise()))
    noise.add(reference, values)
    graph.add(reference, fake_quantized(expected, seen.scales[scale_of]) if scale_of else expected)


def _ratio(reference: NDArray[np.float32], values: NDArray[Any]) -> float:
    noise = Noise()
    noise.add(reference, values)
    return noise.ratio


def _findings(
    measured: Mapping[_Key, tuple[Noise, Noise]],
    trace: Trace,
    watched: Watched,
    graphs: _Graphs,
    *,
    images: int,
    image_set: str,
) -> TensorFindings:
    steps = trace.steps({tensor for tensor, _ in measured})
    keys = {step.tensor: sorted(key for key in measured if key[0] == step.tensor) for step in steps}
    compared = {_label(key): each for key, each in _compared(measured, steps, keys)}
    own, fallen = own_noise(compared), set(falls(compared))
    rows = tuple(
        TensorNoise(
            tensor=step.tensor,
            nodes=step.nodes,
            quantized=step.quantized,
            scale_of=key[1],
            db=_finite(noise.db),
            expected_db=_finite(graph.db),
            own_db=decibels(own[_label(key)]),
            finite=math.isfinite(noise.ratio),
            gain=noise.gain,
            falls=_label(key) in fallen,
        )
        for step in steps
        for key in keys[step.tensor]
        for noise, graph in [measured[key]]
    )
    findings = TensorFindings(
        images=images,
        image_set=image_set,
        how=watched.how,
        rows=rows,
        first=_first(rows),
        unknown=len(watched.unknown),
        notes=graphs.notes,
    )
    return dataclasses.replace(findings, reading=tuple(_reading(findings)))


def _compared(
    measured: Mapping[_Key, tuple[Noise, Noise]], steps: Sequence[Step], keys: Mapping[str, Sequence[_Key]]
) -> Iterator[tuple[_Key, Compared]]:
    """What was measured of each tensor, in graph order; of one tensor, floats before integers."""
    for step in steps:
        before = [_label(key) for name in step.before for key in keys[name]]
        for key in keys[step.tensor]:
            noise, graph = measured[key]
            yield key, Compared(before, noise.ratio, graph.ratio)
            before = [_label(key)]


def _label(key: _Key) -> str:
    return f"{key[0]} (INT8 of {key[1]})" if key[1] else key[0]


def _finite(db: float | None) -> float | None:
    return db if db is not None and math.isfinite(db) else None


def _first(rows: Sequence[TensorNoise]) -> FirstFall | None:
    """The first tensor that falls, and the scales that can be wrong.

    A scale that integers before it had is not: they did not fall. Where values are all too large by a factor,
    the scale that they are stored with comes first, and else those that its nodes read.
    """
    place = next((place for place, row in enumerate(rows) if row.falls), None)
    if place is None:
        return None
    row = rows[place]
    right = {other.scale_of for other in rows[:place]}
    read = [name for name in row.quantized if name not in right]
    own = [row.scale_of] if row.scale_of else []
    suspects = own + read if row.gain is not None else read + own
    return FirstFall(row.tensor, row.nodes, tuple(dict.fromkeys(suspects)))


def _reading(findings: TensorFindings) -> Iterator[str]:
    """The explanation, in sentences with the figures they are based on."""
    what = "graph" if findings.how == "graph" else "engine"
    if findings.first is None:
        yield (
            f"No tensor falls by more than 2 dB below what its graph gives: the {what} computes what the "
            "graph says."
        )
    else:
        row = next(row for row in findings.rows if row.falls)
        level = "not finite" if not row.finite else f"{row.db:.1f} dB" if row.db is not None else "exact"
        graph = "exact" if row.expected_db is None else f"{row.expected_db:.1f} dB"
        sentence = f"The first tensor that falls is {row.tensor}: {level}, where the graph gives {graph}."
        if row.gain is not None:
            sentence += f" Its values are {row.gain:.2g} times what they should be."
        yield sentence
        computed = f"computed by {', '.join(findings.first.nodes)}" if findings.first.nodes else "the input"
        suspects = ", ".join(findings.first.suspects)
        yield f"It is {computed}." + (f" Check the INT8 scale of {suspects}." if suspects else "")
    costly = min((row for row in findings.rows if row.own_db is not None), key=_own, default=None)
    if costly is not None and any(row.quantized for row in findings.rows):
        yield (
            f"By quantization alone, most noise is added at {costly.tensor}, {costly.own_db:.1f} dB below "
            "the signal."
        )
    if findings.how == "outputs":
        yield (
            "This runtime cannot emit the tensors that fusion leaves, so they are extra outputs of this "
            "engine. That changes its fusion: the bundle's engine may differ from it."
        )
    if findings.unknown:
        yield (
            f"{several(findings.unknown, 'tensor')} of the engine could not be compared, such as sums before "
            "their bias."
        )


def _own(row: TensorNoise) -> float:
    assert row.own_db is not None
    return row.own_db
