"""Drafts: temporary folders in which files are prepared before they are moved to their destination.

A draft is a folder `.cnnx-XXXXXXXX.draft`. It has an owner file that names cnnx and stays locked while the
process runs. If the process dies, the next write to the same folder removes the draft, or completes the
change if it was already committed to the journal. A folder that is not known to be a draft is never touched.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import platform
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cnnx.store.digests import digest_of_file

_NAME = re.compile(r"\.cnnx-[a-z0-9_]{8}\.draft")
_OWNER, NEW, _JOURNAL = "owner.json", "new", "journal.json"
_MAKER = "cnnx draft"
# Locks may not be visible across hosts on network file systems, so keep drafts of other hosts for a day.
_FOREIGN_HOST_SECONDS = 24 * 3600


@contextlib.contextmanager
def drafted(folder: Path) -> Iterator[Path]:
    """Create a draft in a folder, which is created if missing; the draft is removed at the end."""
    make_folder(folder)
    settle(folder)
    draft, owner = _new_draft(folder)
    try:
        (draft / NEW).mkdir()
        yield draft
    finally:
        # A remaining journal could not be carried out; `settle` tries again later.
        if not (draft / _JOURNAL).exists():
            _clear(draft)
        os.close(owner)


def settle(folder: Path) -> None:
    """Complete the committed changes of killed processes in a folder, and remove their drafts.

    Never raises: drafts that cannot be settled, as on a read-only disk, are left unchanged.
    """
    for draft in _drafts(folder):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            _settle(draft)


def is_draft(path: Path) -> bool:
    """Whether a path is a draft and so does not count as content of its folder."""
    matches = _NAME.fullmatch(path.name) and path.is_dir() and not path.is_symlink()
    return bool(matches) and (_is_bare(path) or _owner_of(path) is not None)


def decide(draft: Path, own: set[str]) -> None:
    """Write the journal, which commits the change; `settle` completes it if this process dies."""
    folder, new = draft.parent, draft / NEW
    names = sorted(path.name for path in new.iterdir())
    for name in names:
        sync(new / name)
    # Record digests, not only names, so that only files that cnnx wrote are replaced or removed later.
    written = {name: digest_of_file(folder / name) for name in sorted(own) if _is_regular(folder / name)}
    sync(new)
    sync(draft / _OWNER)
    text = json.dumps({"own": written, "put": names})
    pending = draft / f"{_JOURNAL}.new"
    pending.write_text(text, encoding="utf-8")
    sync(pending)
    pending.rename(draft / _JOURNAL)
    sync(draft)


def make_folder(folder: Path) -> None:
    """Create a folder and its parents. The system reports ENOENT where none can be created, as in /proc."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError as error:
        raise OSError(errno.EROFS, "no folder can be created there", str(folder)) from error


def remove(path: Path) -> None:
    """Remove a file, a link, or a folder with its contents; links are not followed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Flush a file, or the entries of a folder, to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _new_draft(folder: Path) -> tuple[Path, int]:
    """A draft and its locked handle; tries again if `settle` in another process removed the draft."""
    while True:
        draft = folder / f".cnnx-{secrets.token_hex(4)}.draft"
        if os.path.lexists(draft):
            continue
        try:
            draft.mkdir(0o700)
            owner = _own(draft)
        except FileNotFoundError:
            if not folder.is_dir():
                raise
            continue
        except FileExistsError:
            continue
        except BaseException:  # such as a full disk, or a signal
            _clear(draft)
            raise
        if owner is not None:
            return draft, owner


def _own(draft: Path) -> int | None:
    """Write the owner file of a new draft and lock it; None if the draft was removed in the meantime."""
    draft.chmod(0o755)
    owner = os.open(draft / _OWNER, os.O_RDWR | os.O_CREAT, 0o644)
    owned = False
    try:
        with contextlib.suppress(OSError):  # without locks, no process considers it dead
            fcntl.flock(owner, fcntl.LOCK_EX)
        if os.fstat(owner).st_nlink:
            content = {"maker": _MAKER, "host": platform.node(), "process": os.getpid()}
            with os.fdopen(owner, "wb", closefd=False) as file:
                file.write(json.dumps(content).encode())
            owned = True
    finally:
        if not owned:
            os.close(owner)
    return owner if owned else None


def _drafts(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as found:
            matching = [one for one in found if _NAME.fullmatch(one.name)]
            return [Path(one) for one in matching if one.is_dir(follow_symlinks=False)]
    except OSError:
        return []


def _owner_of(draft: Path) -> dict[str, Any] | None:
    """Content of a draft's owner file; None if the folder is not known to be written by cnnx."""
    if not _is_regular(draft / _OWNER):
        return None
    try:
        content = json.loads((draft / _OWNER).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) and content.get("maker") == _MAKER else None


