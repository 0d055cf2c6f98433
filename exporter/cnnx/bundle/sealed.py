"""JSON that tells when it was changed, and files held to their digests. Nothing is used before that."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Literal

from cnnx.errors import BundleError
from cnnx.store.digests import digest_of, digest_of_file

SCHEMA: Literal[1] = 1
"""Of manifest.json and engine.json."""

MEND = "copy the bundle again from where it was made, or export it again"


def write_sealed(path: Path, data: dict[str, Any]) -> None:
    """JSON whose last key, "seal", is the digest of all the others."""
    plain = json.loads(json.dumps(data))
    text = json.dumps({**plain, "seal": digest_of(plain)}, indent=1, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def read_sealed(path: Path, *, bundle: Path) -> dict[str, Any]:
    """What `write_sealed` wrote, without the seal.

    Raises:
        BundleError: it is missing, lies outside the bundle, a byte was changed, or its schema is another.
    """
    if not path.is_file():
        raise _no_bundle(path, bundle)
    check_inside(path, bundle=bundle)
    try:
        text = path.read_bytes().decode("utf-8")
        data: dict[str, Any] = json.loads(text)
        seal = data.pop("seal")
        canonical = json.dumps({**data, "seal": seal}, indent=1, ensure_ascii=False) + "\n"
        digest = digest_of(data)
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        said: object = "nested too deeply" if isinstance(error, RecursionError) else error
        said = f"the key {error} is missing" if isinstance(error, KeyError) else said
        raise BundleError(f"{path.name} is damaged: {said}", where=path, mend=MEND) from None
    # The text is compared too: a changed space or digit form would survive parsing.
    if digest != seal or canonical != text:
        raise BundleError(f"{path.name} was changed after it was written", where=path, mend=MEND)
    if data.get("schema") != SCHEMA:
        raise BundleError(
            f"{path.name} has schema {data.get('schema')}, this cnnx reads {SCHEMA}",
            where=path,
            mend="use the cnnx that wrote it, or export again",
        )
    return data


def _no_bundle(path: Path, bundle: Path) -> BundleError:
    if not bundle.exists():
        return BundleError("there is no such folder", where=bundle, mend="cnnx export makes a bundle")
    if not bundle.is_dir():
        return BundleError(
            "this is a file, not the folder of a bundle",
            where=bundle,
            mend="give the folder that cnnx export wrote",
        )
    return BundleError(
        f"no bundle: {path.name} is missing", where=bundle, mend="give the folder that cnnx export wrote"
    )


def check_file(file: Path, digest: str, *, bundle: Path) -> None:
    """Hold a file to its SHA-256.

    Raises:
        BundleError: it is missing, lies outside the bundle, or a byte was changed.
    """
    if not file.is_file():
        raise BundleError(f"{file.relative_to(bundle)} is missing", where=bundle, mend=MEND)
    check_inside(file, bundle=bundle)
    found = digest_of_file(file)
    if found != digest:
        raise BundleError(
            f"{file.relative_to(bundle)} was changed: its SHA-256 is {found[:12]}, not {digest[:12]}",
            where=bundle,
            mend=MEND,
        )


def check_inside(file: Path, *, bundle: Path) -> None:
    """Refuse a symbolic link that leads out of the bundle: what lies there is no part of it.

    Raises:
        BundleError: the file, or a folder above it, is such a link.
    """
    # realpath: resolve() raises where a link leads back to itself, which is no way out.
    if not Path(os.path.realpath(file)).is_relative_to(os.path.realpath(bundle)):
        raise BundleError(
            f"{file.relative_to(bundle)} is a link that leads out of the bundle",
            where=bundle,
            mend="copy the file itself to this path",
        )
