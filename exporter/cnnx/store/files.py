"""Atomic writes of files and folders that leave other files untouched."""

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
    errno.EDQUOT: "the disk quota is exceeded",
    errno.EFBIG: "the file-size limit was reached",
    errno.EIO: "the disk reported an error",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.ENOENT: "no file can be created there",
    errno.ENOTDIR: "a file exists where a folder is needed",
    errno.EISDIR: "a folder exists where a file is needed",
    errno.EEXIST: "a file exists where a folder is needed",
    errno.ELOOP: "a symbolic link points to itself",
    errno.ENOTEMPTY: "another process has written it in the meantime",
}


_HINT = "choose another path (set CNNX_CACHE for the cache), or free disk space"


@contextlib.contextmanager
def writing(destination: Path, *, hint: str = _HINT) -> Iterator[None]:
    """Convert operating system errors about writing `destination` to `WriteFailed`.

    Errors about other files, such as one that was read in the meantime, are not converted.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _REASONS or not _concerns(error, destination):
            raise
        raise WriteFailed(
            f"cannot write: {_REASONS[error.errno]}",
            where=destination,
            hint=hint,
        ) from error


@contextlib.contextmanager
def scratch_folder(prefix: str = "cnnx-") -> Iterator[Path]:
    """A temporary folder, which is removed at the end.

    Raises:
        WriteFailed: it cannot be created, or the files in it cannot be written.
    """
    with (
        writing(temporary_root() / prefix, hint="free disk space there, or set TMPDIR to another folder"),
        tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True) as folder,
    ):
        yield Path(folder)


def temporary_root() -> Path:
    """The folder of temporary files, which may not be writable."""
    try:
        return Path(tempfile.gettempdir())
    except OSError:  # none of the usual ones is
        return Path(os.environ.get("TMPDIR") or "/tmp")


@contextlib.contextmanager
def atomic_file(destination: Path) -> Iterator[Path]:
    """A temporary path to write to; on success it becomes the file at `destination`.

    A symbolic link at `destination` is kept, and its target is written.

    Raises:
        WriteFailed: the file cannot be written.
    """
    with writing(destination):
        target = _target(destination)
        with drafted(target.parent) as draft:
            file = draft / NEW / target.name
            file.touch()
            yield file
            sync(file)
            file.replace(target)
            sync(target.parent)


@contextlib.contextmanager
def atomic_folder(destination: Path) -> Iterator[Path]:
    """A temporary folder to fill; on success it becomes the folder `destination`, which must not exist.

    Raises:
        WriteFailed: the folder cannot be written.
    """
    with writing(destination), drafted(destination.parent) as draft:
        folder = draft / NEW / destination.name
        folder.mkdir()
        yield folder
        for path in [*folder.rglob("*"), folder]:
            sync(path)
        folder.rename(destination)
        sync(destination.parent)


@contextlib.contextmanager
def atomic_files(destination: Path, *, own: Callable[[], Collection[str]]) -> Iterator[Path]:
    """A temporary folder for files that are moved to `destination` together; other files there are kept.

    The new files are prepared inside `destination`. A journal then records the change, and `settle` completes
    it if the process is killed. The folder always has all old files or all new ones.

    Args:
        destination: destination folder, created if missing. A symbolic link to it is kept.
        own: returns the names in it that cnnx wrote; called when the new files are ready. These are replaced,
            or removed if no new file has their name. Any other file with the name of a new one is renamed.

    Raises:
        WriteFailed: the files cannot be written.
    """
    with writing(destination):
        target = _target(destination)
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


def _concerns(error: OSError, destination: Path) -> bool:
    """Whether an error is about writing a path: it names nothing, or a path next to, in or above it.

    An error of a copy names its source first.
    """
    names = [name for name in (error.filename, error.filename2) if isinstance(name, (str, bytes))]
    named = [Path(os.fsdecode(name)).absolute() for name in names]
    targets = (destination.absolute(), Path(os.path.realpath(destination)))
    return not named or any(
        path.is_relative_to(each.parent) or each.is_relative_to(path) for path in named for each in targets
    )


def check_place(destination: Path) -> None:
    """Check before long work that a file can be written; leaves nothing behind.

    Raises:
        WriteFailed: the file cannot be written.
    """
    with writing(destination):
        if destination.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(destination))
        _try_writing(next(folder for folder in _target(destination).parents if folder.exists()))


def check_folder(destination: Path) -> None:
    """Check that files can be written in a folder, which need not exist yet.

    Raises:
        WriteFailed: files cannot be written.
    """
    with writing(destination):
        target = _target(destination)
        _try_writing(next(folder for folder in (target, *target.parents) if folder.exists()))


def _try_writing(folder: Path) -> None:
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(folder)) from error


def _target(destination: Path) -> Path:
    """The target of a path after following symbolic links."""
    target = Path(os.path.realpath(destination))
    if target.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(destination))
    return target
