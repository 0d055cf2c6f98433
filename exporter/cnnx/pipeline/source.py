"""The source that a bundle holds after `export --with-source`, so that its graph can be typed again.

    source.onnx             the FP32 graph that was typed; for INT8, with its channels equalized
    source-statistics.npz   statistics of its activations on the calibration images (not in FP32)
    source-scales.json      the scales of the file's own Q/DQ, if these are the bundle's ranges

With the recipe and calibration.json, which every such bundle has, these are all that steps and searches read.
PyTorch and the calibration images are not needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cnnx.bundle import CALIBRATION, MODEL, SOURCE, SOURCE_SCALES, SOURCE_STATISTICS, Bundle
from cnnx.bundle.manifest import recipe_of
from cnnx.errors import BundleError, UsageError
from cnnx.pipeline.progress import Steps
from cnnx.pipeline.quantizer import Quantizer
from cnnx.pipeline.steps.artefacts import Fp32Graph, Ranges, Statistics
from cnnx.pipeline.steps.raw_input import write_raw_input
from cnnx.pipeline.steps.typed_graph import type_graph, write_reference
from cnnx.quant.calibration import Calibration, calibration_in
from cnnx.quant.methods import FILE
from cnnx.recipe import Recipe
from cnnx.store.cache import Entry
from cnnx.store.digests import digest_of


class _StoredGraph(Fp32Graph):
    """The FP32 graph in a bundle. Its key is the digest of its files."""

    __slots__ = ()

    @property
    def model(self) -> Path:
        return self.folder / SOURCE

    @property
    def scales_file(self) -> Path:
        return self.folder / SOURCE_SCALES


class _StoredStatistics(Statistics):
    """The statistics in a bundle. Their key is the digest of the file."""

    __slots__ = ()

    @property
    def file(self) -> Path:
        return self.folder / SOURCE_STATISTICS


@dataclass(frozen=True, slots=True)
class Source:
    """What the graph of a bundle was made from.

    Attributes:
        bundle: the bundle.
        recipe: its recipe, with the layers that repair put back.
        graph: the FP32 graph that was typed.
        statistics: statistics of its activations; None in FP32.
        calibration: the calibration of the bundle; None in FP32.
    """

    bundle: Bundle
    recipe: Recipe
    graph: Fp32Graph
    statistics: Statistics | None
    calibration: Calibration | None

    def quantizer(self, steps: Steps) -> Quantizer:
        """What types the graph, by any policy and any ranges.

        Raises:
            UsageError: the bundle is in FP32.
        """
        manifest = self.bundle.manifest
        if self.statistics is None or self.calibration is None:
            raise UsageError(
                "the bundle is in fp32, so there are no statistics to quantize by",
                where=self.bundle.path,
                hint="give a bundle that was exported with --int8 --with-source",
            )
        digest = self.calibration.images_digest
        return Quantizer(
            steps, self.recipe, self.graph, digest, self.statistics, manifest.precision, manifest.scales
        )

    def check_tensors(self) -> None:
        """Check that the calibration has a range for each tensor that was observed for one, and no other.

        Raises:
            BundleError: it has not.
        """
        observed = set() if self.statistics is None else set(self.statistics.read().sampled)
        ranges = set() if self.calibration is None else set(self.calibration.ranges)
        if odd := sorted(observed ^ ranges):
            what = "has no range for" if odd[0] in observed else "has a range that was not observed, for"
            raise _apart(self.bundle.path / CALIBRATION, f"{CALIBRATION} {what} {odd[0]}")

    def write_typed(self, folder: Path) -> Path:
        """Type the graph as the export did, with the input that the recipe states; returns the ONNX file.

        It equals the bundle's byte for byte, unless a package writes graphs differently here.

        Raises:
            GraphError: TensorRT would reject the graph.
        """
        manifest, model = self.bundle.manifest, folder / MODEL
        type_graph(
            folder,
            self.graph,
            self.calibration,
            self.recipe,
            precision=manifest.precision,
            scales=manifest.scales,
        )
        if self.recipe.input_format.is_raw:
            write_raw_input(model, model, self.recipe)
        return model

    def write_reference(self, folder: Path) -> Path:
        """Write the FP32 graph with the activations that the typed graph has; returns the ONNX file."""
        if self.calibration is None or self.bundle.manifest.precision != "int8":
            return self.graph.model
        scales = self.bundle.manifest.scales
        return write_reference(folder, self.graph, self.calibration, self.recipe, scales=scales)


def read_source(bundle: Bundle) -> Source:
    """The source that a bundle holds.

    Args:
        bundle: a bundle whose files were verified.

    Raises:
        UsageError: it holds none.
        BundleError: its parts do not belong together.
    """
    manifest, files = bundle.manifest, bundle.manifest.files
    if not manifest.has_source:
        raise UsageError(
            "the bundle does not hold its source: the FP32 graph and the statistics of its activations",
            where=bundle.path,
            hint="export it again with --with-source",
        )
    scales = SOURCE_SCALES in files
    key = digest_of([files[SOURCE], files[SOURCE_SCALES] if scales else None])
    graph = _StoredGraph(Entry("source", key, bundle.path, reused=True))
    if manifest.precision == "fp32":
        return Source(bundle, recipe_of(manifest), graph, None, None)
    statistics = _StoredStatistics(Entry("source", files[SOURCE_STATISTICS], bundle.path, reused=True))
    calibration = read_calibration(bundle)
    if scales != (calibration.method == FILE):
        listed = "lists" if scales else "does not list"
        what = f"its ranges are by {calibration.method!r}, but the manifest {listed} {SOURCE_SCALES}"
        raise _apart(bundle.path / CALIBRATION, what)
    source = Source(bundle, recipe_of(manifest), graph, statistics, calibration)
    source.check_tensors()
    return source


def _apart(where: Path, what: str) -> BundleError:
    hint = "copy the bundle again from where it was made, or export it again"
    return BundleError(what, where=where, hint=hint)


def read_calibration(bundle: Bundle) -> Calibration:
    """The calibration of a bundle that has one.

    Raises:
        BundleError: it is damaged.
    """
    return calibration_in(bundle.path / CALIBRATION)


def source_files(graph: Fp32Graph, quantizer: Quantizer | None, ranges: Ranges | None) -> dict[str, Path]:
    """The files of a bundle's source: name in the bundle -> where an export has it.

    Args:
        graph: the FP32 graph as exported.
        quantizer: what typed the graph; None in FP32.
        ranges: the ranges that it was typed by; None in FP32.
    """
    if quantizer is None or ranges is None:
        return {SOURCE: graph.model}
    files = {SOURCE: quantizer.graph.model, SOURCE_STATISTICS: quantizer.statistics.file}
    return {**files, SOURCE_SCALES: quantizer.graph.scales_file} if ranges.read().method == FILE else files
