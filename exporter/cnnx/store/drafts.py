"""Drafts: folders in which files are prepared before they are put in place.

A draft is a folder `.cnnx-XXXXXXXX.draft` with a file that names cnnx as its maker and is locked while that
process lives. A draft whose maker died is cleared away by the next write to the same folder, or, where its
change had been decided, carried out. A folder that cannot be proven to be such a draft is never touched.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import platform
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cnnx.store.digests import digest_of_file

_NAME = re.compile(r"\.cnnx-[a-z0-9_]{8}\.draft")
_OWNER, NEW, _JOURNAL = "owner.json", "new", "journal.json"
_MAKER = "cnnx draft"
# On a network file system a lock may not be seen from another host: a draft from there is left for a day.
_FOREIGN_HOST_SECONDS = 24 * 3600


@contextlib.contextmanager
def drafted(folder: Path) -> Iterator[Path]:
    """A draft in a folder, which is made when absent; it is gone at the end."""
    make_folder(folder)
    settle(folder)
    draft, owner = _new_draft(folder)
    try:
        (draft / NEW).mkdir()
        yield draft
    finally:
        # Where a journal is left, what it says could not be done: `settle` will try again.
        if not (draft / _JOURNAL).exists():
            _clear(draft)
        os.close(owner)


def settle(folder: Path) -> None:
    """Carry out what a process that was killed had decided to change in a folder; clear its drafts away.

    Never fails: what cannot be settled, as on a read-only disk, stays as it is.
    """
    for draft in _drafts(folder):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            _settle(draft)


def is_draft(path: Path) -> bool:
    """Whether a path is a draft: it is no content of the folder it lies in."""
    named_so = _NAME.fullmatch(path.name) and path.is_dir() and not path.is_symlink()
    return bool(named_so) and (_is_bare(path) or _maker(path) is not None)


def decide(draft: Path, own: set[str]) -> None:
    """Write the journal: from now on the change will happen, whoever carries it out."""
    place, new = draft.parent, draft / NEW
    names = sorted(path.name for path in new.iterdir())
    for name in names:
        sync(new / name)
    # By content, not by name alone: what is replaced or removed later is what cnnx wrote, and nothing else.
    written = {name: digest_of_file(place / name) for name in sorted(own) if _is_regular(place / name)}
    sync(new)
    sync(draft / _OWNER)
    text = json.dumps({"own": written, "put": names})
    pending = draft / f"{_JOURNAL}.new"
    pending.write_text(text, encoding="utf-8")
    sync(pending)
    pending.rename(draft / _JOURNAL)
    sync(draft)


def make_folder(folder: Path) -> None:
    """A folder and those above it. Where none can be made (/proc, say) the system says ENOENT."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError as error:
        raise OSError(errno.EROFS, "no folder can be made there", str(folder)) from error


def remove(path: Path) -> None:
    """A file, a link, or a folder with all in it; never what a link points to."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Have the disk hold a file, or the names in a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _new_draft(folder: Path) -> tuple[Path, int]:
    """A draft and the handle that holds its lock; again where `settle` elsewhere took it for a dead one's."""
    while True:
        draft = Path(tempfile.mkdtemp(prefix=".cnnx-", suffix=".draft", dir=folder))
        with contextlib.suppress(FileNotFoundError):
            draft.chmod(0o755)
            owner = os.open(draft / _OWNER, os.O_RDWR | os.O_CREAT, 0o644)
            with contextlib.suppress(OSError):  # no locks on this file system: nobody will take it for dead
                fcntl.flock(owner, fcntl.LOCK_EX)
            if os.fstat(owner).st_nlink:
                said = {"maker": _MAKER, "host": platform.node(), "process": os.getpid()}
                os.write(owner, json.dumps(said).encode())
                return draft, owner
            os.close(owner)


def _drafts(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as found:
            named_so = [one for one in found if _NAME.fullmatch(one.name)]
            return [Path(one) for one in named_so if one.is_dir(follow_symlinks=False)]
    except OSError:
        return []


def _maker(draft: Path) -> dict[str, Any] | None:
    """What a draft's owner said of itself; None where nothing proves that cnnx made the folder."""
    if not _is_regular(draft / _OWNER):
        return None
    try:
        said = json.loads((draft / _OWNER).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return said if isinstance(said, dict) and said.get("maker") == _MAKER else None


def _is_bare(draft: Path) -> bool:
    """Whether a draft holds nothing at all: its maker died before it could sign."""
    names = [path.name for path in draft.iterdir()]
    return not names or (names == [_OWNER] and (draft / _OWNER).stat().st_size == 0)


def _settle(draft: Path) -> None:
    if not _is_regular(draft / _OWNER):
        draft.rmdir()  # fails, as it should, where anything is in it
        return
    decided = _is_regular(draft / _JOURNAL)
    owner = os.open(draft / _OWNER, os.O_RDWR | os.O_NOFOLLOW)
    try:
        # A change that was decided takes a moment: wait for its maker, if that is alive.
        fcntl.flock(owner, fcntl.LOCK_EX | (0 if decided else fcntl.LOCK_NB))
        if not os.fstat(owner).st_nlink:
            return
        said = _maker(draft)
        if said is None:
            if _is_bare(draft):
                _clear(draft)
            return
        if _is_regular(draft / _JOURNAL):
            carry_out(draft)
        elif said.get("host") != platform.node() and _age_s(draft) < _FOREIGN_HOST_SECONDS:
            return
        _clear(draft)
    finally:
        os.close(owner)


def _age_s(draft: Path) -> float:
    return time.time() - draft.stat().st_mtime


def _clear(draft: Path) -> None:
    """Remove a draft, its owner's file last: whoever is killed on the way leaves what proves it ours."""
    with contextlib.suppress(OSError):
        for path in draft.iterdir():
            if path.name != _OWNER:
                remove(path)
        (draft / _OWNER).unlink(missing_ok=True)
        draft.rmdir()


def _is_regular(path: Path) -> bool:
    """A plain file; cnnx writes no links, and no folder under a file's name."""
    return path.is_file() and not path.is_symlink()


def _has_content(path: Path, digest: object) -> bool:
    return _is_regular(path) and digest_of_file(path) == digest


def _free_name(place: Path, name: str) -> str:
    number = 1
    while os.path.lexists(place / (kept := f"{name}.kept-{number}")):
        number += 1
    return kept


def carry_out(draft: Path) -> None:
    """Do what the journal says, from wherever it was left.

    A bundle may come from anywhere, a journal with it: what it names stays inside the folder, and a file
    whose content is not the one that the journal states is renamed, never replaced or removed.
    """
    place, new = draft.parent, draft / NEW
    journal = json.loads((draft / _JOURNAL).read_text(encoding="utf-8"))
    own, put = dict(journal["own"]), list(journal["put"])
    if new.is_symlink() or not all(map(_is_plain, (*own, *put))):
        raise ValueError("a journal names files outside its folder")
    for name in put:
        if not os.path.lexists(new / name):
            continue  # in place already
        if os.path.lexists(place / name) and not _has_content(place / name, own.get(name)):
            (place / name).rename(place / _free_name(place, name))
        (new / name).replace(place / name)
    for name in sorted(set(own) - set(put)):
        if _has_content(place / name, own[name]):
            (place / name).unlink()
    sync(place)
    (draft / _JOURNAL).unlink()


def _is_plain(name: object) -> bool:
    return isinstance(name, str) and name == Path(name).name and name != ".."