def _is_bare(draft: Path) -> bool:
    """Whether a draft has at most a beginning of its owner file, as its process died while writing that."""
    names = [path.name for path in draft.iterdir()]
    if names != [_OWNER] or not _is_regular(draft / _OWNER):
        return not names
    beginning = json.dumps({"maker": _MAKER})[:-1].encode()
    content = (draft / _OWNER).read_bytes()
    return content.startswith(beginning) or beginning.startswith(content)


def _settle(draft: Path) -> None:
    if not _is_regular(draft / _OWNER):
        draft.rmdir()  # fails on purpose if the folder is not empty
        return
    decided = _is_regular(draft / _JOURNAL)
    owner = os.open(draft / _OWNER, os.O_RDWR | os.O_NOFOLLOW)
    try:
        # A committed change completes quickly, so wait for its process if that is alive.
        fcntl.flock(owner, fcntl.LOCK_EX | (0 if decided else fcntl.LOCK_NB))
        if not os.fstat(owner).st_nlink:
            return
        content = _owner_of(draft)
        if content is None:
            if _is_bare(draft):
                _clear(draft)
            return
        if _is_regular(draft / _JOURNAL):
            carry_out(draft)
        elif content.get("host") != platform.node() and _age_s(draft) < _FOREIGN_HOST_SECONDS:
            return
        _clear(draft)
    finally:
        os.close(owner)


def _age_s(draft: Path) -> float:
    return time.time() - draft.stat().st_mtime


def _clear(draft: Path) -> None:
    """Remove a draft, its owner file last, so that it is still recognized if this process is killed."""
    with contextlib.suppress(OSError):
        for path in draft.iterdir():
            if path.name != _OWNER:
                remove(path)
        (draft / _OWNER).unlink(missing_ok=True)
        draft.rmdir()


def _is_regular(path: Path) -> bool:
    """Whether a path is a regular file and not a link; cnnx writes no links."""
    return path.is_file() and not path.is_symlink()


def _has_content(path: Path, digest: object) -> bool:
    return _is_regular(path) and digest_of_file(path) == digest


def _free_name(folder: Path, name: str) -> str:
    number = 1
    while os.path.lexists(folder / (kept := f"{name}.kept-{number}")):
        number += 1
    return kept


def carry_out(draft: Path) -> None:
    """Carry out a journal, or what is left of it.

    A downloaded bundle may contain a journal. Its names must therefore stay inside the folder, and a file
    whose digest differs from the journal is renamed, never replaced or removed.
    """
    folder, new = draft.parent, draft / NEW
    journal = json.loads((draft / _JOURNAL).read_text(encoding="utf-8"))
    own, put = dict(journal["own"]), list(journal["put"])
    if new.is_symlink() or not all(map(_is_plain, (*own, *put))):
        raise ValueError("the journal names files outside its folder")
    for name in put:
        if not os.path.lexists(new / name):
            continue  # already moved
        if os.path.lexists(folder / name) and not _has_content(folder / name, own.get(name)):
            (folder / name).rename(folder / _free_name(folder, name))
        (new / name).replace(folder / name)
    for name in sorted(set(own) - set(put)):
        if _has_content(folder / name, own[name]):
            (folder / name).unlink()
    sync(folder)
    (draft / _JOURNAL).unlink()


def _is_plain(name: object) -> bool:
    return isinstance(name, str) and name == Path(name).name and name != ".."
