"""Putting a bundle into a folder: its own files are replaced together, everything else there stays."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

from cnnx.bundle import CALIBRATION, ENGINE, LABELS, MANIFEST, MODEL, REFERENCE, Bundle
from cnnx.bundle.engine import engine_from_dict
from cnnx.bundle.manifest import Manifest
from cnnx.bundle.sealed import read_sealed, write_sealed
from cnnx.errors import BundleError
from cnnx.store.cache import locked
from cnnx.store.digests import digest_of_file
from cnnx.store.drafts import is_draft, settle
from cnnx.store.files import atomic_files, check_folder

_PORTABLE = frozenset({MANIFEST, MODEL, CALIBRATION, REFERENCE, LABELS})


def refuse_place(place: Path, *, force: bool = False) -> None:
    """Refuse, before any work, to put a bundle where something else stands, or where none can be made.

    Where a bundle stands it may be left as it is: whether it could be replaced is found out when it is.

    Args:
        force: a folder that is not empty and holds no bundle may be used; what is in it stays.

    Raises:
        BundleError: a file, a link that leads nowhere, or, without `force`, a folder that is neither empty
            nor a whole bundle's.
        WriteFailed: no folder can be made there.
    """
    if place.is_symlink() and not place.exists():
        raise BundleError(
            "the symbolic link leads nowhere", where=place, mend="make that folder, or choose another --out"
        )
    if place.exists() and not place.is_dir():
        raise BundleError("the path exists and is not a folder", where=place, mend="choose another --out")
    settle(place)
    for name in ("engines", "runs"):
        if os.path.lexists(place / name) and not (place / name).is_dir():
            raise BundleError(
                f"{name} is not a folder",
                where=place / name,
                mend="remove that file, or choose another --out",
            )
    try:
        Bundle.open(place, verify=False)
    except BundleError as error:
        if not force and (what := _found_instead(place, error)):
            mend = "choose another --out, or give --force, which keeps every file that is there"
            raise BundleError(what, where=place, mend=mend) from None
        check_folder(place)


def _found_instead(place: Path, error: BundleError) -> str:
    """What stands where a bundle should go; nothing where the folder is absent or empty."""
    if not place.exists() or all(is_draft(path) for path in place.iterdir()):
        return ""
    if (place / MANIFEST).is_file():
        return f"the path holds a {MANIFEST} that is not that of a whole cnnx bundle: {error.what}"
    return "the path exists and is not a cnnx bundle"


@contextlib.contextmanager
def new_bundle(place: Path, *, force: bool = False) -> Iterator[Path]:
    """A draft folder to fill with portable files; `seal` it last. They become the bundle at `place`.

    Of a bundle that stood there the files go that its manifest lists, all together. Records stay: they name
    by hash what they judged. Engines stay, and count where they were built from the new bundle's graph. What
    cnnx did not write stays, under another name where it was in the way.

    Raises:
        BundleError: see `refuse_place`.
        WriteFailed: it cannot be written.
    """
    refuse_place(place, force=force)
    with locked(place):
        with atomic_files(place, own=lambda: _own_files(place)) as draft:
            yield draft
        _set_damaged_engines_aside(place)


def seal(draft: Path, manifest: Manifest) -> None:
    """Write the manifest of a draft whose portable files are all there."""
    names = sorted(file.name for file in draft.iterdir() if file.is_file())
    files = {name: digest_of_file(draft / name) for name in names}
    write_sealed(draft / MANIFEST, dataclasses.replace(manifest, files=files).as_dict())


def left_beside(bundle: Bundle) -> tuple[str, ...]:
    """What lies in a bundle's folder and is no part of it, in sentences."""
    others = [path.name for path in bundle.path.iterdir() if not is_draft(path)]
    others = [name for name in others if name not in {*_PORTABLE, "engines", "runs"}]
    folders = [path for path in bundle.path.glob("engines/*") if not (path / ENGINE).is_file()]
    others += [str(path.relative_to(bundle.path)) for path in folders]
    said = [f"Left in the folder, no part of the bundle: {', '.join(sorted(others))}."] if others else []
    said += [
        f"engines/{engine.identity} was built from another graph and is not used: cnnx build replaces it, "
        "or remove it."
        for engine in bundle.stale_engines()
    ]
    return tuple(said)


def _own_files(place: Path) -> frozenset[str]:
    """Names that the manifest of the bundle at a path lists, and its own."""
    try:
        manifest = Bundle.open(place, verify=False).manifest
    except BundleError:
        return frozenset()
    return _PORTABLE.intersection({MANIFEST, *manifest.files})


def _set_damaged_engines_aside(place: Path) -> None:
    """Rename descriptions of engines that cannot be read, which would have the whole bundle refused."""
    for file in place.glob(f"engines/*/{ENGINE}"):
        if not _is_readable(file, place):
            file.rename(file.with_name(f"{ENGINE}.damaged"))


def _is_readable(file: Path, place: Path) -> bool:
    try:
        engine_from_dict(read_sealed(file, bundle=place), where=file)
    except BundleError:
        return False
    return True
