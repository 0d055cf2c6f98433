"""Compares what is left after a fault with the state before and after an undisturbed run."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import tarfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnnx.store.drafts import is_draft
from cnnx.store.entries import LIST, fault_of
from tools.check.faults.calls import Fault
from tools.check.faults.sandbox import Ended, Sandbox
from tools.check.faults.world import NEW, OLD, Command, theses_lost

_DATE = re.compile(r"\d{8}T\d{6}\.\d+Z")
_BUNDLES = (OLD, NEW, "fresh")

Versions = frozenset[tuple[str, str]]
"""SHA-256 and shape of each file of one name."""
Files = Mapping[str, Versions]
"""Name, with dates left out -> its versions."""


def files_in(folder: Path) -> Files:
    """The files below a folder, without drafts and the marks of a survey's cells that were killed."""
    found: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for path in _files(folder):
        if "/rows/" in str(path) and '"status": "running"' in path.read_text():
            continue
        name = _DATE.sub("DATE", path.relative_to(folder).as_posix())
        found[name].add((hashlib.sha256(path.read_bytes()).hexdigest(), _shape(path)))
    return {name: frozenset(each) for name, each in found.items()}


def damaged(sandbox: Sandbox) -> list[str]:
    """Names of files in the working folder that are not complete."""
    files = files_in(sandbox.root / "work").items()
    return [name for name, each in files if any(shape == "damaged" for _, shape in each)]


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if is_draft(path):
            continue
        if path.is_dir() and not path.is_symlink():
            yield from _files(path)
        elif not path.is_dir():
            yield path


def _shape(path: Path) -> str:
    """What stays the same in a file whose figures and dates change; "damaged" if it is not complete."""
    try:
        if path.suffix == ".json":
            return " ".join(sorted(_keys(json.loads(path.read_text()))))
        if path.name.endswith(".tar.gz"):
            with tarfile.open(path) as tar:
                return " ".join(sorted({_DATE.sub("DATE", each.name) for each in tar.getmembers()}))
        text = path.read_text().rstrip()
    except UnicodeDecodeError:
        return "binary"
    except (json.JSONDecodeError, EOFError, tarfile.TarError):
        return "damaged"
    ends = {".html": "</html>", ".svg": "</svg>", ".xml": ">"}
    return "whole" if text and text.endswith(ends.get(path.suffix, "")) else "damaged"


def _keys(data: Any) -> Iterator[str]:
    """The keys of an object and of objects in it; what is deeper depends on what was measured."""
    for key, value in data.items() if isinstance(data, dict) else ():
        yield from (f"{key}.{inner}" for inner in value) if isinstance(value, dict) else (key,)


@dataclass(frozen=True, slots=True)
class Undisturbed:
    """A command without any fault.

    Attributes:
        code: exit code.
        before: files of the working folder before it.
        after: files after it.
        removes: whether it removes cached steps.
        changing: names of files that differ between two such runs, in their figures or dates.
        calls: calls by which it changed files.
    """

    code: int
    before: Files
    after: Files
    changing: frozenset[str]
    calls: tuple[str, ...]
    removes: bool = False

    def joined(self, other: Undisturbed) -> Undisturbed:
        """This command with another one beside it."""
        none: Versions = frozenset()
        names = self.after.keys() | other.after.keys()
        after = {name: self.after.get(name, none) | other.after.get(name, none) for name in names}
        return dataclasses.replace(
            self,
            after=after,
            changing=self.changing | other.changing,
            removes=self.removes or other.removes,
        )

    def same(self, name: str, found: Versions, known: Versions) -> bool:
        """Whether a file has the content, or where that changes the shape, of one that is known."""
        part = 1 if name in self.changing else 0
        return {each[part] for each in found} <= {each[part] for each in known}

    def are(self, found: Files, known: Files) -> bool:
        """Whether these files are the known ones."""
        return found.keys() == known.keys() and all(
            self.same(name, found[name], known[name]) for name in known
        )

    def without_result(self, ended: Ended, state: str) -> Iterator[str]:
        """What is wrong if the command ended as usual, but its files are not there."""
        if ended.code == self.code and state != "after" and not self.are(self.before, self.after):
            yield f"exit code {ended.code} without the result"


