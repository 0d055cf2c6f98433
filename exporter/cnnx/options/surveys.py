"""Options of the verbs that measure many cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from cnnx.options.option import REQUIRED, option
from cnnx.options.shared import AgainOptions, MeasuringOptions, Precision, read_sizes, weights_option


def read_precisions(text: str) -> tuple[Precision, ...]:
    """Precisions of "fp16,int8"; a survey checks the names."""
    return cast("tuple[Precision, ...]", tuple(text.split(",")))


@dataclass(frozen=True, kw_only=True)
class SurveyPlan(MeasuringOptions):
    """What is done in each cell. `weights` may be a mapping: model -> its weights."""

    weights: str | Mapping[str, str] = weights_option()
    images: int | None = option(None, "Maximum number of calibration images, and of validation images.")

    def weights_of(self, model: str) -> str:
        """Those of one model."""
        return self.weights if isinstance(self.weights, str) else self.weights[model]


@dataclass(frozen=True, kw_only=True)
class SurveyOptions(AgainOptions, SurveyPlan):
    """Options of `survey`."""

    out: str | Path = option(REQUIRED, "Folder of rows, bundles and reports; goes on where it was.")
    precisions: Sequence[Precision] = option(
        ("fp16", "int8"), "Precisions of what is exported.", read=read_precisions, text="fp16,int8"
    )
    batches: Sequence[int] = option(
        (1, 2, 4, 8, 16, 32), "Images per run.", read=read_sizes, text="1,2,4,8,16,32"
    )


@dataclass(frozen=True, kw_only=True)
class ProofOptions(AgainOptions):
    """Options of `prove`, which is `doctor --proof` on the command line."""

    bundles: Sequence[str | Path] = option(
        (),
        "With --proof: finished bundles to take, which needs no PyTorch; may be given several times.",
        flag="--bundle",
    )
    folder: str | Path | None = option(
        None, "With --proof: folder of its work, so that a stopped one goes on."
    )
    no_power: bool = option(False, "With --proof: leave energy out, which takes most of its time.")
