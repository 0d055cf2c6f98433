"""Ranges without an export: by every method side by side, and how far they hang on the pictures."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cnnx.data.crops import Crops
from cnnx.errors import UsageError
from cnnx.options import takes
from cnnx.options.networks import CalibrateOptions
from cnnx.pipeline.export.options import check_calibrator, with_options
from cnnx.pipeline.preconditions.refusals import open_checked
from cnnx.pipeline.preconditions.request import Request
from cnnx.pipeline.progress import Listener, Steps, StepTime, silent
from cnnx.pipeline.quantizer import Quantizer
from cnnx.pipeline.search.folds import Folds, fold_crops, folds_step, observe_by_fold, verdict
from cnnx.pipeline.search.method import AUTO, SELECTION_IMAGES, Candidate, choose_method
from cnnx.pipeline.steps.definition import resolve
from cnnx.pipeline.steps.fp32_graph import export_step
from cnnx.pipeline.steps.images import few_ranges, picture_sets, remarks
from cnnx.quant.calibration import Calibration
from cnnx.quant.methods import METHODS


@dataclass(frozen=True, slots=True)
class MethodRange:
    """The range that one method gives a tensor, and the share of its non-zero values that this clips."""

    amax: float
    saturated_share: float


@dataclass(frozen=True, slots=True)
class TensorMethods:
    """One tensor that INT8 would carry.

    Attributes:
        tensor: its name.
        maximum: largest finite |x| seen.
        zeros_share: share of exact zeros; None where nothing was finite.
        nonfinite: batches in which it had NaN or infinite values; it gets no range then.
        methods: method -> its range; amax 0 where there is none.
    """

    tensor: str
    maximum: float
    zeros_share: float | None
    nonfinite: int
    methods: dict[str, MethodRange]


@dataclass(frozen=True, slots=True)
class CalibrateResult:
    """Ranges side by side.

    Attributes:
        network: its name.
        images: calibration pictures.
        image_set: where they are from.
        selection_images: held-out pictures, on which quantized networks were compared; 0 where none were.
        equalized: channels were scaled first.
        tensors: those that INT8 would carry, in graph order.
        folds: how far ranges and error move from part to part of the set; None unless asked for.
        candidates: what the method was chosen from, the chosen one first; empty unless it was "auto".
        notes: what the user should know.
    """

    network: str
    images: int
    image_set: str
    selection_images: int
    equalized: bool
    tensors: tuple[TensorMethods, ...]
    folds: Folds | None
    candidates: tuple[Candidate, ...]
    notes: tuple[str, ...]
    steps: tuple[StepTime, ...]
    seconds: float


@takes(CalibrateOptions)
def calibrate(
    model: str | Path, options: CalibrateOptions, *, listener: Listener = silent
) -> CalibrateResult:
    """Take the ranges that INT8 would get, without making a bundle.

    One pass over the images serves every method, and a later export of the same images needs none. All
    methods are shown unless one is given; folds are compared by that one, or by the recipe's.

    Args:
        model: a recipe's name, a recipe file, or an ONNX file.
        options: as an object; each can be given by keyword, too.
        listener: receives progress.

    Raises:
        CnnxError: see `cnnx.errors`; each kind has its exit code.
    """
    started = time.perf_counter()
    folds, method = options.folds, options.method
    if folds is not None and folds < 2:
        raise UsageError(f"--folds {folds}: nothing could be compared", hint="--folds 5")
    steps = Steps(listener)
    recipe = with_options(resolve(str(model), trust_recipe=options.trust_recipe), options)
    chosen = method or recipe.calibration.method
    check_calibrator(chosen)
    count = SELECTION_IMAGES if folds or method == AUTO else 0
    request = Request(
        recipe, options.weights, precision=None, validates=False, selects=count, folds=folds or 0
    )
    source = open_checked(request, steps, trust_recipe=options.trust_recipe)
    batch = source.batch((1, 1))
    graph = export_step(steps, source, batch=batch)
    pictures = picture_sets(steps, recipe, validates=False, calibrates=True, selects=count)
    calibration, selection = pictures.calibration, pictures.selection
    assert calibration is not None
    dealt = fold_crops(calibration, folds, batch=batch[0]) if folds else ()
    if dealt:
        quantizer, parts = observe_by_fold(steps, graph, calibration, dealt, recipe)
    else:
        quantizer, parts = Quantizer.observe(steps, graph, calibration, recipe), ()
    candidates: tuple[Candidate, ...] = ()
    if selection and chosen == AUTO:
        candidates = choose_method(quantizer, selection)
        chosen = candidates[0].method
    compared = folds_step(quantizer, parts, selection, method=chosen) if selection and parts else None
    shown = {name: quantizer.ranges(name).read() for name in ([chosen] if method else METHODS)}
    return CalibrateResult(
        network=recipe.name,
        images=len(calibration),
        image_set=calibration.name,
        selection_images=len(selection) if selection else 0,
        equalized=recipe.precision.equalize,
        tensors=_side_by_side(shown, quantizer.statistics.read().sampled),
        folds=compared,
        candidates=candidates,
        notes=(*_notes(shown, calibration, compared), *remarks(calibration, selection, None)),
        steps=tuple(steps.times),
        seconds=time.perf_counter() - started,
    )


def _side_by_side(shown: Mapping[str, Calibration], names: Sequence[str]) -> tuple[TensorMethods, ...]:
    any_of_them = next(iter(shown.values()))
    return tuple(
        TensorMethods(
            tensor=name,
            maximum=any_of_them.ranges[name].maximum,
            zeros_share=any_of_them.ranges[name].zeros_share,
            nonfinite=any_of_them.nonfinite.get(name, 0),
            methods={
                method: MethodRange(each.ranges[name].amax, each.ranges[name].saturated_share)
                for method, each in shown.items()
            },
        )
        for name in names
    )


def _notes(shown: Mapping[str, Calibration], calibration: Crops, compared: Folds | None) -> tuple[str, ...]:
    ranges = next(iter(shown.values())).ranges
    if not ranges:
        return ("No layer of this network can be INT8: no tensor needs a range.",)
    none = [name for name, tensor in ranges.items() if tensor.amax == 0]
    notes = list(verdict(compared) if compared else few_ranges(calibration))
    if none:
        notes.append(
            f"{len(none)} tensors get no range, for they are zero or not finite, and the layers that read "
            f"them stay out of INT8: {', '.join(none[:3])}"
        )
    return tuple(notes)
