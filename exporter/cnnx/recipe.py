"""Recipes: what one network is, where its weights lie, how pictures enter it, what it must reach.

A recipe is a TOML file. Reading one yields frozen dataclasses; a key that is not known is refused
with the nearest one that is, so that a typing slip never silently becomes a default.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import re
import sys
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta

from cnnx.errors import RecipeError
from cnnx.options import Precision
from cnnx.resources import shared_folder
from cnnx.schema import Count, Name, Percent, Positive, Quantity, Rate, from_plain

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_Int8 = Literal["fp16", "int8"]

Classes = Annotated[
    int, Meta(ge=2, description="the length of the logits: a classifier has at least 2 classes")
]
_Deviation = Annotated[float, Meta(gt=0, description="positive, for x in 0..1")]


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Which definition to build.

    Attributes:
        definition: a name in `cnnx.models`; "file.py:function" beside the recipe (code of the user's
            own, run only when trusted); or an ONNX file beside the recipe.
        classes: length of the logits.
        labels: file beside the recipe, or among those that ship, with a name per class in the order of the
            logits; empty: none.
        arguments: keyword arguments of the definition.
        parameters: trainable values it has; a model with another number is refused. 0: not stated.
        multiply_adds: for one picture, biases excluded; likewise.
    """

    definition: str
    classes: Classes
    labels: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    parameters: Count = 0
    multiply_adds: Count = 0


@dataclass(frozen=True, slots=True)
class WeightsSpec:
    """The published or shipped checkpoint of a network.

    Attributes:
        file: name of the checkpoint, ending in -<first 8 or more hex digits of its SHA-256>.<suffix>;
            a file of that name under weights/ beside the recipe is used before any download.
        url: where to download it; empty for weights that ship.
        source: who published it, and on which pictures its figures were taken.
        licence: terms it is published under, as far as its publisher states them.
        top1: published top-1 accuracy in percent; 0 when none is published.
        top5: published top-5 accuracy in percent; 0 when none is published.
        protocol: the set of pictures, where not ImageNet's, and how they were cropped for these figures.
        training_only: shell patterns of tensors that only training needs (auxiliary heads); they are
            dropped, from a checkpoint of the user's own too.
        rename: regular expression -> replacement, for names that the definition has changed since.
        background_classes: rows of the classifier before those of the first class; they are dropped.
    """

    file: str = ""
    url: str = ""
    source: str = ""
    licence: str = ""
    top1: Percent = 0.0
    top5: Percent = 0.0
    protocol: str = ""
    training_only: tuple[str, ...] = ()
    rename: Mapping[str, str] = field(default_factory=dict)
    background_classes: Count = 0


@dataclass(frozen=True, slots=True)
class PublishedAccuracy:
    """What a network's authors, or others who trained it, report of it.

    Attributes:
        source: who reports it, and where.
        protocol: set of pictures where not ImageNet's, crops, networks in the vote, such as "10 crops".
        top1: accuracy in percent; 0 when it is not reported.
        top5: likewise.
    """

    source: str
    protocol: str
    top1: Percent = 0.0
    top5: Percent = 0.0


