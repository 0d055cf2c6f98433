"""A bundle's network with a choice of where Q/DQ go: its sites, and the graph of each placement."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from cnnx.graph.inspect import layers as inspect_layers
from cnnx.graph.load import load_model
from cnnx.graph.policy.placement import LayerPlan, plan_layers, quantized_uses
from cnnx.graph.policy.sites import QdqSite, sites_of
from cnnx.pipeline.progress import Steps
from cnnx.pipeline.quantizer import Quantizer
from cnnx.pipeline.search.repair import unsearched
from cnnx.pipeline.source import Source
from cnnx.pipeline.steps.raw_input import write_raw_input
from cnnx.pipeline.steps.typed_graph import file_scales, observed_maxima
from cnnx.quant.calibration import Calibration
from cnnx.quant.tuning.device import Placement
from cnnx.quant.tuning.problem import Link, Problem, Site
from cnnx.recipe import Recipe

K = TypeVar("K")


class TunedNetwork:
    """What is tuned.

    Args:
        source: the source of an INT8 bundle.
        steps: runs steps of the quantizer.

    Attributes:
        sites: layers and shortcuts that may carry Q/DQ, without what repair or an earlier search left out.
        problem: the same for the search.
        given: the placement of the bundle.
    """

    def __init__(self, source: Source, steps: Steps) -> None:
        assert source.calibration is not None
        self._source, self._model = source, load_model(source.graph.model)
        self.calibration: Calibration = source.calibration
        quantizer = source.quantizer(steps)
        self.quantizer: Quantizer = dataclasses.replace(quantizer, recipe=unsearched(quantizer.recipe))
        self._macs = sum(row.multiply_adds for row in inspect_layers(self._model))
        plan = self._plan(self.quantizer.recipe)
        self.sites, links = sites_of(self._model, plan)
        index = {site.name: number for number, site in enumerate(self.sites)}
        kinds = _numbered(site.alike for site in self.sites)
        total = sum(site.multiply_adds for site in self.sites) or 1
        sites = [
            Site(site.name, kinds[site.alike], site.multiply_adds / total if site.multiply_adds else 0.0)
            for site in self.sites
        ]
        ends = [(index[link.one], index[link.other], link.relation) for link in links]
        numbers = _numbered((sites[one].kind, sites[other].kind, how) for one, other, how in ends)
        self.problem = Problem(
            sites,
            [Link(one, other, numbers[sites[one].kind, sites[other].kind, how]) for one, other, how in ends],
        )
        self.given = self._chosen_in(self._plan(source.recipe))

    @property
    def recipe(self) -> Recipe:
        """The bundle's recipe without what repair or an earlier search left out."""
        return self.quantizer.recipe

    def canonical(self, placement: Placement) -> Placement:
        """The sites that carry Q/DQ if these may: a shortcut does only if its convolution does."""
        return self._chosen_in(self._plan(self.placed(placement).recipe))

    def placed(self, placement: Placement, *, reason: str = "tried in FP16") -> Quantizer:
        """The quantizer with Q/DQ only at these sites; `reason`: why the others have none."""
        return self.quantizer.with_fp16(
            {site.name: reason for site in self.sites if site.name not in placement}
        )

    def share(self, placement: Placement) -> float:
        """Share of the network's MACs in INT8."""
        macs = (site.multiply_adds for site in self.sites if not site.shortcut and site.name in placement)
        return sum(macs) / self._macs if self._macs else 0.0

    def write(self, folder: Path, placement: Placement) -> Path:
        """Write the graph of a placement as a bundle has it; returns the ONNX file.

        Raises:
            GraphError: TensorRT would reject the graph.
        """
        model = self.placed(placement).write_typed(folder, self.calibration)
        if self.recipe.input_format.is_raw:
            write_raw_input(model, model, self.recipe)
        return model

    def _plan(self, recipe: Recipe) -> tuple[LayerPlan, ...]:
        return plan_layers(
            self._model,
            precision="int8",
            policy=recipe.precision,
            maxima=observed_maxima(self.calibration),
            scales=self.quantizer.scales,
            of_file=file_scales(self._source.graph, self.calibration),
        )

    def _chosen_in(self, plan: Sequence[LayerPlan]) -> Placement:
        uses = quantized_uses(self._model, plan).values()
        known = {site.name for site in self.sites}
        return frozenset(name for names in uses for name in names if name in known)


def counts(sites: Sequence[QdqSite], placement: Placement) -> tuple[int, int]:
    """Number of layers and of shortcuts with Q/DQ."""
    chosen = [site for site in sites if site.name in placement]
    return sum(not site.shortcut for site in chosen), sum(site.shortcut for site in chosen)


def _numbered(keys: Iterable[K]) -> dict[K, int]:
    """Each key, once -> its number."""
    return {key: number for number, key in enumerate(dict.fromkeys(keys))}
