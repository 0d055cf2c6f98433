"""The detached signature of a bundle, in the format of OpenSSF Model Signing, and the files that it covers.

A signature covers every file of a bundle except the signature itself, the records under runs/, and files of
git. `model_signing` makes and checks signatures (`cnnx.pipeline.sign`); what is read here is only what a
signature claims.
"""

from __future__ import annotations

import base64
import json
import os
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cnnx.errors import BundleError
from cnnx.store.digests import digest_of_file
from cnnx.store.drafts import is_draft

SIGNATURE = "model.sig"
NOT_SIGNED = ("runs", SIGNATURE)
"""What cnnx asks `model_signing` to leave out; records are added later, by measuring."""

State = Literal["changed", "missing", "not signed"]

_GIT = (".git", ".gitattributes", ".github", ".gitignore")  # left out by model_signing itself
_MOST_BYTES = 2**24  # of a signature: that of 100,000 files has 13 MB
_PREDICATE = "https://model_signing/signature/v1.0"
_AGAIN = "sign the bundle again: cnnx sign {} --key KEY"


@dataclass(frozen=True, slots=True)
class Deviation:
    """A file that is not as the signature says."""

    file: str
    state: State


def sign_again(bundle: Path) -> str:
    """The hint to sign a bundle again."""
    return _AGAIN.format(shlex.quote(str(bundle)))


def is_signature(file: Path) -> bool:
    """Whether a file is a signature, valid or not, that may be replaced; a link never is."""
    if file.is_symlink() or not file.is_file() or file.stat().st_size > _MOST_BYTES:
        return False
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, RecursionError):
        return False
    return isinstance(content, dict) and str(content.get("mediaType", "")).startswith(
        "application/vnd.dev.sigstore.bundle"
    )


def read_signature(bundle: Path) -> bytes:
    """The content of a bundle's signature.

    Raises:
        BundleError: the bundle has none, or it is not a signature.
    """
    file = bundle / SIGNATURE
    if not os.path.lexists(file):
        raise BundleError(
            f"the bundle is not signed: {SIGNATURE} is missing",
            where=bundle,
            hint="get a signed copy, or, if you trust the bundle, sign it: "
            f"cnnx sign {shlex.quote(str(bundle))} --key KEY",
        )
    if not is_signature(file):
        what = f"{SIGNATURE} is a symbolic link" if file.is_symlink() else f"{SIGNATURE} is not a signature"
        raise BundleError(what, where=file, hint=sign_again(bundle))
    return file.read_bytes()


def claims_of(content: bytes, *, where: Path) -> dict[str, str]:
    """The SHA-256 of each file that a signature claims to cover, by its path in the bundle.

    Raises:
        BundleError: the signature is damaged, or hashes files in a different way.
    """
    try:
        payload = json.loads(base64.b64decode(json.loads(content)["dsseEnvelope"]["payload"]))
        predicate: dict[str, Any] = payload["predicate"]
        kind, way = payload["predicateType"], predicate["serialization"]
        resources = [(each["name"], each["algorithm"], each["digest"]) for each in predicate["resources"]]
        hashing = (kind, way["method"], way["hash_type"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise BundleError(f"{SIGNATURE} is damaged", where=where, hint=sign_again(where.parent)) from None
    if hashing != (_PREDICATE, "files", "sha256") or any(each[1] != "sha256" for each in resources):
        raise BundleError(
            f"{SIGNATURE} hashes files in a way that cnnx does not read: {hashing[1]}, {hashing[2]}",
            where=where,
            hint="sign again with cnnx sign, or with model_signing's default options",
        )
    return {str(name): str(digest) for name, _, digest in resources}


def signer_in(content: bytes) -> tuple[Literal["key", "certificate", "sigstore"], str]:
    """How a signature claims to have been made, and the hint of its public key if it was made with a key."""
    material = json.loads(content).get("verificationMaterial")
    material = material if isinstance(material, dict) else {}
    if "publicKey" in material:
        key = material["publicKey"]
        return "key", str(key.get("hint") or "") if isinstance(key, dict) else ""
    return ("certificate" if "x509CertificateChain" in material else "sigstore"), ""


def files_of(bundle: Path, *, everywhere: bool = False) -> Iterator[str]:
    """Paths, in the bundle, of the files that a signature must cover.

    Args:
        bundle: the bundle's folder.
        everywhere: also look for links where nothing is signed, as `model_signing` does when it signs.

    Raises:
        BundleError: there is a symbolic link, or something that is neither a file nor a folder.
    """
    for folder, folders, files in os.walk(bundle, onerror=_raise):
        at = Path(folder).relative_to(bundle)
        if not everywhere:
            folders[:] = [
                name for name in folders if not _is_left_out(at / name) and not is_draft(bundle / at / name)
            ]
        for name in sorted([*folders, *files]):
            path = bundle / at / name
            if path.is_symlink() or not (path.is_file() or path.is_dir()):
                kind = "a symbolic link" if path.is_symlink() else "neither a file nor a folder"
                raise BundleError(
                    f"{at / name} is {kind}, which a signature cannot cover",
                    where=bundle,
                    hint="replace it with a copy of the file",
                )
        yield from ((at / name).as_posix() for name in sorted(files) if not _is_left_out(at / name))


def _is_left_out(path: Path) -> bool:
    return path.parts[0] in (*NOT_SIGNED, *_GIT)


def _raise(error: OSError) -> None:
    raise error


def deviations(bundle: Path, claims: Mapping[str, str], *, hashed: bool = False) -> tuple[Deviation, ...]:
    """Files that are not as a signature says.

    Args:
        bundle: the bundle's folder.
        claims: SHA-256 of each file.
        hashed: the files in `claims` were just compared, so that only others are looked for.
    """
    found = set(files_of(bundle))
    wrong = [Deviation(name, "not signed") for name in found - set(claims)]
    for name, digest in {} if hashed else claims.items():
        file = bundle / name
        if not file.is_file():
            wrong.append(Deviation(name, "missing"))
        elif digest_of_file(file) != digest:
            wrong.append(Deviation(name, "changed"))
    return tuple(sorted(wrong, key=lambda each: each.file))


def engine_in(file: str) -> str:
    """Identity of the engine that a file of a bundle belongs to; empty if it belongs to none."""
    parts = Path(file).parts
    return parts[1] if len(parts) > 2 and parts[0] == "engines" else ""
