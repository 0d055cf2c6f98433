"""What a survey is asked for, looked through before any work: a slip must not cost rows that are done."""

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
from cnnx.recipe import read_recipe, recipe_names

PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")
_UNREAD = "unknown"
"""The precision of a bundle that cannot be read, so that it has rows, too."""

Sources = dict[str, dict[str, "str | Path"]]
"""Network -> precision -> a finished bundle, or the model to export."""


def planned(
    models: Sequence[str | Path], precisions: Sequence[Precision], batches: Sequence[int], plan: SurveyPlan
) -> Sources:
    """What is surveyed, by the names that rows and bundles will have.

    Raises:
        UsageError: options that make no sense, or two models of one name.
        RecipeError: models that are none.
        WeightsError: a checkpoint is not there.
        ImageError: images that a recipe names are not there.
        EnvironmentLacks: a named target cannot be used here.
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
        raise UsageError("a survey needs a model, a precision and a batch")
    if wrong := [one for one in precisions if one not in PRECISIONS]:
        raise UsageError(f"no precision is called {wrong[0]!r}", hint=f"choose among {', '.join(PRECISIONS)}")
    if min(batches) < 1:
        raise UsageError("a batch has at least one picture")


def _check_plan(plan: SurveyPlan) -> None:
    check_effort(plan.seconds, plan.percentile)
    if plan.images is not None and plan.images < 1:
        raise UsageError(f"--images is {plan.images}", hint="give at least 1; 512 is usual")
    runtime = choose_runtime(plan.target, ())
    if plan.cuda_graph and runtime.engine_suffix is None:
        raise UsageError(f"CUDA graphs are of engines, and {runtime.name} has none", hint="drop --cuda-graph")


def _check_exported(models: Sequence[str], plan: SurveyPlan) -> None:
    """Networks and weights that are not there; files that are there and cannot be read are rows."""
    if unknown := [model for model in models if not _is_there(model)]:
        names = ", ".join(map(repr, unknown))
        raise RecipeError(f"no model: {names}", hint="cnnx list shows every name; or give files, or bundles")
    for model in models:
        weights = plan.weights_of(model)
        if weights == "pretrained":
            continue
        if model.endswith(".onnx"):
            raise UsageError(
                f"an ONNX file brings its own weights: {model}",
                hint="drop --weights, or survey ONNX files apart",
            )
        if weights != "standin" and not Path(weights).is_file():
            hint = "--weights takes pretrained, standin, or a .safetensors, .pth or .pt file"
            raise WeightsError(f"there is no checkpoint {weights}", hint=hint)


def _check_images(model: str, plan: SurveyPlan) -> None:
    """Image sets that are not there; a recipe that cannot be read is a row. ONNX files take built-in sets."""
    if model.endswith(".onnx"):
        return
    try:
        recipe = read_recipe(model)
    except CnnxError:
        return
    images = ExportOptions(calibration_images=plan.images, validation_images=plan.images)
    chosen = with_options(recipe, images)
    count_images(Request(chosen, plan.weights_of(model), precision="int8"))


def _is_there(model: str) -> bool:
    return Path(model).is_file() if _is_file_name(model) else model in recipe_names()


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
                hint="name each once; rename a file, or give each an --out of its own",
            )
        known.update(dict.fromkeys(kinds, source))
    return found


def _of_bundle(place: Path) -> tuple[str, str]:
    """Its network and precision; a damaged one goes by its folder's name, and its cells say why."""
    try:
        manifest = Bundle.open(place, verify=False).manifest
    except CnnxError:
        return place.resolve().name, _UNREAD
    return manifest.recipe["name"], manifest.precision


def _name(model: str) -> str:
    """Of a network that is exported. A recipe's name may have a dot: squeezenet1.1."""
    return Path(model).stem if _is_file_name(model) else Path(model).name


def _is_file_name(model: str) -> bool:
    return Path(model).suffix in (".onnx", ".toml")
