"""A single Python file that classifies images, for devices without cnnx."""

from __future__ import annotations

import shutil
from pathlib import Path

from cnnx.bundle import Bundle
from cnnx.bundle.manifest import recipe_of
from cnnx.package.copies import copy_bundle, engines_of, fill_in
from cnnx.preprocessing.words import described

_PROGRAM = Path(__file__).parent / "program"
_SCRIPT = "classify.py"


def write(bundle: Bundle, folder: Path) -> tuple[str, ...]:
    """See `cnnx.package.Adapter`."""
    notes = copy_bundle(bundle, folder / "bundle")
    shutil.copyfile(_PROGRAM / _SCRIPT, folder / _SCRIPT)
    recipe = recipe_of(bundle.manifest)
    engines = engines_of(bundle, "tensorrt")
    packages = ["numpy", "pillow", "cuda-python" if engines else "onnxruntime"]
    if recipe.preprocessing.resampling == "opencv" and recipe.input_format.frame is None:
        packages.append("opencv-python-headless")
    fill_in(
        _PROGRAM / "README.md",
        folder / "README.md",
        name=bundle.manifest.name,
        packages=" ".join(packages),
        preprocessing=described(recipe.preprocessing, recipe.input.shape, recipe.input_format),
    )
    if engines:
        return notes
    return (
        *notes,
        "The bundle has no TensorRT engine, so the program runs the graph on ONNX Runtime.",
    )
