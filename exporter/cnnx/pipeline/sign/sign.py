"""`sign`: signs a bundle with OpenSSF Model Signing."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cnnx.bundle import Bundle
from cnnx.bundle.signature import SIGNATURE, claims_of, files_of, is_signature
from cnnx.errors import BundleError, UsageError
from cnnx.options import takes
from cnnx.options.bundles import SignOptions
from cnnx.pipeline.sign.openssf import signature_of
from cnnx.report.result import Result
from cnnx.report.table import Block, Facts
from cnnx.report.words import several
from cnnx.store.cache import locked
from cnnx.store.files import atomic_files, check_folder


@dataclass(frozen=True, slots=True, repr=False)
class SignResult(Result):
    """A signature that was written.

    Attributes:
        signature: its file.
        files: the files it covers, by path in the bundle.
        engines: identities of the engines among them.
        replaced: whether there was a signature before.
    """

    signature: Path
    files: tuple[str, ...]
    engines: tuple[str, ...]
    replaced: bool

    def blocks(self, *, verbose: bool = False) -> Iterable[Block]:
        """What the command prints."""
        bundle = shlex.quote(str(self.signature.parent))
        rows = {
            "signature": f"{self.signature}{', replaced' if self.replaced else ''}",
            "covers": ", ".join(self.files) if verbose else several(len(self.files), "file"),
            "engines": ", ".join(self.engines) or "none",
            "next": f"cnnx verify {bundle} --key PUBLIC_KEY",
        }
        yield Facts(tuple(rows.items()))


@takes(SignOptions)
def sign(bundle: str | Path, options: SignOptions, *, passphrase: str | None = None) -> SignResult:
    """Sign a bundle, and write the signature to model.sig in the bundle.

    The signature covers every file but the records in runs/, and replaces an older one. A bundle that is
    damaged is not signed.

    Args:
        bundle: the bundle's folder.
        options: options as an object; each can also be given by keyword.
        passphrase: of the private key, if it is encrypted.

    Raises:
        BundleError: the bundle is damaged, or has symbolic links, which signatures do not cover.
        UsageError: the key or a certificate cannot be used.
        MissingExtra: the package model-signing is not installed.
        WriteFailed: the signature cannot be written; raised before any work.

    Examples:
        >>> result = cnnx.sign("lenet5-int8", key="private.pem")
        >>> result.signature.name, "model.onnx" in result.files
        ('model.sig', True)
    """
    path = Path(bundle)
    if options.chain and options.certificate is None:
        raise UsageError("--chain has no effect without --certificate", hint="add --certificate FILE")
    if passphrase is not None and options.certificate is not None:
        raise UsageError(
            "model_signing takes no encrypted key together with a certificate",
            where=options.key,
            hint="give the key without a passphrase",
        )
    opened = Bundle.open(path)
    check_folder(path)
    with locked(path):
        engines = opened.engines()
        for engine in (*engines, *opened.stale_engines()):
            opened.engine_file(engine)
        expected = set(files_of(path, everywhere=True))
        content = signature_of(
            path,
            Path(options.key),
            passphrase=passphrase,
            certificate=None if options.certificate is None else Path(options.certificate),
            chain=tuple(Path(file) for file in options.chain),
        )
        claims = claims_of(content, where=path / SIGNATURE)
        if set(claims) != expected or not opened.manifest.files.items() <= claims.items():
            raise BundleError(
                "the bundle changed while it was being signed", where=path, hint="run cnnx sign again"
            )
        replaced = is_signature(path / SIGNATURE)
        with atomic_files(path, own=lambda: {SIGNATURE} if replaced else set()) as draft:
            (draft / SIGNATURE).write_bytes(content)
    identities = tuple(engine.identity for engine in engines)
    return SignResult(path / SIGNATURE, tuple(sorted(claims)), identities, replaced)
