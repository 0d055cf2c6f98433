"""The cache of finished steps, keyed by a fingerprint of their inputs.

An entry is a folder `<root>/<kind>/<key>/`. It is written to a draft folder and then renamed, so readers
never see an incomplete entry. A lock ensures that two processes do not write the same entry. Each entry lists
its files with their hashes. It is verified when it is read, and files not in the list are never removed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnnx.errors import EnvironmentLacks, WriteFailed
from cnnx.limits import JSON_BYTES
from cnnx.store.digests import digest_of
from cnnx.store.drafts import make_folder, settle
from cnnx.store.entries import LIST, fault_of, listed_files, remove_listed, write_list
from cnnx.store.files import atomic_file, atomic_folder, writing
from cnnx.store.reading import read_bytes

# What a running process has used within this time is not removed by another one.
_IN_USE_SECONDS = 24 * 3600
_USERS: dict[Path, int] = {}

_PARTIAL = b"cnnx partial "
_TAG = """Signature: 8a477f597d28d172789f06886806bc55
# This is the cache of cnnx (CNNX_CACHE). Its contents are recreated when needed.
# `cnnx cache` shows its size; `cnnx cache --prune 30` removes entries not used for 30 days.
"""
_KEPT_FILES = {"weights": r".+-[0-9a-f]{8,64}\.[a-z]+", "timing-caches": r".+\.timing"}


def cache_folder() -> Path:
    """Path of the cache: `CNNX_CACHE`, or cnnx/ in XDG_CACHE_HOME or ~/.cache.

    Raises:
        EnvironmentLacks: none of them is set, and the user has no home folder.
    """
    chosen = os.environ.get("CNNX_CACHE")
    return Path(chosen) if chosen else caches() / "cnnx"


def caches() -> Path:
    """Folder of the user's caches: XDG_CACHE_HOME or ~/.cache.

    Raises:
        EnvironmentLacks: the first is not set, and the user has no home folder.
    """
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:  # as in a container that runs as a user without a name
        raise EnvironmentLacks(
            "the user has no home folder, so the cache has no place",
            hint="set CNNX_CACHE to a folder that can be written",
        ) from None


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock for `path`. The lock file is in the cache, so none is left next to `path`.

    The kernel releases the lock if the process dies.
    """
    name = hashlib.sha256(os.fsencode(os.path.realpath(path))).hexdigest()[:32]
    file = cache_folder() / "locks" / name
    _mark(cache_folder())
    with writing(file):
        make_folder(file.parent)
        handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _use(root: Path) -> None:
    """Register this process, until it ends, as a user of a cache, so that no other one removes its entries.

    A cache that is read-only, or on a disk without locks, is used without that.
    """
    root = Path(os.path.realpath(root))
    if root in _USERS:
        return
    with contextlib.suppress(OSError):
        make_folder(root / "locks")
        handle = os.open(root / "locks" / "users", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_SH)
        except OSError:
            os.close(handle)
        else:
            _USERS[root] = handle


@contextlib.contextmanager
def _alone(root: Path) -> Iterator[bool]:
    """Whether this process is the only user of a cache; if so, others wait until the block ends."""
    if root.is_dir():
        _use(root)
    handle = _USERS.get(Path(os.path.realpath(root)))
    if handle is None:
        yield True
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        alone = True
    except OSError:
        alone = False
    try:
        yield alone
    finally:
        fcntl.flock(handle, fcntl.LOCK_SH)


