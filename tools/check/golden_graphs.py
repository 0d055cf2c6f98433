"""Compare the graphs that cnnx writes with recorded digests.

    python -m tools.check.golden_graphs            compare with tests/pipeline/export/golden_graphs.json
    python -m tools.check.golden_graphs --write    record new digests

Every graph is exported with an empty cache, so that no older result can hide a change. The scales of an
INT8 graph come from floating-point inference, whose last bits depend on the processor and the tools. Bytes
are therefore compared only with the recorded processor and tools; the structure is always compared.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import onnx

import cnnx
from cnnx.machine.environment import detect, installed_version
from cnnx.options import Precision
from tools import ROOT

RECORDED = ROOT / "tests" / "pipeline" / "export" / "golden_graphs.json"
NETWORKS = {"lenet5": "pretrained", "resnet20": "pretrained", "small-levit": "pretrained", "vgg16": "standin"}
PRECISIONS: tuple[Precision, ...] = ("fp16", "int8")

_CPUINFO = Path("/proc/cpuinfo")
_TOOLS = ("numpy", "onnx", "onnxruntime", "onnxscript", "pillow", "torch")
_IMAGES = {"vgg16": 2}
_FEW = 16


def machine() -> dict[str, str | None]:
    """Processor, its vector instructions and tool versions, which affect the last bits of a scale.

    The processor's name alone does not tell its generation on some virtual machines.
    """
    instructions = set(re.findall(r"\b(?:avx|fma|amx)\w*", _CPUINFO.read_text(encoding="utf-8")))
    return {
        "processor": detect().cpu,
        "instructions": " ".join(sorted(instructions)),
        **{name: installed_version(name) for name in _TOOLS},
    }


def digests(network: str, precision: Precision, folder: Path) -> dict[str, str]:
    """SHA-256 of a graph's bytes and structure, exported with an empty cache under `folder`."""
    images = _IMAGES.get(network, _FEW)
    with mock.patch.dict(os.environ, CNNX_CACHE=str(folder / "cache")):
        result = cnnx.export(
            network,
            precision=precision,
            weights=NETWORKS[network],
            calibration_images=images,
            validation_images=images,
            out=folder / f"{network}-{precision}",
        )
    return {"bytes": _sha256(result.bundle.model.read_bytes()), "structure": structure(result.bundle.model)}


def structure(file: Path) -> str:
    """SHA-256 of a graph without its values: nodes, attributes, names, types and shapes, in order."""
    graph = onnx.load(file).graph
    rows: list[Any] = [
        [n.op_type, n.name, list(n.input), list(n.output), sorted(map(_attribute, n.attribute))]
        for n in graph.node
    ]
    rows += [[tensor.name, tensor.data_type, list(tensor.dims)] for tensor in graph.initializer]
    rows += [value.SerializeToString(deterministic=True).hex() for value in (*graph.input, *graph.output)]
    return _sha256(json.dumps(rows).encode())


def differences(recorded: dict[str, Any], found: dict[str, dict[str, str]]) -> list[str]:
    """One line per graph that differs from the record; the module docstring lists what is compared."""
    same_machine = recorded["machine"] == machine()
    kinds = ("structure", "bytes") if same_machine else ("structure",)
    return [
        f"{name}: the {kind} of model.onnx changed"
        for name, now in found.items()
        for kind in kinds
        if recorded["graphs"][name][kind] != now[kind]
    ]


def _attribute(attribute: onnx.AttributeProto) -> str:
    return attribute.SerializeToString(deterministic=True).hex()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--write", action="store_true", help="record the current graphs")
    write = parser.parse_args().write
    found = {}
    for network in NETWORKS:
        for precision in PRECISIONS:
            with tempfile.TemporaryDirectory() as folder:
                found[f"{network} {precision}"] = digests(network, precision, Path(folder))
            print(f"{network} {precision}: {found[f'{network} {precision}']['bytes'][:12]}", flush=True)
    if write:
        RECORDED.parent.mkdir(exist_ok=True)
        text = json.dumps({"machine": machine(), "graphs": found}, indent=1) + "\n"
        RECORDED.write_text(text, encoding="utf-8")
        return 0
    recorded = json.loads(RECORDED.read_text(encoding="utf-8"))
    if recorded["machine"] != machine():
        print("processor or tools differ from the record: comparing structures only")
    changed = differences(recorded, found)
    print("\n".join(changed) or "all graphs match the record")
    return 1 if changed else 0


if __name__ == "__main__":
    sys.exit(main())
