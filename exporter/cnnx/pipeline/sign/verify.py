"""`verify`: checks a bundle's signature, and that every file is as it was signed."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cnnx.bundle import Bundle, is_bundle
from cnnx.bundle.signature import Deviation, deviations
from cnnx.errors import BundleError, UsageError
from cnnx.options import takes
from cnnx.options.bundles import VerifyOptions
from cnnx.pipeline.sign.openssf import authentic, read_key
from cnnx.pipeline.sign.trust import keys_in
from cnnx.report.result import Result
from cnnx.report.table import Block
from cnnx.report.tables.signature import verify_blocks
from cnnx.store.drafts import settle


@dataclass(frozen=True, slots=True, repr=False)
class VerifyResult(Result):
    """A signature that is authentic, and the files it covers.

    Attributes:
        path: the bundle's folder.
        key: the key or root certificates that fit.
        kind: whether the signature was checked with a key or a certificate.
        files: the files it covers that are as they were signed.
        deviations: files that are changed, missing or not covered.
    """

    path: Path
    key: Path
    kind: Literal["key", "certificate"]
    files: tuple[str, ...]
    deviations: tuple[Deviation, ...]

    @property
    def exit_code(self) -> int:
        """3 if a file is not as it was signed, else 0."""
        return 3 if self.deviations else 0

    def blocks(self, *, verbose: bool = False) -> Iterable[Block]:
        """What the command prints."""
        return verify_blocks(
            self, again=f"cnnx sign {shlex.quote(str(self.path))} --key KEY", verbose=verbose
        )


@takes(VerifyOptions)
def verify(bundle: str | Path, options: VerifyOptions) -> VerifyResult:
    """Check that one of the given keys signed a bundle, and that every file is as it was signed.

    Every file counts, also engines that were built later. Records in runs/ do not: they are not signed.

    Args:
        bundle: the bundle's folder.
        options: options as an object; each can also be given by keyword.

    Raises:
        BundleError: the bundle is not signed, or not by one of the keys, or cnnx cannot read it.
        UsageError: no key is given, or one cannot be used.
        MissingExtra: the package model-signing is not installed.

    Examples:
        >>> signed = cnnx.sign("lenet5-int8", key="private.pem")
        >>> cnnx.verify("lenet5-int8", key="public.pem").exit_code
        0
    """
    path = Path(bundle)
    keys = [read_key(key) for key in keys_in(options.key)]
    if not keys:
        raise UsageError("a key is needed", hint="give --key FILE: a public key, or root certificates")
    if not is_bundle(path):
        Bundle.open(path)  # raises
    settle(path)
    signed = authentic(path, keys)
    found = deviations(path, signed.claims, hashed=not signed.fault)
    if signed.fault and not found:
        raise BundleError(
            f"the bundle is not as it was signed: {signed.fault}", where=path, hint="get a signed copy"
        )
    if not found:
        Bundle.open(path, signed=signed.claims)
    intact = set(signed.claims) - {each.file for each in found}
    return VerifyResult(path, signed.key.path, signed.key.kind, tuple(sorted(intact)), found)
