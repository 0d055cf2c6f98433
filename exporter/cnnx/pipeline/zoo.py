"""What there is to export, and what a network is made of."""

from __future__ import annotations

from dataclasses import dataclass

from cnnx.recipe import Recipe, read_recipe, recipe_names
from cnnx.record import LayerRow


@dataclass(frozen=True, slots=True)
class Architecture:
    """A network laid open, layer by layer."""

    name: str
    title: str
    input_shape: tuple[int, int, int]
    layers: tuple[LayerRow, ...]

    @property
    def parameters(self) -> int:
        """Trainable values in all."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds for one picture, biases excluded."""
        return sum(layer.multiply_adds for layer in self.layers)


def list_recipes() -> tuple[Recipe, ...]:
    """Every recipe that ships, by name."""
    return tuple(read_recipe(name) for name in recipe_names())


def show(model: str, *, trust_recipe: bool = False) -> Architecture:
    """The layers of a recipe's network, or of an ONNX file.

    Raises:
        RecipeError: there is no such recipe, or it would run code and was not trusted.
        MissingExtra: a PyTorch definition is asked for and PyTorch is absent.
    """
    from cnnx.pipeline.original import build_torch, resolve

    recipe = resolve(model, trust_recipe=trust_recipe)
    if recipe.is_onnx:
        from cnnx.graph.inspect import layers
        from cnnx.graph.load import load_model

        rows: tuple[LayerRow, ...] = layers(load_model(recipe.folder / recipe.model.definition))
    else:
        from cnnx.models.count import layer_rows

        rows = layer_rows(build_torch(recipe, trusted=trust_recipe), recipe.input.shape)
    return Architecture(recipe.name, recipe.title or recipe.name, recipe.input.shape, rows)
