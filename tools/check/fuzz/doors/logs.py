"""What other programs print: trtexec and tegrastats."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path
from random import Random
from typing import Any

from tools.check.fuzz.bundled import small_bundle
from tools.check.fuzz.door import Door, Files
from tools.check.fuzz.doors.recipes import text_of
from tools.check.fuzz.mutators import octets, plain, text
from tools.check.fuzz.states import leaves, numbers_in

_LOG = """
[01/02/2026-03:04:05] [I] TensorRT version: 10.3.0
[01/02/2026-03:04:05] [I] Data transfers: Enabled
[01/02/2026-03:04:05] [I] CUDA Graph: Disabled
[01/02/2026-03:04:09] [I] === Performance summary ===
[01/02/2026-03:04:09] [I] Throughput: 1234.5 qps
[01/02/2026-03:04:09] [I] Latency: min = 0.7 ms, max = 1.9 ms, mean = 0.81 ms, median = 0.8 ms
[01/02/2026-03:04:09] [I] Enqueue Time: min = 0.1 ms, max = 0.4 ms, mean = 0.2 ms, median = 0.21 ms
[01/02/2026-03:04:09] [I] H2D Latency: min = 0.02 ms, max = 0.05 ms, mean = 0.03 ms, median = 0.025 ms
[01/02/2026-03:04:09] [I] GPU Compute Time: min = 0.6 ms, max = 1.7 ms, mean = 0.71 ms, median = 0.7 ms
[01/02/2026-03:04:09] [I] D2H Latency: min = 0.01 ms, max = 0.02 ms, mean = 0.011 ms, median = 0.0125 ms
"""
_TIME = {
    "startMs": 1.0,
    "endMs": 2.0,
    "startEnqMs": 1.0,
    "endEnqMs": 1.25,
    "h2dMs": 0.5,
    "computeMs": 0.7,
    "d2hMs": 0.1,
}
_TIMES = [{**_TIME, "latencyMs": 0.8 + number / 10} for number in range(3)]
_ORIN = (
    "09-21-2023 13:11:12 RAM 4722/30536MB (lfb 5x4MB) SWAP 0/15268MB (cached 0MB) CPU [10%@729,off,2%@729] "
    "EMC_FREQ 3%@2133 GR3D_FREQ 12%@[305,0] VIC_FREQ 729 CPU@49.5C Tboard@38C SOC2@45.1C tj@49.5C GPU@-256C "
    "VDD_GPU_SOC 2763mW/2846mW VDD_CPU_CV 396mW/400mW VIN_SYS_5V0 3521mW/3500mW\n"
)
_NANO = (
    "RAM 1981/3964MB (lfb 31x4MB) SWAP 0/1982MB (cached 0MB) CPU [18%@102,12%@102] EMC_FREQ 0% GR3D_FREQ 0% "
    "PLL@22C CPU@25.5C iwlwifi@30C thermal@24C POM_5V_IN 1750/1628 POM_5V_GPU 0/0 POM_5V_CPU 120/130\n"
)
_THOR = "RAM 1/2MB GR3D_FREQ 5%@[1,2,3] cpu@41C VDD_GPU 7006mW/7006mW/7100mW VIN 19mW/20mW/21mW\n"


class TrtexecDoor(Door):
    """A log of trtexec, or the times that it exports."""

    name, reads = "trtexec", "a log of trtexec, or its exported times"

    def prepare(self) -> None:
        import cnnx.measure.trtexec
        import cnnx.pipeline.bench.bench  # noqa: F401

    def seeds(self, scratch: Path) -> dict[str, Files]:
        return {"log": {"t": _LOG.encode()}, "times": {"t": json.dumps(_TIMES, indent=1).encode()}}

    def mutate(self, dice: Random, files: Files) -> tuple[Files, str]:
        content = text_of(files, "t")
        if content.startswith("[\n"):
            changed, how = plain.json_text(dice, json.loads(content))
        elif dice.random() < 0.2:
            changed, how = octets.damage(dice, content.encode())
        else:
            changed, how = text.encoded(dice, content)
        return {"t": changed}, how

    def read(self, folder: Path) -> Any:
        from cnnx.measure.trtexec import read_trtexec

        return dataclasses.asdict(read_trtexec(folder / "t"))

    def legitimate(self, before: Any, after: Any, folder: Path) -> str:
        content = (folder / "t").read_text(encoding="utf-8", errors="replace")
        if re.match(r"\s*\[\s*\{", content):
            runs = json.loads(content)
            stated = sorted(float(run["computeMs"]) for run in runs)
            return "other times" if stated[0] <= after["medians_ms"]["GPU compute"] <= stated[-1] else ""
        figures = {*after["medians_ms"].values(), after["queries_per_second"]} - {None}
        return "other figures, as the log states" if figures <= numbers_in(content) else ""

    def command(self, folder: Path) -> list[str]:
        bundle = folder.parent / "b"
        shutil.copytree(small_bundle(), bundle)
        return ["bench", str(bundle), "--seconds", "0.02", "--compare-trtexec", str(folder / "t")]


class TegrastatsDoor(Door):
    """Lines of tegrastats."""

    name, reads = "tegrastats", "lines that tegrastats prints"

    def prepare(self) -> None:
        import cnnx.measure.power.sensors.tegrastats
        import cnnx.pipeline.doctor.doctor  # noqa: F401

    def seeds(self, scratch: Path) -> dict[str, Files]:
        return {
            name: {"l": line.encode()} for name, line in (("orin", _ORIN), ("nano", _NANO), ("thor", _THOR))
        }

    def mutate(self, dice: Random, files: Files) -> tuple[Files, str]:
        content = text_of(files, "l")
        damage = octets.damage(dice, content.encode()) if dice.random() < 0.4 else text.encoded(dice, content)
        return {"l": damage[0]}, damage[1]

    def read(self, folder: Path) -> Any:
        from cnnx.measure.power.sensors.sensor import Span
        from cnnx.measure.power.sensors.tegrastats import Beside, parse_line

        printed = (folder / "l").read_text(encoding="utf-8", errors="replace")
        lines = [parse_line(line) for line in printed.splitlines(keepends=True)]
        return [dataclasses.asdict(each) for each in lines], Beside.of(Span(0, 1), lines).power_mw

    def legitimate(self, before: Any, after: Any, folder: Path) -> str:
        """Every value stands in the text: nothing was made up for what is missing."""
        printed = (folder / "l").read_text(encoding="utf-8", errors="replace")
        numbers = numbers_in(printed)
        found = {each for line in after[0] for each in leaves(line) if isinstance(each, (int, float))}
        return "other values, as the line states" if found <= numbers else ""

    def command(self, folder: Path) -> list[str]:
        return []  # `bench` reads it, on a Jetson


DOORS = (TrtexecDoor(), TegrastatsDoor())
