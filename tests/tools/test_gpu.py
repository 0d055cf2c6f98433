"""The probes of tools/check/gpu.py: what they find on an imitation, and what becomes of one that crashes."""

from __future__ import annotations

import ast
import json
import math
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cnnx import runtimes
from cnnx.measure.power.sampler import Sampler
from cnnx.measure.power.sensors.nvml import find_nvml
from cnnx.measure.power.sensors.sensor import PolledSensor, Sample
from cnnx.measure.power.trace import Trace
from cnnx.runtimes import BuildRequest
from tests.doubles.host_cuda import ILLEGAL_ADDRESS, HostCuda
from tests.doubles.nvml import FakeNvml
from tests.runtimes.engine.test_trt_api import LISTINGS, Api
from tools import ROOT
from tools.check import gpu
from tools.check.probes import copies, cuda, graphs, nvml
from tools.check.probes.probe import Machine

NAME, UUID = "NVIDIA imitation", "GPU-1"


class Cuda(HostCuda):
    """The imitation, with versions."""

    def __init__(self, **options: Any) -> None:
        super().__init__(room=1 << 27, **options)
        self.name = NAME

    def compute_capability(self) -> int:
        return 86

    def cudaRuntimeGetVersion(self, pointer: Any) -> int:  # noqa: N802
        pointer._obj.value = 13000
        return 0

    cudaDriverGetVersion = cudaRuntimeGetVersion  # noqa: N815


class Nvml(FakeNvml):
    """An NVML whose counter adds up what its power says, and that knows the processes."""

    def __init__(self, **options: Any) -> None:
        super().__init__(name=NAME, energy_mj=1, **options)
        self.pids = [os.getpid()]
        self.factor = 1.0

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: int) -> int:  # noqa: N802
        super().nvmlDeviceGetTotalEnergyConsumption(handle)
        return int(time.monotonic() * self.power_mw * self.factor)

    def nvmlDeviceGetComputeRunningProcesses(self, handle: int) -> list[Any]:  # noqa: N802
        return [SimpleNamespace(pid=pid, usedGpuMemory=1 << 20) for pid in self.pids]

    def nvmlDeviceGetUUID(self, handle: int) -> str:  # noqa: N802
        return UUID


class Reader(Sampler):
    """A sampler in this process: it reads when it is checked, and at the end."""

    def __init__(self, sensor: PolledSensor) -> None:
        self.sensor, self.samples = sensor, list[Sample]()

    def __enter__(self) -> Reader:
        self.check()
        return self

    def __exit__(self, *_: object) -> None:
        self.sensor.close()

    def check(self) -> None:
        self.samples.append(self.sensor.read())

    def trace(self) -> Trace:
        self.check()
        return Trace(self.sensor.info, 47.0, tuple(self.samples))


def machine(asked: Nvml | None = None, **options: Any) -> Machine:
    asked = asked or Nvml()

    def sampler(name: str) -> Sampler:
        found = [each for each in find_nvml(nvml=asked) if isinstance(each, PolledSensor)]
        return Reader(next(each for each in found if each.info.name == name))

    usual: dict[str, Any] = {
        "cuda": Cuda,
        "nvml": asked,
        "child": lambda name, variables: {"error": "no child"},
        "sampler": sampler,
        "speed": 40.0,
        "most_bytes": 1 << 14,
        "root": Path("/nonexistent"),
    }
    return Machine(**{**usual, **options})


def found(name: str, imitated: Machine) -> dict[str, dict[str, Any]]:
    """What a probe finds, by what it looked at; in JSON and back, as the process writes it."""
    lines: list[str] = []
    gpu.here(name, imitated, lines.append)
    parsed = [json.loads(line) for line in lines]
    assert len({each["what"] for each in parsed}) == len(parsed), "each is another"
    return {each["what"]: each for each in parsed}


def refuted(findings: dict[str, dict[str, Any]]) -> list[str]:
    return [what for what, each in findings.items() if each.get("holds") is False]


