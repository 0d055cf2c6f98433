"""Writes bundles: their files are replaced together, and all other files are kept."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from cnnx.bundle import ENGINE, MANIFEST, Bundle
from cnnx.bundle.engine import Engine, engine_from_dict
from cnnx.bundle.manifest import PORTABLE, Manifest
from cnnx.bundle.sealed import read_sealed, write_sealed
from cnnx.bundle.signature import SIGNATURE, claims_of, is_signature, sign_again
from cnnx.errors import BundleError
from cnnx.store.cache import locked
from cnnx.store.digests import digest_of_file
from cnnx.store.drafts import is_draft, settle
from cnnx.store.files import atomic_files, check_folder

_PORTABLE = frozenset({MANIFEST, *PORTABLE})


def refuse_place(folder: Path, *, force: bool = False) -> None:
    """Refuse, before any work, a path for a bundle that has other content or cannot be written.

    An existing bundle is accepted without a write check, as it may not need to be replaced.

    Args:
        force: accept a folder with other files, which are kept.

    Raises:
        BundleError: a file, a broken link, or, without `force`, a folder that is neither empty nor a complete
            bundle.
        WriteFailed: the folder cannot be written.
    """
    if folder.is_symlink() and not folder.exists():
        raise BundleError(
            "the symbolic link is broken", where=folder, hint="create its target, or choose another --out"
        )
    if folder.exists() and not folder.is_dir():
        raise BundleError("the path exists and is not a folder", where=folder, hint="choose another --out")
    settle(folder)
    for name in ("engines", "runs"):
        if os.path.lexists(folder / name) and not (folder / name).is_dir():
            raise BundleError(
                f"{name} is not a folder",
                where=folder / name,
                hint="remove that file, or choose another --out",
            )
    try:
        Bundle.open(folder, verify=False)
    except BundleError as error:
        if not force and (what := _found_instead(folder, error)):
            hint = "choose another --out, or use --force, which keeps all files there"
            raise BundleError(what, where=folder, hint=hint) from None
        check_folder(folder)


def _found_instead(folder: Path, error: BundleError) -> str:
    """Description of other content at the path of a bundle; empty if the folder is missing or empty."""
    if not folder.exists() or all(is_draft(path) for path in folder.iterdir()):
        return ""
    if (folder / MANIFEST).is_file():
        return f"the path has a {MANIFEST} that is not that of a complete cnnx bundle: {error.what}"
    return "the path exists and is not a cnnx bundle"


@contextlib.contextmanager
def new_bundle(folder: Path, *, force: bool = False) -> Iterator[Path]:
    """A temporary folder for the portable files of a bundle; call `seal` last. They are moved to `folder`.

    The files listed in the manifest of an existing bundle are replaced together. Records are kept, as they
    name their subject by hash. Engines are kept, and are used if they were built from the new graph. The
    signature is removed, as it is that of the replaced files. Files that cnnx did not write are kept, and
    renamed if they have the name of a new file.

    Raises:
        BundleError: see `refuse_place`.
        WriteFailed: the bundle cannot be written.
    """
    refuse_place(folder, force=force)
    with locked(folder):
        with atomic_files(folder, own=lambda: _own_files(folder)) as draft:
            yield draft
        _set_damaged_engines_aside(folder)


def seal(draft: Path, manifest: Manifest) -> None:
    """Write the manifest of a draft that has all its portable files."""
    names = sorted(file.name for file in draft.iterdir() if file.is_file())
    files = {name: digest_of_file(draft / name) for name in names}
    write_sealed(draft / MANIFEST, dataclasses.replace(manifest, files=files).as_dict())


def left_beside(bundle: Bundle) -> tuple[str, ...]:
    """Messages about files in the folder of a bundle that are not part of it."""
    own = {*_PORTABLE, "engines", "runs", *_signature_in(bundle.path)}
    others = [path.name for path in bundle.path.iterdir() if path.name not in own and not is_draft(path)]
    folders = [path for path in bundle.path.glob("engines/*") if not (path / ENGINE).is_file()]
    others += [str(path.relative_to(bundle.path)) for path in folders]
    messages = [f"Kept files that are not part of the bundle: {', '.join(sorted(others))}."] if others else []
    messages += [
        f"engines/{engine.identity} was built from a different graph and is not used. Replace it with "
        "cnnx build, or remove it."
        for engine in bundle.stale_engines()
    ]
    return tuple(messages)


def _own_files(folder: Path) -> frozenset[str]:
    """Names of the manifest at a path, of the files it lists, and of a signature."""
    try:
        manifest = Bundle.open(folder, verify=False).manifest
    except BundleError:
        return frozenset()
    return _PORTABLE.intersection({MANIFEST, *manifest.files}) | _signature_in(folder)


def _signature_in(folder: Path) -> set[str]:
    """Name of the signature; empty if there is none, or another file has its name."""
    return {SIGNATURE} if is_signature(folder / SIGNATURE) else set()


def about_signature(
    bundle: Bundle, engines: Iterable[Engine], *, was_signed: bool = False
) -> tuple[str, ...]:
    """Messages about what a write did to a bundle's signature.

    Args:
        bundle: the bundle, after the write.
        engines: engines that it may not cover.
        was_signed: whether there was a signature before.
    """
    file = bundle.path / SIGNATURE
    if not is_signature(file):
        removed = "The bundle was replaced, so its signature was removed. To sign it again: cnnx sign."
        return (removed,) if was_signed else ()
    try:
        claims = claims_of(file.read_bytes(), where=file)
    except BundleError:
        claims = {}
    names = ", ".join(
        engine.identity
        for engine in engines
        if claims.get(f"engines/{engine.identity}/{engine.file}") != engine.digest
    )
    if not names:
        return ()
    return (f"The signature does not cover {names}. If you trust what was built, {sign_again(bundle.path)}",)


def _set_damaged_engines_aside(folder: Path) -> None:
    """Rename unreadable engine descriptions, which would make the whole bundle invalid."""
    for file in folder.glob(f"engines/*/{ENGINE}"):
        if not _is_readable(file, folder):
            file.rename(file.with_name(f"{ENGINE}.damaged"))


def _is_readable(file: Path, folder: Path) -> bool:
    try:
        engine_from_dict(read_sealed(file, bundle=folder), where=file)
    except BundleError:
        return False
    return True
