"""Memory of a network in a process of its own, and what each machine tells of its GPU's."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

from cnnx.measure import footprint
from cnnx.measure.footprint import (
    Footprint,
    GpuMemory,
    gpu_memory,
    measure_footprint,
    measure_footprints,
)
from cnnx.measure.memory import MemoryUse
from cnnx.runtimes import USUAL
from tests.doubles.power_trees import write
from tests.inputs.tiny import tiny_graph

IMAGES = np.zeros((1, 1, 32, 32), np.float32)


class Refusal(Exception):
    pass


def nvml(*, used=None, compute=(), graphics=()):
    """NVML as on a card; without `used` as on Jetson Orin: it starts and refuses."""

    def ask(value):
        def answer(*_):
            if used is None:
                raise Refusal
            return value

        return answer

    def listed(pairs):
        return ask([SimpleNamespace(pid=pid, usedGpuMemory=memory) for pid, memory in pairs])

    return SimpleNamespace(
        NVMLError=Refusal,
        nvmlInit=lambda: None,
        nvmlShutdown=lambda: None,
        nvmlDeviceGetHandleByIndex=lambda _: "gpu",
        nvmlDeviceGetMemoryInfo=ask(SimpleNamespace(used=used)),
        nvmlDeviceGetComputeRunningProcesses=listed(compute),
        nvmlDeviceGetGraphicsRunningProcesses=listed(graphics),
    )


def test_a_card_tells_of_the_process_once_though_it_is_in_two_lists(tmp_path):
    card = nvml(used=900, compute=[(7, 300), (8, 100)], graphics=[(7, 300)])
    assert gpu_memory(tmp_path, nvml=card, pid=7) == GpuMemory(300, 900, None, None)
    assert gpu_memory(tmp_path, nvml=card, pid=9).process is None
    # In a container NVML lists no memory: not known, and not 0.
    assert gpu_memory(tmp_path, nvml=nvml(used=900, compute=[(7, None)]), pid=7).process is None


def test_in_a_container_a_host_process_with_our_number_is_not_ours(tmp_path):
    """NVML lists the host's process ids."""
    (tmp_path / "proc/self/ns").mkdir(parents=True)
    card = nvml(used=900, compute=[(7, 300)])
    for namespace, found in (("pid:[4026531836]", 300), ("pid:[4026532281]", None)):
        (tmp_path / "proc/self/ns/pid").unlink(missing_ok=True)
        (tmp_path / "proc/self/ns/pid").symlink_to(namespace)
        assert gpu_memory(tmp_path, nvml=card, pid=7).process == found


def test_a_jetson_tells_by_memavailable_and_for_root_by_nvmap(tmp_path):
    write(
        tmp_path,
        {
            "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3",
            "proc/meminfo": "MemTotal: 8000 kB\nMemAvailable:    6000 kB",
            "sys/kernel/debug/nvmap/iovmm/maps": "CLIENT   PROCESS  PID  SIZE\n"
            "user     python3   7   2048K\n               00000007 4K\nuser     python3  77      4K",
        },
    )
    found = gpu_memory(tmp_path, nvml=nvml(), pid=7)
    assert found == GpuMemory(None, None, 6000 * 1024, 2048 * 1024)


def test_a_process_of_its_own_sees_a_network_that_this_one_would_not(tmp_path):
    onnx.save(tiny_graph(), tmp_path / "tiny.onnx")
    found = measure_footprint("ort", tmp_path / "tiny.onnx", IMAGES, USUAL)
    assert found.libraries_bytes > 2**20 and found.host.before_bytes > found.libraries_bytes
    assert found.host.peak_bytes is None or found.host.added_bytes > 2**16
    assert Footprint.from_dict(found.as_dict()) == found
    several = measure_footprints("ort", tmp_path / "tiny.onnx", IMAGES, USUAL, streams=3)
    peaks = [each.host.peak_bytes for each in several]
    assert len(several) == 3 and all(each.failed == "" for each in several)
    assert {each.host.before_bytes for each in several} == {several[0].host.before_bytes}
    assert None in peaks or peaks == sorted(peaks)
    unknown = measure_footprint("ort", tmp_path / "absent.onnx", IMAGES, USUAL)
    assert unknown == Footprint(MemoryUse(None, None, None), failed=unknown.failed)
    assert "absent.onnx" in unknown.failed and unknown.as_dict()["added_bytes"] is None


@pytest.mark.parametrize("tail", ["", '{"before_by', "not JSON\n"])
def test_the_process_that_is_killed_for_lack_of_memory_tells_what_fit(tmp_path, monkeypatch, tail):
    """It printed two lines, and perhaps a part of the third."""
    onnx.save(tiny_graph(), tmp_path / "tiny.onnx")
    one = measure_footprint("ort", tmp_path / "tiny.onnx", IMAGES, USUAL)
    line = json.dumps(one.as_dict()) + "\n"
    monkeypatch.setattr(footprint, "_asked", lambda request: (2 * line + tail, "signal 9"))
    found = measure_footprints("ort", tmp_path / "tiny.onnx", IMAGES, USUAL, streams=4)
    if tail.startswith("not"):
        assert [each.failed[:10] for each in found] == ["the output"]
    else:
        assert found[:2] == (one, one) and [each.failed for each in found[2:]] == ["signal 9"]
