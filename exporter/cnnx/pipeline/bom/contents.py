"""Reads what a bill of materials states about a bundle: its files, engines, licence, verdict and limits."""

from __future__ import annotations

import re
from dataclasses import dataclass

from cnnx.agreement import Validation, validation_from_dict
from cnnx.bundle import ENGINE, MANIFEST, Bundle
from cnnx.bundle.engine import Engine
from cnnx.bundle.manifest import Manifest, recipe_of
from cnnx.bundle.signature import SIGNATURE, files_of, is_signature
from cnnx.models import family
from cnnx.pipeline.records.verified import records_of
from cnnx.preprocessing.words import described
from cnnx.recipe import Recipe
from cnnx.record import Record
from cnnx.stats import wilson
from cnnx.store.digests import digest_of_file

_COSTS = ("ms", "MiB", "mJ")
_SPDX = ("Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "MIT")


@dataclass(frozen=True, slots=True)
class Metric:
    """A measured value with its 95 % interval, as text.

    Attributes:
        low: lower end; empty if the value is exact.
        is_cost: whether it is latency, memory, energy or size, which no images decide.
    """

    name: str
    value: str
    low: str = ""
    high: str = ""
    is_cost: bool = False


@dataclass(frozen=True, slots=True)
class Contents:
    """A bundle, as other tools want to know it.

    Attributes:
        files: SHA-256 of manifest.json, of each portable file, and of each engine's files, in this order.
        others: SHA-256 of all other files that a signature covers, and of the signature.
        engines: engines built from the bundle's graph, files checked.
        verdict: newest verdict on validation images; None if there is none.
        date: when that was recorded, in ISO 8601; empty without one.
        limits: sentences about what the verdict and the weights do not show.
    """

    manifest: Manifest
    recipe: Recipe
    files: dict[str, str]
    others: dict[str, str]
    engines: tuple[Engine, ...]
    verdict: Validation | None
    date: str
    limits: tuple[str, ...]

    @property
    def version(self) -> str:
        """Start of the digest of everything the bundle was made from."""
        return self.manifest.fingerprint[:12]

    @property
    def family(self) -> str:
        """Family of the network; empty for the user's own."""
        return family(self.recipe.model.definition)

    @property
    def licence(self) -> str:
        """Licence of published weights, in the recipe's words; empty if it states none, or for others."""
        return self.recipe.weights.licence if self.manifest.weights["kind"] == "pretrained" else ""

    @property
    def spdx(self) -> str:
        """SPDX identifier of the licence, if it is nothing else."""
        return self.licence if self.licence in _SPDX else ""

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """What the newest verdict measured, with intervals."""
        return () if self.verdict is None else tuple(_metrics(self.verdict))


def contents_of(bundle: Bundle) -> Contents:
    """Read a bundle, checking every hash that is stated.

    Raises:
        BundleError: a file is damaged.
    """
    manifest = bundle.manifest
    engines = bundle.engines()
    files = {MANIFEST: digest_of_file(bundle.path / MANIFEST), **dict(sorted(manifest.files.items()))}
    for engine in engines:
        bundle.engine_file(engine)
        folder = f"engines/{engine.identity}"
        files[f"{folder}/{engine.file}"] = engine.digest
        files[f"{folder}/{ENGINE}"] = digest_of_file(bundle.path / folder / ENGINE)
    beside = sorted({*files_of(bundle.path), *_signature(bundle)} - set(files))
    newest = _newest(bundle)
    verdict = None if newest is None else validation_from_dict(newest.result)
    recipe = recipe_of(manifest)
    return Contents(
        manifest=manifest,
        recipe=recipe,
        files=files,
        others={name: digest_of_file(bundle.path / name) for name in beside},
        engines=engines,
        verdict=verdict,
        date="" if newest is None else newest.date,
        limits=tuple(dict.fromkeys(_limits(manifest, recipe, verdict))),
    )


def _signature(bundle: Bundle) -> tuple[str, ...]:
    return (SIGNATURE,) if is_signature(bundle.path / SIGNATURE) else ()


def _newest(bundle: Bundle) -> Record | None:
    """The newest verdict on validation images, by export or later."""
    judged = [each for each in records_of(bundle).verified if each.kind in ("validation", "judgement")]
    return judged[-1] if judged else None


def _metrics(verdict: Validation) -> list[Metric]:
    found = []
    if verdict.right is not None:
        right = verdict.right
        for name, rate in (
            ("top-1 accuracy", right.engine_accuracy),
            ("top-1 accuracy of the original", right.original_accuracy),
        ):
            interval = wilson(rate, right.n)
            found.append(Metric(name, _text(rate), _text(interval.low), _text(interval.high)))
    for gate in verdict.gates:
        if gate.value is not None:
            name = f"{gate.name} ({gate.unit})" if gate.unit else gate.name
            ends = gate.interval
            low, high = ("", "") if ends is None else (_text(ends.low), _text(ends.high))
            found.append(Metric(name, _text(gate.value), low, high, gate.unit in _COSTS))
    return found


def _text(value: float) -> str:
    return f"{value:.6g}"


def _limits(manifest: Manifest, recipe: Recipe, verdict: Validation | None) -> list[str]:
    found = [f"Agreement with the original was not judged: {why}." for why in manifest.cannot_judge]
    if verdict is None:
        found.append("No verdict on validation images is recorded.")
    else:
        found += [f"Agreement with the original was not judged: {why}." for why in verdict.reasons]
    if recipe.preprocessing.assumed or (verdict is not None and verdict.assumed_preprocessing):
        words = described(recipe.preprocessing, recipe.input.shape, recipe.input_format)
        found.append(f"Nobody has stated the preprocessing; it is assumed: {words}.")
    for role, images in manifest.images.items():
        if images.synthetic:
            found.append(f"The {role} images are synthetic.")
    found += [f"{each['node'] or 'graph'}: {each['message']}" for each in manifest.warnings]
    return [re.sub(r"\s+", " ", each) for each in found]