def undisturbed(command: Command, world: Sandbox, folder: Path) -> Undisturbed:
    """Run a command twice without a fault."""
    found, ended = [], []
    for _ in range(2):
        sandbox = world.copy(folder)
        command.prepare(sandbox)
        before = files_in(sandbox.root / "work")
        ended.append(sandbox.run(command.arguments, Fault()))
        found.append(files_in(sandbox.root / "work"))
        sandbox.remove()
    codes = {each.code for each in ended}
    if len(codes) > 1 or codes - {0, 1, 6}:
        raise RuntimeError(f"{command.name}: {codes}, {ended[0].err}")
    digests = [{name: {each[0] for each in files} for name, files in each.items()} for each in found]
    changing = {name for name in found[0] if digests[0][name] != digests[1].get(name)}
    return Undisturbed(
        ended[0].code, before, found[0], frozenset(changing), ended[0].calls, removes=command.removes
    )


def state_after(sandbox: Sandbox, usual: Undisturbed) -> tuple[str, list[str]]:
    """Whether all files are as "before" or "after" the command, or some of both, and what is wrong."""
    wrong = [f"{each} was lost" for each in theses_lost(sandbox)]
    found, none = files_in(sandbox.root / "work"), Versions()
    old, new = usual.before, usual.after
    wrong += [f"{name} was lost" for name in old.keys() & new.keys() - found.keys()]
    for name, files in found.items():
        either = old.get(name, none) | new.get(name, none)
        if not either:
            wrong.append(f"{name} is new")
        elif not usual.same(name, files, either):
            wrong.append(f"{name} is neither old nor new")
    # A step that is being removed lacks files, which the next command that wants it sees.
    wrong += [
        each for each in _damaged_entries(sandbox) if not (usual.removes and each.endswith("is missing"))
    ]
    for state, known in (("before", old), ("after", new)):
        if usual.are(found, known):
            return state, wrong
    return "between", wrong


def _damaged_entries(sandbox: Sandbox) -> Iterator[str]:
    for file in sorted((sandbox.root / "cache").glob(f"*/*/{LIST}")):
        folder = file.parent
        if not is_draft(folder) and (fault := fault_of(folder, folder.parent.name, folder.name)):
            yield f"the cached {folder.parent.name} is damaged: {fault}"


def inspected(sandbox: Sandbox) -> Iterator[str]:
    """Open every bundle, which also completes what was committed; yields what is wrong."""
    for name in _BUNDLES:
        folder = sandbox.root / "work" / name
        if not folder.is_dir() or (name == "fresh" and not (folder / "manifest.json").is_file()):
            continue
        ended = sandbox.run(("inspect", name))
        if ended.code:
            yield f"inspect {name}: {ended.code} {ended.err}"


def badly_ended(ended: Ended) -> list[str]:
    """What is wrong with how a command ended, whether or not it could do its work."""
    wrong = []
    if ended.code not in (0, 1, 2, 3, 4, 5, 6):
        wrong.append(f"exit code {ended.code}")
    if "Traceback" in ended.err:
        wrong.append("a traceback")
    if ended.code in (2, 3, 4, 5) and "hint:" not in ended.err:
        wrong.append("no hint")
    return wrong


def run_again(command: Command, sandbox: Sandbox, usual: Undisturbed, state: str) -> list[str]:
    """Run the command again, without a fault; what is wrong with its result."""
    ended = sandbox.run(command.arguments)
    done = state == "after" and command.refuses and ended.code in (2, 3)
    wrong = [] if ended.code == usual.code or done else [f"again: {ended.code} {ended.err[-300:]}"]
    found, after = files_in(sandbox.root / "work"), usual.after
    wrong += [f"again: {name} is missing" for name in sorted(after.keys() - found.keys())]
    wrong += [f"again: {name} is new" for name in sorted(found.keys() - after.keys())]
    wrong += [
        f"again: {name} differs"
        for name in sorted(found.keys() & after.keys())
        if not usual.same(name, found[name], after[name])
    ]
    return [*wrong, *(f"again: {each} was lost" for each in theses_lost(sandbox))]


def left_behind(sandbox: Sandbox) -> dict[str, Sequence[str]]:
    """Drafts, drafts of committed changes, which are finished later, and temporary files that are left."""
    root = sandbox.root
    places = (path for name in ("work", "cache") for path in (root / name).rglob(".cnnx-*.draft"))
    drafts = [path for path in places if is_draft(path)]
    decided = [path for path in drafts if (path / "journal.json").is_file()]
    temporary = [
        path
        for path in (root / "tmp").iterdir()
        if path.name != "thesis.txt" and not path.name.startswith("torchinductor_")  # PyTorch's own cache
    ]
    return {
        "drafts": [str(path.relative_to(root)) for path in drafts if path not in decided],
        "decided": [str(path.relative_to(root)) for path in decided],
        "temporary": [path.name for path in temporary],
    }