def test_there_are_ten_and_they_take_six_minutes_at_most() -> None:
    assert gpu.RUN.keys() == gpu.LIMITS_S.keys() and len(gpu.RUN) == 10
    assert sum(gpu.LIMITS_S.values()) <= 360


def test_smoke() -> None:
    findings = found("smoke", machine())
    assert refuted(findings) == [] and findings["GPU"]["value"] == NAME
    assert findings["cudaRuntimeGetVersion"]["value"] == 13000
    other = Nvml()
    other.name = "NVIDIA T400"
    assert refuted(found("smoke", machine(other))) == ["NVML's GPU"]

    class Broken(Cuda):
        def _cudaMemcpyAsync(self, *_: Any) -> None:  # noqa: N802
            """Copy nothing."""

    assert "a copy there and back" in refuted(found("smoke", machine(cuda=Broken)))


def test_queued_runs_hold_no_time_of_the_host() -> None:
    """Alone in the queue, the GPU waits for the host; behind another run, it does not."""
    imitated = machine(cuda=lambda: Cuda(launch_us=0.2), speed=10.0)
    findings = found("queueing", imitated)
    runs = {what: each["value"] for what, each in findings.items() if "copies" in what}
    assert len(runs) == 24 and {key for each in runs.values() for key in each} >= {"alone", "queued", "bias"}
    assert all(each["bias"]["queued"] <= each["bias"]["alone"] + 1e-9 for each in runs.values())
    assert any(each["bias"]["alone"] > 0.05 for each in runs.values())
    assert all(isinstance(findings[f"an engine of {name}"]["value"], str) for name in ("tensorrt", "rtx"))


def test_a_queue_that_holds_time_of_the_host_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "_JUDGED_NS", 0)
    slow = found("queueing", machine(cuda=lambda: Cuda(launch_us=50.0), speed=20.0))
    assert "1 copies, 1x3x32x32, launched" in refuted(slow)


def test_errors_are_told_and_leave_nothing() -> None:
    findings = found("errors", machine())
    assert refuted(findings) == []
    assert "out of memory" in findings["too much memory"]["value"]["error"]

    class Remembers(Cuda):
        def cudaGetLastError(self) -> int:  # noqa: N802
            return self.last_error

    assert "last error after too much memory" in refuted(found("errors", machine(cuda=Remembers)))


def test_a_sticky_error() -> None:
    broken = Cuda()

    def launch(_stream: int) -> None:
        broken.sticky = ILLEGAL_ADDRESS

    said = cuda.illegal(broken, launch)
    assert "start it again" in said["wait"] and "illegal" in said["later"] and said["close"] == ""
    assert refuted(found("sticky", machine(child=lambda *_: said))) == []
    assert refuted(found("sticky", machine())) == ["an illegal address"]
    unclear = {**said, "later": "", "close": "boom"}
    wrong = ["what cnnx says: later", "closing the session"]
    assert refuted(found("sticky", machine(child=lambda *_: unclear))) == wrong


def test_what_is_visible() -> None:
    class Hidden(Cuda):
        def why_not(self) -> str:
            return "no CUDA-capable device is detected"

    def child(name: str, variables: dict[str, str]) -> dict[str, Any]:
        assert name == "seen"
        hidden = variables.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
        return cuda.seen(Hidden() if hidden else Cuda(), nvml=Nvml())

    findings = found("visible", machine(child=child))
    assert refuted(findings) == [] and f"CUDA_VISIBLE_DEVICES={UUID}" in findings
    assert findings["CUDA_VISIBLE_DEVICES=-1"]["value"]["name"] is None
    blind = found("visible", machine(child=lambda *_: cuda.seen(Cuda(), nvml=Nvml())))
    assert refuted(blind) == ["CUDA_VISIBLE_DEVICES=", "CUDA_VISIBLE_DEVICES=-1"]


def test_every_question_to_nvml_is_asked() -> None:
    """What cnnx asks NVML, from its source; the handle of a GPU is looked for in smoke and here."""
    source = [file.read_text() for file in sorted((ROOT / "exporter" / "cnnx").rglob("*.py"))]
    asked = set(re.findall(r"\bnvml(?:Device|System)Get\w+", "".join(source)))
    assert asked - {name for name in asked if "Handle" in name} == nvml.QUESTIONS.keys() | set(nvml.OF_SYSTEM)


