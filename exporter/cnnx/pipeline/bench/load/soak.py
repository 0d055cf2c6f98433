"""The soak pass: a network under load for minutes or hours, with the state of the machine meanwhile."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from cnnx.errors import EnvironmentLacks, UsageError
from cnnx.machine.state import read_state
from cnnx.measure.load.soak import Ended, SoakRun, measure_soak
from cnnx.measure.load.trend import Trend
from cnnx.measure.machine_rules import judge_machine
from cnnx.measure.power import SensorInfo, open_sensor
from cnnx.measure.power.live import TotalPower
from cnnx.measure.validity import Validity
from cnnx.pipeline.bench.energy import find_sensor
from cnnx.pipeline.bench.latency import batch_from
from cnnx.pipeline.progress import Progress
from cnnx.pipeline.target import OpenSubject
from cnnx.record import Subject
from cnnx.runtimes import Images

# What a soak is to find: other measurements are invalid with these.
_OBSERVED = ("throttled", "hot", "clock fell")
_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?")


def soak_seconds(given: str | float) -> float:
    """A duration such as 10m, 90s, 1h30m or 600 in seconds.

    Raises:
        UsageError: it is not one, or not positive.
    """
    text = str(given).strip()
    plain = not any(each.isalpha() for each in text)
    found = _DURATION.fullmatch(f"{text}s" if plain else text)
    hours, minutes, seconds = (float(number or 0) for number in found.groups()) if found else (0, 0, 0)
    if not (total := 3600 * hours + 60 * minutes + seconds):
        hint = "give a time such as --soak 10m, 90s or 1h30m"
        raise UsageError(f"invalid --soak {text}: expected a duration above 0", hint=hint)
    return total


@dataclass(frozen=True, slots=True)
class SoakMeasurement:
    """A soak of one subject at one batch.

    Attributes:
        subject: what ran.
        cuda_graph: whether the kernels were launched as one CUDA graph; None: not supported here.
        run: windows of the soak.
        sensor: the power sensor; None: no sensor was read.
        no_power: why no power was read; empty if it was.
        validity: problems with the measurement itself. Throttling, heat and falling clocks are what a soak is
            to find: they are remarks here.
        drift: trend of the median; None for too few windows.
        remark: what a reader must know in addition to the figures.
    """

    subject: Subject
    cuda_graph: bool | None
    run: SoakRun
    sensor: SensorInfo | None
    no_power: str
    validity: Validity
    drift: Trend | None
    remark: str = ""

    @property
    def batch(self) -> int:
        """Images per run."""
        return self.run.batch

    @property
    def ended(self) -> Ended:
        """Whether it is complete, or why not."""
        return self.run.ended

    def as_dict(self) -> dict[str, Any]:
        """Plain data: the figures, and the windows that they are computed from."""
        return {
            "subject": dataclasses.asdict(self.subject),
            "cuda_graph": self.cuda_graph,
            "seconds": self.run.seconds,
            "images_per_second": self.run.images_per_second,
            "drift": dataclasses.asdict(self.drift) if self.drift else None,
            "throttled_share": self.run.throttled_share,
            "sensor": self.sensor.as_dict() if self.sensor else None,
            "no_power": self.no_power,
            "validity": self.validity.as_dict(),
            "remark": self.remark,
            **self.run.as_dict(),
        }


def measure_soaked(
    subject: OpenSubject,
    images: Images,
    *,
    batch: int,
    cuda_graph: bool | None,
    remark: str,
    seconds: float,
    sensor: str | None,
    progress: Progress,
) -> SoakMeasurement:
    """Open a network and soak it.

    Args:
        subject: the network.
        images: (M, C, H, W) pool of images as the graph takes them.
        batch: images per run.
        cuda_graph: launch an engine's kernels as one CUDA graph; None: not supported here.
        remark: remark to keep with the figures.
        seconds: how long.
        sensor: name of the power sensor; None: the best that measures the device, or none.
        progress: called with seconds done, and in total.

    Raises:
        CnnxError, KeyboardInterrupt: it ended before the first window was complete.
    """
    opened = contextlib.closing(subject.open(cuda_graph=bool(cuda_graph)))
    with opened as session, _power(subject, sensor) as (power, why):
        getattr(session, "timed_run", session.run)(batch_from(images, batch))
        progress(0, math.ceil(seconds))
        run = measure_soak(
            session,
            images,
            batch=batch,
            seconds=seconds,
            look=read_state,
            power=power or (lambda: None),
            progress=lambda share: progress(round(share * seconds), math.ceil(seconds)),
        )
    return judged(subject.subject, cuda_graph, run, power.sensor.info if power else None, why, remark)


def judged(
    subject: Subject,
    cuda_graph: bool | None,
    run: SoakRun,
    sensor: SensorInfo | None,
    no_power: str,
    remark: str,
) -> SoakMeasurement:
    """A soak with its validity and drift."""
    findings, remarks = judge_machine([window.state for window in run.windows])
    if subject.device_kind != "gpu":
        findings, remarks = [], []
    # The share of the time that was throttled is a figure of its own.
    told = ("throttled",) if run.throttled_share is not None else ()
    observed = [each for each in findings if each.rule in _OBSERVED and each.rule not in told]
    problems = tuple(each for each in findings if each.rule not in _OBSERVED)
    validity = Validity(problems, (*observed, *(each for each in remarks if each.rule not in told)))
    return SoakMeasurement(subject, cuda_graph, run, sensor, no_power, validity, run.drift, remark)


@contextmanager
def _power(subject: OpenSubject, named: str | None) -> Iterator[tuple[TotalPower | None, str]]:
    """The power of the device, or why it is not known."""
    try:
        sensor = open_sensor(find_sensor(subject.subject.on, named=named)[0])
    except EnvironmentLacks as lacks:
        yield None, lacks.what
        return
    with contextlib.closing(sensor):
        total = sensor.info.total
        yield (TotalPower(sensor), "") if total.rails else (None, f"no total: {total.covers}")
