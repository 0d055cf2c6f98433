"""Tamper-evident JSON files, and hash checks of files before they are used."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any, Literal

from cnnx.errors import BundleError
from cnnx.limits import JSON_BYTES
from cnnx.store.digests import digest_of, digest_of_file
from cnnx.store.reading import read_bytes

SCHEMA: Literal[1] = 1
"""Schema version of manifest.json and engine.json."""

HINT = "copy the bundle again from its source, or export it again"


def write_sealed(path: Path, data: dict[str, Any]) -> None:
    """Write JSON whose last key, "seal", is the digest of all other keys."""
    plain = json.loads(json.dumps(data))
    text = json.dumps({**plain, "seal": digest_of(plain)}, indent=1, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def read_sealed(path: Path, *, bundle: Path, digest: str | None = None) -> dict[str, Any]:
    """Read a file of `write_sealed`, without the seal.

    Args:
        path: the file.
        bundle: the bundle's folder.
        digest: SHA-256 that a signature states for the file; the bytes that are read are compared with it.

    Raises:
        BundleError: the file is missing, outside the bundle or modified, or has a different schema.
    """
    if not path.is_file():
        raise _no_bundle(path, bundle)
    check_inside(path, bundle=bundle)
    try:
        content = read_bytes(path, most=JSON_BYTES)
    except OSError as error:
        raise BundleError(f"{path.name} cannot be read: {error.strerror}", where=path, hint=HINT) from None
    if digest is not None and hashlib.sha256(content).hexdigest() != digest:
        raise BundleError(f"{path.name} was changed after it was signed", where=path, hint=HINT)
    try:
        text = content.decode("utf-8")
        data: dict[str, Any] = json.loads(text)
        seal = data.pop("seal")
        canonical = json.dumps({**data, "seal": seal}, indent=1, ensure_ascii=False) + "\n"
        digest = digest_of(data)
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        fault: object = "nested too deeply" if isinstance(error, RecursionError) else error
        fault = f"the key {error} is missing" if isinstance(error, KeyError) else fault
        raise BundleError(f"{path.name} is damaged: {fault}", where=path, hint=HINT) from None
    # Also compare the text, as a changed space or number format would survive parsing.
    if digest != seal or canonical != text:
        raise BundleError(f"{path.name} was modified after it was written", where=path, hint=HINT)
    if data.get("schema") != SCHEMA:
        raise BundleError(
            f"{path.name} has schema {data.get('schema')}, but this cnnx reads schema {SCHEMA}",
            where=path,
            hint="use the cnnx version that wrote it, or export the bundle again",
        )
    return data


def _no_bundle(path: Path, bundle: Path) -> BundleError:
    if not bundle.exists():
        return BundleError("the folder does not exist", where=bundle, hint="create a bundle with cnnx export")
    if not bundle.is_dir():
        return BundleError(
            "this is a file, not a bundle folder",
            where=bundle,
            hint="pass the folder that cnnx export wrote",
        )
    return BundleError(
        f"not a bundle: {path.name} is missing", where=bundle, hint="pass the folder that cnnx export wrote"
    )


def check_file(file: Path, digest: str, *, bundle: Path) -> None:
    """Check a file against its SHA-256.

    Raises:
        BundleError: the file is missing, outside the bundle, or modified.
    """
    if not file.is_file():
        raise BundleError(f"{file.relative_to(bundle)} is missing", where=bundle, hint=HINT)
    check_inside(file, bundle=bundle)
    found = digest_of_file(file)
    if found != digest:
        raise BundleError(
            f"{file.relative_to(bundle)} was modified: its SHA-256 is {found[:12]}, not {digest[:12]}",
            where=bundle,
            hint=HINT,
        )


def check_inside(file: Path, *, bundle: Path) -> None:
    """Refuse a symbolic link to a file outside the bundle.

    Raises:
        BundleError: the file, or a folder above it, is such a link.
    """
    # Use realpath, as resolve() raises for a link to itself, which does not leave the bundle.
    if not Path(os.path.realpath(file)).is_relative_to(os.path.realpath(bundle)):
        raise BundleError(
            f"{file.relative_to(bundle)} is a link to a file outside the bundle",
            where=bundle,
            hint="replace the link with a copy of the file",
        )
