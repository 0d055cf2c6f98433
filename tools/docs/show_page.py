"""docs/show.md: the commands' own screens on the machine that this runs on, so far as it has what they need.

python -m tools.docs.show_page

Takes about five minutes on two cores. The machine should have nothing else to do.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from datetime import datetime, timezone
from pathlib import Path

from tools import ROOT

PAGE = ROOT / "docs" / "show.md"
_WIDTH = 130

_HEAD = """# What it looks like

Screens of the commands, as `python -m tools.docs.show_page` caught them{where}. Latencies here are a CPU's:
they say nothing of a GPU, INT8's least of all, as ONNX Runtime runs Q/DQ graphs unfused.
[measuring.md](measuring.md) says how they were measured, [devices.md](devices.md) what has run on GPUs and
Jetsons.
"""
# ResNet-50's weights are not part of cnnx: stand-ins cost the same time, and nothing is judged.
_RESNET50 = ("resnet50", "--weights", "standin", "--calibration-images", "32", "--validation-images", "32")
_SURVEY = ("--models", "lenet5,resnet20", "--precisions", "fp32,int8", "--batches", "1,8", "--out", "rows")
_SECTIONS: tuple[tuple[str, list[tuple[str, ...]], list[tuple[str, ...]]], ...] = (
    ("What works on this machine", [("doctor",)], []),
    (
        "LeNet-5 and ResNet-50, in FP32 and INT8",
        [
            ("bench", "lenet5-fp32", "lenet5-int8", "--layers"),
            ("bench", "resnet50-fp32", "resnet50-int8", "--percentile", "90"),
        ],
        [
            ("export", "lenet5", "--fp32"),
            ("export", "lenet5", "--int8"),
            ("export", *_RESNET50, "--fp32"),
            ("export", *_RESNET50, "--int8"),
        ],
    ),
    ("A small survey", [("survey", *_SURVEY)], []),
)


def screen(arguments: tuple[str, ...], folder: Path) -> str:
    """What a command prints, without what it says of its progress."""
    command = [sys.executable, "-c", "from cnnx.cli import main; main()", *arguments]
    environment = {**os.environ, "COLUMNS": str(_WIDTH), "TERM": "dumb"}
    print("cnnx", *arguments, file=sys.stderr, flush=True)
    done = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"cnnx {' '.join(arguments)} ended with {done.returncode}")
    return "\n".join(line.rstrip() for line in done.stdout.replace(str(folder), ".").splitlines())


def main() -> int:
    parts = [_HEAD.format(where=f" on {datetime.now(timezone.utc):%Y-%m-%d}")]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for title, shown, before in _SECTIONS:
            for arguments in before:
                screen(arguments, folder)
            parts.append(f"## {title}\n")
            if before:
                said = "\n".join(f"cnnx {' '.join(arguments)}" for arguments in before)
                parts.append(f"After\n\n```\n{said}\n```\n")
            parts += [
                f"```\n$ cnnx {' '.join(arguments)}\n{screen(arguments, folder)}\n```\n"
                for arguments in shown
            ]
    PAGE.write_text("\n".join(parts), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
