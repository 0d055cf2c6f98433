"""Keeps Python and other programs from running code in the working directory.

cnnx is run in downloaded folders. A numpy.py or a program named tegrastats in such a folder must not run.
"""

from __future__ import annotations

import os
import shutil
import site
import sys
from collections.abc import Iterable
from pathlib import Path

_SEARCH_PATHS = ("PATH", "LD_LIBRARY_PATH", "PYTHONPATH")
# Python has -P only since 3.11, and -I alone would drop PYTHONPATH and the user's site-packages. So the child
# runs with -I and gets the import path of this process. It loads the same cnnx as this process.
_CHILD = """import sys
sys.path[:] = {path}
import importlib, importlib.util
spec = importlib.util.spec_from_file_location("cnnx", {init}, submodule_search_locations=[{folder}])
sys.modules["cnnx"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["cnnx"])
sys.exit(importlib.import_module(sys.argv[1]).main(sys.argv[2:]))
"""


def python_process(module: str, *arguments: str) -> tuple[list[str], dict[str, str]]:
    """Command and environment to call `main(arguments)` of a cnnx module in a child process.

    The child uses this interpreter, this cnnx, and the import path of this process without the working
    directory.
    """
    package = Path(__file__).resolve().parent.parent
    code = _CHILD.format(
        path=ascii(import_path(sys.path)),
        init=ascii(str(package / "__init__.py")),
        folder=ascii(str(package)),
    )
    flags = ["-I", *(["-B"] if sys.dont_write_bytecode else []), *(["-Xutf8"] if sys.flags.utf8_mode else [])]
    return [sys.executable, *flags, "-c", code, module, *arguments], environment()


def import_path(entries: Iterable[str]) -> list[str]:
    """Absolute entries of an import path, without the working directory.

    The working directory is kept if the interpreter has its packages there, or if PYTHONPATH has its absolute
    path, which is intended. An empty entry in PYTHONPATH is a mistake, as in PYTHONPATH=$PYTHONPATH:/opt.
    """
    try:
        here = Path.cwd().resolve()
    except FileNotFoundError:  # the working directory was removed
        return [entry for entry in entries if Path(entry).is_absolute()]
    own = (str(Path(os.__file__).parent), *site.getsitepackages(), site.getusersitepackages())
    intended = here in (Path(folder).resolve() for folder in (*own, *_absolute("PYTHONPATH")))
    folders = [Path(entry).absolute() for entry in entries if entry]
    return [str(folder) for folder in folders if intended or folder.resolve() != here]


def environment() -> dict[str, str]:
    """Environment of this process with only absolute folders in search paths.

    An empty entry in PATH or LD_LIBRARY_PATH means the working directory.
    """
    kept = dict(os.environ)
    for name in _SEARCH_PATHS:
        kept.pop(name, None)
        if folders := _absolute(name):
            kept[name] = os.pathsep.join(folders)
    return kept


def find_program(name: str) -> str | None:
    """Absolute path of a program on PATH, excluding the working directory; a path is returned as given."""
    return shutil.which(name, path=environment().get("PATH", os.defpath))


def isolate() -> None:
    """Remove the working directory from the search paths of this process and its children."""
    sys.path[:] = import_path(sys.path)
    cleaned = environment()
    for name in _SEARCH_PATHS:
        if name in cleaned:
            os.environ[name] = cleaned[name]
        else:
            os.environ.pop(name, None)


def _absolute(name: str) -> list[str]:
    """The absolute folders of a search path in the environment."""
    return [each for each in os.environ.get(name, "").split(os.pathsep) if Path(each).is_absolute()]