def test_the_questions_exist_in_pynvml() -> None:
    import pynvml

    missing = [name for name in (*nvml.QUESTIONS, *nvml.OF_SYSTEM) if not hasattr(pynvml, name)]
    assert missing == []


def test_nvml_at_rest_and_under_load() -> None:
    asked = Nvml()
    findings = found("nvml", machine(asked))
    assert findings["nvmlDeviceGetName()"]["value"] == {"at rest": NAME, "under load": NAME}
    answers = findings["nvmlDeviceGetFieldValues([74])"]["value"]["at rest"]
    assert answers[0]["nvmlReturn"] == 3
    assert "missing in this pynvml" in str(findings["nvmlDeviceGetMigMode()"]["value"])
    assert asked.initialized == 0
    refusing = found("nvml", machine(Nvml(supported=False)))
    assert refusing["nvmlDeviceGetPowerUsage()"]["value"]["at rest"] == "NVMLError: Not Supported"


def test_processes() -> None:
    assert refuted(found("processes", machine())) == []
    elsewhere = Nvml()
    elsewhere.pids = [1]
    assert refuted(found("processes", machine(elsewhere))) == ["processes"]


def test_sensors_that_agree_and_one_that_does_not() -> None:
    findings = found("sensors", machine(speed=8.0))
    assert refuted(findings) == []
    counter = findings["nvml-energy"]["value"]
    assert math.isclose(counter["W"], 41.0, rel_tol=0.02) and counter["renewed every ms"] < 20
    assert findings["nvml-instant"]["holds"] and findings["nvml-instant"]["value"]["renewed every ms"] is None
    assert "rapl" in findings and "ina" in findings
    doubled = Nvml()
    doubled.factor = 2.0
    assert "nvml-instant" in refuted(found("sensors", machine(doubled, speed=8.0)))


def test_what_the_sampler_costs() -> None:
    value = found("cost", machine(speed=4.0))["time with the sampler over without"]["value"]
    assert value["sensor"] == "nvml-instant" and 0.5 < value["ratio"] < 2
    nothing = machine(Nvml(supported=False))
    assert found("cost", nothing)["sensors"]["value"] == "none is supported here"
    assert found("energy", nothing)["sensors"]["value"] == "none is supported here"


def test_two_passes_of_energy() -> None:
    findings = found("energy", machine(speed=8.0))
    assert set(findings) >= {"pass 1: mJ of a run", "pass 2: mJ of a run", "instant over counter"}
    assert abs(findings["instant over counter"]["value"]) < 0.02
    doubled = Nvml()
    doubled.factor = 2.0
    assert "instant over counter" in refuted(found("energy", machine(doubled, speed=8.0)))


def test_a_failure_in_the_load_is_not_silent() -> None:
    class Full(Cuda):
        def __init__(self) -> None:
            super().__init__()
            self.room = 1

    with pytest.raises(Exception, match="out of memory"), copies.busy(machine(cuda=Full)):
        time.sleep(0.01)


@pytest.mark.parametrize("listing", [name for name in LISTINGS if "rtx" not in name])
def test_the_stand_in_has_only_what_tensorrt_has(listing: str) -> None:
    api = Api(LISTINGS[listing].read_text())
    module = copies.module(lambda _stream: None, (1, 3, 8, 8))
    for name, value in vars(module).items():
        if isinstance(value, type):
            members = {member for member in vars(value) if not member.startswith("_")}
            assert members <= api.classes[name].keys(), name
    assert "nptype" in api.functions and {"INPUT", "OUTPUT"} <= api.classes["TensorIOMode"].keys()


def test_the_driver_calls_are_nvidias() -> None:
    """The signature of cuLaunchKernel: a function, 7 numbers, a stream, two lists (CUDA Driver API)."""
    source = (ROOT / "tools/check/probes/child.py").read_text()
    calls = {
        node.func.attr: node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "driver"
    }
    assert calls.keys() == {"cuModuleLoadData", "cuModuleGetFunction", "cuLaunchKernel"}
    shape = re.search(r"for each in \(([\d, ]+)\)\]", source)
    assert shape is not None and len(shape[1].split(",")) == 7


