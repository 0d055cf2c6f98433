"""A C++ program that classifies images with a bundle, on TensorRT or ONNX Runtime.

`program/` is copied as it is: a CMake project with one public header and a C ABI. README.md is filled in.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from cnnx.bundle import MANIFEST, Bundle
from cnnx.bundle.manifest import recipe_of
from cnnx.errors import BundleError
from cnnx.package.copies import copy_bundle, engines_of, fill_in
from cnnx.preprocessing import Preprocessing
from cnnx.preprocessing.words import described

_PROGRAM = Path(__file__).parent / "program"
_INTERPOLATIONS = ("bilinear", "bicubic", "box", "nearest")


def write(bundle: Bundle, folder: Path) -> tuple[str, ...]:
    """Fill an empty folder with the program, and a copy of the bundle.

    Args:
        bundle: an opened bundle.
        folder: an existing, empty folder.

    Returns:
        Notes for the user.

    Raises:
        BundleError: the program does not cover the bundle's preprocessing, or a file is damaged.
    """
    recipe = recipe_of(bundle.manifest)
    graph_resizes = recipe.input_format.frame is not None
    if fault := _uncovered(recipe.preprocessing, graph_resizes=graph_resizes):
        raise BundleError(
            f"the C++ program does not cover {fault}",
            where=bundle.path / MANIFEST,
            hint="export the network with preprocessing that it covers: "
            f"Pillow's {', '.join(_INTERPOLATIONS)}, without EXIF",
        )
    shutil.copytree(_PROGRAM, folder, dirs_exist_ok=True)
    notes = copy_bundle(bundle, folder / "bundle")
    fill_in(
        _PROGRAM / "README.md",
        folder / "README.md",
        name=bundle.manifest.name,
        preprocessing=described(recipe.preprocessing, recipe.input.shape, recipe.input_format),
        classes=bundle.manifest.classes,
    )
    return notes + _notes([engine.identity for engine in engines_of(bundle, "tensorrt")])


def _uncovered(preprocessing: Preprocessing, *, graph_resizes: bool) -> str:
    """What of the preprocessing the program refuses; empty if it covers all."""
    if preprocessing.box is not None and not graph_resizes:
        if preprocessing.resampling != "pillow":
            return f'resampling = "{preprocessing.resampling}"'
        if preprocessing.interpolation not in _INTERPOLATIONS:
            return f'interpolation = "{preprocessing.interpolation}"'
    return "exif = true" if preprocessing.exif else ""


def _notes(engines: list[str]) -> tuple[str, ...]:
    packages = "It needs the packages nlohmann-json3-dev and libstb-dev: see README.md."
    if engines:
        return (packages,)
    return (
        packages,
        "The bundle has no TensorRT engine, so the program runs the graph on ONNX Runtime. Build an engine "
        "on the device with cnnx build, and write the package again.",
    )
