"""Statistics of calibration images that nodes run, merged exactly, and kept for later exports here."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnnx.agreement.sharding import Sharding
from cnnx.data.crops import Crops
from cnnx.errors import BundleError, CnnxError
from cnnx.options import Precision
from cnnx.pipeline.fleet.shards.fleet import Fleet, Work, facts_of
from cnnx.pipeline.fleet.shards.kept import Part, unreadable
from cnnx.pipeline.fleet.shards.parts import PROBE, SHARD
from cnnx.pipeline.progress import Progress, Steps
from cnnx.pipeline.steps.artefacts import MODEL, STATISTICS, Fp32Graph, Statistics
from cnnx.pipeline.steps.inference import RUNNER
from cnnx.pipeline.steps.observation import observed
from cnnx.pipeline.steps.statistics import merged, statistics_inputs, statistics_step, tensors_of
from cnnx.quant.observation import Observation
from cnnx.recipe import Recipe
from cnnx.schema import from_plain
from cnnx.store.files import scratch_folder
from cnnx.store.own_code import own_code

_SHARDING, _PROBE = "sharding.json", "probe.npz"


class FleetStatistics:
    """Runs calibration images on nodes.

    Statistics that nodes computed as this machine would are kept under the key of `statistics_step`, so that
    a later export here reuses them. Others only if `keep_unequal`, as a cached result must be that of its
    inputs.

    Args:
        fleet: the nodes.
        needs: what a node must offer.
        keep_unequal: keep statistics of nodes that compute differently.

    Attributes:
        sharding: how images were spread; None if the cache had all statistics.
        kept: whether a later export here reuses the statistics.
        notes: notes for the user.
    """

    def __init__(self, fleet: Fleet, needs: str, *, keep_unequal: bool) -> None:
        self._fleet, self._needs, self._keep_unequal = fleet, needs, keep_unequal
        self.sharding: Sharding | None = None
        self.kept = True
        self.notes: tuple[str, ...] = ()

    def observe(
        self,
        steps: Steps,
        graph: Fp32Graph,
        crops: Crops,
        recipe: Recipe,
        *,
        precision: Precision,
        title: str,
    ) -> Statistics:
        """Run images on the nodes, unless the cache has their statistics.

        Raises:
            JobsLost: no node could do some of the shards.
        """
        here = statistics_inputs(graph, crops, recipe, precision=precision)
        if steps.store.has("statistics", here):
            return statistics_step(steps, graph, crops, recipe, precision=precision, title=title)
        inputs = {
            **here,
            "nodes": facts_of(self._fleet.offering(self._needs)),
            "threads": self._fleet.threads,
            "code": own_code(__name__, "cnnx.pipeline.fleet.tasks.statistics", RUNNER),
        }

        def fill(folder: Path, progress: Progress) -> None:
            self._fill(folder, graph, crops, recipe, precision=precision, progress=progress)

        found = Statistics(steps.make(title, "statistics", inputs, fill))
        self._fleet.forget()
        self.sharding = _read_sharding(found.folder)
        if not self._is_kept(steps, found, graph, crops, recipe):
            return found
        return statistics_step(
            steps,
            graph,
            crops,
            recipe,
            precision=precision,
            parts=[found],
            title="statistics kept for exports",
        )

    def merge(
        self,
        steps: Steps,
        graph: Fp32Graph,
        crops: Crops,
        recipe: Recipe,
        *,
        precision: Precision,
        parts: Sequence[Statistics],
    ) -> Statistics:
        """Merge the statistics of folds that together contain the images."""
        if self.kept:
            return statistics_step(steps, graph, crops, recipe, precision=precision, parts=parts)
        inputs = {
            **statistics_inputs(graph, crops, recipe, precision=precision),
            "parts": [part.key for part in parts],
            "code": own_code(__name__, RUNNER),
        }

        def fill(folder: Path, _: Progress) -> None:
            merged(part.read() for part in parts).save(folder / STATISTICS)

        return Statistics(steps.make("all folds", "statistics", inputs, fill))

    def _fill(
        self,
        folder: Path,
        graph: Fp32Graph,
        crops: Crops,
        recipe: Recipe,
        *,
        precision: Precision,
        progress: Progress,
    ) -> None:
        from cnnx.graph.load import load_model

        model = load_model(graph.model)
        sampled, one_sided = tensors_of(model, recipe, precision=precision)
        arguments = {
            "recipe": json.loads(json.dumps(recipe.as_dict())),
            "sampled": list(sampled),
            "one_sided": sorted(one_sided),
        }

        def maxima(part: Part, name: str, images: int) -> NDArray[np.float32]:
            """The largest |x| of every channel."""
            seen = _observation(part, name, images)
            if (seen.sampled, seen.one_sided) != (sampled, one_sided):
                raise unreadable(part.node.name, f"{name} has statistics of different tensors")
            return np.concatenate([seen.channel_maxima(each) for each in seen.watched])

        work = Work(
            "statistics", "statistics", arguments, {MODEL: graph.model}, self._needs, maxima, STATISTICS
        )
        parts = self._fleet.run(work, crops.pixels, batch=batch_of(graph), progress=progress)
        whole = merged(_observation(part, f"{SHARD}/{STATISTICS}", len(shard)) for shard, part in parts)
        whole.save(folder / STATISTICS)
        probes = list(dict.fromkeys(part.file(f"{PROBE}/{STATISTICS}") for _, part in parts))
        (folder / _PROBE).write_bytes(probes[0])
        sharding = self._fleet.sharding()
        assert sharding is not None
        alike = all(_same(folder / _PROBE, probe) for probe in probes[1:])
        text = json.dumps({"sharding": dataclasses.asdict(sharding), "alike": alike}, indent=1)
        (folder / _SHARDING).write_text(text + "\n", encoding="utf-8")

    def _is_kept(
        self, steps: Steps, found: Statistics, graph: Fp32Graph, crops: Crops, recipe: Recipe
    ) -> bool:
        """Whether the statistics are kept for exports here; if not, notes say why."""
        why = _unlike(found, graph, crops, recipe)
        if why and not self._keep_unequal:
            self.kept = False
            self.notes = (
                f"An export on this machine will run the calibration images again, as {why}. "
                "--keep-unequal lets it reuse these statistics.",
            )
        return self.kept


def batch_of(graph: Fp32Graph) -> int:
    """Images of each run of `observed`."""
    from cnnx.graph.load import input_shape, load_model

    batch = input_shape(load_model(graph.model))[0]
    return batch if isinstance(batch, int) else 1


def _unlike(found: Statistics, graph: Fp32Graph, crops: Crops, recipe: Recipe) -> str:
    """Why the statistics may not be those that this machine would compute; empty if they are.

    The first batch is run here, with as many threads as an export takes.
    """
    from cnnx.graph.load import load_model

    facts = json.loads((found.folder / _SHARDING).read_text(encoding="utf-8"))
    if not facts["alike"]:
        return "its nodes compute differently"
    with scratch_folder() as scratch:
        probe = Observation.load(found.folder / _PROBE)
        try:
            seen = observed(
                load_model(graph.model),
                crops.pixels[: batch_of(graph)],
                recipe,
                sampled=probe.sampled,
                one_sided=probe.one_sided,
                folder=scratch,
                progress=lambda _done, _total: None,
            )
        except CnnxError as error:
            return f"this machine cannot run the graph to compare ({error.what})"
        seen.save(scratch / STATISTICS)
        same = _same_arrays(scratch / STATISTICS, found.folder / _PROBE)
    return "" if same else "this machine computes differently from the nodes"


def _read_sharding(folder: Path) -> Sharding:
    facts = json.loads((folder / _SHARDING).read_text(encoding="utf-8"))
    return from_plain(Sharding, facts["sharding"], where=folder / _SHARDING, error=BundleError)


def _observation(part: Part, name: str, images: int) -> Observation:
    with scratch_folder() as scratch:
        (scratch / STATISTICS).write_bytes(part.file(name))
        try:
            seen = Observation.load(scratch / STATISTICS)
        except BundleError as error:
            raise unreadable(part.node.name, error.what) from None
    if seen.images != images:
        raise unreadable(part.node.name, f"{name} has statistics of {seen.images} images, not {images}")
    return seen


def _same(file: Path, content: bytes) -> bool:
    with scratch_folder() as scratch:
        (scratch / STATISTICS).write_bytes(content)
        return _same_arrays(file, scratch / STATISTICS)


def _same_arrays(first: Path, second: Path) -> bool:
    """Whether two files of statistics hold the same, however they were compressed."""

    def arrays(file: Path) -> dict[str, Any]:
        with np.load(file, allow_pickle=False) as saved:
            return {name: saved[name].tobytes() for name in saved.files}

    return arrays(first) == arrays(second)