def test_the_small_network_is_one_that_engines_take(tmp_path: Path) -> None:
    images = np.random.default_rng(0).random(graphs.SHAPE, np.float32)
    logits = graphs.logits(images)
    assert logits.shape == (1, 10) and np.ptp(logits) > 0.1
    rtx = runtimes.get("rtx")
    if rtx.missing() is not None:
        pytest.skip("TensorRT for RTX is not installed")
    request = BuildRequest("fp32", dict.fromkeys(graphs.LAYERS, "fp32"), compute_capabilities=(86,))
    (built,) = rtx.build(graphs.write(tmp_path / "model.onnx"), request)
    assert built.plan


PROGRAMS = {
    "tells": 'print(\'{"what": "a", "value": 1, "holds": true, "expected": "1"}\')',
    "crashes": 'import os; print(\'{"what": "b", "value": 2}\', flush=True); os.abort()',
    "fails": "print('a library speaks', flush=True); raise ValueError('no such GPU')",
    "hangs": 'import time; print(\'{"what": "c", "value": 3}\', flush=True); time.sleep(60)',
    "last": 'print(\'{"what": "d", "value": 4}\')',
}


@pytest.fixture
def ended() -> Iterator[list[gpu.Finding]]:
    limits = dict.fromkeys(PROGRAMS, 20.0) | {"hangs": 2.0}
    yield list(gpu.findings(PROGRAMS, gpu.Command(lambda n: (sys.executable, "-c", PROGRAMS[n]), limits)))


def test_a_crash_and_a_hang_end_no_other_probe(ended: list[gpu.Finding]) -> None:
    how = {each["probe"]: str(each["value"]) for each in ended if each["what"] == "ended"}
    assert list(how) == list(PROGRAMS) and how["tells"] == how["last"] == "well"
    assert how["crashes"].startswith("signal 6") and how["hangs"] == "time limit of 2 s"
    assert how["fails"] == "exit code 1: ValueError: no such GPU"
    told = {each["what"]: each["value"] for each in ended}
    assert {"a": 1, "b": 2, "c": 3, "d": 4}.items() <= told.items(), "what came before is kept"
    assert told["printed"] == "a library speaks"


def test_each_finding_is_a_line_at_once_and_the_table_is_last(
    ended: list[gpu.Finding], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "gpu.jsonl"

    def seen() -> Iterator[gpu.Finding]:
        for number, each in enumerate(ended):
            assert number == 0 or len(out.read_text().splitlines()) == number
            yield each

    assert gpu.write_all(seen(), out) == 1
    assert [json.loads(line) for line in out.read_text().splitlines()] == ended
    printed = capsys.readouterr().out
    assert printed.startswith(out.read_text()) and "| tells | a |" in printed
    good = [each for each in ended if each["probe"] == "tells"]
    assert gpu.write_all(iter(good)) == 0


def test_what_is_not_as_expected_is_marked() -> None:
    table = gpu.as_table(
        [
            {
                "probe": "p",
                "what": "w",
                "value": {"a": 0.123456, "b": [1]},
                "holds": False,
                "expected": "0.2",
            },
            {"probe": "p", "what": "x", "value": "y" * 200},
        ]
    )
    assert "a: 0.1235, b: [1] (expected: 0.2)" in table and "NO |" in table
    assert "y" * 91 not in table


def test_without_a_gpu_it_says_so() -> None:
    from cnnx.errors import CnnxError
    from cnnx.runtimes.engine.cudart import load_cudart

    try:
        if load_cudart().why_not() is None:
            pytest.skip("there is a GPU")
    except CnnxError:
        pass
    command = [sys.executable, "-m", "tools.check.gpu", "smoke"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 4 and run.stderr.startswith("no GPU: ") and run.stdout == ""
    unknown = subprocess.run([*command, "smok"], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert unknown.returncode == 2 and "no such probe: smok" in unknown.stderr
