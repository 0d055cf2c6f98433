"""Makes and checks signatures with OpenSSF Model Signing. Only this module imports `model_signing`."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cnnx.bundle.signature import NOT_SIGNED, SIGNATURE, claims_of, read_signature, signer_in
from cnnx.errors import BundleError, MissingExtra, UsageError
from cnnx.limits import TEXT_BYTES
from cnnx.store.files import scratch_folder
from cnnx.store.reading import read_bytes

if TYPE_CHECKING:
    from model_signing import signing, verifying

_OTHER_KEYS = "get a copy that was signed with a key that you trust, or give the key that signed it"


@dataclass(frozen=True, slots=True)
class Key:
    """What a signature is checked with: a public key, or the root certificates of its signer."""

    path: Path
    kind: Literal["key", "certificate"]


@dataclass(frozen=True, slots=True)
class Signed:
    """A signature that is authentic.

    Attributes:
        claims: SHA-256 of each file that it covers.
        key: the key that it was checked with.
        fault: what `model_signing` reports about the files; empty if all of them are as they were signed.
    """

    claims: dict[str, str]
    key: Key
    fault: str


def read_key(path: str | Path) -> Key:
    """A file with a public key or with root certificates, in PEM.

    Raises:
        UsageError: it is neither.
    """
    file = Path(path)
    text = read_pem(file)
    if "PRIVATE KEY" in text:
        hint = f"give its public key: openssl pkey -in {file} -pubout -out public.pem"
        raise UsageError("the file holds a private key, but a public key is needed", where=file, hint=hint)
    if "BEGIN CERTIFICATE" in text:
        return Key(file, "certificate")
    if "BEGIN PUBLIC KEY" in text:
        return Key(file, "key")
    raise UsageError(
        "the file holds neither a public key nor certificates",
        where=file,
        hint="give a PEM file that has -----BEGIN PUBLIC KEY----- or -----BEGIN CERTIFICATE-----",
    )


def read_pem(file: Path) -> str:
    """The text of a PEM file.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        return read_bytes(file, most=TEXT_BYTES).decode("latin-1")
    except OSError as error:
        raise UsageError(
            f"the file cannot be read: {error.strerror}", where=file, hint="give the path of a PEM file"
        ) from None


def is_encrypted(key: Path) -> bool:
    """Whether a private key needs a passphrase.

    Raises:
        UsageError: the file cannot be read.
    """
    return "ENCRYPTED" in read_pem(key)


def signature_of(
    folder: Path,
    key: Path,
    *,
    passphrase: str | None = None,
    certificate: Path | None = None,
    chain: Sequence[Path] = (),
) -> bytes:
    """Sign a folder, and return the content of the signature.

    Args:
        folder: the bundle's folder.
        key: private key, in PEM.
        passphrase: of the key, if it is encrypted.
        certificate: certificate of the key, to be stored in the signature.
        chain: certificates between that and the root, to be stored in it.

    Raises:
        UsageError: the key or a certificate cannot be used.
        MissingExtra: `model_signing` is not installed.
    """
    hashing, signing, _ = _imported("signing a bundle")
    with _refused_keys(key, certificate, chain):
        if certificate is None:
            signer = _with_key(signing.Config(), key, passphrase)
        else:
            signer = signing.Config().use_certificate_signer(
                private_key=key,
                signing_certificate=certificate,
                certificate_chain=list(chain) or [certificate],
            )
    signer.set_hashing_config(hashing.Config().set_ignored_paths(paths=NOT_SIGNED))
    with scratch_folder() as private:
        file = private / SIGNATURE
        # Not a link: model_signing refuses a folder that is one.
        signer.sign(folder.resolve(), file)
        return file.read_bytes()


def _with_key(config: signing.Config, key: Path, passphrase: str | None) -> signing.Config:
    if passphrase is None:
        return config.use_elliptic_key_signer(private_key=key)
    # model_signing 1.1.1 declares a str but hands it to a function that takes bytes.
    as_bytes: Any = passphrase.encode()
    try:
        return config.use_elliptic_key_signer(private_key=key, password=as_bytes)
    except AttributeError:
        return config.use_elliptic_key_signer(private_key=key, password=passphrase)


@contextlib.contextmanager
def _refused_keys(key: Path, certificate: Path | None, chain: Sequence[Path]) -> Iterator[None]:
    """Convert errors of `model_signing`, which are of many types, about a key or its certificates."""
    for file in (key, *([certificate] if certificate else []), *chain):
        read_pem(file)
    try:
        yield
    except Exception as error:
        encrypted = is_encrypted(key)
        if encrypted and certificate is not None:
            what = "model_signing takes no encrypted key together with a certificate"
            hint = f"decrypt the key where nobody else can read it: openssl pkey -in {key} -out plain.pem"
        elif encrypted:
            what = "the passphrase of the key is missing or wrong"
            hint = "set CNNX_KEY_PASSPHRASE, or run the command in a terminal, which asks for it"
        else:
            what = f"the key cannot be used for signing: {error or type(error).__name__}"
            hint = "give a private EC key on P-256, P-384 or P-521, in PEM, and its own certificate"
        raise UsageError(what, where=key, hint=hint) from None


