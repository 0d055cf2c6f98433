"""Recipes: TOML files that describe a network, its weights, preprocessing, precision and acceptance.

Recipes are read into frozen dataclasses. An unknown key is refused with the nearest known key, so a typo
never silently falls back to a default.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import re
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta

from cnnx.errors import RecipeError
from cnnx.gates import AGREEMENT, DEFAULTS, GateTable, Limits, with_gate_table
from cnnx.limits import TEXT_BYTES
from cnnx.options import Precision
from cnnx.preprocessing import Preprocessing, contradiction
from cnnx.preprocessing.input_format import PATTERN, InputFormat, format_contradiction, input_format
from cnnx.preprocessing.presets import resolved
from cnnx.resources import shared_folder
from cnnx.schema import Count, Name, Percent, Positive, Quantity, from_plain
from cnnx.store.reading import read_text
from cnnx.store.toml import parse_toml

_Int8 = Literal["fp16", "int8"]

_Format = Annotated[
    str,
    Meta(pattern=PATTERN, description="a format such as float32-nchw or uint8-nhwc-bgr:1080x1920"),
]
Classes = Annotated[int, Meta(ge=2, description="the number of logits; a classifier has at least 2 classes")]


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Definition of the model.

    Attributes:
        definition: a name in `cnnx.models`, "file.py:function" relative to the recipe (the user's own code,
            run only if trusted), or an ONNX file relative to the recipe.
        classes: number of logits.
        labels: file with one class name per line in logit order, relative to the recipe or shipped with
            cnnx; empty for none.
        arguments: keyword arguments of the definition.
        parameters: number of trainable values; a model with a different number is refused. 0 if not stated.
        multiply_adds: MACs per image, excluding biases; a model with a different number is refused. 0 if
            not stated.
        logits: name of the ONNX graph's output to judge by; empty if there is one, or to have it chosen.
        reference: ONNX file relative to the recipe, by whose logits to judge, such as the FP32 network before
            quantization-aware training; empty for the network itself.
    """

    definition: str
    classes: Classes
    labels: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    parameters: Count = 0
    multiply_adds: Count = 0
    logits: str = ""
    reference: str = ""


