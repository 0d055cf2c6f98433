"""Files on a node, by content: each is received once, verified, and laid out for a job under its name."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from cnnx.errors import EnvironmentLacks
from cnnx.pipeline.fleet.tasks import inside
from cnnx.store.cache import Store, locked
from cnnx.store.digests import digest_of, digest_of_file
from cnnx.store.drafts import NEW, drafted
from cnnx.store.files import atomic_file, atomic_folder, scratch_folder, writing

_KIND, _NAME = "fleet-files", "content"
_LAID_OUT = "fleet-bundles"


class Receipt:
    """A file that arrives piece by piece. It is kept if it has the expected SHA-256 at the end.

    Raises:
        WriteFailed: the cache cannot be written.
    """

    def __init__(self, store: Store, digest: str) -> None:
        self._store, self._expected = store, digest
        self._digest = hashlib.sha256()
        self._stack = contextlib.ExitStack()
        folder = store.root / _KIND
        with contextlib.ExitStack() as stack:
            stack.enter_context(writing(folder))
            self._file = stack.enter_context(drafted(folder)) / NEW / _NAME
            self._stream = stack.enter_context(self._file.open("wb"))
            self._stack = stack.pop_all()

    def take(self, piece: bytes) -> None:
        """Append a piece.

        Raises:
            WriteFailed: the cache cannot be written.
        """
        self._digest.update(piece)
        with writing(self._file):
            self._stream.write(piece)

    def end(self) -> None:
        """Keep the file.

        Raises:
            EnvironmentLacks: it has another SHA-256: something changed it on the way.
            WriteFailed: the cache cannot be written.
        """
        with self._stack:
            with writing(self._file):
                self._stream.close()
            if self._digest.hexdigest() != self._expected:
                raise EnvironmentLacks(
                    f"a file arrived with the SHA-256 {self._digest.hexdigest()}, not {self._expected}",
                    where=self._store.root,
                    hint="run again; if it happens again, test the network and the memory of this machine",
                )
            self._store.make(_KIND, _inputs(self._expected), self._move)

    def _move(self, folder: Path) -> None:
        self._file.rename(folder / _NAME)

    def drop(self) -> None:
        """Remove what has arrived."""
        self._stack.close()


class Contents:
    """The files that this node has received, in cnnx's cache, where `cnnx cache --prune` finds them."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def missing(self, digests: Sequence[str]) -> list[str]:
        """Those of these SHA-256 whose files are not here, or were changed."""
        return [each for each in digests if not self._store.has(_KIND, _inputs(each))]

    def receive(self, digest: str) -> Receipt:
        """Begin to receive the file with this SHA-256."""
        return Receipt(self._store, digest)

    @contextlib.contextmanager
    def laid_out(self, files: Mapping[str, str], *, stays: bool) -> Iterator[Path]:
        """A folder with these files, name -> SHA-256.

        Args:
            files: all of them were received.
            stays: whether the folder stays, so that what is built in it can be used again. Otherwise it is
                removed at the end.

        Raises:
            WriteFailed: they cannot be laid out.
        """
        if not stays:
            with scratch_folder() as scratch:
                self._lay_out(files, scratch / "files")
                yield scratch / "files"
            return
        folder = self._store.root / _LAID_OUT / digest_of(dict(files))[:32]
        with locked(folder):
            if folder.is_dir():
                self._lay_out({name: it for name, it in files.items() if _differs(folder, name, it)}, folder)
            else:
                with atomic_folder(folder) as draft:
                    self._lay_out(files, draft)
        yield folder

    def _lay_out(self, files: Mapping[str, str], folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        for name, digest in files.items():
            path = inside(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_file(path) as draft:
                shutil.copyfile(self._store.place(_KIND, _inputs(digest)) / _NAME, draft)


def _differs(folder: Path, name: str, digest: str) -> bool:
    path = inside(folder, name)
    return not path.is_file() or digest_of_file(path) != digest


def _inputs(digest: str) -> dict[str, str]:
    return {"sha256": digest}
