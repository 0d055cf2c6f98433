"""Other programs, and Python itself, kept from taking code out of the working directory.

cnnx is run in downloaded folders. A numpy.py there, or a program called tegrastats, must not run.
"""

from __future__ import annotations

import os
import shutil
import site
import sys
from collections.abc import Iterable
from pathlib import Path

_SEARCH_PATHS = ("PATH", "LD_LIBRARY_PATH", "PYTHONPATH")
# Python's own -P exists from 3.11 only, and -I alone would lose PYTHONPATH and the user's site-packages:
# the child is isolated, and gets this process's import path. cnnx itself is loaded from where it is here.
_CHILD = """import sys
sys.path[:] = {path}
import importlib, importlib.util
spec = importlib.util.spec_from_file_location("cnnx", {init}, submodule_search_locations=[{folder}])
sys.modules["cnnx"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["cnnx"])
sys.exit(importlib.import_module(sys.argv[1]).main(sys.argv[2:]))
"""


def python_process(module: str, *arguments: str) -> tuple[list[str], dict[str, str]]:
    """Command and environment that call `main(arguments)` of one of our modules in a process of its own.

    It runs with this interpreter, this very cnnx, and this process's import path without the working
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
    """Entries of an import path, absolute, without the working directory.

    The working directory stays where the interpreter keeps its own packages there, and where PYTHONPATH names
    it in full: that was meant. An empty entry of PYTHONPATH is a slip, such as PYTHONPATH=$PYTHONPATH:/opt.
    """
    try:
        here = Path.cwd().resolve()
    except FileNotFoundError:  # it was removed
        return [entry for entry in entries if Path(entry).is_absolute()]
    own = (str(Path(os.__file__).parent), *site.getsitepackages(), site.getusersitepackages())
    meant = here in (Path(folder).resolve() for folder in (*own, *_absolute("PYTHONPATH")))
    folders = [Path(entry).absolute() for entry in entries if entry]
    return [str(folder) for folder in folders if meant or folder.resolve() != here]


def environment() -> dict[str, str]:
    """This process's environment; search paths in it name absolute folders only.

    An empty entry of PATH or LD_LIBRARY_PATH stands for the working directory.
    """
    kept = dict(os.environ)
    for name in _SEARCH_PATHS:
        kept.pop(name, None)
        if folders := _absolute(name):
            kept[name] = os.pathsep.join(folders)
    return kept


def find_program(name: str) -> str | None:
    """Absolute path of a program on PATH, never one in the working directory; a path is taken as it is."""
    return shutil.which(name, path=environment().get("PATH", os.defpath))


def isolate() -> None:
    """Take the working directory out of this process's import path, and of what its children search."""
    sys.path[:] = import_path(sys.path)
    cleaned = environment()
    for name in _SEARCH_PATHS:
        if name in cleaned:
            os.environ[name] = cleaned[name]
        else:
            os.environ.pop(name, None)


def _absolute(name: str) -> list[str]:
    """The folders that a search path in the environment names in full."""
    return [each for each in os.environ.get(name, "").split(os.pathsep) if Path(each).is_absolute()]
