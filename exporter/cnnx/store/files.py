"""Writing files so that they appear whole or not at all, and so that nothing else is touched."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from cnnx.errors import WriteFailed
from cnnx.store.drafts import NEW, carry_out, decide, drafted, sync

_REASONS = {
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
    errno.ELOOP: "a symbolic link leads back to itself",
}


@contextlib.contextmanager
def writing(place: Path) -> Iterator[None]:
    """Turn what the operating system says about a failed write into a `WriteFailed`.

    An error that names a file elsewhere, as one that was read meanwhile, is none of writing here.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _REASONS or not _concerns(error, place):
            raise
        raise WriteFailed(
            f"cannot write: {_REASONS[error.errno]}",
            where=place,
            mend="choose another place (for the cache by CNNX_CACHE), or free some space",
        ) from error


@contextlib.contextmanager
def atomic_file(place: Path) -> Iterator[Path]:
    """A path to write to; what is there on success becomes the file at `place`.

    A symbolic link at `place` stays, and the file that it names is written.

    Raises:
        WriteFailed: it cannot be written there.
    """
    with writing(place):
        target = _target(place)
        with drafted(target.parent) as draft:
            file = draft / NEW / target.name
            file.touch()
            yield file
            sync(file)
            file.replace(target)
            sync(target.parent)


@contextlib.contextmanager
def atomic_folder(place: Path) -> Iterator[Path]:
    """A new folder that appears at `place` whole, or not at all. Nothing may stand there.

    Raises:
        WriteFailed: it cannot be written there.
    """
    with writing(place), drafted(place.parent) as draft:
        folder = draft / NEW / place.name
        folder.mkdir()
        yield folder
        for path in [*folder.rglob("*"), folder]:
            sync(path)
        folder.rename(place)
        sync(place.parent)


@contextlib.contextmanager
def atomic_files(place: Path, *, own: Callable[[], Collection[str]]) -> Iterator[Path]:
    """A folder for files that will appear at `place` together; everything else there stays as it is.

    The new files are prepared inside the folder. A journal then says what is to be done, and who finds it
    after a kill (`settle`) carries it out: the folder has all the old files or all the new ones.

    Args:
        place: the folder, made when absent. A symbolic link to it stays.
        own: names in it that cnnx wrote, asked for when the new files are ready. They are replaced, or
            removed where no new file has their name; another file in the way of a new one is renamed.

    Raises:
        WriteFailed: it cannot be written there.
    """
    with writing(place):
        target = _target(place)
        made = not target.exists()
        try:
            with drafted(target) as draft:
                yield draft / NEW
                decide(draft, set(own()))
                carry_out(draft)
        except BaseException:
            if made:
                with contextlib.suppress(OSError):
                    target.rmdir()
            raise


def _concerns(error: OSError, place: Path) -> bool:
    """Whether an error is about writing at a path: it names what is beside, in or above it, or nothing."""
    if not isinstance(error.filename, (str, bytes)):
        return True
    named = Path(os.fsdecode(error.filename)).absolute()
    targets = (place.absolute(), Path(os.path.realpath(place)))
    return any(named.is_relative_to(each.parent) or each.is_relative_to(named) for each in targets)


def check_place(place: Path) -> None:
    """Find out, before long work, whether a file can be written there; leaves nothing.

    Raises:
        WriteFailed: it cannot.
    """
    with writing(place):
        if place.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(place))
        _try_writing(next(folder for folder in _target(place).parents if folder.exists()))


def check_folder(place: Path) -> None:
    """The same for files in a folder, which need not be there yet.

    Raises:
        WriteFailed: it cannot.
    """
    with writing(place):
        target = _target(place)
        _try_writing(next(folder for folder in (target, *target.parents) if folder.exists()))


def _try_writing(folder: Path) -> None:
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(folder)) from error


def _target(place: Path) -> Path:
    """Where a path leads, symbolic links followed."""
    target = Path(os.path.realpath(place))
    if target.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(place))
    return target
