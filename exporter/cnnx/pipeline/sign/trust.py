"""Opens a bundle only if one of the given keys signed it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cnnx.bundle import Bundle, is_bundle
from cnnx.bundle.signature import Deviation, deviations, engine_in, sign_again
from cnnx.errors import BundleError, UsageError
from cnnx.pipeline.sign.openssf import Signed, authentic, read_key
from cnnx.report.words import several
from cnnx.store.drafts import settle

Keys = str | Path | Sequence[str | Path]
"""Files with public keys or root certificates, any of which may have signed."""


def open_bundle(path: Path, keys: Keys, *, verify: bool = True) -> Bundle:
    """Open a bundle; if keys are given, only after its signature and all signed files were checked.

    Files that the signature does not cover are refused. Only an engine may be among them, as `cnnx build`
    adds engines later: it is refused when it is to be used.

    Args:
        path: folder of the bundle.
        keys: files with public keys or root certificates; (), the default of options: no signature is
            required. Any other empty sequence is refused, as it may be a mistake.
        verify: see `Bundle.open`.

    Raises:
        BundleError: see `Bundle.open`; or the bundle is not signed by one of the keys, or was changed since.
        UsageError: there is no key, or one cannot be used.
        MissingExtra: keys are given, and `model_signing` is not installed.
    """
    wanted = [read_key(key) for key in keys_in(keys)]
    if not wanted and keys != ():
        raise UsageError("no key is given for the signature", hint="give a public key, or root certificates")
    if not wanted or not is_bundle(path):
        return Bundle.open(path, verify=verify)
    settle(path)
    signed = authentic(path, wanted)
    refuse_changes(path, signed)
    return Bundle.open(path, verify=verify, signed=signed.claims)


def keys_in(keys: Keys) -> list[str | Path]:
    """One or several files, as a list."""
    return [keys] if isinstance(keys, (str, Path)) else list(keys)


def refuse_changes(path: Path, signed: Signed) -> None:
    """Refuse files that are not as the signature says, except engines that it does not know.

    Raises:
        BundleError: there are such files.
    """
    wrong = deviations(path, signed.claims, hashed=not signed.fault)
    wrong = tuple(each for each in wrong if each.state != "not signed" or not engine_in(each.file))
    if not wrong and not signed.fault:
        return
    raise BundleError(
        f"the bundle is not as it was signed: {in_words(wrong) or signed.fault}",
        where=path,
        hint=f"get a signed copy, or, if you trust what was added, {sign_again(path)}"
        if all(each.state == "not signed" for each in wrong)
        else "get a signed copy, or export again",
    )


def in_words(wrong: Sequence[Deviation], *, most: int = 3) -> str:
    """Deviations in words: "model.onnx is changed, notes.txt is not signed"."""
    words = [f"{each.file} is {each.state}" for each in wrong[:most]]
    if len(wrong) > most:
        words.append(f"and {several(len(wrong) - most, 'more file')}")
    return ", ".join(words)
