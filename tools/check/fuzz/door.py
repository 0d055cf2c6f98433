"""What a door of cnnx is: a way in for input that others made, and how to try it."""

from __future__ import annotations

import abc
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any, ClassVar

Content = bytes | Path | None
"""A file's content; the target of a symbolic link; None: a pipe that nobody writes to."""
Files = Mapping[str, Content]
"""What lies in the folder that a door reads, by path."""


class Door(abc.ABC):
    """One entry point, with inputs that are valid, ways to change them, and what may come of that."""

    name: ClassVar[str]
    """Name in tables, of the corpus's folder, and of options."""
    reads: ClassVar[str]
    """What others hand over."""

    lenient: ClassVar[bool] = False
    """Whether the command reads less than `read`, and may take what that refuses."""
    writes: ClassVar[bool] = False
    """Whether `read` writes to its folder, which is then made again for each input."""

    def prepare(self) -> None:  # noqa: B027
        """Import what `read` needs, before processes are forked."""

    @abc.abstractmethod
    def seeds(self, scratch: Path) -> dict[str, Files]:
        """Valid inputs, by name, made as cnnx or its users make them; the first is the plainest."""

    @abc.abstractmethod
    def mutate(self, dice: Random, files: Files) -> tuple[Files, str]:
        """A changed copy, and the name of the change."""

    def finished(self, files: Files) -> Files:
        """The files as they are laid: with hashes and seals that fit, if the change is to get past them."""
        return files

    @abc.abstractmethod
    def read(self, folder: Path) -> Any:
        """Read the files as cnnx does; returns what was read, to be compared by its `repr`.

        Raises:
            CnnxError: the input is refused.
        """

    def legitimate(self, before: Any, after: Any, folder: Path) -> str:
        """The class of a change that the result shows and should show; empty if the result is wrong.

        Args:
            before: what `read` returned for the valid input.
            after: what it returned for the changed one.
            folder: the changed input.
        """
        return ""

    @abc.abstractmethod
    def command(self, folder: Path) -> list[str]:
        """Arguments of the `cnnx` command that reads the same input; it may write to `folder`.parent.

        None are given where no command reads it on any computer, but only on a Jetson, say.
        """

    def variables(self, folder: Path) -> Mapping[str, str]:
        """All environment variables of that command."""
        return os.environ


def lay(folder: Path, files: Files, standing: Files) -> None:
    """Make a folder hold exactly these files.

    Args:
        standing: the files that an earlier call laid there.
    """
    for name in standing:
        if name not in files or files[name] != standing[name] or not isinstance(files[name], bytes):
            _remove(folder, name)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        if name in standing and standing[name] == content and isinstance(content, bytes):
            continue
        path = Path(os.path.join(folder, name))  # noqa: PTH118  Path would drop a strange name's dots
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif content is None:
            os.mkfifo(path)
        else:
            path.symlink_to(content)


def clear(folder: Path) -> None:
    """Remove a folder that `lay` made."""
    shutil.rmtree(folder, ignore_errors=True)


def _remove(folder: Path, name: str) -> None:
    path = folder / name
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    for above in path.parents:
        if above == folder or not above.is_dir() or any(above.iterdir()):
            break
        above.rmdir()
