"""The cache: files named by a fingerprint of all that went into them, whole or absent.

An entry is a folder `<root>/<kind>/<key>/`. It is made beside its place and renamed into it, so a
reader never meets half of one; a maker holds a lock, so two processes make it once. It lists its files, each
with its hash: it is verified when it is read, and what no such list names is never removed.
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

from cnnx.errors import WriteFailed
from cnnx.store.digests import digest_of
from cnnx.store.drafts import make_folder, settle
from cnnx.store.entries import LIST, fault_of, listed_files, remove_listed, write_list
from cnnx.store.files import atomic_file, atomic_folder, writing

_STALE_SECONDS = 24 * 3600

_PARTIAL = b"cnnx partial "
_TAG = """Signature: 8a477f597d28d172789f06886806bc55
# A cache of cnnx (CNNX_CACHE): everything in it is made again when it is needed.
# `cnnx cache` shows its size, `cnnx cache --prune 30` removes what was not used for 30 days.
"""
_KEPT_FILES = {"weights": r".+-[0-9a-f]{8,64}\.[a-z]+", "timing-caches": r".+\.timing"}


def cache_folder() -> Path:
    """`CNNX_CACHE`, or cnnx/ in the user's cache folder (XDG_CACHE_HOME, ~/.cache)."""
    if chosen := os.environ.get("CNNX_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cnnx"


@contextlib.contextmanager
def locked(place: Path) -> Iterator[None]:
    """Hold the lock named after `place` (a file in the cache, so nothing is left beside `place`).

    The kernel drops it when its holder dies, however it dies.
    """
    name = hashlib.sha256(os.fsencode(os.path.realpath(place))).hexdigest()[:32]
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


def _mark(root: Path) -> None:
    """Mark a cache when it is created, so that backups leave it out (https://bford.info/cachedir/).

    A folder that holds something already is used as it is: it may be anything, and is not to be left out.
    """
    # Where it cannot be written, the step that needs it is refused.
    with contextlib.suppress(OSError, WriteFailed):
        if not root.exists() or not any(root.iterdir()):
            with atomic_file(root / "CACHEDIR.TAG") as draft:
                draft.write_text(_TAG, encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Entry:
    """One finished step: where its files lie, and whether this run made them."""

    kind: str
    key: str
    folder: Path
    reused: bool


@dataclass(frozen=True, slots=True)
class Partial:
    """What a step that is stopped resumes from: a file beside its entry's place, held to its hash."""

    path: Path

    def save(self, write: Callable[[Path], object]) -> None:
        """Keep what `write` writes to the path it is given, in place of what was kept before.

        Raises:
            WriteFailed: it cannot be written.
        """
        with atomic_file(self.path) as draft:
            write(draft)
            content = draft.read_bytes()
            draft.write_bytes(_PARTIAL + hashlib.sha256(content).hexdigest().encode() + b"\n" + content)

    def load(self) -> bytes | None:
        """What was kept; None where nothing was, or it is damaged: the step begins anew."""
        with contextlib.suppress(OSError):
            head, _, content = self.path.read_bytes().partition(b"\n")
            if head == _PARTIAL + hashlib.sha256(content).hexdigest().encode():
                return content
        return None

    def remove(self) -> None:
        """Take it away: the step is done."""
        if _is_partial(self.path):
            self.path.unlink(missing_ok=True)


class Store:
    """The cache of finished steps under one root."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or cache_folder()

    def place(self, kind: str, inputs: Mapping[str, Any]) -> Path:
        """Where the step with these inputs keeps its files, made or not."""
        return self.root / kind / digest_of(inputs)[:32]

    def partial(self, kind: str, inputs: Mapping[str, Any]) -> Partial:
        """Beside that place, what a step that is stopped resumes from; the step takes it away."""
        place = self.place(kind, inputs)
        return Partial(place.with_name(f".{place.name}.partial"))

    def make(
        self,
        kind: str,
        inputs: Mapping[str, Any],
        fill: Callable[[Path], None],
        *,
        warn: Callable[[str], None] = lambda _: None,
    ) -> Entry:
        """The entry for these inputs: found and verified, or filled into a fresh folder and then published.

        Args:
            kind: the step's name, a folder under the root.
            inputs: plain data that names everything the result depends on.
            fill: writes the step's files into the folder it is given.
            warn: told in a sentence of an entry that is damaged and therefore made again.

        Raises:
            WriteFailed: it cannot be written.
        """
        place = self.place(kind, inputs)
        if _is_whole(place):
            with contextlib.suppress(OSError):
                os.utime(place)
            return Entry(kind, place.name, place, reused=True)
        _mark(self.root)
        with locked(place):
            if _is_whole(place):
                return Entry(kind, place.name, place, reused=True)
            if os.path.lexists(place):
                with writing(place):
                    warn(_give_way(place))
            with atomic_folder(place) as draft:
                fill(draft)
                (draft / "inputs.json").write_text(json.dumps(inputs, indent=1, sort_keys=True) + "\n")
                write_list(draft, kind, place.name)
        return Entry(kind, place.name, place, reused=False)

    def sizes(self) -> dict[str, int]:
        """Bytes by kind of step, of downloaded weights and of timing caches; nothing else is counted."""
        sizes: dict[str, int] = {}
        for place in self.root.glob("*/*"):
            if _is_partial(place) or _is_kept_file(place):
                size = place.stat().st_size
            else:
                size = sum(
                    (place / name).stat().st_size for name in _own_files(place) if (place / name).is_file()
                )
            if size:
                sizes[place.parent.name] = sizes.get(place.parent.name, 0) + size
        return dict(sorted(sizes.items()))

    def prune(self, *, older_than_seconds: float) -> int:
        """Remove entries not used for that long; gives the bytes freed.

        Only what is proven to be cnnx's goes: entries that list their files, and what steps that were stopped
        left.
        """
        freed = 0
        horizon = time.time() - older_than_seconds
        for place in self.root.glob("*/*"):
            with contextlib.suppress(FileNotFoundError):  # another process removes it, too
                if place.lstat().st_mtime >= horizon:
                    continue
                if _is_partial(place):
                    freed += place.stat().st_size
                    place.unlink()
                elif own := _own_files(place):
                    freed += remove_listed(place, own)
        for kind in self.root.glob("*"):
            settle(kind)
        return freed


def _is_whole(place: Path) -> bool:
    return os.path.lexists(place) and fault_of(place, place.parent.name, place.name) is None


def _give_way(place: Path) -> str:
    """Take a damaged entry away, without what cnnx did not write; gives what to say of it."""
    fault = fault_of(place, place.parent.name, place.name)
    said = f"The cached {place.parent.name} {place.name[:12]} is damaged ({fault}): it is made again"
    if listed := listed_files(place, place.parent.name, place.name):
        remove_listed(place, listed)
    if not os.path.lexists(place):
        return f"{said}."
    number = 1
    while os.path.lexists(aside := place.with_name(f"{place.name}.kept-{number}")):
        number += 1
    place.rename(aside)
    return f"{said}; what cnnx cannot prove to be its own there was moved to {aside}."


def _own_files(place: Path) -> Collection[str]:
    """Paths of an entry's files in it; none where nothing proves that it is one.

    Entries of cnnx 0.1 had no list of their files, but a name that is the digest of what they were made from.
    """
    listed = listed_files(place, place.parent.name, place.name)
    if listed is not None:
        return (*listed, LIST)
    try:
        inputs = json.loads((place / "inputs.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return ()
    if place.is_symlink() or digest_of(inputs)[:32] != place.name:
        return ()
    return [path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file()]


def _is_partial(path: Path) -> bool:
    if not (path.name.endswith(".partial") and path.is_file() and not path.is_symlink()):
        return False
    with path.open("rb") as file:
        return file.read(len(_PARTIAL)) == _PARTIAL


def _is_kept_file(path: Path) -> bool:
    """Downloaded weights, whose names carry their hash, and TensorRT's timing caches."""
    pattern = _KEPT_FILES.get(path.parent.name)
    return pattern is not None and bool(re.fullmatch(pattern, path.name)) and path.is_file()
