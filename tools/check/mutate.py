"""Mutation testing: change one line at a time in a copy of the tree, and count what the tests catch.

python -m tools.check.mutate [--each 4] [--modules 'graph/*'] [--seed 0] [--survivors]

A run that was stopped resumes from build/mutants.json. mutate.toml names the tests of each module, and
equivalent mutations with the reason. The exit code is 1 if a mutation survived.
"""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import hashlib
import importlib
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tools import ROOT
from tools.check.mutations import Mutation, differs, mutations
from tools.resumable import Records

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PACKAGE = Path("exporter") / "cnnx"
JOURNAL = Records(ROOT / "build")
_COPIED = ("exporter", "tests", "tools", "recipes", "calibration", "docs", "pyproject.toml")
_LOADED_ONCE = ("hypothesis", "numpy", "onnx", "onnxruntime", "torch")


class Tree:
    """A private copy of the checkout, in which tests run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in _COPIED:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, folder / name)

    def source(self, module: str) -> bytes:
        return (self.folder / PACKAGE / module).read_bytes()

    @contextlib.contextmanager
    def changed(self, module: str, content: bytes) -> Iterator[None]:
        whole = self.source(module)
        (self.folder / PACKAGE / module).write_bytes(content)
        try:
            yield
        finally:
            (self.folder / PACKAGE / module).write_bytes(whole)

    def fails(self, tests: list[str], *, limit: float) -> bool:
        """Whether a test fails or times out. Forks, so that imports happen once."""
        process = multiprocessing.get_context("fork").Process(target=self._test, args=(tests,))
        process.start()
        process.join(limit)
        if process.is_alive():
            os.killpg(process.pid or 0, signal.SIGKILL)
            process.join()
        return process.exitcode != 0

    def _test(self, tests: list[str]) -> None:
        os.setsid()  # a new process group, so that processes started by tests can be killed
        for stream in (sys.stdout, sys.stderr):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        os.chdir(self.folder)
        sys.path[:0] = [str(self.folder / "exporter"), str(self.folder)]
        os.environ |= {"PYTHONPATH": sys.path[0], "PYTHONDONTWRITEBYTECODE": "1"}
        sys.dont_write_bytecode = True
        for name in [name for name in sys.modules if name.partition(".")[0] == "tools"]:
            del sys.modules[name]  # so that tests import those of the copy
        options = ["-x", "-n0", "-m", "not slow", "-p", "no:cacheprovider", "--hypothesis-seed=0"]
        sys.exit(pytest.main([*options, f"--basetemp={self.folder / 'tmp'}", *tests]))


def line_of(source: bytes, mutation: Mutation) -> str:
    return source.decode().splitlines()[mutation.line - 1].strip()


def sample(module: str, source: bytes, *, seed: int, each: int, excused: Any) -> list[Mutation]:
    """Pick at most one mutation per line, ordered by hash: a larger sample contains the smaller one."""

    def drawn(one: Mutation) -> bytes:
        return hashlib.sha256(
            f"{seed} {Path(module).name} {lines[one.line - 1]} {one.text}".encode()
        ).digest()

    lines = source.decode().splitlines()
    known = {(one["line"], one.get("becomes")) for one in excused if one["module"] == module}
    chosen: dict[int, Mutation] = {}
    for one in sorted(mutations(source), key=drawn):
        changed = one.applied(source)
        line = line_of(source, one)
        if one.line in chosen or not known.isdisjoint([(line, None), (line, line_of(changed, one))]):
            continue
        if differs(source, changed):
            chosen[one.line] = one
        if len(chosen) == each:
            break
    return list(chosen.values())


def attempts(
    tree: Tree, module: str, tests: list[str], chosen: list[Mutation], *, again: bool
) -> Iterator[tuple[Mutation, bool]]:
    """Each mutation, and whether the tests catch it, from the journal or a new run."""
    source, limit = tree.source(module), 0.0
    journal = JOURNAL.get("mutants") or {}
    for one in chosen:
        changed = one.applied(source)
        key = f"{module} {hashlib.sha256(changed).hexdigest()[:16]}"
        if key not in journal or (again and not journal[key]):
            if not limit:
                start = time.monotonic()
                if tree.fails(tests, limit=600):
                    raise SystemExit(f"{module}: its tests fail without a mutation")
                limit = 20 + 4 * (time.monotonic() - start)
            with tree.changed(module, changed):
                journal[key] = tree.fails(tests, limit=limit)
            JOURNAL.keep("mutants", journal)
        yield one, journal[key]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--each", type=int, default=4, help="mutations per module")
    parser.add_argument("--modules", default="*", help="shell pattern of the modules to mutate")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sample")
    parser.add_argument("--survivors", action="store_true", help="retry the survivors")
    options = parser.parse_args()
    table = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
    for name in _LOADED_ONCE:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    tried, caught = 0, 0
    with tempfile.TemporaryDirectory() as folder:
        tree = Tree(Path(folder))
        for module in fnmatch.filter(table["tests"], options.modules):
            source = tree.source(module)
            chosen = sample(module, source, seed=options.seed, each=options.each, excused=table["equivalent"])
            found = list(attempts(tree, module, table["tests"][module], chosen, again=options.survivors))
            noticed = sum(was for _, was in found)
            tried, caught = tried + len(found), caught + noticed
            print(f"{module:28} {len(found):2} tried {noticed:2} caught", flush=True)
            for one, was in found:
                if not was:
                    print(f"  line {one.line}: {line_of(source, one)}")
                    print(f"     becomes: {line_of(one.applied(source), one)}", flush=True)
    print(f"{caught} of {tried} caught ({caught / max(tried, 1):.0%})")
    return int(caught < tried)


if __name__ == "__main__":
    sys.exit(main())
