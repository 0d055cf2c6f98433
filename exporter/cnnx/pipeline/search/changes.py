"""Quantizes a network with changes (`cnnx.quant.remedies`), and tries it on held-out images."""

from __future__ import annotations

import dataclasses
import glob
import json
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cnnx.agreement import Likeness, compare, divergences
from cnnx.data.crops import Crops
from cnnx.pipeline.quantizer import Quantizer, in_fp16
from cnnx.pipeline.search.repair import unsearched
from cnnx.pipeline.steps.artefacts import Fp32Graph
from cnnx.pipeline.steps.inference import graph_logits
from cnnx.quant.calibration import Calibration
from cnnx.quant.remedies import Remedies, Remedy, Tried
from cnnx.quant.repair import Outcome
from cnnx.recipe import RangeOverride, Recipe
from cnnx.store.cache import Partial
from cnnx.store.files import scratch_folder

Variant = tuple[Quantizer, Calibration]
# Layers that are named where more are in FP16.
_NAMED = 3


@dataclass(frozen=True, slots=True)
class Changeable:
    """A quantized network, and what other ones can be made from.

    Attributes:
        quantizer: its quantizer.
        calibration: its calibration.
        exported: its FP32 graph without equalization; None if only the equalized one is here.
        images: its calibration images; None if they are not needed.
        more: more calibration images, in place of these; None if there are none.
    """

    quantizer: Quantizer
    calibration: Calibration
    exported: Fp32Graph | None = None
    images: Crops | None = None
    more: Crops | None = None

    def changed(self, remedies: Remedies) -> Variant:
        """The quantizer and the calibration with these changes."""
        quantizer, method = self.quantizer.quiet(), self.calibration.method
        recipe = with_changes(quantizer.recipe, remedies)
        kinds = {each.kind: each for each in remedies}
        if "equalize" in kinds or "images" in kinds:
            images = self.more if "images" in kinds else self.images
            assert images is not None
            if "equalize" in kinds:
                assert self.exported is not None
                graph = self.exported
            else:
                graph = quantizer.graph
            quantizer = _observed(quantizer, graph, images, recipe, equalizes="equalize" in kinds)
        quantizer = dataclasses.replace(quantizer, recipe=recipe)
        if not kinds.keys() & {"method", "range", "equalize", "images"}:
            return quantizer, self.calibration
        method = kinds["method"].method if "method" in kinds else method
        return quantizer, quantizer.ranges(method).read()


def _observed(
    quantizer: Quantizer, graph: Fp32Graph, images: Crops, recipe: Recipe, *, equalizes: bool
) -> Quantizer:
    """The quantizer with statistics of other images, or of a graph that is equalized or not."""
    before = unsearched(recipe)
    if not equalizes:  # the graph stays as it is, equalized or not
        before = dataclasses.replace(before, precision=dataclasses.replace(before.precision, equalize=False))
    return Quantizer.observe(quantizer.steps, graph, images, before, scales=quantizer.scales)


def with_changes(recipe: Recipe, remedies: Remedies, *, reason: str = "tried") -> Recipe:
    """The recipe with these changes, as far as a recipe states them; `reason`: why."""
    for each in remedies:
        policy, calibration = recipe.precision, recipe.calibration
        if each.kind == "center":
            policy = dataclasses.replace(policy, center=each.on)
        elif each.kind == "rounding":
            policy = dataclasses.replace(policy, first_rounding="smooth")
        elif each.kind == "equalize":
            policy = dataclasses.replace(policy, equalize=each.on)
        elif each.kind == "range":
            ranges = [RangeOverride(glob.escape(name), each.method, reason) for name in each.layers]
            calibration = dataclasses.replace(calibration, overrides=(*calibration.overrides, *ranges))
        elif each.kind == "method":
            calibration = dataclasses.replace(calibration, method=each.method)
        elif each.kind == "images":
            calibration = dataclasses.replace(calibration, images=each.images)
        recipe = dataclasses.replace(recipe, precision=policy, calibration=calibration)
        if each.kind in ("fp16", "shortcuts"):
            recipe = in_fp16(recipe, dict.fromkeys(each.layers, reason))
    return recipe


