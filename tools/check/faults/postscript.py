"""PostScript that is named like an image: Pillow would let Ghostscript run it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tools.check.faults.calls import Fault
from tools.check.faults.judge import badly_ended
from tools.check.faults.sandbox import Sandbox
from tools.check.faults.trials import Record
from tools.check.faults.world import NETWORK, NEW

_EPS = """%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 32 32
0.5 setgray 0 0 32 32 rectfill showpage
%%EOF
"""
_FOLDER = "scans"
_COMMANDS = (
    ("classify", NEW, f"{_FOLDER}/1/a.jpg"),
    ("calibrate", NETWORK, "--calibration-data", _FOLDER),
    ("validate", NEW, "--model", NETWORK, "--validation-data", _FOLDER),
    ("export", NETWORK, "--out", "fresh", "--calibration-data", _FOLDER, "--validation-data", _FOLDER),
)
_PILLOW = "import sys, PIL.Image; PIL.Image.open(sys.argv[1]).load()"


def named_as_images(world: Sandbox, folder: Path) -> Iterator[Record]:
    """Give commands a PostScript file named .jpg. They refuse it, and Ghostscript is not started.

    As a control, Pillow alone opens the file.
    """
    sandbox = world.copy(folder)
    real = shutil.which("gs")
    version = subprocess.run([real, "--version"], capture_output=True, text=True).stdout if real else ""
    image, started = sandbox.root / "work" / _COMMANDS[0][-1], sandbox.root / "started"
    image.parent.mkdir(parents=True)
    image.write_text(_EPS)
    gs = sandbox.root / "bin" / "gs"
    gs.parent.mkdir()
    gs.write_text(f'#!/bin/sh\ntouch {started}\nexec {real or "false"} "$@"\n')
    gs.chmod(0o755)
    path = f"{gs.parent}:{os.environ['PATH']}"
    control = subprocess.run(
        [sys.executable, "-c", _PILLOW, str(image)], env={**os.environ, "PATH": path}, capture_output=True
    )
    wrong = [] if started.exists() else ["Ghostscript was not started, so this shows nothing"]
    at = f"Pillow alone, Ghostscript {version.strip() or 'imitated'}"
    yield {"at": at, "exit": control.returncode, "wrong": wrong}
    for arguments in _COMMANDS:
        started.unlink(missing_ok=True)
        ended = sandbox.start(arguments, Fault(), before=lambda: os.environ.update(PATH=path)).wait()
        wrong = badly_ended(ended) + (["Ghostscript was started"] if started.exists() else [])
        wrong += [] if ended.code == 3 else [f"exit code {ended.code}"]
        yield {"at": arguments[0], "exit": ended.code, "said": ended.err.strip()[-400:], "wrong": wrong}
    sandbox.remove()
