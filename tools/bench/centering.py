"""Compare INT8 with and without centered activations: python -m tools.bench.centering [BUNDLE...]

Takes bundles that were exported with --int8 --with-source; without one, exports the trained small networks.
Both graphs have the same ranges, and run on the same validation images (--images, --validation-data).
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from pathlib import Path

import cnnx
from cnnx.agreement import Likeness, compare
from cnnx.bundle import Bundle
from cnnx.pipeline.progress import Steps
from cnnx.pipeline.source import read_source
from cnnx.pipeline.steps.images import crops_step, image_set
from cnnx.pipeline.steps.inference import graph_logits
from cnnx.quant.noise import Noise
from tools.markdown import table

NETWORKS = (
    *("densenet22-12", "plain20", "resnet20", "small-googlenet-bn", "small-levit", "small-mobilenet"),
    "small-vgg-bn",
)


def compared(bundle: Path, *, data: str | None, images: int) -> tuple[str, list[Likeness], list[float]]:
    """Name, likeness to FP32 and noise of the logits as a share of their energy: without and with centers."""
    source = read_source(Bundle.open(bundle))
    quantizer, recipe = source.quantizer(Steps()), source.recipe
    assert source.calibration is not None
    crops = crops_step(
        Steps(),
        image_set(recipe, data or recipe.validation.data, "validation", None),
        recipe,
        count=images,
        role="validation",
    )
    original = graph_logits(quantizer.graph.model, crops.pixels, recipe.preprocessing)
    likenesses, noises = [], []
    for centers in (False, True):
        policy = dataclasses.replace(recipe.precision, center=centers)
        tried = dataclasses.replace(quantizer, recipe=dataclasses.replace(recipe, precision=policy))
        with tempfile.TemporaryDirectory() as folder:
            model = tried.write_typed(Path(folder), source.calibration)
            logits = graph_logits(model, crops.pixels, recipe.preprocessing)
        noise = Noise()
        noise.add(original, logits)
        likenesses.append(compare(original, logits))
        noises.append(noise.db or 0.0)
    return recipe.name, likenesses, noises


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundles", nargs="*", type=Path, help="bundles with their source")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--validation-data", help="images for networks without a built-in set")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name in () if asked.bundles else NETWORKS:
            bundle = Path(folder, name)
            cnnx.export(name, precision="int8", with_source=True, validation_images=16, out=bundle)
            asked.bundles.append(bundle)
        rows = []
        for bundle in asked.bundles:
            name, likeness, noise = compared(bundle, data=asked.validation_data, images=asked.images)
            before, after = (each.divergence for each in likeness)
            dbs = (f"{each:.1f}" for each in noise)
            rows.append(
                [name, *(f"{1e3 * each:.2f}" for each in (before, after)), f"{after / before:.2f}", *dbs]
            )
            print(*rows[-1], flush=True)
    print(table(("network", "mnats without", "with", "ratio", "dB without", "with"), rows))


if __name__ == "__main__":
    main()