class ChangeTrials:
    """Tries each combination of changes once. A journal keeps the outcomes, so that a stopped search resumes.

    Args:
        network: the network to change.
        pixels: images (N, H, W, C).
        passes: whether a network this close to its original passes.
        journal: file of outcomes; the caller removes it.
        said: called after each call, also if the outcome is known: a search that resumes counts on.
    """

    def __init__(
        self,
        network: Changeable,
        pixels: NDArray[np.uint8],
        *,
        passes: Callable[[Likeness], bool],
        journal: Partial,
        said: Callable[[], None] = lambda: None,
    ) -> None:
        self._network, self._pixels, self._passes = network, pixels, passes
        self._journal, self._said = journal, said
        self._original: NDArray[np.float32] | None = None
        kept = json.loads(journal.load() or b"[]")
        self.likenesses: dict[Remedies, Likeness] = {}
        self._distances: dict[Remedies, list[float]] = {}
        for remedies, likeness, distances in kept:
            key = remedies_of(remedies)
            self.likenesses[key], self._distances[key] = Likeness(**likeness), distances

    def __call__(self, remedies: Remedies) -> Tried:
        """The network with these changes."""
        if remedies not in self.likenesses:
            self._try(remedies)
            kept = [
                [[dataclasses.asdict(each) for each in key], dataclasses.asdict(found), self._distances[key]]
                for key, found in self.likenesses.items()
            ]
            self._journal.save(lambda file: file.write_bytes(json.dumps(kept).encode()))
        self._said()
        likeness = self.likenesses[remedies]
        outcome = Outcome(likeness.divergence, self._passes(likeness))
        return Tried(remedies, outcome, np.array(self._distances[remedies]))

    def _try(self, remedies: Remedies) -> None:
        quantizer, calibration = self._network.changed(remedies)
        base = self._network.quantizer
        preprocessing = base.recipe.preprocessing
        if self._original is None:  # equalization does not change the function: one original serves all
            self._original = graph_logits(base.graph.model, self._pixels, preprocessing)
        with scratch_folder() as scratch:
            model = quantizer.write_typed(scratch, calibration)
            logits = graph_logits(model, self._pixels, preprocessing)
        original = self._original
        self.likenesses[remedies] = compare(original, logits)
        finite = np.asarray(np.isfinite(logits).all(axis=1))
        safe = np.where(finite[:, None], logits, 0)
        self._distances[remedies] = np.where(finite, divergences(original, safe), np.inf).tolist()


def described(remedies: Remedies) -> str:
    """The changes in words."""
    fp16 = [each.layers[0] for each in remedies if each.kind == "fp16"]
    words = [_words(each) for each in remedies if each.kind != "fp16"]
    if fp16:
        more = f" and {len(fp16) - _NAMED} more" if len(fp16) > _NAMED else ""
        words.append(f"{', '.join(fp16[:_NAMED])}{more} in FP16")
    return ", ".join(words) or "as it is"


def _words(remedy: Remedy) -> str:
    if remedy.kind == "method":
        return f"ranges by {remedy.method}"
    if remedy.kind == "range":
        return f"range of {remedy.layers[0]}'s input by {remedy.method}"
    if remedy.kind == "images":
        return f"{remedy.images} calibration images"
    if remedy.kind == "rounding":
        return f"weights of {remedy.layers[0]} rounded for smooth images"
    if remedy.kind == "shortcuts":
        return "all shortcuts in FP16"
    name = {"center": "centering", "equalize": "equalization"}[remedy.kind]
    return f"{name} {'on' if remedy.on else 'off'}"


def remedies_of(plain: list[dict[str, object]]) -> Remedies:
    """Changes from plain data."""
    return tuple(Remedy(**{**each, "layers": tuple(each["layers"])}) for each in plain)  # type: ignore[arg-type]
