"""Graphs that a consumer needs changed, compared with the bundle's own on its self-test."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cnnx import runtimes
from cnnx.agreement import first_classes, probabilities
from cnnx.bundle import Bundle
from cnnx.bundle.manifest import recipe_of
from cnnx.data.network_input import network_input
from cnnx.errors import BuildFailed
from cnnx.store.digests import digest_of_file

DIFFERENCE = "difference.json"
_MOST_CHANGED = 0.02  # INT8 rounds differently where a float does


@dataclass(frozen=True, slots=True)
class Difference:
    """A changed graph beside the bundle's, on the images of the self-test.

    Attributes:
        changes: what was changed, in words.
        images: number of images.
        relative: max|a-b| / max|b| over the logits, or the probabilities if the graph has a Softmax.
        top1_changed: images whose top class is another one.
        bundle_graph: SHA-256 of the bundle's graph.
        graph: SHA-256 of the changed graph.
    """

    changes: str
    images: int
    relative: float
    top1_changed: int
    bundle_graph: str
    graph: str

    def __str__(self) -> str:
        """In one sentence."""
        return (
            f"The graph differs from the bundle's: {self.changes}. On {self.images} images of the self-test, "
            f"outputs differ by {self.relative:.1g} of the largest, and the top class of "
            f"{self.top1_changed} changes."
        )


def compared(
    bundle: Bundle,
    graph: Path,
    feed: Callable[[NDArray[np.uint8]], NDArray[np.float32] | NDArray[np.uint8]],
    *,
    changes: str,
    softmax: bool,
) -> Difference:
    """Compare a changed graph with the bundle's own, and write the result beside it as difference.json.

    Args:
        bundle: the bundle.
        graph: the changed graph.
        feed: turns crops (N, H, W, C) into what the changed graph takes.
        changes: what was changed, in words.
        softmax: whether it gives probabilities.

    Raises:
        BuildFailed: the top class of more than 2 % of the images changes.
    """
    recipe, crops = recipe_of(bundle.manifest), bundle.reference().crops
    own = _outputs(bundle.model, network_input(crops, recipe.preprocessing, recipe.input_format))
    expected = probabilities(own) if softmax else own
    found = _outputs(graph, feed(crops))
    changed = int((first_classes(own) != first_classes(found)).sum())
    difference = Difference(
        changes=changes,
        images=len(crops),
        relative=float(np.abs(found - expected).max() / max(float(np.abs(expected).max()), 1e-30)),
        top1_changed=changed,
        bundle_graph=bundle.manifest.files[bundle.model.name],
        graph=digest_of_file(graph),
    )
    if changed > _MOST_CHANGED * len(crops):
        raise BuildFailed(
            f"the changed graph gives another top class for {changed} of {len(crops)} images",
            where=bundle.path,
            hint="please report this with the recipe",
        )
    (graph.parent / DIFFERENCE).write_text(json.dumps(asdict(difference), indent=1) + "\n", encoding="utf-8")
    return difference


def _outputs(graph: Path, images: NDArray[np.float32] | NDArray[np.uint8]) -> NDArray[np.float32]:
    """The first output of a graph on ONNX Runtime, eight images at a time."""
    runtime = runtimes.get(runtimes.GRAPHS)
    if reason := runtime.cannot_run():
        raise reason
    session = runtime.open(graph)
    name = session.output_names[0]
    one = session.run(images[:1])[name]
    if one.ndim == 1:  # a graph for one image, without an axis for the batch
        parts = [session.run(images[start : start + 1])[name][None] for start in range(len(images))]
    else:
        parts = [session.run(images[start : start + 8])[name] for start in range(0, len(images), 8)]
    session.close()
    return np.concatenate(parts)
