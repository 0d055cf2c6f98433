"""Write docs/show.md: output of commands on this machine.

python -m tools.docs.show_page

Takes about five minutes on two cores. The machine should be idle otherwise.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from datetime import datetime, timezone
from pathlib import Path

from tools import ROOT
from tools.markdown import write_page

PAGE = ROOT / "docs" / "show.md"
_WIDTH = 130

_HEAD = """# What it looks like

Output of commands, captured by `python -m tools.docs.show_page`{where}. The latencies are those of a CPU.
They do not predict a GPU's, least of all for INT8, as ONNX Runtime runs Q/DQ graphs unfused.
[measuring.md](measuring.md) describes the measurements, [devices.md](devices.md) lists GPUs and Jetsons.
"""
# cnnx does not ship ResNet-50's weights: stand-ins take the same time, and are not judged.
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
    """The output of a command, without progress."""
    command = [sys.executable, "-c", "from cnnx.cli import main; main()", *arguments]
    environment = {**os.environ, "COLUMNS": str(_WIDTH), "TERM": "dumb"}
    print("cnnx", *arguments, file=sys.stderr, flush=True)
    done = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"cnnx {' '.join(arguments)} exited with {done.returncode}")
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
                commands = "\n".join(f"cnnx {' '.join(arguments)}" for arguments in before)
                parts.append(f"After\n\n```\n{commands}\n```\n")
            parts += [
                f"```\n$ cnnx {' '.join(arguments)}\n{screen(arguments, folder)}\n```\n"
                for arguments in shown
            ]
    write_page(PAGE, "\n".join(parts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