@dataclass(frozen=True, slots=True)
class WeightsSpec:
    """The published or shipped checkpoint of a network.

    Attributes:
        file: file name of the checkpoint, ending in -<first 8 or more hex digits of its SHA-256>.<suffix>;
            a file of that name in weights/ next to the recipe takes precedence over a download.
        url: download URL; empty for weights shipped with cnnx.
        source: publisher of the checkpoint, and the data of its published accuracy.
        licence: licence, as far as the publisher states one.
        top1: published top-1 accuracy in percent; 0 if not published.
        top5: published top-5 accuracy in percent; 0 if not published.
        protocol: image set, if not ImageNet, and crops of the published accuracy.
        training_only: shell patterns of tensors used only in training (auxiliary heads); they are dropped,
            also from the user's own checkpoint.
        rename: regular expression -> replacement, for tensor names that the definition has since changed.
        background_classes: number of classifier rows before the first class; they are dropped.
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
    """Accuracy reported by the authors of a network or by others who trained it.

    Attributes:
        source: who reports it, and where.
        protocol: image set, if not ImageNet, crops and ensemble size, such as "10 crops".
        top1: top-1 accuracy in percent; 0 if not reported.
        top5: top-5 accuracy in percent; 0 if not reported.
    """

    source: str
    protocol: str
    top1: Percent = 0.0
    top5: Percent = 0.0


@dataclass(frozen=True, slots=True)
class InputSpec:
    """The single input of the network.

    Attributes:
        shape: channels, height and width of an image.
        name: name of the graph's input.
        format: "float32-nchw": normalized images. "uint8-nhwc" or "uint8-nchw": pixels, normalized in the
            graph; "-bgr" or "-rgb" gives the order of the channels, and ":1080x1920" the size of the images
            if the graph also resizes them.
    """

    shape: tuple[Positive, Positive, Positive] = (3, 224, 224)
    name: str = "input"
    format: _Format = "float32-nchw"


@dataclass(frozen=True, slots=True)
class LayerOverride:
    """Precision of the layers whose ONNX node name matches a shell pattern, with a reason."""

    match: str
    precision: Precision
    reason: str


@dataclass(frozen=True, slots=True)
class PrecisionPolicy:
    """Which layers may use INT8 and FP16.

    Attributes:
        default: precision of `cnnx export` without a precision option.
        small_layers: precision of layers too small to gain from INT8; "fp16" does not quantize them.
        first_layer: precision of the weighted layers that read the image.
        last_layer: precision of the weighted layers that produce the logits.
        residual: precision of the shortcut added to an INT8 convolution; "int8" lets TensorRT fuse the two.
        reason: required if one of these four differs from its default.
        equalize: for INT8, scale channels first so that one range fits the whole tensor; the FP32 function
            does not change (`cnnx.graph.passes.equalize`).
        center: for INT8, shift activations that are never negative so that they use all steps; the FP32
            function does not change (`cnnx.graph.passes.center`).
        first_rounding: how INT8 weights that read the image are rounded: each to the nearest integer, or
            together, for smooth images (`cnnx.graph.passes.rounding`).
        remedies: for INT8, try cheap changes on held-out images if the network is far from its original
            (`cnnx.pipeline.search.remedies`).
        fp16_limit: layers with activations above this absolute value stay in FP32.
        overrides: exceptions by node name; the last match wins.
    """

    default: Precision = "fp16"
    small_layers: _Int8 = "fp16"
    first_layer: _Int8 = "int8"
    last_layer: _Int8 = "int8"
    residual: _Int8 = "int8"
    reason: str = ""
    equalize: bool = True
    center: bool = True
    first_rounding: Literal["nearest", "smooth"] = "nearest"
    remedies: bool = True
    fp16_limit: Quantity = 30000.0
    overrides: tuple[LayerOverride, ...] = ()


@dataclass(frozen=True, slots=True)
class RangeOverride:
    """Range method for what layers read whose ONNX node name matches a shell pattern, with a reason."""

    match: str
    method: str
    reason: str


@dataclass(frozen=True, slots=True)
class CalibrationSpec:
    """Calibration images, and the method that chooses ranges.

    Attributes:
        overrides: exceptions for the inputs of some layers; the last match wins.
    """

    data: str = "deadleaves"
    images: Positive = 512
    method: str = "mse"
    overrides: tuple[RangeOverride, ...] = ()


@dataclass(frozen=True, slots=True)
class ValidationSpec:
    """Validation images, used once at the end of an export."""

    data: str = "deadleaves"
    images: Positive = 1024


@dataclass(frozen=True, slots=True)
class Recipe:
    """One network, whole.

    Attributes:
        aliases: further names in commands, where spelling alone does not lead to the recipe's name.
        folder: where the file lay: relative names start there.
    """

    name: Name
    model: ModelSpec
    aliases: tuple[Name, ...] = ()
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
    gates: GateTable = GateTable()
    folder: Path = field(default=Path(), metadata={"key": False})

    @property
    def input_format(self) -> InputFormat:
        """Type, layout and channels of the input of the bundle's graph."""
        return input_format(self.input.format, self.preprocessing)

    @property
    def labels_file(self) -> Path | None:
        """Label file next to the recipe or shipped with cnnx; None if the recipe names none."""
        if not self.model.labels:
            return None
        beside = self.folder / self.model.labels
        shipped = shared_folder("recipes") / self.model.labels
        return shipped if shipped.is_file() and not beside.exists() else beside

    @property
    def runs_user_code(self) -> bool:
        """Whether building the model executes Python code that comes with the recipe."""
        return ".py:" in self.model.definition

    @property
    def is_onnx(self) -> bool:
        """Whether the definition is an ONNX graph instead of a PyTorch model."""
        return self.model.definition.lower().endswith(".onnx")

    def as_dict(self) -> dict[str, Any]:
        """The recipe as plain data, without its folder: a manifest must not depend on the machine.

        Also without its aliases, which are names for commands.
        """
        data = dataclasses.asdict(self)
        del data["folder"], data["aliases"]
        data["gates"] = self.gates.as_dict()
        return data


def parse_recipe(text: str, *, where: Path) -> Recipe:
    """Parse a recipe from TOML.

    Args:
        text: content of the file.
        where: path of the file, for messages and relative file names.

    Raises:
        RecipeError: invalid TOML, an unknown key, a wrong type, or contradictory values.
    """
    try:
        data = parse_toml(text)
    except ValueError as error:
        hint = 'fix the syntax; strings need quotes, as in name = "my-net"'
        raise RecipeError(f"the recipe is not valid TOML: {error}", where=where, hint=hint) from None
    return recipe_from_dict(data, where=where)


def recipe_from_dict(data: object, *, where: Path, at: str = "") -> Recipe:
    """Create a recipe from the output of `Recipe.as_dict` or from parsed TOML.

    Args:
        data: plain data.
        where: file that holds the data, for messages; relative file names start in its folder.
        at: path of the key that holds the data in that file.

    Raises:
        RecipeError: an unknown key, a wrong type, or contradictory values.
    """
    data = _explicit(with_gate_table(data, where=where), where, at)
    recipe = from_plain(Recipe, data, where=where, error=RecipeError, at=at)
    recipe = dataclasses.replace(recipe, folder=where.parent)
    _check(recipe, where, f"{at}." if at else "")
    return recipe


def _explicit(data: object, where: Path, at: str) -> object:
    """The data with every key of its preprocessing, if it states any."""
    if not isinstance(data, Mapping) or not isinstance(table := data.get("preprocessing"), Mapping):
        return data

    def under(key: str) -> str:
        return f"{at}.{key}" if at else key

    stated = from_plain(InputSpec, data.get("input", {}), where=where, error=RecipeError, at=under("input"))
    keys = resolved(
        table, stated.shape, where=where, folder=where.parent, error=RecipeError, at=under("preprocessing")
    )
    return {**data, "preprocessing": keys}


