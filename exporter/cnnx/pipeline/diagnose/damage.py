"""Measures the damage of INT8: of each layer on images, and of each tensor from its range."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cnnx.agreement import Likeness, compare
from cnnx.pipeline.progress import Progress
from cnnx.pipeline.quantizer import Quantizer
from cnnx.pipeline.search.trials import Trials
from cnnx.pipeline.steps.inference import RUNNER, ran_by
from cnnx.pipeline.steps.typed_graph import file_scales, prepare
from cnnx.quant.calibration import Calibration
from cnnx.quant.coverage import Coverage, coverage
from cnnx.store.digests import digest_of
from cnnx.store.own_code import own_code

_FILE, _LOGITS = "damage.json", "logits.npz"


@dataclass(frozen=True, slots=True)
class Damage:
    """How closely each network that was tried matches the FP32 graph.

    Attributes:
        floor: network with no layer in INT8, so the damage of FP16 alone.
        whole: the bundle's graph.
        alone: INT8 layer -> network with only this layer in INT8.
        original: logits of the FP32 graph.
        int8: logits of the bundle's graph.
    """

    floor: Likeness
    whole: Likeness
    alone: Mapping[str, Likeness]
    original: NDArray[np.float32]
    int8: NDArray[np.float32]


def damage_step(
    quantizer: Quantizer,
    calibration: Calibration,
    pixels: NDArray[np.uint8],
    *,
    crops_key: str,
    layers: Sequence[str],
) -> Damage:
    """Try each layer alone in INT8. A run that was stopped resumes.

    Args:
        quantizer: quantizer of the bundle's graph.
        calibration: calibration of the bundle.
        pixels: images (N, H, W, C).
        crops_key: cache key of the images.
        layers: INT8 layers of the bundle.
    """
    recipe = quantizer.recipe
    inputs = {
        "graph": quantizer.graph.key,
        "calibration": digest_of(json.loads(calibration.to_json())),
        "crops": crops_key,
        "images": len(pixels),
        "preprocessing": recipe.preprocessing.as_key(),
        "policy": dataclasses.asdict(recipe.precision),
        "layers": layers,
        "scales": quantizer.scales,
        "code": own_code(__name__, RUNNER),
        **ran_by(),
    }
    journal = quantizer.steps.store.partial("damage", inputs)

    def fill(folder: Path, progress: Progress) -> None:
        total = len(layers) + 3
        trials = Trials(quantizer, calibration, pixels, layers=layers, journal=journal)
        progress(1, total)
        int8 = trials.logits(frozenset(layers))
        progress(2, total)
        floor = trials(frozenset())
        progress(3, total)
        alone = {}
        for number, layer in enumerate(layers, start=4):
            alone[layer] = dataclasses.asdict(trials(frozenset([layer])))
            progress(number, total)
        found = {"floor": dataclasses.asdict(floor), "alone": alone}
        (folder / _FILE).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        with (folder / _LOGITS).open("wb") as file:
            np.savez_compressed(file, original=trials.original, int8=int8)
        journal.remove()

    entry = quantizer.steps.make("each layer alone in INT8", "damage", inputs, fill)
    found = json.loads((entry.folder / _FILE).read_text(encoding="utf-8"))
    with np.load(entry.folder / _LOGITS, allow_pickle=False) as saved:
        original, int8 = saved["original"], saved["int8"]
    return Damage(
        floor=Likeness(**found["floor"]),
        whole=compare(original, int8),
        alone={layer: Likeness(**likeness) for layer, likeness in found["alone"].items()},
        original=original,
        int8=int8,
    )


def coverages(quantizer: Quantizer, calibration: Calibration) -> tuple[Coverage, ...]:
    """How well the range of each quantized tensor fits, in the order in which tensors are first read."""
    from cnnx.graph.passes.qdq import LEVELS, scales_from_amax
    from cnnx.graph.policy.placement import quantized_uses

    prepared = prepare(
        quantizer.graph, calibration, quantizer.recipe, precision="int8", scales=quantizer.scales
    )
    seen = quantizer.statistics.read()
    found = []
    for tensor, readers in quantized_uses(prepared.model, prepared.plan).items():
        step = float(scales_from_amax(np.array(prepared.ranges[tensor]), scales=quantizer.scales))
        centered = prepared.centered.get(tensor)
        amax = centered.largest if centered else step * LEVELS
        found.append(coverage(seen, tensor, step=step, amax=amax, read_by=readers))
    return tuple(found)


def weights_lost(quantizer: Quantizer, calibration: Calibration, layers: Sequence[str]) -> dict[str, float]:
    """INT8 layer -> share of its non-zero weights that round to zero."""
    from cnnx.graph import edit
    from cnnx.graph.load import load_model
    from cnnx.graph.passes.qdq import quantize_weight

    model = load_model(quantizer.graph.model)
    constants = edit.initializers(model.graph)
    of_file = file_scales(quantizer.graph, calibration)
    steps = of_file.weights if of_file else {}
    found = {}
    for node in model.graph.node:
        axis = edit.weight_axis(node, constants) if node.name in layers else None
        if axis is not None:
            weight = edit.array(constants[node.input[1]])
            integers, _ = quantize_weight(
                weight, axis=axis, scales=quantizer.scales, steps=steps.get(node.name)
            )
            alive = weight != 0
            found[node.name] = float(np.mean(integers[alive] == 0)) if alive.any() else 0.0
    return found