@dataclass(frozen=True, slots=True)
class InputSpec:
    """The network's one input: name, and channels, height, width of a picture."""

    shape: tuple[Positive, Positive, Positive] = (3, 224, 224)
    name: str = "input"


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How a picture becomes the network's input.

    The shorter side is resized to `resize`, the middle is cropped to the input's size (both on 8-bit
    pixels), then y = (x / 255 - mean) / std for each channel, laid out as channels, height, width.

    Attributes:
        color: "rgb" or "gray".
        resize: length in pixels that the shorter side is brought to.
        interpolation: "bilinear" or "bicubic", antialiased as Pillow does; or "nearest".
        mean: one value a channel, for x in 0..1.
        std: likewise.
    """

    color: Literal["rgb", "gray"] = "rgb"
    resize: Positive = 256
    interpolation: Literal["bilinear", "bicubic", "nearest"] = "bilinear"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[_Deviation, ...] = (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True)
class LayerOverride:
    """A precision for the layers whose ONNX node name matches a shell pattern, with the reason."""

    match: str
    precision: Precision
    reason: str


@dataclass(frozen=True, slots=True)
class PrecisionPolicy:
    """What INT8 and FP16 may touch.

    Attributes:
        default: the precision `cnnx export` takes when none is asked.
        small_layers: what becomes of layers too small to gain from INT8: "fp16" leaves them alone.
        first_layer: what becomes of the layers with weights that read the picture.
        last_layer: likewise, of those that give the logits.
        residual: of the shortcut of a sum behind an INT8 convolution: "int8" lets TensorRT fuse the two.
        reason: required when one of these four is not as usual.
        equalize: for INT8, scale channels first so that one range serves all of a tensor; in FP32 the
            function stays (`cnnx.graph.passes.equalize`).
        fp16_limit: activations above this in absolute value make an FP32 island of their layer.
        overrides: exceptions by node name; the last match wins.
    """

    default: Precision = "fp16"
    small_layers: _Int8 = "fp16"
    first_layer: _Int8 = "int8"
    last_layer: _Int8 = "int8"
    residual: _Int8 = "int8"
    reason: str = ""
    equalize: bool = True
    fp16_limit: Quantity = 30000.0
    overrides: tuple[LayerOverride, ...] = ()


@dataclass(frozen=True, slots=True)
class CalibrationSpec:
    """The pictures ranges are taken from, and the method that takes them."""

    data: str = "deadleaves"
    images: Positive = 512
    method: str = "mse"


@dataclass(frozen=True, slots=True)
class ValidationSpec:
    """The pictures that judge, once, at the end."""

    data: str = "deadleaves"
    images: Positive = 1024


@dataclass(frozen=True, slots=True)
class Thresholds:
    """What an engine must reach, as rates in 0..1. A value off the defaults needs a reason.

    Attributes:
        top1_agreement: share of images whose first class is the original's.
        top1_in_top5: share of images whose original first class is among the engine's five.
        top5_agreement: mean share of the original's five classes that the engine's five hold.
        accuracy_ratio: top-1 accuracy over the original's, where labels exist (MLPerf's rule: 0.99).
        reason: why these and not the defaults.
    """

    top1_agreement: Rate
    top1_in_top5: Rate
    top5_agreement: Rate
    accuracy_ratio: Rate = 0.99
    reason: str = ""


# DESIGN of the gate: FP16 should be indistinguishable, INT8 may trade a little of the tail.
FP16_THRESHOLDS = Thresholds(0.99, 0.995, 0.98)
INT8_THRESHOLDS = Thresholds(0.95, 0.99, 0.90)


@dataclass(frozen=True, slots=True)
class Acceptance:
    """Thresholds by precision. FP32 is held to those of FP16."""

    fp16: Thresholds = FP16_THRESHOLDS
    int8: Thresholds = INT8_THRESHOLDS

    def of(self, precision: Precision) -> Thresholds:
        """The thresholds that an engine of this precision is held to."""
        return self.int8 if precision == "int8" else self.fp16


@dataclass(frozen=True, slots=True)
class Budgets:
    """Sizes a finished bundle must stay within; 0 means no budget. Checked by the gate."""

    onnx_mib: Quantity = 0.0
    engine_mib: Quantity = 0.0


@dataclass(frozen=True, slots=True)
class Recipe:
    """One network, whole. `folder` is where the file lay: relative names start there."""

    name: Name
    model: ModelSpec
    title: str = ""
    summary: str = ""
    source: str = ""
    weights: WeightsSpec = WeightsSpec()
    published: tuple[PublishedAccuracy, ...] = ()
    input: InputSpec = InputSpec()
    preprocessing: Preprocessing = Preprocessing()
    precision: PrecisionPolicy = PrecisionPolicy()
    calibration: CalibrationSpec = CalibrationSpec()
    validation: ValidationSpec = ValidationSpec()
    acceptance: Acceptance = Acceptance()
    budgets: Budgets = Budgets()
    folder: Path = field(default=Path(), metadata={"key": False})

    @property
    def labels_file(self) -> Path | None:
        """The file of class names, beside the recipe or among those that ship; None where none is named."""
        if not self.model.labels:
            return None
        beside = self.folder / self.model.labels
        shipped = shared_folder("recipes") / self.model.labels
        return shipped if shipped.is_file() and not beside.exists() else beside

    @property
    def runs_user_code(self) -> bool:
        """Whether building the model would execute a Python file of the recipe's author."""
        return ".py:" in self.model.definition

    @property
    def is_onnx(self) -> bool:
        """Whether the definition is a finished ONNX graph rather than a PyTorch model."""
        return self.model.definition.endswith(".onnx")

    def as_dict(self) -> dict[str, Any]:
        """Plain data, as a manifest keeps it: no folder, so that equal recipes are equal anywhere."""
        data = dataclasses.asdict(self)
        del data["folder"]
        return data


def parse_recipe(text: str, *, where: Path) -> Recipe:
    """Read a recipe from TOML.

    Args:
        text: the file's content.
        where: its path, for messages and for names relative to it.

    Raises:
        RecipeError: no TOML, an unknown key, a wrong type, or values that contradict each other.
    """
    try:
        data = tomllib.loads(text)
    except RecursionError:
        raise RecipeError("the recipe is not valid TOML: it is nested too deeply", where=where) from None
    except ValueError as error:  # TOMLDecodeError is one; a number with thousands of digits gives a bare one
        raise RecipeError(f"the recipe is not valid TOML: {error}", where=where) from None
    return recipe_from_dict(data, where=where)