def _mark(root: Path) -> None:
    """Tag a new cache so that backups skip it (https://bford.info/cachedir/).

    An existing folder with other content is not tagged, as backups should include that content.
    """
    # Ignore write errors here; the step that needs the cache reports them.
    with contextlib.suppress(OSError, WriteFailed):
        if not root.exists() or not any(root.iterdir()):
            with atomic_file(root / "CACHEDIR.TAG") as draft:
                draft.write_text(_TAG, encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Entry:
    """One finished step: the folder of its files, and whether they were found in the cache."""

    kind: str
    key: str
    folder: Path
    reused: bool


@dataclass(frozen=True, slots=True)
class Partial:
    """Intermediate state from which an interrupted step resumes: a file with a hash next to its entry."""

    path: Path

    def save(self, write: Callable[[Path], object]) -> None:
        """Save the state that `write` writes to the path it receives; replaces earlier state.

        Raises:
            WriteFailed: the file cannot be written.
        """
        with atomic_file(self.path) as draft:
            write(draft)
            content = draft.read_bytes()
            draft.write_bytes(_with_hash(content))

    def load(self) -> bytes | None:
        """The saved state; None if there is none or it is damaged, so that the step starts over."""
        with contextlib.suppress(OSError):
            saved = self.path.read_bytes()
            _, _, content = saved.partition(b"\n")
            if saved == _with_hash(content):
                return content
        return None

    def remove(self) -> None:
        """Remove the saved state after the step is done."""
        if _is_partial(self.path):
            self.path.unlink(missing_ok=True)


def _with_hash(content: bytes) -> bytes:
    return _PARTIAL + hashlib.sha256(content).hexdigest().encode() + b"\n" + content


class Store:
    """The cache of finished steps under one root."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or cache_folder()

    def place(self, kind: str, inputs: Mapping[str, Any]) -> Path:
        """Folder for the files of the step with these inputs, which may not exist yet."""
        return self.root / kind / digest_of(inputs)[:32]

    def has(self, kind: str, inputs: Mapping[str, Any]) -> bool:
        """Whether there is an entry for these inputs, unchanged."""
        return _is_whole(self.place(kind, inputs))

    def partial(self, kind: str, inputs: Mapping[str, Any]) -> Partial:
        """State for resuming the step with these inputs; the step removes it when it is done."""
        folder = self.place(kind, inputs)
        return Partial(folder.with_name(f".{folder.name}.partial"))

    def make(
        self,
        kind: str,
        inputs: Mapping[str, Any],
        fill: Callable[[Path], None],
        *,
        warn: Callable[[str], None] = lambda _: None,
    ) -> Entry:
        """The entry for these inputs: a verified cached entry, or a new one that `fill` writes.

        Args:
            kind: name of the step, and of its folder under the root.
            inputs: plain data that identifies everything the result depends on.
            fill: writes the files of the step into the folder it receives.
            warn: called with a message if a damaged entry is recreated.

        Raises:
            WriteFailed: the entry cannot be written.
        """
        folder = self.place(kind, inputs)
        _mark(self.root)
        _use(self.root)
        if _is_whole(folder):
            with contextlib.suppress(OSError):
                os.utime(folder)
            return Entry(kind, folder.name, folder, reused=True)
        with locked(folder):
            if _is_whole(folder):
                return Entry(kind, folder.name, folder, reused=True)
            if os.path.lexists(folder):
                with writing(folder):
                    warn(_set_aside(folder))
            with atomic_folder(folder) as draft:
                fill(draft)
                (draft / "inputs.json").write_text(json.dumps(inputs, indent=1, sort_keys=True) + "\n")
                write_list(draft, kind, folder.name)
        return Entry(kind, folder.name, folder, reused=False)

    def entries(self, kind: str) -> Iterator[tuple[Path, dict[str, Any]]]:
        """The folder and inputs of each intact entry of a kind, oldest first."""
        folders = (self.root / kind).glob("*")
        for folder in sorted(filter(_is_whole, folders), key=lambda each: each.stat().st_mtime):
            yield folder, json.loads((folder / "inputs.json").read_text(encoding="utf-8"))

    def sizes(self) -> dict[str, int]:
        """Size in bytes by kind of step, of downloaded weights and of timing caches."""
        sizes: dict[str, int] = {}
        for folder in self.root.glob("*/*"):
            if _is_partial(folder) or _is_kept_file(folder):
                size = folder.stat().st_size
            else:
                size = sum(
                    (folder / name).stat().st_size for name in _own_files(folder) if (folder / name).is_file()
                )
            if size:
                sizes[folder.parent.name] = sizes.get(folder.parent.name, 0) + size
        return dict(sorted(sizes.items()))

    def prune(self, *, older_than_seconds: float, warn: Callable[[str], None] = lambda _: None) -> int:
        """Remove entries not used for this time, and return the number of bytes freed.

        Only files known to be written by cnnx are removed: entries that list their files, and the state of
        interrupted steps. What was used within a day is kept while other processes use the cache.

        Args:
            older_than_seconds: time since the last use.
            warn: called with a message if more is kept than was asked for.

        Raises:
            WriteFailed: an entry cannot be removed.
        """
        with writing(self.root), _alone(self.root) as alone:
            if not alone and older_than_seconds < _IN_USE_SECONDS:
                older_than_seconds = _IN_USE_SECONDS
                warn("Other processes use the cache, so what was used within a day was kept.")
            freed = sum(self._removed(time.time(), older_than_seconds))
            for kind in self.root.glob("*"):
                settle(kind)
        return freed

    def _removed(self, now: float, older_than_seconds: float) -> Iterator[int]:
        """Remove entries, and yield the bytes of each."""
        for folder in self.root.glob("*/*"):
            with contextlib.suppress(FileNotFoundError):  # another process may remove it at the same time
                used = folder.lstat().st_mtime
                own = (LIST,) if _is_partial(folder) else _own_files(folder)
                if own and used > now:  # the clock was ahead: from now on it ages
                    os.utime(folder, follow_symlinks=False)
                if not own or used >= now - older_than_seconds:
                    continue
                if _is_partial(folder):
                    yield folder.stat().st_size
                    folder.unlink()
                else:
                    yield remove_listed(folder, own)


def _is_whole(folder: Path) -> bool:
    return os.path.lexists(folder) and fault_of(folder, folder.parent.name, folder.name) is None


def _set_aside(folder: Path) -> str:
    """Remove the files of a damaged entry, move other files aside, and return a message."""
    fault = fault_of(folder, folder.parent.name, folder.name)
    message = f"The cached {folder.parent.name} {folder.name[:12]} is damaged ({fault}) and is recreated"
    if listed := listed_files(folder, folder.parent.name, folder.name):
        remove_listed(folder, listed)
    if not os.path.lexists(folder):
        return f"{message}."
    number = 1
    while os.path.lexists(aside := folder.with_name(f"{folder.name}.kept-{number}")):
        number += 1
    folder.rename(aside)
    return f"{message}; files that cnnx did not write were moved to {aside}."


def _own_files(folder: Path) -> Collection[str]:
    """Relative paths of the files of an entry; empty if the folder is not known to be an entry.

    Entries of cnnx 0.1 had no list of files, but their name is the digest of their inputs.
    """
    listed = listed_files(folder, folder.parent.name, folder.name)
    if listed is not None:
        return (*listed, LIST)
    try:
        inputs = json.loads(read_bytes(folder / "inputs.json", most=JSON_BYTES))
    except (OSError, ValueError, RecursionError):
        return ()
    if folder.is_symlink() or digest_of(inputs)[:32] != folder.name:
        return ()
    return [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]


def _is_partial(path: Path) -> bool:
    if not (path.name.endswith(".partial") and path.is_file() and not path.is_symlink()):
        return False
    with path.open("rb") as file:
        return file.read(len(_PARTIAL)) == _PARTIAL


def _is_kept_file(path: Path) -> bool:
    """Whether a file is a TensorRT timing cache, or downloaded weights with a hash in their name."""
    pattern = _KEPT_FILES.get(path.parent.name)
    return pattern is not None and bool(re.fullmatch(pattern, path.name)) and path.is_file()
