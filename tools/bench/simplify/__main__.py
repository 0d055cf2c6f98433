"""Compare cnnx's simplifier with onnxscript, onnx_ir's passes and onnxslim on exported files.

    python -m tools.bench.simplify FOLDER                build the files there, run every tool, print a table
    python -m tools.bench.simplify FOLDER --export int8  also take every result through cnnx to an RTX build
    python -m tools.bench.simplify FOLDER --convert      the version converters, all to operator set 20

Needs the [export], [cpu] and [rtx] extras and `pip install --no-deps timm torchvision onnxslim colorama
onnx-shape-inference`. Every tool works in two processes of its own with different hash seeds, file by file in
turn: time, growth of the resident memory, and whether both gave the same bytes.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import onnx
import onnxruntime

from tools.bench.simplify.networks import build
from tools.bench.simplify.simplifiers import CONVERTERS, TOOLS

WEIGHTED = frozenset({"Conv", "Gemm", "MatMul"})
_TOLERANCE = 1e-4


class Worker:
    """A process that runs one tool on many files."""

    def __init__(self, tool: str, seed: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tools.bench.simplify.simplifiers", tool],
            env={**os.environ, "PYTHONHASHSEED": seed},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def run(self, source: Path, target: Path) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        print(source, target, file=self._process.stdin, flush=True)
        for line in self._process.stdout:
            if line.startswith("RESULT"):
                found: dict[str, Any] = json.loads(line[7:])
                return found
        return {"error": "the process died"}

    def close(self) -> None:
        self._process.communicate()


@dataclass(frozen=True)
class File:
    """Node counts of a file; `shapes` counts nodes that compute integers or booleans."""

    nodes: int
    shapes: int
    norms: int
    names: frozenset[str]
    signature: tuple[str, ...]


def read(path: Path) -> File:
    model = onnx.shape_inference.infer_shapes(onnx.load(path), data_prop=True)
    nodes, whole = model.graph.node, (onnx.TensorProto.INT64, onnx.TensorProto.BOOL)
    integers = {v.name for v in model.graph.value_info if v.type.tensor_type.elem_type in whole}
    values = (*model.graph.input, *model.graph.output)
    return File(
        nodes=len(nodes),
        shapes=sum(bool(integers & {*node.output}) for node in nodes if node.op_type != "Constant"),
        norms=sum(node.op_type == "BatchNormalization" for node in nodes),
        names=frozenset(node.name for node in nodes if node.op_type in WEIGHTED),
        signature=tuple(
            f"{v.name} {[d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim]}" for v in values
        ),
    )


@functools.lru_cache
def original(path: Path) -> tuple[File, list[Any]]:
    """Node counts and logits of an original file."""
    return read(path), logits(path)


def logits(path: Path) -> list[Any]:
    """Logits of ONNX Runtime, for batches of 1 and 3."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (image,), draw = session.get_inputs(), np.random.default_rng(0)
    batches = [draw.standard_normal((n, *image.shape[1:])).astype(np.float32) for n in (1, 3)]
    return [session.run(None, {image.name: batch})[0] for batch in batches]


def pipeline(path: Path, folder: Path, precision: str) -> str:
    """Run `cnnx export` with an RTX build on a file: "ok", or the exit code and the error."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        command = [sys.executable, "-c", "from cnnx.cli import main; main()", "export", str(path)]
        command += [f"--{precision}", "--target", "rtx", "--sm", "86", "--out", f"{place}/bundle"]
        command += ["--calibration-images", "4", "--validation-images", "4"]
        variables = {**os.environ, "CNNX_CACHE": f"{place}/cache", "COLUMNS": "400", "NO_COLOR": "1"}
        done = subprocess.run(command, capture_output=True, text=True, env=variables, check=False)
    said = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("error")]
    # Four images are inconclusive (6), and an untrained network may fail a gate (1).
    return "ok" if done.returncode in (0, 1, 6) else f"{done.returncode} {said[0][7:107] if said else '?'}"


def compare(source: Path, workers: tuple[Worker, Worker], folder: Path, precision: str) -> dict[str, Any]:
    """The result of a tool on a file."""
    target, again = folder / "result.onnx", folder / "again.onnx"
    row = workers[0].run(source, target)
    if "error" in row:
        return row
    workers[1].run(source, again)
    (before, expected), after = original(source), read(target)
    row |= {
        "nodes": after.nodes,
        "shape nodes": after.shapes,
        "norms": after.norms,
        "names": f"{len(before.names & after.names)}/{len(before.names)}",
        "signature": before.signature == after.signature,
        "same bytes": target.read_bytes() == again.read_bytes(),
    }
    try:
        pairs = zip(expected, logits(target), strict=True)
        row["difference"] = max(float(abs(a - b).max() / abs(a).max()) for a, b in pairs)
    except Exception as error:
        return row | {"error": f"ONNX Runtime: {str(error).splitlines()[0][-80:]}"}
    return row | ({precision: pipeline(target, folder, precision)} if precision else {})


def sums(tool: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """One line per tool, over all files."""
    done = [row for row in rows if "error" not in row]
    wrong = sum(row["difference"] > _TOLERANCE for row in done)
    total: dict[str, Any] = {"tool": tool, "files": f"{len(done)}/{len(rows)}", "wrong": wrong}
    for name in ("nodes", "shape nodes", "norms", "signature", "same bytes", "seconds"):
        total[name] = round(sum(row[name] for row in done), 1)
    total["most MiB"] = round(max((row["mib"] for row in done), default=0))
    kept = [tuple(map(int, row["names"].split("/"))) for row in done]
    total["names"] = f"{sum(k for k, _ in kept)}/{sum(n for _, n in kept)}"
    built = {
        p: sum(row.get(p) == "ok" for row in rows) for p in ("int8", "fp16") if any(p in row for row in rows)
    }
    return total | built


def show(row: dict[str, Any]) -> None:
    """Print one line and flush, so that a long run can be followed."""
    cells = (f"{value:.2g}" if isinstance(value, float) else str(value) for value in row.values())
    print("| " + " | ".join(cells) + " |", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="*", default=[""], help="only files whose names contain one of these")
    parser.add_argument("--tools", nargs="*", choices=TOOLS, default=[*TOOLS])
    parser.add_argument(
        "--export", choices=("int8", "fp16"), default="", help="build an RTX engine from each result"
    )
    parser.add_argument("--convert", action="store_true", help="compare the version converters")
    asked = parser.parse_args()
    build(asked.folder, only=asked.only, every_opset=asked.convert)
    files = [p for p in sorted(asked.folder.glob("*.onnx")) if any(part in p.stem for part in asked.only)]
    tools = CONVERTERS if asked.convert else asked.tools
    workers = {tool: (Worker(tool, "1"), Worker(tool, "2")) for tool in tools}
    rows: dict[str, list[dict[str, Any]]] = {tool: [] for tool in tools}
    with tempfile.TemporaryDirectory() as place:
        for file in files:
            for tool in tools:
                rows[tool].append(compare(file, workers[tool], Path(place), asked.export))
                show({"file": file.stem, "tool": tool, **rows[tool][-1]})
    for pair in workers.values():
        for worker in pair:
            worker.close()
    totals = [sums(tool, found) for tool, found in rows.items()]
    show({name: name for name in totals[0]})
    for total in totals:
        show(total)
    return 0


if __name__ == "__main__":
    sys.exit(main())
