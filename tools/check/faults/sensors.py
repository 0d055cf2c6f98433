"""Power sensors that vanish, hang or lie while energy is measured."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tools.check.faults.calls import Fault
from tools.check.faults.judge import left_behind
from tools.check.faults.sandbox import Running, Sandbox
from tools.check.faults.trials import Record
from tools.check.faults.world import NEW

_BOARD = "board"
_PROCESS = "cnnx.measure.power.sampler_process"
_HWMON = f"{_BOARD}/sys/class/hwmon/hwmon3"
_RAPL = f"{_BOARD}/sys/class/powercap/intel-rapl:0"
_ENERGY, _COST = "energy", "cost of sampling"
_PATIENCE_S = 60.0

# NVML as far as cnnx asks; the GPU falls off the bus when the file "lost" appears.
_NVML = """
from pathlib import Path
class NVMLError(Exception): pass
def _check():
    if Path(__file__).with_name("lost").exists(): raise NVMLError("GPU is lost")
def nvmlInit(): pass
def nvmlShutdown(): pass
def nvmlDeviceGetCount(): return 1
def nvmlDeviceGetHandleByIndex(index): return 0
def nvmlDeviceGetName(handle): return "GPU"
def nvmlDeviceGetArchitecture(handle): return 7
def nvmlDeviceGetCudaComputeCapability(handle): return 8, 6
def nvmlDeviceGetFieldValues(handle, fields): raise NVMLError("Not Supported")
def nvmlDeviceGetPowerUsage(handle): _check(); return 40000
def nvmlDeviceGetTotalEnergyConsumption(handle): raise NVMLError("Not Supported")
"""


@dataclass(frozen=True, slots=True)
class Case:
    """What happens to a sensor, and what the result must be.

    Attributes:
        sensor: name of the sensor.
        change: makes it happen, given the sandbox and the sampler's process.
        ends: whether the sampler ends or hangs, so that there is no energy.
        tegrastats: text of a shell script in place of tegrastats; empty: none.
    """

    sensor: str
    change: Callable[[Sandbox, int], None]
    ends: bool = False
    tegrastats: str = ""


def _rail_gone(sandbox: Sandbox, _: int) -> None:
    (sandbox.root / _HWMON / "curr2_input").unlink()


def _chip_gone(sandbox: Sandbox, _: int) -> None:
    shutil.rmtree(sandbox.root / _HWMON)


def _garbage(sandbox: Sandbox, _: int) -> None:
    for file in (sandbox.root / _HWMON).glob("curr*_input"):
        file.write_text("N/A\n")


def _hangs(sandbox: Sandbox, _: int) -> None:
    """A pipe without a writer waits for one."""
    file = sandbox.root / _HWMON / "curr1_input"
    os.mkfifo(file.with_name("fifo"))
    file.with_name("fifo").replace(file)


def _comes_back(sandbox: Sandbox, _: int) -> None:
    file = sandbox.root / _HWMON / "curr1_input"
    text = file.read_text()
    file.unlink()
    time.sleep(0.2)
    file.write_text(text)


def _zones_gone(sandbox: Sandbox, _: int) -> None:
    shutil.rmtree(sandbox.root / _RAPL)


def _gpu_lost(sandbox: Sandbox, _: int) -> None:
    (sandbox.root / "python" / "lost").touch()


def _killed(_: Sandbox, process: int) -> None:
    os.kill(process, signal.SIGKILL)


def _no_room(_: Sandbox, process: int) -> None:
    """As if the disk that the samples go to were full."""
    resource.prlimit(process, resource.RLIMIT_FSIZE, (1000, 1000))


def _nothing(_: Sandbox, __: int) -> None:
    """All is well."""


CASES: Mapping[str, Case] = {
    "nothing": Case("ina", _nothing),
    "a rail is gone": Case("ina", _rail_gone),
    "the chip is gone": Case("ina", _chip_gone),
    "values are no numbers": Case("ina", _garbage),
    "reading hangs": Case("ina", _hangs, ends=True),
    "a rail is gone for 0.2 s": Case("ina", _comes_back),
    "RAPL is gone": Case("rapl", _zones_gone),
    "the GPU is lost": Case("nvml-usage", _gpu_lost),
    "the sampler is killed": Case("ina", _killed, ends=True),
    "no room for samples": Case("ina", _no_room, ends=True),
    "tegrastats ends at once": Case("ina", _nothing, tegrastats="exit 1"),
    "tegrastats prints nonsense": Case("ina", _nothing, tegrastats="echo 'RAM x/y VDD_IN 1/'"),
    "tegrastats does not stop": Case("ina", _nothing, tegrastats="trap '' TERM; sleep 30"),
}


def vanishing(world: Sandbox, folder: Path) -> Iterator[Record]:
    """Measure latency and energy while something happens to the sensor: in the energy pass, or after it."""
    for name, case in CASES.items():
        for phase in (_ENERGY,) if case.change is _nothing else (_ENERGY, _COST):
            sandbox = world.copy(folder)
            yield {"at": f"{name}, in: {phase}", **_measured(sandbox, case, phase)}
            sandbox.remove()


def _measured(sandbox: Sandbox, case: Case, phase: str) -> Record:
    _equip(sandbox, case)
    runs = sandbox.root / "work" / NEW / "runs"
    before = set(runs.iterdir())
    arguments = ("bench", NEW, "--seconds", "0.02", "--power", "--sensor", case.sensor)
    running = sandbox.start(arguments, Fault(), before=lambda: _shorten(sandbox.root))
    _strike(running, sandbox, case, phase)
    ended = running.wait()
    records = [json.loads(each.read_text()) for each in runs.iterdir() if each not in before]
    kinds = [each["kind"] for each in records]
    wrong = [] if ended.code in (0, 4) else [f"exit code {ended.code}"]
    wrong += ["a traceback"] if "Traceback" in ended.err + ended.out else []
    wrong += [] if "benchmark" in kinds and "p50" in ended.out else ["no latency"]
    if ("energy" in kinds) == (case.ends and phase == _ENERGY):
        wrong.append(f"energy is {'' if 'energy' in kinds else 'not '}recorded")
    wrong += [f"left {each}" for each in left_behind(sandbox)["temporary"]]
    wrong += ["a process is left"] if _samplers(sandbox) else []
    return {"exit": ended.code, "said": _reasons(records, ended.out), "wrong": wrong}


def _reasons(records: list[Record], out: str) -> str:
    """What was reported about the energy: in its record, or on the screen."""
    for record in records:
        if record["kind"] == "energy":
            result = record["result"]
            told = [result["no_total"], result["sampling"]["no_cost"], *result["doubts"]]
            told.append((result["tegrastats"] or {}).get("reason", ""))
            return "; ".join(filter(None, told))
    return next((line for line in out.splitlines() if "sampler" in line or "sensor" in line), "").strip()


def _equip(sandbox: Sandbox, case: Case) -> None:
    rails = [("VDD_IN", 5000, 560), ("VDD_CPU_GPU_CV", 5000, 130), ("VDD_SOC", 5000, 131)]
    files: dict[str, object] = {"name": "ina3221", "update_interval": 0}
    for number, (label, millivolts, milliamperes) in enumerate(rails, start=1):
        files |= {f"in{number}_label": label, f"in{number}_enable": 1, f"in{number}_input": millivolts}
        files |= {f"curr{number}_input": milliamperes, f"shunt{number}_resistor": 5000}
    for name, content in files.items():
        _write(sandbox.root / _HWMON / name, f"{content}\n")
    zone = {"name": "package-0", "max_energy_range_uj": 262143328850, "energy_uj": 1000}
    for name, content in zone.items():
        _write(sandbox.root / _RAPL / name, f"{content}\n")
    _write(sandbox.root / "python" / "pynvml.py", _NVML)
    if case.tegrastats:
        _write(sandbox.root / "bin" / "tegrastats", f"#!/bin/sh\n{case.tegrastats}\n")
        (sandbox.root / "bin" / "tegrastats").chmod(0o755)


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def _shorten(root: Path) -> None:
    """Measure for seconds instead of a minute, on the sensors of the sandbox."""
    from cnnx.measure.power import Plan, SamplerProcess, measuring
    from cnnx.pipeline.bench import bench, energy

    os.environ["PATH"] = f"{root / 'bin'}:{os.environ['PATH']}"
    os.environ["PYTHONPATH"] = str(root / "python")
    sys.path.insert(0, str(root / "python"))
    sys.modules.pop("pynvml", None)
    measuring._LEAST_LOAD_S = measuring._LEAST_IDLE_S = 0.0
    measuring._BESIDE_S = 0.5
    plan = Plan(load_s=2.5, idle_s=1.5, warmup_s=0.5, settle_s=0.1)
    vars(bench)["power_pass"] = lambda options: energy.PowerPass(plan=plan, sensor=options.sensor)
    energy.choose_sampler.__kwdefaults__["root"] = root / _BOARD
    SamplerProcess.__init__.__kwdefaults__["patience_s"] = 8.0
    vars(energy)["cost_turns"] = lambda _: 3


def _strike(running: Running, sandbox: Sandbox, case: Case, phase: str) -> None:
    """Wait until the sampler runs, in the energy pass or after it, and let it happen.

    Meanwhile, RAPL's counter counts.
    """
    end, energy_uj = time.monotonic() + _PATIENCE_S, 1000
    first, since, struck = 0, 0.0, False
    while not running.has_ended(0.01) and time.monotonic() < end:
        energy_uj += 50_000
        with contextlib.suppress(OSError):
            (sandbox.root / _RAPL / "energy_uj").write_text(f"{energy_uj}\n")
        found = [] if struck else _samplers(sandbox)
        if found and not first:
            first, since = found[0], time.monotonic()
        in_energy = bool(first) and phase == _ENERGY and time.monotonic() - since > 1
        if found and (in_energy or (phase == _COST and found[0] != first)):
            case.change(sandbox, found[0])
            struck = True


def _samplers(sandbox: Sandbox) -> list[int]:
    """The sampler's processes of a sandbox that have recorded something."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (process / "cmdline").read_bytes().decode(errors="replace")
            if _PROCESS in command and str(sandbox.root) in command:
                samples = Path(command.rstrip("\0").split("\0")[-1])
                if samples.is_file() and samples.stat().st_size > 500:
                    found.append(int(process.name))
    return found