def authentic(folder: Path, keys: Sequence[Key]) -> Signed:
    """Check a bundle's signature, and its files, with the first key that fits.

    What an authentic signature covers is taken from `model_signing`, and not read from its file here: two
    readers of one file may understand it differently.

    Raises:
        BundleError: the bundle is not signed, or by none of the keys.
        UsageError: a file of keys is damaged.
        MissingExtra: `model_signing` is not installed.
    """
    hashing, _, verifying = _imported("checking a signature")
    content = read_signature(folder)
    claims = claims_of(content, where=folder / SIGNATURE)
    faults = []
    for key in keys:
        config = _verifier(verifying.Config(), key)
        hashes = _remembering(hashing)
        config.set_hashing_config(hashes).set_ignore_unsigned_files(True)
        fault = ""
        with scratch_folder() as private:
            file = private / SIGNATURE
            file.write_bytes(content)
            try:
                # It prints a warning about older signatures, which is not part of a command's output.
                with contextlib.redirect_stdout(sys.stderr):
                    config.verify(folder.resolve(), file)
            except Exception as error:  # of many types
                fault = str(error) or type(error).__name__
        if not fault:
            return Signed(_verified(hashes.manifest), key, "")
        # Hashing begins after the signature's check. This only tells faults apart: every fault is refused.
        if hashes.manifest is not None:
            return Signed(claims, key, fault)
        faults.append((key, fault))
    raise _not_by(faults, content, folder)


def _not_by(faults: Sequence[tuple[Key, str]], content: bytes, folder: Path) -> BundleError:
    """The error for a signature that no key fits."""
    kind, _ = signer_in(content)
    kinds = {key.kind for key, _ in faults}
    if kind == "sigstore":
        return BundleError(
            "the bundle was signed with Sigstore, which cnnx does not check",
            where=folder / SIGNATURE,
            hint="check it with model_signing verify sigstore, or get a copy that was signed with a key",
        )
    if kind not in kinds:
        have, want = ("a key", "its public key") if kind == "key" else ("a certificate", "root certificates")
        what, hint = f"the bundle was signed with {have}", f"give {want} in place of {faults[0][0].path}"
        return BundleError(what, where=folder / SIGNATURE, hint=hint)
    named = ", ".join(str(key.path) for key, _ in faults)
    reasons = "; ".join(dict.fromkeys(_short(fault) for _, fault in faults))
    return BundleError(
        f"the signature is not by {named} ({reasons})", where=folder / SIGNATURE, hint=_OTHER_KEYS
    )


def _short(fault: str) -> str:
    return {"InvalidSignature": "it does not fit the content that was signed"}.get(fault, fault.strip(" ."))


def _verifier(config: verifying.Config, key: Key) -> verifying.Config:
    try:
        if key.kind == "key":
            return config.use_elliptic_key_verifier(public_key=key.path)
        return config.use_certificate_verifier(certificate_chain=[key.path])
    except Exception as error:  # of many types
        raise UsageError(
            f"the key cannot be used: {error or type(error).__name__}",
            where=key.path,
            hint="give a public EC key on P-256, P-384 or P-521, or root certificates, in PEM",
        ) from None


def _remembering(hashing: Any) -> Any:
    """A hashing configuration that remembers the files it hashed, which are those that were signed."""

    class Remembering(hashing.Config):  # type: ignore[misc]
        """As its base."""

        manifest: Any = None

        def hash(self, *arguments: Any, **keywords: Any) -> Any:
            """As its base."""
            self.manifest = ()
            self.manifest = super().hash(*arguments, **keywords)
            return self.manifest

    return Remembering()


def _verified(manifest: Any) -> dict[str, str]:
    """The SHA-256 of each file in a manifest that `model_signing` found equal to the signed one."""
    found = manifest.resource_descriptors()
    return {each.identifier: each.digest.digest_hex for each in found if each.digest.algorithm == "sha256"}


def _imported(purpose: str) -> tuple[Any, Any, Any]:
    try:
        from model_signing import hashing, signing, verifying
    except ImportError as error:
        # 1.1.1 does not name pyOpenSSL among its requirements, so that may be what is missing.
        name = str(error.name or "model_signing").split(".")[0]
        package = {"model_signing": "model-signing", "OpenSSL": "pyopenssl"}.get(name, name)
        raise MissingExtra(package, "sign", purpose=purpose) from None
    return hashing, signing, verifying
