"""The cache: files named by a fingerprint of all that went into them, whole or absent.

An entry is a folder `<root>/<kind>/<key>/`. It is made beside its place and renamed into it, so a
reader never meets half of one; a maker holds a lock, so two processes make it once.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnnx.errors import WriteFailed

_STALE_SECONDS = 24 * 3600


def cache_folder() -> Path:
    """`CNNX_CACHE`, or cnnx/ in the user's cache folder (XDG_CACHE_HOME, ~/.cache)."""
    if chosen := os.environ.get("CNNX_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cnnx"


def digest_of(data: Any) -> str:
    """SHA-256, in hex, of plain data in its canonical JSON form."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def digest_of_file(path: Path) -> str:
    """SHA-256, in hex, of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def writing(place: Path) -> Iterator[None]:
    """Turn what the operating system says about a failed write into a `WriteFailed`."""
    try:
        yield
    except OSError as error:
        reasons = {
            errno.ENOSPC: "the disk is full",
            errno.EDQUOT: "the disk quota is used up",
            errno.EFBIG: "the file-size limit was reached",
            errno.EROFS: "the file system is read-only",
            errno.EACCES: "permission was denied",
            errno.EPERM: "permission was denied",
            errno.ENOENT: "no file can be made there",
            errno.ENOTDIR: "a file stands where a folder should be",
            errno.EISDIR: "a folder stands where a file should be",
            errno.EEXIST: "a file stands where a folder should be",
        }
        if error.errno not in reasons:
            raise
        raise WriteFailed(
            f"cannot write: {reasons[error.errno]}",
            where=place,
            mend="choose another place (for the cache by CNNX_CACHE), or free some space",
        ) from error


@contextlib.contextmanager
def atomic_folder(place: Path) -> Iterator[Path]:
    """A new folder that appears at `place` whole, or not at all. An existing one is replaced.

    Raises:
        WriteFailed: it cannot be written there.
    """
    with writing(place):
        _make_folder(place.parent)
        _sweep(place.parent)
        draft = Path(tempfile.mkdtemp(prefix=f".{place.name}.", suffix=".draft", dir=place.parent))
        try:
            draft.chmod(0o755)
            yield draft
            for path in [*draft.rglob("*"), draft]:
                _sync(path)
            _replace_folder(draft, place)
            _sync(place.parent)
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def _make_folder(folder: Path) -> None:
    """A folder and those above it. Where none can be made (/proc, say) the system says ENOENT."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError as error:
        raise OSError(errno.EROFS, "no folder can be made there", str(folder)) from error


def _replace_folder(draft: Path, place: Path) -> None:
    """Rename over an existing folder: the old one steps aside first, for rename(2) refuses a full one."""
    if place.exists():
        aside = draft.with_suffix(".old.draft")
        place.rename(aside)
        draft.rename(place)
        shutil.rmtree(aside, ignore_errors=True)
    else:
        draft.rename(place)


def _sweep(folder: Path) -> None:
    """Drafts that a killed process left: gone after a day."""
    for draft in folder.glob(".*.draft"):
        with contextlib.suppress(OSError):
            if time.time() - draft.stat().st_mtime > _STALE_SECONDS:
                _remove(draft)


def _remove(draft: Path) -> None:
    """A folder or a file."""
    if draft.is_dir():
        shutil.rmtree(draft, ignore_errors=True)
    else:
        draft.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_file(place: Path) -> Iterator[Path]:
    """A path beside `place` to write to; synced and renamed to `place` on success, else removed.

    Raises:
        WriteFailed: it cannot be written there.
    """
    with writing(place):
        draft = _draft_beside(place)
        try:
            draft.chmod(0o644)
            yield draft
            _sync(draft)
            draft.replace(place)
            _sync(place.parent)
        finally:
            draft.unlink(missing_ok=True)


def check_place(place: Path) -> None:
    """Find out, before long work, whether a file can be written there; leaves nothing.

    Raises:
        WriteFailed: it cannot.
    """
    with writing(place):
        if place.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(place))
        standing = next(folder for folder in place.absolute().parents if folder.exists())
        _draft_in(standing, place.name).unlink()


def _draft_beside(place: Path) -> Path:
    """An empty file, in a folder that is made where it is not there."""
    _make_folder(place.parent)
    return _draft_in(place.parent, place.name)


def _draft_in(folder: Path, name: str) -> Path:
    handle, draft = tempfile.mkstemp(prefix=f".{name}.", suffix=".draft", dir=folder)
    os.close(handle)
    return Path(draft)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def locked(place: Path) -> Iterator[None]:
    """Hold the lock named after `place` (a file in the cache, so nothing is left beside `place`).

    The kernel drops it when its holder dies, however it dies.
    """
    name = hashlib.sha256(str(place.absolute()).encode()).hexdigest()[:32]
    file = cache_folder() / "locks" / name
    with writing(file):
        _make_folder(file.parent)
        handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@dataclass(frozen=True, slots=True)
class Entry:
    """One finished step: where its files lie, and whether this run made them."""

    kind: str
    key: str
    folder: Path
    reused: bool


class Store:
    """The cache of finished steps under one root."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or cache_folder()

    def place(self, kind: str, inputs: Mapping[str, Any]) -> Path:
        """Where the step with these inputs keeps its files, made or not."""
        return self.root / kind / digest_of(inputs)[:32]

    def partial(self, kind: str, inputs: Mapping[str, Any]) -> Path:
        """A file beside that place, for what a step that is stopped goes on from; the step takes it away."""
        place = self.place(kind, inputs)
        return place.with_name(f".{place.name}.partial")

    def make(self, kind: str, inputs: Mapping[str, Any], fill: Callable[[Path], None]) -> Entry:
        """The entry for these inputs: found, or filled into a fresh folder and then published.

        Args:
            kind: the step's name, a folder under the root.
            inputs: plain data that names everything the result depends on.
            fill: writes the step's files into the folder it is given.
        """
        place = self.place(kind, inputs)
        if place.is_dir():
            with contextlib.suppress(OSError):
                os.utime(place)
            return Entry(kind, place.name, place, reused=True)
        with locked(place):
            if place.is_dir():
                return Entry(kind, place.name, place, reused=True)
            with atomic_folder(place) as draft:
                fill(draft)
                (draft / "inputs.json").write_text(json.dumps(inputs, indent=1, sort_keys=True) + "\n")
        return Entry(kind, place.name, place, reused=False)

    def sizes(self) -> dict[str, int]:
        """Bytes by kind of step."""
        kinds = sorted(folder for folder in self.root.glob("*") if folder.is_dir())
        return {
            kind.name: sum(file.stat().st_size for file in kind.rglob("*") if file.is_file())
            for kind in kinds
        }

    def prune(self, *, older_than_seconds: float) -> int:
        """Remove entries not used for that long; gives the bytes freed."""
        freed = 0
        horizon = time.time() - older_than_seconds
        for entry in self.root.glob("*/*"):
            if entry.is_dir() and entry.stat().st_mtime < horizon:
                freed += sum(file.stat().st_size for file in entry.rglob("*") if file.is_file())
                shutil.rmtree(entry, ignore_errors=True)
        # What steps that were stopped have left, and drafts of such files.
        for left in (*self.root.glob("*/.*.partial"), *self.root.glob("*/.*.draft")):
            if left.is_file() and left.stat().st_mtime < horizon:
                freed += left.stat().st_size
                left.unlink(missing_ok=True)
        return freed
