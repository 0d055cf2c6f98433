"""`inspect`: a bundle read, every hash checked, and what its records say. It needs no PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cnnx.bundle import Bundle
from cnnx.bundle.engine import Engine
from cnnx.graph.inspect import Layer, layers
from cnnx.graph.load import load_model
from cnnx.pipeline.bench.measurement import Prediction
from cnnx.pipeline.bench.prediction import predict_graph
from cnnx.pipeline.records.verified import latest_validation, records_of
from cnnx.record import Record, Unverified


@dataclass(frozen=True, slots=True)
class Inspection:
    """A bundle read, verified and laid open.

    Attributes:
        layers: the graph's layers as they are written.
        engines: built engines, hashes checked.
        records: every verdict and measurement of what is in the bundle, oldest first.
        unverified: records that are damaged, or say nothing about what is in the bundle, with the reason.
        verdict: export's latest of this graph, in words.
        judgements: the newest of each engine, device and set of images, in words, oldest first.
        self_tests: the newest of each engine and device, in words, oldest first.
        predicted: memory that the graph will take at the smallest and at the largest batch, by batch.
    """

    bundle: Bundle
    layers: tuple[Layer, ...]
    engines: tuple[Engine, ...]
    records: tuple[Record, ...]
    unverified: tuple[Unverified, ...]
    verdict: str
    judgements: tuple[str, ...]
    self_tests: tuple[str, ...]
    predicted: dict[int, Prediction]


def inspect(bundle: str | Path) -> Inspection:
    """Read a bundle, every hash checked. A damaged record is reported, and no reason to refuse the bundle.

    Raises:
        BundleError: it is not whole, or a byte changed.
    """
    opened = Bundle.open(Path(bundle))
    engines = opened.engines()
    for engine in engines:
        opened.engine_file(engine)
    records = records_of(opened)
    latest = latest_validation(records.verified)
    verdict = (
        f"{latest[1].verdict.value} ({latest[1].subject}, {latest[0].date})"
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
        predicted=predicted,
    )


def _judgements(records: Sequence[Record]) -> tuple[str, ...]:
    newest = {}
    for record in records:
        if record.kind == "judgement":
            images = f"{record.result['images']} images of {record.result['image_set']}"
            said = f"{record.result['verdict']} on {images} ({record.subject}, {record.date})"
            newest[record.subject, images] = said
    return tuple(newest.values())


def _self_tests(records: Sequence[Record]) -> tuple[str, ...]:
    newest = {
        record.subject: f"{record.result['verdict']} ({record.subject}, {record.date})"
        for record in records
        if record.kind == "selftest"
    }
    return tuple(newest.values())
