"""The token of a cluster: a secret in a file that only its owner can read."""

from __future__ import annotations

import os
import re
import secrets
import stat
from pathlib import Path

from cnnx.errors import EnvironmentLacks, InputRefused
from cnnx.store.drafts import make_folder
from cnnx.store.files import atomic_file, writing
from cnnx.store.reading import read_text

_MOST_BYTES = 4096
# What an HTTP header takes. Ray's own tokens have 64 characters; those of `ray get-auth-token`, too.
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]{32,1024}")


def token_file(given: str | Path | None) -> Path:
    """The file of the token: as given, or cnnx/fleet-token in XDG_CONFIG_HOME or ~/.config.

    Raises:
        EnvironmentLacks: none is given, and the user has no home folder.
    """
    if given is not None:
        return Path(given).expanduser().absolute()
    try:
        return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "cnnx" / "fleet-token"
    except RuntimeError:
        raise EnvironmentLacks(
            "there is no home folder for the token", hint="add --token-file FILE"
        ) from None


def create_token(file: Path) -> None:
    """Write a new token, unless the file exists.

    Raises:
        WriteFailed: the file cannot be written.
    """
    if file.exists():
        return
    with writing(file):
        make_folder(file.parent)
    with atomic_file(file) as draft:
        draft.chmod(0o600)
        draft.write_text(secrets.token_hex(32), encoding="ascii")


def read_token(file: Path) -> str:
    """The token in a file.

    Raises:
        EnvironmentLacks: there is no such file.
        InputRefused: others can read the file, or it does not hold a token.
    """
    try:
        text = read_text(file, most=_MOST_BYTES).strip()
        mode = file.stat().st_mode
    except FileNotFoundError:
        raise EnvironmentLacks(
            "there is no token for the cluster",
            where=file,
            hint="copy the file from the head, or start a cluster: cnnx fleet join --head",
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputRefused(
            f"the token cannot be read: {error}", where=file, hint="check the file and its permissions"
        ) from None
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise InputRefused(
            "others can read or change the token", where=file, hint=f"chmod 600 {file}, or make a new token"
        )
    if not _TOKEN.fullmatch(text):
        raise InputRefused(
            "the file does not hold a token: 32 to 1,024 letters and digits",
            where=file,
            hint="copy it from the head, or remove it, and run cnnx fleet join --head",
        )
    return text
