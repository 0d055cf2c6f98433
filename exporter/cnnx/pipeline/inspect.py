"""`inspect`: reads a bundle, checks every hash, and summarizes its records. Does not need PyTorch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cnnx.agreement import Validation
from cnnx.bundle import Bundle
from cnnx.bundle.engine import Engine
from cnnx.graph.inspect import Layer, layers
from cnnx.graph.load import load_model
from cnnx.options import takes
from cnnx.options.bundles import InspectOptions
from cnnx.pipeline.bench.measurement import Prediction
from cnnx.pipeline.bench.prediction import predict_graph
from cnnx.pipeline.records.verified import latest_validation, records_of
from cnnx.pipeline.sign.trust import open_bundle
from cnnx.record import Record, Unverified
from cnnx.report.result import Result
from cnnx.report.table import Block


@dataclass(frozen=True, slots=True, repr=False)
class Inspection(Result):
    """The contents of a verified bundle.

    Attributes:
        bundle: the bundle.
        layers: layers of the graph.
        engines: engines of the bundle, hashes checked.
        records: records of the bundle's current contents, oldest first.
        unverified: records that are damaged or not about the bundle's current contents, with the reason.
        verdict: the latest verdict of export for this graph, in words.
        judgements: the newest validation for each engine, device and image set, in words, oldest first.
        self_tests: the newest self-test for each engine and device, in words, oldest first.
        source: file of the bundle's source -> its size in bytes; empty if the bundle does not hold it.
        predicted: batch -> predicted memory of the graph, for the smallest and the largest batch.
    """

    bundle: Bundle
    layers: tuple[Layer, ...]
    engines: tuple[Engine, ...]
    records: tuple[Record, ...]
    unverified: tuple[Unverified, ...]
    verdict: str
    judgements: tuple[str, ...]
    self_tests: tuple[str, ...]
    source: dict[str, int]
    predicted: dict[int, Prediction]

    def blocks(self, *, verbose: bool = False) -> Iterable[Block]:
        """What the command prints."""
        from cnnx.pipeline.shown import inspection_blocks

        return inspection_blocks(self, verbose=verbose)


@takes(InspectOptions)
def inspect(bundle: str | Path, options: InspectOptions) -> Inspection:
    """Read a bundle and check every hash. A damaged record is reported, and does not raise.

    Args:
        bundle: the bundle's folder.
        options: options as an object; each can also be given by keyword.

    Raises:
        BundleError: a file is missing or damaged, or not signed as required.

    Examples:
        >>> result = cnnx.inspect("lenet5-int8")
        >>> result.layers[0].name, result.layers[0].data_type
        ('conv1', 'int8')
    """
    opened = open_bundle(Path(bundle), options.require_signature)
    engines = opened.engines()
    for engine in engines:
        opened.engine_file(engine)
    records = records_of(opened)
    latest = latest_validation(records.verified)
    verdict = (
        f"{latest[1].verdict.value}{_under(latest[1])} ({latest[1].subject}, {latest[0].date})"
        if latest
        else "not validated yet"
    )
    predicted = {batch: predict_graph(opened.model, batch) for batch in opened.manifest.batch}
    return Inspection(
        bundle=opened,
        layers=layers(load_model(opened.model)),
        engines=engines,
        records=records.verified,
        unverified=records.unverified,
        verdict=verdict,
        judgements=_judgements(records.verified),
        self_tests=_self_tests(records.verified),
        source=opened.source_sizes(),
        predicted=predicted,
    )


def _under(validation: Validation) -> str:
    return " under assumed preprocessing" if validation.assumed_preprocessing else ""


def _judgements(records: Sequence[Record]) -> tuple[str, ...]:
    newest = {}
    for record in records:
        if record.kind == "judgement":
            images = f"{record.result['images']} images of {record.result['image_set']}"
            verdict = f"{record.result['verdict']} on {images} ({record.subject}, {record.date})"
            newest[record.subject, images] = verdict
    return tuple(newest.values())


def _self_tests(records: Sequence[Record]) -> tuple[str, ...]:
    newest = {
        record.subject: f"{record.result['verdict']} ({record.subject}, {record.date})"
        for record in records
        if record.kind == "selftest"
    }
    return tuple(newest.values())
