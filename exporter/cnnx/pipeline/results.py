"""What the pipeline's verbs give back: plain, frozen, ready to be shown or written as JSON."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from cnnx.agreement import Likeness, Validation
from cnnx.bundle import Bundle
from cnnx.bundle.engine import Engine
from cnnx.pipeline.bench.energy_use import EnergyRatio, EnergyUse
from cnnx.pipeline.bench.measurement import Advice, Measurement, Unmeasured
from cnnx.pipeline.plain import plain
from cnnx.pipeline.progress import StepTime
from cnnx.pipeline.search.folds import Folds
from cnnx.pipeline.search.method import Candidate
from cnnx.quant.coverage import Coverage
from cnnx.quant.repair import Repair
from cnnx.record import Record, Subject
from cnnx.selftest import SelfTest
from cnnx.stats import Verdict


@dataclass(frozen=True, slots=True)
class BuildResult:
    """Engines that stand in a bundle now, and whether each was built in this run."""

    bundle: Bundle
    engines: tuple[Engine, ...]
    steps: tuple[StepTime, ...]


@dataclass(frozen=True, slots=True)
class ValidateResult:
    """A self-test or a new validation, the other being None, and the record that keeps it."""

    bundle: Bundle
    self_test: SelfTest | None
    validation: Validation | None
    record: Record
    steps: tuple[StepTime, ...]

    @property
    def outcome(self) -> SelfTest | Validation:
        """The one that was run."""
        outcome = self.self_test or self.validation
        assert outcome is not None
        return outcome

    @property
    def verdict(self) -> Verdict:
        """Its verdict."""
        return self.outcome.verdict


@dataclass(frozen=True, slots=True)
class BenchResult:
    """Measurements, side by side in one run.

    Attributes:
        bundles: in the order given.
        measurements: batch by batch.
        unmeasured: what was asked and could not be measured, with the reason.
        advice: INT8 against FP16, where both were measured on a GPU.
        energy: bundle by bundle, engine by engine, each over its batches; empty unless it was asked for.
        energy_unmeasured: of what was measured, what has no energy, with the reason.
        energy_ratios: INT8's over FP16's.
    """

    bundles: tuple[Bundle, ...]
    measurements: tuple[Measurement, ...]
    unmeasured: tuple[Unmeasured, ...]
    advice: tuple[Advice, ...]
    steps: tuple[StepTime, ...]
    energy: tuple[EnergyUse, ...] = ()
    energy_unmeasured: tuple[Unmeasured, ...] = ()
    energy_ratios: tuple[EnergyRatio, ...] = ()

    @property
    def subjects(self) -> tuple[Subject, ...]:
        """All that stood side by side, those that were not measured, too."""
        measured = [one.subject for one in self.measurements]
        return tuple(dict.fromkeys([*measured, *(row.subject for row in self.unmeasured)]))

    @property
    def exit_code(self) -> int:
        """6 where a measurement is invalid: its figures decide nothing.

        What was measured at no batch at all, or energy of which nothing came, gives the code of its reason.
        """
        measured = {one.subject for one in self.measurements}
        for row in self.unmeasured:
            if row.subject not in measured:
                return row.error.exit_code
        if self.energy_unmeasured and not self.energy:
            return self.energy_unmeasured[0].error.exit_code
        return 0 if all(measured.validity.valid for measured in self.measurements) else 6


@dataclass(frozen=True, slots=True)
class MethodRange:
    """The range that one method gives a tensor, and the share of its non-zero values that this clips."""

    amax: float
    saturated_share: float


@dataclass(frozen=True, slots=True)
class TensorMethods:
    """One tensor that INT8 would carry.

    Attributes:
        tensor: its name.
        maximum: largest finite |x| seen.
        zeros_share: share of exact zeros; None where nothing was finite.
        nonfinite: batches in which it had NaN or infinite values; it gets no range then.
        methods: method -> its range; amax 0 where there is none.
    """

    tensor: str
    maximum: float
    zeros_share: float | None
    nonfinite: int
    methods: dict[str, MethodRange]


@dataclass(frozen=True, slots=True)
class CalibrateResult:
    """Ranges side by side.

    Attributes:
        network: its name.
        images: calibration pictures.
        image_set: where they are from.
        selection_images: held-out pictures, on which quantized networks were compared; 0 where none were.
        equalized: channels were scaled first.
        tensors: those that INT8 would carry, in graph order.
        folds: how far ranges and error move from part to part of the set; None unless asked for.
        candidates: what the method was chosen from, the chosen one first; empty unless it was "auto".
        notes: what the user should know.
    """

    network: str
    images: int
    image_set: str
    selection_images: int
    equalized: bool
    tensors: tuple[TensorMethods, ...]
    folds: Folds | None
    candidates: tuple[Candidate, ...]
    notes: tuple[str, ...]
    steps: tuple[StepTime, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class ExportResult:
    """All that an export did.

    Attributes:
        validation: the verdict, with the date it was passed.
        unchanged: the bundle stood there already, made from exactly these inputs, and was judged then.
        notes: what the user should know of how the bundle came to be.
        peak_bytes: the most memory the process held.
        candidates: what the method was chosen from, the chosen one first; empty unless it was "auto".
        repair: what `repair` put back into FP16 and what that changed; None unless it was asked.
        int8_share: share of the multiply-adds whose operands arrive as INT8; None unless that was asked.
    """

    bundle: Bundle
    engines: tuple[Engine, ...]
    validation: Validation
    judged: str
    measurements: tuple[Measurement, ...]
    unchanged: bool
    notes: tuple[str, ...]
    steps: tuple[StepTime, ...]
    seconds: float
    peak_bytes: int
    candidates: tuple[Candidate, ...] = ()
    repair: Repair | None = None
    int8_share: float | None = None
    over_budget: tuple[str, ...] = field(default=())

    @property
    def exit_code(self) -> int:
        """0 unless a gate failed (1) or is inconclusive (6). "Not judged" is no failure of an export."""
        if self.over_budget:
            return 1
        verdict = self.validation.verdict
        return 0 if verdict is Verdict.NOT_JUDGED else verdict.exit_code


@dataclass(frozen=True, slots=True)
class LayerDamage:
    """One INT8 layer, and what it does alone.

    Attributes:
        layer: its name.
        op: its operator.
        place: among the layers that multiply, in graph order.
        multiply_adds: for one picture.
        tensor: what it reads in INT8.
        likeness: to the FP32 graph, of the network with this layer alone in INT8.
        flips: pictures whose first class that changed.
        share: of the sum of what all layers do alone.
        weights_lost: share of its weights other than zero that round to zero.
    """

    layer: str
    op: str
    place: int
    multiply_adds: int
    tensor: str
    likeness: Likeness
    flips: int
    share: float
    weights_lost: float


@dataclass(frozen=True, slots=True)
class OtherLayer:
    """A layer that multiplies and is not in INT8, with the reason."""

    layer: str
    op: str
    place: int
    data_type: str
    reason: str


@dataclass(frozen=True, slots=True)
class Guess:
    """A class, its name (empty where there are none) and its probability."""

    index: int
    name: str
    probability: float


@dataclass(frozen=True, slots=True)
class FlippedImage:
    """A picture whose first class changed, with both lists of five, best first."""

    image: str
    label: int | None
    original: tuple[Guess, ...]
    int8: tuple[Guess, ...]


@dataclass(frozen=True, slots=True)
class Findings:
    """What a diagnosis found.

    Attributes:
        images: pictures that layers were tried on.
        image_set: where they came from.
        floor: no layer in INT8: what FP16 alone makes.
        whole: the bundle's graph.
        layers: in INT8, the most damaging first.
        others: layers that multiply and are not in INT8, in graph order.
        tensors: those quantized, in the order they are first read.
        flips: every picture whose first class changed, those first of which the original was surest.
        reading: what it comes to, in plain words.
        notes: what the user should know of how it was found.
    """

    images: int
    image_set: str
    floor: Likeness
    whole: Likeness
    layers: tuple[LayerDamage, ...]
    others: tuple[OtherLayer, ...]
    tensors: tuple[Coverage, ...]
    flips: tuple[FlippedImage, ...]
    reading: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return {f.name: plain(getattr(self, f.name)) for f in dataclasses.fields(self)}


@dataclass(frozen=True, slots=True)
class DiagnoseResult:
    """Findings, and the record that keeps them."""

    bundle: Bundle
    findings: Findings
    record: Record
    steps: tuple[StepTime, ...]
