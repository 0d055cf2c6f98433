"""The file list of a cache entry, which identifies and verifies the entry."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Collection
from pathlib import Path

from cnnx.limits import JSON_BYTES
from cnnx.store.digests import digest_of_file
from cnnx.store.reading import read_bytes

LIST = "entry.json"
_FORMAT = "cnnx cache entry 1"


def write_list(folder: Path, kind: str, key: str) -> None:
    """Write the size and SHA-256 of every file of a new entry; this is the last file written."""
    files = {
        path.relative_to(folder).as_posix(): [path.stat().st_size, digest_of_file(path)]
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    content = {"format": _FORMAT, "kind": kind, "key": key, "files": files}
    (folder / LIST).write_text(json.dumps(content) + "\n", encoding="utf-8")


def listed_files(folder: Path, kind: str, key: str) -> dict[str, str] | None:
    """SHA-256 of each file of an entry by path; None if it is not known to be written by cnnx."""
    if folder.is_symlink() or (folder / LIST).is_symlink():
        return None
    try:
        content = json.loads(read_bytes(folder / LIST, most=JSON_BYTES))
        if (content["format"], content["kind"], content["key"]) != (_FORMAT, kind, key):
            return None
        return {_inside(path): str(digest) for path, (_, digest) in content["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def fault_of(folder: Path, kind: str, key: str) -> str | None:
    """What is wrong with an entry; None if it has exactly its files, all unchanged."""
    listed = listed_files(folder, kind, key)
    if listed is None:
        return f"{LIST} is missing or damaged"
    try:
        found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*")}
        folders = {above.as_posix() for name in listed for above in Path(name).parents}
        for name in sorted(set(found) - {*listed, LIST} - folders):
            return f"{name} is not one of its files"
        for name, digest in listed.items():
            path = found.get(name)
            if path is None or path.is_symlink() or not path.is_file():
                return f"{name} is missing"
            if _digest(path) != digest:
                return f"{name} was changed"
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    return None


def remove_listed(folder: Path, listed: Collection[str]) -> int:
    """Remove the files of an entry and then its empty folders; returns the number of bytes freed.

    The list is removed last, so that the rest is still recognized if this process is killed.
    """
    freed = 0
    for name in (*listed, LIST):
        path = folder / name
        through_a_link = Path(os.path.realpath(path)) != Path(os.path.realpath(folder), name)
        if through_a_link or not path.is_file():
            continue  # not written by cnnx
        freed += path.stat().st_size
        path.unlink(missing_ok=True)
    for path in sorted((path for path in folder.rglob("*") if _is_folder(path)), reverse=True):
        _remove_empty(path)
    _remove_empty(folder)
    return freed


def _remove_empty(folder: Path) -> None:
    if not any(folder.iterdir()):
        folder.rmdir()


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _inside(path: str) -> str:
    if Path(path).is_absolute() or ".." in Path(path).parts or "\0" in path:
        raise ValueError(f"{path} is outside the cache entry")
    return path


def _digest(path: Path) -> str:
    """SHA-256 of a file, cached in the process until the file changes."""
    found = path.stat()
    return _digest_of(os.fspath(path), found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


@functools.lru_cache(maxsize=4096)
def _digest_of(path: str, *_identity: int) -> str:
    return digest_of_file(Path(path))
