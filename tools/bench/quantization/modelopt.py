"""Creates a virtual environment for ModelOpt, whose requirements differ from cnnx's."""

from __future__ import annotations

import functools
import subprocess
import sys

from tools import ROOT

VENV = ROOT / "build" / "modelopt-venv"
# PyTorch is capped as in pyproject.toml: later ones may come with CUDA.
PACKAGES = ("nvidia-modelopt[onnx]==0.47.0", "torch>=2.10,<2.14")


@functools.cache
def missing() -> str | None:
    """Create ModelOpt's venv if it does not exist. Returns why that is impossible, or None."""
    stamp = VENV / "installed.txt"
    if stamp.is_file() and stamp.read_text(encoding="utf-8").split("\n") == [*PACKAGES]:
        return None
    print(f"installing {', '.join(PACKAGES)} into {VENV.relative_to(ROOT)}", flush=True)
    for command in (
        [sys.executable, "-m", "venv", str(VENV)],
        [str(VENV / "bin" / "python"), "-m", "pip", "install", "--quiet", *PACKAGES],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines()
            return f"ModelOpt could not be installed: {said[-1] if said else 'pip said nothing'}"
    stamp.write_text("\n".join(PACKAGES), encoding="utf-8")
    return None
