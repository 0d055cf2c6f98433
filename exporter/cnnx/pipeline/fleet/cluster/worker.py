"""The Python that measures on a device: what it is, and what it has."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from cnnx.errors import EnvironmentLacks, InputRefused, UsageError
from cnnx.machine.isolated import environment
from cnnx.schema import from_plain, read_json

_ASK_S = 60.0
# For the oldest Python that someone may name: it imports nothing that could fail, and prints one line.
_QUESTION = """
import json, platform, sys
try:
    from importlib import metadata, util
except ImportError:
    metadata = None
def version(*names):
    for name in names:
        try:
            return metadata.version(name)
        except Exception:
            pass
    return ""
def found(name):
    try:
        return util.find_spec(name) is not None
    except Exception:
        return False
print(json.dumps({
    "python": "%d.%d.%d" % sys.version_info[:3],
    "cnnx": version("cnnx") if metadata and found("cnnx") else "",
    "pytorch": version("torch") if metadata and found("torch") else "",
    "tensorrt": version("tensorrt", "tensorrt-cu13", "tensorrt-cu12") if metadata else "",
    "onnxruntime": version("onnxruntime", "onnxruntime-gpu") if metadata else "",
    "machine": platform.machine(),
}))
"""


@dataclass(frozen=True, slots=True)
class Worker:
    """The Python that measures on a device. A version is empty if the package is not there.

    Attributes:
        python: its version.
        cnnx: version of cnnx in it.
        pytorch: version of PyTorch.
        tensorrt: version of TensorRT.
        onnxruntime: version of ONNX Runtime.
        machine: architecture, such as aarch64.
    """

    python: str
    cnnx: str
    pytorch: str
    tensorrt: str
    onnxruntime: str
    machine: str


def worker_of(python: Path | None) -> Worker:
    """Ask a Python what it has; None: the one that runs this.

    Raises:
        UsageError: there is no such program.
        EnvironmentLacks: it is older than 3.10, or does not have this version of cnnx.
    """
    chosen = Path(sys.executable) if python is None else python
    if not chosen.is_absolute() or not chosen.is_file():
        raise UsageError(
            f"there is no program {chosen}",
            where="--worker-python",
            hint="give a path, as of: command -v python3",
        )
    answer = _asked(chosen)
    if tuple(map(int, answer.python.split("."))) < (3, 10):
        raise EnvironmentLacks(
            f"the Python that measures is {answer.python}; cnnx needs 3.10 or newer",
            where=chosen,
            hint="name another Python",
        )
    ours = metadata.version("cnnx")
    if answer.cnnx != ours:
        has = f"has cnnx {answer.cnnx}" if answer.cnnx else "does not have cnnx"
        raise EnvironmentLacks(
            f"the Python that measures {has}, and this one has {ours}",
            where=chosen,
            hint=f"install the same wheel there: {chosen} -m pip install WHEEL",
        )
    return answer


def _asked(python: Path) -> Worker:
    try:
        done = subprocess.run(
            [str(python), "-c", _QUESTION],
            env=environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_ASK_S,
            cwd="/",  # as -c imports from the working folder
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EnvironmentLacks(
            f"the Python that measures cannot be run: {error}", where=python, hint="check --worker-python"
        ) from None
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1][:300]
        raise EnvironmentLacks(
            f"the Python that measures failed: {last}", where=python, hint="check --worker-python"
        )
    hint = "check that --worker-python is a Python"
    data = read_json(lines[-1], where=python, error=InputRefused, hint=hint)
    return from_plain(Worker, data, where=python, error=InputRefused, hint=hint)
