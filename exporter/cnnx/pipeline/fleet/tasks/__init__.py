"""What a node can be asked to do. Each module has a function `run`, which gets plain data and files.

`run(arguments, files, out, *, listener)` returns plain data. `files` is the folder of the job's files, and
what it writes to the folder `out` is brought back. It raises a `CnnxError` if it cannot be done.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from cnnx.errors import UsageError

TASKS = (
    "export",
    "fp32_graph",
    "graph_logits",
    "original_logits",
    "statistics",
    "subject",
    "subject_logits",
    "survey",
)

Task = Callable[..., Any]


def task_named(name: str) -> Task:
    """The function of a task.

    Raises:
        UsageError: there is no task of that name.
    """
    if name not in TASKS:
        raise UsageError(
            f"unknown task {name!r}", hint="install the same version of cnnx on every machine of the fleet"
        )
    return cast("Task", importlib.import_module(f"{__name__}.{name}").run)


def inside(folder: Path, name: str) -> Path:
    """The path of a file by its relative name, which came from another machine.

    Raises:
        UsageError: it is not a path inside the folder.
    """
    parts = name.split("/")
    if not name or "\0" in name or "\\" in name or any(part in ("", ".", "..") for part in parts):
        raise UsageError(
            f"{name!r} is not the name of a file in a folder",
            hint="install the same version of cnnx on every machine of the fleet",
        )
    return folder.joinpath(*parts)
