"""A cache entry's own list of its files, by which it is verified when it is read and known as ours."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Collection
from pathlib import Path

from cnnx.store.digests import digest_of_file

LIST = "entry.json"
_FORMAT = "cnnx cache entry 1"


def write_list(folder: Path, kind: str, key: str) -> None:
    """Write down size and SHA-256 of every file of a new entry, as its last file."""
    files = {
        path.relative_to(folder).as_posix(): [path.stat().st_size, digest_of_file(path)]
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    said = {"format": _FORMAT, "kind": kind, "key": key, "files": files}
    (folder / LIST).write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")


def listed_files(folder: Path, kind: str, key: str) -> dict[str, tuple[int, str]] | None:
    """Path of each file of an entry -> its size and SHA-256; None where nothing proves that cnnx wrote it."""
    if folder.is_symlink() or (folder / LIST).is_symlink():
        return None
    try:
        said = json.loads((folder / LIST).read_text(encoding="utf-8"))
        if (said["format"], said["kind"], said["key"]) != (_FORMAT, kind, key):
            return None
        return {_inside(path): (int(size), str(digest)) for path, (size, digest) in said["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def fault_of(folder: Path, kind: str, key: str) -> str | None:
    """What is wrong with an entry; None where every file is there, unchanged, and nothing else is there."""
    listed = listed_files(folder, kind, key)
    if listed is None:
        return f"{LIST} is missing or damaged"
    try:
        found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*")}
        folders = {above.as_posix() for name in listed for above in Path(name).parents}
        for name in sorted(set(found) - {*listed, LIST} - folders):
            return f"{name} does not belong to it"
        for name, (size, digest) in listed.items():
            path = found.get(name)
            if path is None or path.is_symlink() or not path.is_file():
                return f"{name} is missing"
            if path.stat().st_size != size or _digest(path) != digest:
                return f"{name} was changed"
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    return None


def remove_listed(folder: Path, listed: Collection[str]) -> int:
    """Remove an entry's own files, and the folders that are empty then; gives the bytes freed.

    The list goes last: whatever is left after a kill is still known as ours.
    """
    freed = 0
    for name in (*listed, LIST):
        path = folder / name
        through_a_link = Path(os.path.realpath(path)) != Path(os.path.realpath(folder), name)
        if through_a_link or not path.is_file():
            continue  # nothing that cnnx wrote
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
    if Path(path).is_absolute() or ".." in Path(path).parts:
        raise ValueError(f"{path} is outside its entry")
    return path


def _digest(path: Path) -> str:
    """Of a file's content; read once in a process, unless the file was touched since."""
    found = path.stat()
    return _digest_of(os.fspath(path), found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


@functools.lru_cache(maxsize=4096)
def _digest_of(path: str, *_identity: int) -> str:
    return digest_of_file(Path(path))