def recipe_from_dict(data: object, *, where: Path, at: str = "") -> Recipe:
    """The recipe that `Recipe.as_dict` or a TOML file's tables describe.

    Args:
        data: plain data.
        where: the file it is from, for messages; relative names start in its folder.
        at: path of the key under which it stands in that file.

    Raises:
        RecipeError: an unknown key, a wrong type, or values that contradict each other.
    """
    recipe = from_plain(Recipe, data, where=where, error=RecipeError, at=at)
    recipe = dataclasses.replace(recipe, folder=where.parent)
    _check(recipe, where, f"{at}." if at else "")
    return recipe


def _check(recipe: Recipe, where: Path, at: str) -> None:
    """Refuse values that contradict each other; each by itself was checked by its type."""

    def refuse(what: str, key: str, mend: str) -> typing.NoReturn:
        raise RecipeError(what, where=f"{where}, key {at}{key}", mend=mend)

    if recipe.weights.url and not recipe.weights.file:
        refuse("weights.url without weights.file", "weights.file", "name the file; its name carries its hash")
    try:
        for pattern, replacement in recipe.weights.rename.items():
            re.compile(pattern).sub(replacement, "")
    except (re.error, RecursionError, OverflowError) as error:
        refuse(f"a name cannot be changed so: {error}", "weights.rename", "regular expression = replacement")
    _check_input(recipe, refuse)
    policy, usual = recipe.precision, PrecisionPolicy()
    for key in ("small_layers", "first_layer", "last_layer", "residual"):
        if getattr(policy, key) != getattr(usual, key) and not policy.reason:
            refuse(f"{key} is not {getattr(usual, key)!r} without a reason", "precision.reason", "say why")
    for precision, default in (("fp16", FP16_THRESHOLDS), ("int8", INT8_THRESHOLDS)):
        chosen: Thresholds = getattr(recipe.acceptance, precision)
        if not chosen.reason and dataclasses.replace(chosen, reason="") != default:
            refuse("thresholds off the defaults need a reason", f"acceptance.{precision}.reason", "say why")


def _check_input(recipe: Recipe, refuse: Callable[[str, str, str], typing.NoReturn]) -> None:
    """Shape and preprocessing fit each other."""
    channels, expected = recipe.input.shape[0], {"rgb": 3, "gray": 1}[recipe.preprocessing.color]
    if channels != expected:
        refuse(
            f"{recipe.preprocessing.color} images have {expected} channels, input.shape is "
            f"{list(recipe.input.shape)}",
            "input.shape",
            "make shape [channels, height, width] fit preprocessing.color",
        )
    for key in ("mean", "std"):
        if len(getattr(recipe.preprocessing, key)) != channels:
            what = f"{key} needs one value for each of {channels} channels"
            refuse(what, f"preprocessing.{key}", "add or drop")
    if recipe.preprocessing.resize < max(recipe.input.shape[1:]):
        what = (
            f"the crop would be larger than the resized image: input.shape is {list(recipe.input.shape)}, "
            f"preprocessing.resize {recipe.preprocessing.resize}"
        )
        refuse(what, "preprocessing.resize", "make it larger")


def recipe_names() -> tuple[str, ...]:
    """Names of the recipes that ship, sorted."""
    return tuple(sorted(file.stem for file in shared_folder("recipes").glob("*.toml")))


def read_recipe(name_or_file: str) -> Recipe:
    """The recipe of that name, or in that file.

    Raises:
        RecipeError: there is none, or it is refused.
    """
    file = Path(name_or_file)
    with contextlib.suppress(OSError):  # a name too long to exist
        if (file / "manifest.json").is_file():
            mend = "give the recipe or the ONNX file that it was made from; cnnx inspect shows what it holds"
            raise RecipeError("this is a finished bundle, not a network", where=file, mend=mend)
    if file.suffix != ".toml":
        file = shared_folder("recipes") / f"{name_or_file}.toml"
        if name_or_file not in recipe_names():
            near = difflib.get_close_matches(name_or_file, recipe_names(), n=1, cutoff=0.4)
            hint = f"did you mean {near[0]!r}? " if near else ""
            if Path(name_or_file).suffix in (".pth", ".pt", ".safetensors"):
                hint = "a checkpoint goes to --weights, beside the network's name or recipe; "
            raise RecipeError(f"unknown model {name_or_file!r}", mend=f"{hint}cnnx list shows every name")
    try:
        return parse_recipe(file.read_text(encoding="utf-8"), where=file)
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"the recipe cannot be read: {error}", where=file) from None
