"""`calibrate`: INT8 ranges by every method side by side, and how much they depend on the images."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cnnx.data.crops import Crops
from cnnx.errors import UsageError
from cnnx.options import takes
from cnnx.options.networks import CalibrateOptions
from cnnx.pipeline.export.options import check_calibrator, with_method, with_options
from cnnx.pipeline.export.preprocessing import assumption
from cnnx.pipeline.plain import plain
from cnnx.pipeline.preconditions.fine_tuned import fitted
from cnnx.pipeline.preconditions.refusals import open_checked
from cnnx.pipeline.preconditions.request import Request
from cnnx.pipeline.progress import Listener, Steps, StepTime, silent
from cnnx.pipeline.quantizer import Quantizer
from cnnx.pipeline.runs import HERE, Runs
from cnnx.pipeline.search.folds import Folds, fold_crops, folds_step, observe_by_fold, verdict
from cnnx.pipeline.search.method import AUTO, SELECTION_IMAGES, Candidate, choose_method
from cnnx.pipeline.steps.definition import resolve
from cnnx.pipeline.steps.images import few_ranges, images_by_role, remarks
from cnnx.quant.calibration import Calibration
from cnnx.quant.methods import FILE, METHODS
from cnnx.report.result import Result
from cnnx.report.table import Block


@dataclass(frozen=True, slots=True)
class MethodRange:
    """The range that one method gives a tensor, and the share of its non-zero values that it clips."""

    amax: float
    saturated_share: float


@dataclass(frozen=True, slots=True)
class TensorMethods:
    """The ranges of one tensor that would be quantized.

    Attributes:
        tensor: name of the tensor.
        maximum: largest finite |x|.
        zeros_share: share of exact zeros; None if no value was finite.
        nonfinite: number of batches with NaN or infinite values; the tensor gets no range if there are any.
        methods: method -> range; `amax` is 0 if there is none.
    """

    tensor: str
    maximum: float
    zeros_share: float | None
    nonfinite: int
    methods: dict[str, MethodRange]


@dataclass(frozen=True, slots=True, repr=False)
class CalibrateResult(Result):
    """Ranges of all methods, side by side.

    Attributes:
        network: name of the network.
        images: number of calibration images.
        image_set: name of the calibration set.
        selection_images: number of held-out images that quantized networks were compared on; 0: none.
        equalized: whether channels were equalized first.
        tensors: tensors that would be quantized, in graph order.
        folds: how much ranges and error vary between folds of the set; None unless requested.
        candidates: all methods compared, the chosen one first; empty unless the method is "auto".
        notes: notes for the user.
        steps: time of each step.
        seconds: total time.
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

    def blocks(self, *, verbose: bool = False) -> Iterable[Block]:
        """What the command prints."""
        from cnnx.report.tables.calibration import calibration_blocks

        return calibration_blocks(plain(self), whole=verbose)


@takes(CalibrateOptions)
def calibrate(
    model: str | Path, options: CalibrateOptions, *, listener: Listener = silent
) -> CalibrateResult:
    """Compute the ranges that INT8 would use, without writing a bundle.

    One pass over the images serves every method, and a later export with the same images reuses it. Shows
    all methods unless one is given. Folds are compared by that method, or else by the recipe's.

    Args:
        model: a recipe's name, a recipe file, or an ONNX file.
        options: options as an object; each can also be given by keyword.
        listener: receives progress events.

    Raises:
        CnnxError: see `cnnx.errors`; each class has its exit code.

    Examples:
        >>> result = cnnx.calibrate("lenet5", calibration_images=64)
        >>> result.images
        64
        >>> [ranges.tensor for ranges in result.tensors][:2]
        ['input', 'pool1']
    """
    return calibrate_by(HERE, model, options, listener=listener)


def calibrate_by(
    runs: Runs, model: str | Path, options: CalibrateOptions, *, listener: Listener
) -> CalibrateResult:
    """Do the work of `calibrate`; `runs` runs the images."""
    started = time.perf_counter()
    folds, method = options.folds, options.method
    if folds is not None and folds < 2:
        raise UsageError(f"invalid --folds {folds}: expected at least 2", hint="give --folds 5, for example")
    steps = Steps(listener)
    recipe = resolve(str(model), trust_recipe=options.trust_recipe, logits=options.logits)
    recipe = with_options(recipe, options)
    chosen = method or recipe.calibration.method
    check_calibrator(chosen, recipe)
    recipe, fit = fitted(recipe, options.weights, trust_recipe=options.trust_recipe)
    count = SELECTION_IMAGES if folds or method == AUTO else 0
    request = Request(
        recipe, options.weights, precision=None, validates=False, selects=count, folds=folds or 0
    )
    source = open_checked(request, steps, trust_recipe=options.trust_recipe, check_torch=runs.check_torch)
    recipe, found = with_method(recipe, options, source)
    chosen = found if chosen != AUTO else chosen
    batch = source.batch((1, 1))
    graph = runs.graph(steps, source, batch=batch)
    images = images_by_role(steps, recipe, validates=False, calibrates=True, selects=count)
    calibration, selection = images.calibration, images.selection
    assert calibration is not None
    split = fold_crops(calibration, folds, batch=batch[0]) if folds else ()
    if split:
        quantizer, parts = observe_by_fold(
            steps, graph, calibration, split, recipe, statistics=runs.statistics
        )
    else:
        quantizer = Quantizer.observe(steps, graph, calibration, recipe, statistics=runs.statistics)
        parts = ()
    candidates: tuple[Candidate, ...] = ()
    if selection and chosen == AUTO:
        candidates = choose_method(quantizer, selection)
        chosen = candidates[0].method
    compared = folds_step(quantizer, parts, selection, method=chosen) if selection and parts else None
    every = [FILE, *METHODS] if chosen == FILE else METHODS
    shown = {name: quantizer.ranges(name).read() for name in ([chosen] if method else every)}
    return CalibrateResult(
        network=recipe.name,
        images=len(calibration),
        image_set=calibration.name,
        selection_images=len(selection) if selection else 0,
        equalized=recipe.precision.equalize,
        tensors=_side_by_side(shown, quantizer.statistics.read().sampled),
        folds=compared,
        candidates=candidates,
        notes=(
            *fit,
            *(source.scales.notes if source.scales is not None and chosen == FILE else ()),
            *assumption(recipe),
            *_notes(shown, calibration, compared),
            *remarks(calibration, selection, None),
        ),
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
        return ("No layer of this network can be quantized to INT8, so no tensor needs a range.",)
    none = [name for name, tensor in ranges.items() if tensor.amax == 0]
    why = "the file gives them no scale" if FILE in shown else "they are zero or not finite"
    notes = list(verdict(compared) if compared else few_ranges(calibration))
    if none:
        notes.append(
            f"{len(none)} tensors get no range, as {why}. Layers that read them are "
            f"not quantized: {', '.join(none[:3])}"
        )
    return tuple(notes)
