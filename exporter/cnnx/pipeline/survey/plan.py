"""Checks the request of a survey before any work, so that a mistake does not change finished rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cnnx.bundle import Bundle, is_bundle
from cnnx.errors import CnnxError, RecipeError, UsageError, WeightsError
from cnnx.options import Precision
from cnnx.options.bundles import SurveyPlan
from cnnx.options.networks import ExportOptions
from cnnx.pipeline.bench.bench import check_effort
from cnnx.pipeline.export.options import with_options
from cnnx.pipeline.preconditions.refusals import count_images, refuse_unwritable_cache
from cnnx.pipeline.preconditions.request import Request
from cnnx.pipeline.target import choose_runtime
from cnnx.recipe import names_meant, read_recipe

PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")
_UNREAD = "unknown"
"""Precision of a bundle that cannot be read, so that it also has rows."""

Sources = dict[str, dict[str, "str | Path"]]
"""Network -> precision -> the folder of a bundle, or the model to export."""


def planned(
    models: Sequence[str | Path], precisions: Sequence[Precision], batches: Sequence[int], plan: SurveyPlan
) -> Sources:
    """The networks of a survey, by the names that rows and bundles will have.

    Raises:
        UsageError: an option is invalid, or two models have the same name.
        RecipeError: a model does not exist.
        WeightsError: a checkpoint does not exist.
        ImageError: images that a recipe names do not exist.
        EnvironmentLacks: the named target cannot be used here.
        WriteFailed: the cache cannot be written.
    """
    _check_cells(models, precisions, batches)
    _check_plan(plan)
    networks = _networks(models, precisions)
    exported = [source for kinds in networks.values() for source in kinds.values() if isinstance(source, str)]
    _check_exported(list(dict.fromkeys(exported)), plan)
    refuse_unwritable_cache()
    for model in dict.fromkeys(exported):
        _check_images(model, plan)
    return networks


def _check_cells(models: Sequence[str | Path], precisions: Sequence[str], batches: Sequence[int]) -> None:
    if not models or not precisions or not batches or not all(map(str, models)):
        raise UsageError(
            "a survey needs at least one model, precision and batch",
            hint="cnnx survey lenet5 --precisions fp16,int8 --batches 1,8",
        )
    if wrong := [one for one in precisions if one not in PRECISIONS]:
        raise UsageError(f"unknown precision {wrong[0]!r}", hint=f"choose one of: {', '.join(PRECISIONS)}")
    if min(batches) < 1:
        raise UsageError(
            f"invalid batch {min(batches)}: expected at least 1", hint="give --batches 1,8, for example"
        )


def _check_plan(plan: SurveyPlan) -> None:
    check_effort(plan.seconds, plan.percentile)
    if plan.images is not None and plan.images < 1:
        raise UsageError(
            f"invalid --images {plan.images}: expected at least 1", hint="give --images 512, for example"
        )


def check_target(plan: SurveyPlan) -> None:
    """Check that the target can be used here, and in the way asked for.

    Raises:
        UsageError: a CUDA graph is asked for, and the target builds no engines.
        EnvironmentLacks: the target cannot be used here.
    """
    runtime = choose_runtime(plan.target, ())
    if plan.cuda_graph and runtime.engine_suffix is None:
        raise UsageError(
            f"--cuda-graph needs engines, and {runtime.name} builds none", hint="drop --cuda-graph"
        )


def _check_exported(models: Sequence[str], plan: SurveyPlan) -> None:
    """Raise for models and weights that do not exist. Files that cannot be read become rows instead."""
    if unknown := [model for model in models if not _is_there(model)]:
        names = ", ".join(map(repr, unknown))
        raise RecipeError(
            f"unknown model: {names}",
            hint="give a name shown by cnnx list, a recipe or ONNX file, or a bundle's folder",
        )
    for model in models:
        weights = plan.weights_of(model)
        if weights == "pretrained":
            continue
        if model.lower().endswith(".onnx"):
            raise UsageError(
                f"an ONNX file contains its own weights: {model}",
                hint="drop --weights, or survey ONNX files separately",
            )
        if weights != "standin" and not Path(weights).is_file():
            hint = "--weights takes pretrained, standin, or a .safetensors, .pth or .pt file"
            raise WeightsError("the checkpoint does not exist", where=weights, hint=hint)


def _check_images(model: str, plan: SurveyPlan) -> None:
    """Raise for image sets that do not exist. A recipe that cannot be read becomes a row instead.

    ONNX files use built-in image sets.
    """
    if model.lower().endswith(".onnx"):
        return
    try:
        recipe = read_recipe(model)
    except CnnxError:
        return
    images = ExportOptions(calibration_images=plan.images, validation_images=plan.images)
    chosen = with_options(recipe, images)
    count_images(Request(chosen, plan.weights_of(model), precision="int8"))


def _is_there(model: str) -> bool:
    return Path(model).is_file() if _is_file_name(model) else bool(names_meant(model))


def _networks(models: Sequence[str | Path], precisions: Sequence[Precision]) -> Sources:
    found: Sources = {}
    name: str
    source: str | Path
    kinds: Sequence[str]
    for model in models:
        if is_bundle(Path(model)):
            source = Path(model)
            name, kind = _of_bundle(source)
            kinds = [kind]
        else:
            name, kinds, source = _name(str(model)), precisions, str(model)
        known = found.setdefault(name, {})
        if twice := [precision for precision in kinds if precision in known]:
            raise UsageError(
                f"{known[twice[0]]} and {model} would both be {name} in {twice[0]}",
                hint="name each model once; or rename a file, or survey them separately with different --out",
            )
        known.update(dict.fromkeys(kinds, source))
    return found


def _of_bundle(folder: Path) -> tuple[str, str]:
    """Network and precision of a bundle; for a damaged one its folder's name, as its rows give the reason."""
    try:
        manifest = Bundle.open(folder, verify=False).manifest
    except CnnxError:
        return folder.resolve().name, _UNREAD
    return manifest.recipe["name"], manifest.precision


def _name(model: str) -> str:
    """Name of a network to export. A recipe's name may contain a dot: squeezenet1.1."""
    return Path(model).stem if _is_file_name(model) else next(iter(names_meant(model)), Path(model).name)


def _is_file_name(model: str) -> bool:
    return Path(model).suffix.lower() in (".onnx", ".toml")
