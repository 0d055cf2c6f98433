"""What a consumer cannot do is refused by name, with a hint."""

from __future__ import annotations

from cnnx.bundle import Bundle
from cnnx.bundle.manifest import recipe_of
from cnnx.errors import BundleError


def refuse_pixels(bundle: Bundle, consumer: str) -> None:
    """Refuse a graph that takes pixels.

    Raises:
        BundleError: it does.
    """
    form = recipe_of(bundle.manifest).input_format
    if form.is_raw:
        raise BundleError(
            f"{consumer} gives a network floats, but this graph takes {form}",
            where=bundle.path,
            hint="export again without --input; cnnx then puts what is needed into the graph",
        )


def refuse_large_batches(bundle: Bundle, consumer: str) -> None:
    """Refuse a graph that cannot take a single image.

    Raises:
        BundleError: its smallest batch is larger.
    """
    if bundle.manifest.batch[0] > 1:
        raise BundleError(
            f"{consumer} runs single images, but the smallest batch of this graph is "
            f"{bundle.manifest.batch[0]}",
            where=bundle.path,
            hint=f"export again with --batch 1..{bundle.manifest.batch[1]}",
        )


def refuse_other_scaling(bundle: Bundle, consumer: str) -> None:
    """Refuse images that are scaled as OpenCV does, or turned upright by EXIF, which Pillow's crop is not.

    Raises:
        BundleError: they are.
    """
    preprocessing = recipe_of(bundle.manifest).preprocessing
    if preprocessing.exif or (preprocessing.resampling != "pillow" and preprocessing.box is not None):
        key = "exif = true" if preprocessing.exif else f'resampling = "{preprocessing.resampling}"'
        raise BundleError(
            f"the program for {consumer} does not cover {key}",
            where=bundle.path,
            hint="use the package for python, which does, or export with Pillow's resampling",
        )


def pads(bundle: Bundle, consumer: str) -> bool:
    """Whether images are fitted into the network's input and padded with black, which consumers can do.

    Raises:
        BundleError: images are padded in another way.
    """
    recipe = recipe_of(bundle.manifest)
    preprocessing, size = recipe.preprocessing, recipe.input.shape[1:]
    if preprocessing.fit not in ("longer", "letterbox"):
        return False
    if preprocessing.box == size and not any(preprocessing.fill):
        return True
    fill, box = ", ".join(map(str, preprocessing.fill)), "{} x {}".format(*preprocessing.box or size)
    raise BundleError(
        f"{consumer} fits images into the network's input and pads them with black, but this network takes "
        f"images fitted into {box} and padded with {fill} to {size[0]} x {size[1]}",
        where=bundle.path,
        hint="use the package for python, which pads as the network was trained",
    )