def _check(recipe: Recipe, where: Path, at: str) -> None:
    """Refuse contradictory values; single values were checked against their types."""

    def refuse(what: str, key: str, hint: str) -> typing.NoReturn:
        raise RecipeError(what, where=f"{where}, key {at}{key}", hint=hint)

    if recipe.weights.url and not recipe.weights.file:
        example = 'weights.file = "my-net-0a1b2c3d.pth", with the first 8 hex digits of its SHA-256'
        refuse("weights.url is set without weights.file", "weights.file", f"add {example}")
    try:
        for pattern, replacement in recipe.weights.rename.items():
            re.compile(pattern).sub(replacement, "")
    except (re.error, RecursionError, OverflowError) as error:
        hint = "write 'regular expression' = 'replacement', such as '^module[.]' = ''"
        refuse(f"invalid pattern or replacement: {error}", "weights.rename", hint)
    if found := contradiction(recipe.preprocessing, recipe.input.shape):
        refuse(*found)
    if found := format_contradiction(recipe.input_format, recipe.preprocessing):
        refuse(*found)
    policy, usual = recipe.precision, PrecisionPolicy()
    for key in ("small_layers", "first_layer", "last_layer", "residual"):
        if getattr(policy, key) != getattr(usual, key) and not policy.reason:
            what = f"{key} is not {getattr(usual, key)!r}, but no reason is given"
            refuse(what, "precision.reason", f'add reason = "...", or set {key} = {getattr(usual, key)!r}')
    for key, chosen in (("fp16", recipe.gates.fp16), ("int8", recipe.gates.int8), ("", recipe.gates)):
        if not chosen.reason and not recipe.gates.reason and (name := _unusual(chosen, key)):
            what = f"the gate {name!r} differs from its default, but no reason is given"
            refuse(what, f"gates.{key}.reason" if key else "gates.reason", 'add reason = "...", or remove it')


def _unusual(chosen: Limits, precision: str) -> str:
    """An agreement gate that differs from the default of its precision; empty if none does."""
    usual = [DEFAULTS[precision]] if precision else list(DEFAULTS.values())
    for key in AGREEMENT:
        value = getattr(chosen, key)
        if value is not None and any(value != getattr(each, key) for each in usual):
            return key
    return ""


def recipe_names() -> tuple[str, ...]:
    """Sorted names of the recipes shipped with cnnx."""
    return tuple(sorted(file.stem for file in shared_folder("recipes").glob("*.toml")))


def plain_spelling(name: str) -> str:
    """The name without capitals and separators: the same for ResNet-50, resnet_50 and resnet50."""
    return re.sub(r"[-_. ]", "", name.lower())


def names_meant(name: str) -> tuple[str, ...]:
    """Names of the shipped recipes that a name can mean: by its spelling, or else by their aliases."""
    names, wanted = recipe_names(), plain_spelling(name)
    if name in names:
        return (name,)
    alike = tuple(each for each in names if plain_spelling(each) == wanted)
    return alike or tuple(each for each in names if wanted in map(plain_spelling, read_recipe(each).aliases))


def read_recipe(name_or_file: str) -> Recipe:
    """Read a recipe by name, however it is spelled (`names_meant`), or from a file.

    Raises:
        RecipeError: the recipe does not exist, cannot be read or is invalid, or the name can mean several.
    """
    file = Path(name_or_file)
    with contextlib.suppress(OSError):  # the name may be too long for a path
        if (file / "manifest.json").is_file():
            hint = "pass the recipe or the ONNX file it was exported from; cnnx inspect shows its contents"
            raise RecipeError("this is an exported bundle, not a network", where=file, hint=hint)
    if file.suffix != ".toml":
        meant = names_meant(name_or_file)
        if len(meant) > 1:
            what = f"the model {name_or_file!r} is one of several: {', '.join(meant)}"
            raise RecipeError(what, hint=f"give one of these names; cnnx list {name_or_file} shows them")
        if not meant:
            near = difflib.get_close_matches(name_or_file.lower(), recipe_names(), n=1, cutoff=0.4)
            hint = f"did you mean {near[0]!r}? " if near else ""
            if Path(name_or_file).suffix in (".pth", ".pt", ".safetensors"):
                hint = "pass a checkpoint with --weights, and the name or recipe of its network; "
            raise RecipeError(f"unknown model {name_or_file!r}", hint=f"{hint}cnnx list shows all names")
        file = shared_folder("recipes") / f"{meant[0]}.toml"
    try:
        return parse_recipe(read_text(file, most=TEXT_BYTES), where=file)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        hint = "check the path and its permissions; a recipe is a UTF-8 text file"
        raise RecipeError(f"the recipe cannot be read: {reason}", where=file, hint=hint) from None
