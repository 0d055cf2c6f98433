"""Measurements that run in a Python of their own."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def own_python(module: str, *arguments: str) -> tuple[list[str], dict[str, str]]:
    """Command and environment that run one of our modules with this interpreter, and this very cnnx."""
    sources = Path(__file__).resolve().parents[2]
    path = os.pathsep.join([str(sources), *filter(None, [os.environ.get("PYTHONPATH")])])
    return [sys.executable, "-m", module, *arguments], {**os.environ, "PYTHONPATH": path}
